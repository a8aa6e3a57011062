use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use crate::operation::OperationId;

/// The URLs of one operation: absolute or a path, as the application wants.
#[derive(Clone)]
pub struct Urls(StatusUrl);

/// Where the operation itself is.
#[derive(Clone)]
enum StatusUrl {
    /// Without white space around it.
    Written(String),
    /// At its id, right after `root`; put together when it is asked for, which most polls
    /// do not.
    At {
        root: UrlRoot,
        id: OperationId,
        written: OnceLock<String>,
    },
}

/// What precedes the ids of all operations: it has no character that JSON escapes, and no
/// query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UrlRoot(Arc<str>);

impl UrlRoot {
    /// `None` if `text` has such characters.
    pub(super) fn new(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte >= b' ' && !b"\"\\?".contains(&byte);
        text.bytes().all(is_plain).then(|| Self(text.into()))
    }
}

impl Urls {
    /// An operation at `status`. White space around it is left out.
    #[must_use]
    pub fn new(status: impl Into<String>) -> Self {
        let status = status.into();
        Self(StatusUrl::Written(match status.trim() {
            trimmed if trimmed.len() == status.len() => status,
            trimmed => trimmed.into(),
        }))
    }

    /// An operation at its id, right after `root`.
    pub(super) fn at(root: UrlRoot, id: OperationId) -> Self {
        Self(StatusUrl::At {
            root,
            id,
            written: OnceLock::new(),
        })
    }

    /// Where the operation is; `None` if the application left it empty.
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

    /// Bytes of what [`push_to`](Self::push_to) appends.
    pub(super) fn length(&self) -> usize {
        match &self.0 {
            StatusUrl::Written(status) => status.len(),
            StatusUrl::At { root, id, .. } => root.0.len() + id.text_len(),
        }
    }

    /// Appends where the operation is.
    pub(super) fn push_to(&self, out: &mut Vec<u8>) {
        match &self.0 {
            StatusUrl::Written(status) => out.extend_from_slice(status.as_bytes()),
            StatusUrl::At { root, id, .. } => {
                out.extend_from_slice(root.0.as_bytes());
                id.push_to(out);
            }
        }
    }

    /// Whether where it is ends with this id, stands for itself in a JSON string, and what
    /// is below it is put at its end.
    pub(super) fn is_plain(&self, id: &OperationId) -> bool {
        self.before(id).is_some()
    }

    /// What precedes the id where that is so.
    pub(super) fn before(&self, id: &OperationId) -> Option<&str> {
        match &self.0 {
            StatusUrl::At { root, id: own, .. } if own == id => Some(&root.0),
            StatusUrl::At { .. } | StatusUrl::Written(_) => None,
        }
    }

    /// Where the sub-resource `name` of the operation is.
    #[must_use]
    pub fn below(&self, name: &str) -> Option<String> {
        self.followed_by(&format!("/{name}"))
    }

    /// The URL with `suffix` at the end of its path, for example `:cancel`.
    #[must_use]
    pub fn followed_by(&self, suffix: &str) -> Option<String> {
        let status = self.status()?;
        let (path, query) = status.split_at(status.find('?').unwrap_or(status.len()));
        // A slash at its end is not doubled.
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
    fn a_root_and_an_id_are_what_is_written() {
        let root = UrlRoot::new("/operations/").unwrap();
        let urls = Urls::at(root, "q3".parse().unwrap());
        assert_eq!(urls, Urls::new("/operations/q3"));
        assert_eq!(urls.length(), "/operations/q3".len());
        assert_eq!(format!("{urls:?}"), r#"Urls { status: "/operations/q3" }"#);
    }

    #[test]
    fn what_has_a_meaning_of_its_own_is_no_root() {
        for text in ["/a?b=", "/a\"/", "/a\\/", "/a\n/"] {
            assert_eq!(UrlRoot::new(text), None, "{text}");
        }
        assert!(UrlRoot::new("https://example.com/größe/").is_some());
    }

    #[test]
    fn sub_resources_stand_before_the_query() {
        let below = |url: &str| Urls::new(url).below("result");
        assert_eq!(
            below("/operations/q3").as_deref(),
            Some("/operations/q3/result")
        );
        assert_eq!(below("/ops/q3/?v=1").as_deref(), Some("/ops/q3/result?v=1"));
        assert_eq!(below(""), None);
    }
}
