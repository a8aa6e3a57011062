use std::error::Error;

use crate::BoxError;

/// The result of a store call.
pub type StoreResult<T> = Result<T, StoreError>;

/// An error of a store.
///
/// # Semantics
/// Law 9: the source is kept, and [`is_transient`](Self::is_transient) reports whether a
/// retry can help. Clients never see the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached or is overloaded. The write may or may not have
    /// happened.
    #[error("the store is unavailable")]
    Unavailable(#[source] BoxError),
    /// The store has no room for another operation until one expires.
    #[error("the store is full")]
    Full,
    /// The owner of the operation has used its share of the store. Other owners still have
    /// room.
    #[error("the owner has used its share of the store")]
    FullForOwner,
    /// The store refused the call. A retry would be refused too.
    #[error("the store refused")]
    Refused(#[source] BoxError),
    /// A value is above a limit of the store. A retry would be refused too. If the value is an
    /// outcome, its operation fails as `result-too-large`, and the problem says the limit.
    #[error("{length} bytes are more than the {limit} bytes that the store takes as one value")]
    #[non_exhaustive]
    TooLarge {
        /// The length of the value in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl StoreError {
    /// Returns an error after which a retry can help.
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable(source.into())
    }

    /// Returns an error after which a retry cannot help.
    pub fn refused(source: impl Into<BoxError>) -> Self {
        Self::Refused(source.into())
    }

    /// Returns the error of a value that is above a limit of the store, both in bytes.
    #[must_use]
    pub fn too_large(length: usize, limit: usize) -> Self {
        Self::TooLarge { length, limit }
    }

    /// Returns whether a retry can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Full | Self::FullForOwner => true,
            Self::Refused(_) | Self::TooLarge { .. } => false,
        }
    }

    /// Converts any error into this type. A `StoreError` stays as it is; any other error
    /// counts as transient.
    pub fn from_any(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => Self::Unavailable(error),
        }
    }

    /// Returns the text of the error and of its sources, for logs.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            let cause = error.to_string();
            // Many errors already include the text of their source.
            if !text.ends_with(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            source = error.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no connection: {0}")]
    struct Telling(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("no answer")]
    struct Silent(#[source] Telling);

    #[test]
    fn causes_that_an_error_already_includes_are_not_repeated() {
        let refused = || Telling(io::Error::other("refused"));
        assert_eq!(
            StoreError::unavailable(refused()).report(),
            "the store is unavailable: no connection: refused"
        );
        assert_eq!(
            StoreError::refused(Silent(refused())).report(),
            "the store refused: no answer: no connection: refused"
        );
        assert_eq!(StoreError::Full.report(), "the store is full");
    }
}
