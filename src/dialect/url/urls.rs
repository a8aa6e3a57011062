use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use crate::operation::OperationId;

/// The URLs of one operation: absolute or a path, as the application configures.
#[derive(Clone)]
pub struct Urls(StatusUrl);

/// The URL of the operation itself.
#[derive(Clone)]
enum StatusUrl {
    /// A complete URL without surrounding white space.
    Written(String),
    /// The id, directly after `root`. The text is built on demand, since most polls do not
    /// need it.
    At {
        root: UrlRoot,
        id: OperationId,
        written: OnceLock<String>,
    },
}

/// The part of the URL before the id, which is the same for all operations. It has no query
/// and no character that JSON escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UrlRoot(Arc<str>);

impl UrlRoot {
    /// Creates a root; `None` if `text` has a query or a character that JSON escapes.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte >= b' ' && !b"\"\\?".contains(&byte);
        text.bytes().all(is_plain).then(|| Self(text.into()))
    }
}

impl Urls {
    /// Creates the URLs of an operation at `status`, which is trimmed.
    #[must_use]
    pub fn new(status: impl Into<String>) -> Self {
        let status = status.into();
        Self(StatusUrl::Written(match status.trim() {
            trimmed if trimmed.len() == status.len() => status,
            trimmed => trimmed.into(),
        }))
    }

    /// Creates the URLs of an operation whose id directly follows `root`.
    pub(crate) fn at(root: UrlRoot, id: OperationId) -> Self {
        Self(StatusUrl::At {
            root,
            id,
            written: OnceLock::new(),
        })
    }

    /// Returns the URL of the operation; `None` if it is empty.
    #[must_use]
    pub fn status(&self) -> Option<&str> {
        let status = match &self.0 {
            StatusUrl::Written(status) => status,
            StatusUrl::At { written, .. } => written.get_or_init(|| {
                let mut text = Vec::with_capacity(self.length());
                self.push_to(&mut text);
                String::from_utf8(text).unwrap_or_default()
            }),
        };
        (!status.is_empty()).then_some(status)
    }

    /// Returns the number of bytes that [`push_to`](Self::push_to) appends.
    pub(crate) fn length(&self) -> usize {
        match &self.0 {
            StatusUrl::Written(status) => status.len(),
            StatusUrl::At { root, id, .. } => root.0.len() + id.text_len(),
        }
    }

    /// Appends the URL of the operation.
    pub(crate) fn push_to(&self, out: &mut Vec<u8>) {
        match &self.0 {
            StatusUrl::Written(status) => out.extend_from_slice(status.as_bytes()),
            StatusUrl::At { root, id, .. } => {
                out.extend_from_slice(root.0.as_bytes());
                id.push_to(out);
            }
        }
    }

    /// Returns whether the URL ends with this id, needs no escapes in a JSON string, and is a
    /// prefix of the URLs of the sub-resources.
    pub(crate) fn is_plain(&self, id: &OperationId) -> bool {
        self.before(id).is_some()
    }

    /// Returns the part before the id, if the URL is plain in the sense of
    /// [`is_plain`](Self::is_plain).
    pub(crate) fn before(&self, id: &OperationId) -> Option<&str> {
        match &self.0 {
            StatusUrl::At { root, id: own, .. } if own == id => Some(&root.0),
            StatusUrl::At { .. } | StatusUrl::Written(_) => None,
        }
    }

    /// Returns the URL of the sub-resource `name` of the operation.
    #[must_use]
    pub fn below(&self, name: &str) -> Option<String> {
        self.followed_by(&format!("/{name}"))
    }

    /// Returns the URL with `suffix` at the end of its path, for example `:cancel`.
    #[must_use]
    pub fn followed_by(&self, suffix: &str) -> Option<String> {
        let status = self.status()?;
        let (path, query) = status.split_at(status.find('?').unwrap_or(status.len()));
        // A trailing slash is not doubled.
        Some([path.trim_end_matches('/'), suffix, query].concat())
    }
}

impl Default for Urls {
    fn default() -> Self {
        Self(StatusUrl::Written(String::new()))
    }
}

impl PartialEq for Urls {
    fn eq(&self, other: &Self) -> bool {
        self.status() == other.status()
    }
}

impl Eq for Urls {}

impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Urls")
            .field("status", &self.status().unwrap_or_default())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_written_as_their_root_and_id() {
        let root = UrlRoot::new("/operations/").unwrap();
        let urls = Urls::at(root, "q3".parse().unwrap());
        assert_eq!(urls, Urls::new("/operations/q3"));
        assert_eq!(urls.length(), "/operations/q3".len());
        assert_eq!(format!("{urls:?}"), r#"Urls { status: "/operations/q3" }"#);
    }

    #[test]
    fn texts_with_a_query_or_escapes_are_no_roots() {
        for text in ["/a?b=", "/a\"/", "/a\\/", "/a\n/"] {
            assert_eq!(UrlRoot::new(text), None, "{text}");
        }
        assert!(UrlRoot::new("https://example.com/größe/").is_some());
    }

    #[test]
    fn sub_resources_precede_the_query() {
        let below = |url: &str| Urls::new(url).below("result");
        assert_eq!(
            below("/operations/q3").as_deref(),
            Some("/operations/q3/result")
        );
        assert_eq!(below("/ops/q3/?v=1").as_deref(), Some("/ops/q3/result?v=1"));
        assert_eq!(below(""), None);
    }
}
