use super::{Replay, Urls};

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
