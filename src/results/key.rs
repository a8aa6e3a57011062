use std::{fmt, str::FromStr};

use crate::{operation::OperationId, store::FencingToken};

/// The name of an upload: the operation, and the fencing token of the holder that uploads its
/// result. The body of a request has a random number instead.
///
/// The text is the id, a slash, and the token as 16 hexadecimal digits, followed by `.request` for
/// the body of a request. It consists of letters, digits, `-`, `.`, `_`, `~` and the slash.
///
/// ```
/// use tower_operations::{results::ResultKey, store::FencingToken};
///
/// let key = ResultKey::new("q3".parse()?, FencingToken::from_number(171));
/// assert_eq!(key.to_string(), "q3/00000000000000ab");
/// assert_eq!("q3/00000000000000ab".parse(), Ok(key));
/// let key = ResultKey::of_request("q3".parse()?, FencingToken::from_number(171));
/// assert_eq!(key.to_string(), "q3/00000000000000ab.request");
/// # Ok::<(), tower_operations::InvalidId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct ResultKey {
    /// The operation.
    pub id: OperationId,
    /// The token of the holder that uploads the result, or a random number for a request.
    pub token: FencingToken,
    /// Whether the upload is the body of the request.
    pub is_request: bool,
}

/// The end of the text of a request's key.
const REQUEST: &str = ".request";

impl ResultKey {
    /// Returns the key of a result.
    #[must_use]
    pub fn new(id: OperationId, token: FencingToken) -> Self {
        let is_request = false;
        Self {
            id,
            token,
            is_request,
        }
    }

    /// Returns the key of the body of a request.
    #[must_use]
    pub fn of_request(id: OperationId, token: FencingToken) -> Self {
        let is_request = true;
        Self {
            id,
            token,
            is_request,
        }
    }
}

impl fmt::Display for ResultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.is_request { REQUEST } else { "" };
        write!(f, "{}/{:016x}{end}", self.id, self.token.get())
    }
}

/// The error of a text that is not a [`ResultKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an operation id, a slash, a token of 16 hexadecimal digits, and perhaps `.request`")]
pub struct InvalidResultKey;

impl FromStr for ResultKey {
    type Err = InvalidResultKey;

    fn from_str(text: &str) -> Result<Self, InvalidResultKey> {
        let (id, name) = text.split_once('/').ok_or(InvalidResultKey)?;
        let digits = name.strip_suffix(REQUEST);
        let (digits, is_request) = (digits.unwrap_or(name), digits.is_some());
        let token = u64::from_str_radix(digits, 16).map_err(|_| InvalidResultKey)?;
        let key = Self {
            id: OperationId::from_stored(id).map_err(|_| InvalidResultKey)?,
            token: FencingToken::from_number(token),
            is_request,
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
            let (id, token) = (OperationId::new(), FencingToken::from_number(token));
            let key = ResultKey::of_request(id.clone(), token);
            assert_eq!(key.to_string().parse(), Ok(key));
            let key = ResultKey::new(id, token);
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
            "q3/.request",
            "q3/00000000000000ab.request.request",
            "q3/00000000000000ab.",
            "a/q3/00000000000000ab",
            "q3/+0000000000000ab",
        ] {
            assert_eq!(text.parse::<ResultKey>(), Err(InvalidResultKey), "{text}");
        }
    }
}
