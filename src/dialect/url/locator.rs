//! The URLs of operations.

use std::{fmt, sync::Arc};

use http::request::Parts;

use super::{
    Urls,
    authority::is_host_and_port,
    forwarded::{self, ForwardingHeader},
    urls::UrlRoot,
};
use crate::operation::OperationId;

type LocationFn = dyn Fn(&Parts, &OperationId) -> String + Send + Sync;
type TrustFn = dyn Fn(&Parts) -> bool + Send + Sync;

/// Builds the URLs of operations.
///
/// URLs never depend on `Host`, which the client chooses. They depend on a forwarding
/// header only if the application trusts its sender.
#[derive(Clone)]
pub struct Locator {
    /// The base URL without a trailing slash; empty for none.
    base: Arc<str>,
    /// The path of the operations, with a leading slash and without a trailing one; empty
    /// for the root.
    at: Arc<str>,
    /// Whether the application has set the location of the operations.
    is_set: bool,
    /// The beginning of every URL: `base`, `at` and a slash.
    root: Option<UrlRoot>,
    hook: Option<Arc<LocationFn>>,
    /// The forwarding header that is trusted, and the function that selects the requests of
    /// trusted proxies.
    trusted: Option<(ForwardingHeader, Arc<TrustFn>)>,
}

impl Default for Locator {
    fn default() -> Self {
        Self {
            base: "".into(),
            at: "/operations".into(),
            is_set: false,
            root: UrlRoot::new("/operations/"),
            hook: None,
            trusted: None,
        }
    }
}

impl Locator {
    pub(crate) fn set_at(&mut self, path: &str) {
        self.at = absolute(path).into();
        self.is_set = true;
        self.root = UrlRoot::new(&self.text_before_ids(&self.base));
    }

    pub(crate) fn set_base(&mut self, url: &str) -> Result<(), InvalidPublicUrl> {
        let (scheme, rest) = url.split_once("://").ok_or(InvalidPublicUrl)?;
        let is_http = ["http", "https"]
            .iter()
            .any(|it| it.eq_ignore_ascii_case(scheme));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !is_http || !is_host_and_port(authority) || !may_be_path(path) {
            return Err(InvalidPublicUrl);
        }
        self.base = url.trim_end_matches('/').into();
        self.root = UrlRoot::new(&self.text_before_ids(&self.base));
        Ok(())
    }

    fn text_before_ids(&self, base: &str) -> String {
        [base, &self.at, "/"].concat()
    }

    pub(crate) fn set_hook(&mut self, hook: Arc<LocationFn>) {
        self.hook = Some(hook);
        self.is_set = true;
    }

    pub(crate) fn set_trusted(&mut self, by: ForwardingHeader, trusted: Arc<TrustFn>) {
        self.trusted = Some((by, trusted));
    }

    /// Returns the base URL with the scheme and the host that a trusted proxy reports. The path
    /// is that of the application.
    fn forwarded_base(&self, parts: &Parts) -> Option<String> {
        let (by, trusted) = self.trusted.as_ref()?;
        let (scheme, after_scheme) = self.base.split_once("://").unwrap_or(("http", ""));
        let origin = trusted(parts).then(|| forwarded::base(&parts.headers, *by, scheme))??;
        let path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]);
        Some(origin + path)
    }

    /// Returns the path of the operations.
    pub(crate) fn at(&self) -> &str {
        &self.at
    }

    /// Returns whether the application has set the location of the operations.
    pub(crate) fn is_set(&self) -> bool {
        self.is_set
    }

    pub(crate) fn urls(&self, parts: &Parts, id: &OperationId) -> Urls {
        if let Some(hook) = &self.hook {
            return Urls::new(hook(parts, id));
        }
        match (self.forwarded_base(parts), &self.root) {
            (None, Some(root)) => Urls::at(root.clone(), id.clone()),
            (base, _) => {
                let before = self.text_before_ids(base.as_deref().unwrap_or(&self.base));
                Urls::new(format!("{before}{id}"))
            }
        }
    }
}

/// Returns whether `path` is a valid path of a URL (RFC 3986, sections 2.1 and 3.3).
fn may_be_path(path: &str) -> bool {
    let mut parts = path.split('%');
    let is_plain = |part: &str| part.bytes().all(may_be_in_path);
    let is_escaped = |part: &str| {
        let digits = part.as_bytes().first_chunk::<2>();
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    parts.next().is_some_and(is_plain) && parts.all(|part| is_escaped(part) && is_plain(part))
}

/// Returns whether `byte` is valid in the path of a URL without an escape.
fn may_be_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte)
}

