use std::fmt;

use super::wording::Quoted;
use crate::operation::OperationId;

/// What a client names its request by, so that a repetition is known as one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestName {
    /// This `Idempotency-Key`.
    Key(Box<str>),
    /// This `Operation-Id`.
    Id(OperationId),
}

impl RequestName {
    /// The header field that it came in.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Key(_) => "Idempotency-Key",
            Self::Id(_) => "Operation-Id",
        }
    }
}

/// The field and its value, shortened and escaped.
impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field();
        match self {
            Self::Key(key) => write!(f, "{field} {}", Quoted(key)),
            Self::Id(id) => write!(f, "{field} {}", Quoted(&id.to_string())),
        }
    }
}
