use super::Owner;

/// The reader of an operation.
///
/// An operation of another owner comes without its result, as if it had ended without one. A
/// [`RecordedResponse`](crate::RecordedResponse) whose body is longer than `max_body` may come
/// without the body. A result of another type comes as a whole.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Reader<'a> {
    /// The owner that the reader acts for.
    pub owner: Option<&'a Owner>,
    /// The length in bytes up to which the reader needs the body of a result.
    pub max_body: usize,
}

impl<'a> Reader<'a> {
    /// Returns a reader that acts for `owner`, and needs every body.
    #[must_use]
    pub fn new(owner: Option<&'a Owner>) -> Self {
        Self {
            owner,
            max_body: usize::MAX,
        }
    }

    /// Sets the length in bytes up to which the reader needs the body of a result. A store then
    /// need not read a longer one.
    #[must_use]
    pub fn with_max_body(self, max_body: usize) -> Self {
        Self { max_body, ..self }
    }
}