/// Returns `path` with a leading slash and without a trailing one; empty for the root.
pub(crate) fn absolute(path: &str) -> String {
    match path.trim_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    }
}

/// Returns whether `path` is `root` or below it.
pub(crate) fn path_is_below(path: &str, root: &str) -> bool {
    match path.strip_prefix(root) {
        Some(rest) => !root.is_empty() && (rest.is_empty() || rest.starts_with('/')),
        None => false,
    }
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locator")
            .field("base", &self.base)
            .field("at", &self.at)
            .field("hook", &self.hook.is_some())
            .field("trusts", &self.trusted.is_some())
            .finish()
    }
}

/// The error for an invalid base URL. A base URL is `http` or `https` and has a host,
/// optionally a port from 1 to 65535 and a path, and no user information, query or
/// fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a base URL is an absolute http or https URL without user information, query and fragment")]
pub struct InvalidPublicUrl;

#[cfg(test)]
mod tests {
    use super::*;

    fn location(configure: impl FnOnce(&mut Locator)) -> Option<String> {
        let mut locator = Locator::default();
        configure(&mut locator);
        let (parts, ()) = http::Request::new(()).into_parts();
        locator
            .urls(&parts, &"q3".parse().unwrap())
            .status()
            .map(Into::into)
    }

    #[test]
    fn locations_are_paths_without_a_base() {
        assert_eq!(location(|_| {}).as_deref(), Some("/operations/q3"));
        assert_eq!(location(|l| l.set_at("jobs/")).as_deref(), Some("/jobs/q3"));
        assert_eq!(location(|l| l.set_at("/")).as_deref(), Some("/q3"));
        assert_eq!(
            location(|l| l.set_base("https://api.example.com/v1/").unwrap()).as_deref(),
            Some("https://api.example.com/v1/operations/q3")
        );
        let hook = |text: &'static str| {
            location(|l| l.set_hook(Arc::new(move |_, id| format!("{text}{id}"))))
        };
        assert_eq!(hook(" /x/").as_deref(), Some("/x/q3"));
        assert_eq!(location(|l| l.set_hook(Arc::new(|_, _| "  ".into()))), None);
    }

    #[test]
    fn invalid_bases_are_errors() {
        for bad in [
            "",
            "/v1",
            "example.com",
            "ftp://example.com",
            "https://",
            "https://e.com/?a=1",
            "https://e.com/#a",
            "https://e .com",
            "https://e.com?a=1",
            "https://user@e.com",
            "https://user:pass@e.com/v1",
            "https://e.com:",
            "https://e.com:/v1",
            "https://e.com:99999",
            "http://h:0",
            "https://e.com:0/v1",
            "https://e.com:65536/v1",
            "https://e.com:-1",
            "https://:443",
            "https:///v1",
            "https://[::g]",
            "https://::1",
            "https://e.com/a b",
            "https://e.com/\"",
            "https://e.com/%zz",
            "https://e.com/a%2",
            "https://e.com/%",
            "https://e.com/\\",
            "https://e.com/\n",
            "https://e.com\r\nset-cookie: a",
            "https://e.com/\u{7f}",
            "https://e.com/gr\u{f6}\u{df}e",
            " https://e.com",
            "https://e.com/ ",
        ] {
            assert_eq!(
                Locator::default().set_base(bad),
                Err(InvalidPublicUrl),
                "{bad}"
            );
        }
    }

    #[test]
    fn bases_may_have_a_port_and_a_path() {
        for good in [
            "http://e.com",
            "HTTPS://E.com:8443/V1/",
            "https://127.0.0.1:65535",
            "https://[::1]:443/a%20b/;v=1",
        ] {
            let mut locator = Locator::default();
            assert_eq!(locator.set_base(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn paths_are_compared_by_whole_segments() {
        assert!(path_is_below("/operations", "/operations"));
        assert!(path_is_below("/operations/q3", "/operations"));
        assert!(!path_is_below("/operationsx", "/operations"));
        assert!(!path_is_below("/reports", "/operations"));
        assert!(!path_is_below("/reports", ""));
    }
}
