use super::Replay;

/// What a dialect knows besides the operation.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Context<'a> {
    /// Where the operation is to be found.
    pub urls: &'a Urls,
    /// The seconds for `Retry-After`; `None` once the operation is terminal.
    pub retry_after: Option<u64>,
    /// The largest result, in bytes, that is embedded in an operation.
    pub inline_limit: usize,
    /// Which header fields of a recorded response are repeated.
    pub replay: &'a Replay,
    /// The query of the request, without the question mark.
    pub query: Option<&'a str>,
}

impl<'a> Context<'a> {
    /// A context without `Retry-After` and without a limit on what is embedded.
    #[must_use]
    pub fn new(urls: &'a Urls, replay: &'a Replay) -> Self {
        Self {
            urls,
            retry_after: None,
            inline_limit: usize::MAX,
            replay,
            query: None,
        }
    }
}

/// The URLs of one operation: absolute or a path, as the application wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Urls {
    status: String,
}

impl Urls {
    /// An operation at `status`. White space around it is left out.
    #[must_use]
    pub fn new(status: impl Into<String>) -> Self {
        let status = status.into();
        match status.trim() {
            trimmed if trimmed.len() == status.len() => Self { status },
            trimmed => Self {
                status: trimmed.into(),
            },
        }
    }

    /// An operation at `status`, which has no white space around it.
    pub(super) fn trimmed(status: String) -> Self {
        Self { status }
    }

    /// Where the operation is; `None` if the application left it empty.
    #[must_use]
    pub fn status(&self) -> Option<&str> {
        (!self.status.is_empty()).then_some(&self.status)
    }

    /// Appends where the sub-resource `name` of the operation is, if the operation is
    /// anywhere.
    pub(super) fn push_below(&self, name: &str, out: &mut Vec<u8>) {
        if let Some([path, query]) = self.split() {
            for part in [path, "/", name, query] {
                out.extend_from_slice(part.as_bytes());
            }
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
        let [path, query] = self.split()?;
        Some([path, suffix, query].concat())
    }

    /// The path, without a slash at its end, and the query.
    fn split(&self) -> Option<[&str; 2]> {
        let status = self.status()?;
        let (path, query) = status.split_at(status.find('?').unwrap_or(status.len()));
        Some([path.trim_end_matches('/'), query])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
