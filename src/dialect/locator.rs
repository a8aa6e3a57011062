//! Where operations are.

use std::{fmt, sync::Arc};

use http::request::Parts;

use super::{
    Urls,
    forwarded::{self, ForwardedBy},
    urls::Root,
};
use crate::operation::OperationId;

type LocationFn = dyn Fn(&Parts, &OperationId) -> String + Send + Sync;
type TrustFn = dyn Fn(&Parts) -> bool + Send + Sync;

/// Knows the URL of every operation.
///
/// Nothing is taken from `Host`, nor from a forwarding header unless the application
/// trusts who sent it: a client chooses those.
#[derive(Clone)]
pub struct Locator {
    /// Without a trailing slash; empty for none.
    base: Arc<str>,
    /// With a leading slash and without a trailing one; empty for the root.
    at: Arc<str>,
    /// Both, and a slash.
    root: Option<Root>,
    hook: Option<Arc<LocationFn>>,
    /// Which requests come from a proxy that says what clients know this by.
    trusted: Option<(ForwardedBy, Arc<TrustFn>)>,
}

impl Default for Locator {
    fn default() -> Self {
        Self {
            base: "".into(),
            at: "/operations".into(),
            root: Root::new("/operations/"),
            hook: None,
            trusted: None,
        }
    }
}

impl Locator {
    pub(crate) fn set_at(&mut self, path: &str) {
        let path = path.trim_matches('/');
        self.at = match path {
            "" => "".into(),
            path => format!("/{path}").into(),
        };
        self.root = Root::new(&self.text_before_ids(&self.base));
    }

    pub(crate) fn set_base(&mut self, url: &str) -> Result<(), InvalidBaseUrl> {
        let uri: http::Uri = url.parse().map_err(|_| InvalidBaseUrl)?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        if !is_http || uri.authority().is_none() || url.contains(['?', '#']) {
            return Err(InvalidBaseUrl);
        }
        self.base = url.trim_end_matches('/').into();
        self.root = Root::new(&self.text_before_ids(&self.base));
        Ok(())
    }

    fn text_before_ids(&self, base: &str) -> String {
        [base, &self.at, "/"].concat()
    }

    pub(crate) fn set_hook(&mut self, hook: Arc<LocationFn>) {
        self.hook = Some(hook);
    }

    pub(crate) fn set_trusted(&mut self, by: ForwardedBy, trusted: Arc<TrustFn>) {
        self.trusted = Some((by, trusted));
    }

    /// What a proxy says precedes the path: the scheme and the host. The rest is the
    /// application's to say.
    fn forwarded_base(&self, parts: &Parts) -> Option<String> {
        let (by, trusted) = self.trusted.as_ref()?;
        let origin = trusted(parts).then(|| forwarded::base(&parts.headers, *by))??;
        let after_scheme = self.base.split_once("://").map_or("", |(_, rest)| rest);
        let path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]);
        Some(origin + path)
    }

    /// The path below which the operations are.
    pub(crate) fn at(&self) -> &str {
        &self.at
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

/// Whether `path` is `root` or lies below it.
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

/// A base URL is `http` or `https`, with a host and without a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a base URL is an absolute http or https URL without a query")]
pub struct InvalidBaseUrl;

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
    fn is_a_path_unless_there_is_a_base() {
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
    fn a_base_is_absolute() {
        for bad in [
            "",
            "/v1",
            "example.com",
            "ftp://example.com",
            "https://",
            "https://e.com/?a=1",
            "https://e.com/#a",
            "https://e .com",
        ] {
            assert_eq!(
                Locator::default().set_base(bad),
                Err(InvalidBaseUrl),
                "{bad}"
            );
        }
    }

    #[test]
    fn below_is_by_whole_segments() {
        assert!(path_is_below("/operations", "/operations"));
        assert!(path_is_below("/operations/q3", "/operations"));
        assert!(!path_is_below("/operationsx", "/operations"));
        assert!(!path_is_below("/reports", "/operations"));
        assert!(!path_is_below("/reports", ""));
    }
}
