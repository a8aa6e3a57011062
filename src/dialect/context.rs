use super::{Replay, Urls};

/// The context of a response: all data that a dialect gets besides the operation.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Context<'a> {
    /// The URLs of the operation.
    pub urls: &'a Urls,
    /// The seconds for `Retry-After`; `None` once the operation is terminal.
    pub retry_after: Option<u64>,
    /// The maximum size in bytes of a result that is embedded in an operation.
    pub inline_limit: usize,
    /// The rules for replaying recorded responses.
    pub replay: &'a Replay,
    /// The query of the request, without the question mark.
    pub query: Option<&'a str>,
}

impl<'a> Context<'a> {
    /// Creates a context without `Retry-After` and without a limit for embedded results.
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
