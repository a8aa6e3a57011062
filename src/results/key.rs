use std::{fmt, str::FromStr};

use crate::{operation::OperationId, store::FencingToken};

/// The name of an upload: the operation, and the fencing token of the holder that uploads it.
///
/// The text is the id, a slash, and the token as 16 hexadecimal digits. It consists of letters,
/// digits, `-`, `.`, `_`, `~` and the slash.
///
/// ```
/// use tower_operations::{results::ResultKey, store::FencingToken};
///
/// let key = ResultKey::new("q3".parse()?, FencingToken::from_number(171));
/// assert_eq!(key.to_string(), "q3/00000000000000ab");
/// assert_eq!("q3/00000000000000ab".parse(), Ok(key));
/// # Ok::<(), tower_operations::InvalidId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct ResultKey {
    /// The operation.
    pub id: OperationId,
    /// The token of the holder that uploads the result.
    pub token: FencingToken,
}

impl ResultKey {
    /// Returns the key of an upload.
    #[must_use]
    pub fn new(id: OperationId, token: FencingToken) -> Self {
        Self { id, token }
    }
}

impl fmt::Display for ResultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.id, self.token.get())
    }
}

/// The error of a text that is not a [`ResultKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an operation id, a slash, and a token of 16 hexadecimal digits")]
pub struct InvalidResultKey;

impl FromStr for ResultKey {
    type Err = InvalidResultKey;

    fn from_str(text: &str) -> Result<Self, InvalidResultKey> {
        let (id, digits) = text.split_once('/').ok_or(InvalidResultKey)?;
        let token = u64::from_str_radix(digits, 16).map_err(|_| InvalidResultKey)?;
        let key = Self {
            id: OperationId::from_stored(id).map_err(|_| InvalidResultKey)?,
            token: FencingToken::from_number(token),
        };
        // Other texts for the same numbers are refused.
        match key.to_string() == text {
            true => Ok(key),
            false => Err(InvalidResultKey),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_a_round_trip_and_other_texts_are_errors() {
        for token in [0, 1, u64::MAX] {
            let key = ResultKey::new(OperationId::new(), FencingToken::from_number(token));
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        for text in [
            "",
            "q3",
            "q3/",
            "/00000000000000ab",
            "q3/ab",
            "q3/00000000000000AB",
            "q3/00000000000000ab/",
            "a/q3/00000000000000ab",
            "q3/+0000000000000ab",
        ] {
            assert_eq!(text.parse::<ResultKey>(), Err(InvalidResultKey), "{text}");
        }
    }
}
