use std::fmt;

use super::wording::Quoted;
use crate::operation::OperationId;

/// The name that a client gives to its request, by which a repeated request is recognized.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestName {
    /// The value of `Idempotency-Key`.
    Key(Box<str>),
    /// The value of `Operation-Id`.
    Id(OperationId),
}

impl RequestName {
    /// Returns the header field that contained the name.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Key(_) => "Idempotency-Key",
            Self::Id(_) => "Operation-Id",
        }
    }
}

/// Writes the field and its value, shortened and escaped.
impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field();
        match self {
            Self::Key(key) => write!(f, "{field} {}", Quoted(key)),
            Self::Id(id) => write!(f, "{field} {}", Quoted(&id.to_string())),
        }
    }
}
