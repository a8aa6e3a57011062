use std::{fmt, str::FromStr};

use hmac::Mac;

use crate::secret::{PREFIX, keyed};

/// The maximum length of a key id in bytes.
const MAX_LENGTH: usize = 64;

/// The number of bytes of a digest that a derived key id shows.
const DERIVED_LENGTH: usize = 8;

/// The name of a [`Secret`](crate::Secret), which may be stored and logged.
///
/// A key id has 1 to 64 letters, digits, `-` and `_`, and does not begin as a secret does. The application chooses it
/// ([`Secret::with_key_id`](crate::Secret::with_key_id)). Otherwise it is derived from the secret by a
/// keyed hash, and reveals nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyId(Box<str>);

impl KeyId {
    /// Derives the key id of a secret: 64 bits of an HMAC under the secret, of a text that no
    /// webhook is, since it has no `.`.
    pub(crate) fn derive(secret: &[u8]) -> Self {
        let digest = keyed(secret).chain_update("key id").finalize().into_bytes();
        let hex = digest[..DERIVED_LENGTH]
            .iter()
            .map(|byte| format!("{byte:02x}"));
        Self(hex.collect::<String>().into())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_secret = text.starts_with(PREFIX);
        match (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(is_valid) && !is_secret {
            true => Ok(Self(text.into())),
            false => Err(InvalidKeyId),
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A text that is not a [`KeyId`]. The text is not repeated: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key id has 1 to {MAX_LENGTH} letters, digits, '-' and '_', and is no secret")]
pub struct InvalidKeyId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_judged() {
        for text in ["a", "7", "tenant-1_2026", &"k".repeat(64)] {
            assert_eq!(text.parse::<KeyId>().unwrap().as_str(), text);
        }
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        for text in ["", "a b", "a.b", secret, "whsec_", "é", &"k".repeat(65)] {
            assert_eq!(text.parse::<KeyId>(), Err(InvalidKeyId), "{text}");
        }
    }

    #[test]
    fn a_derived_id_is_stable() {
        let id = KeyId::derive(&[1; 24]);
        assert_eq!(id, KeyId::derive(&[1; 24]));
        assert_ne!(id, KeyId::derive(&[2; 24]));
        assert_eq!(id.as_str().len(), 2 * DERIVED_LENGTH);
        assert_eq!(id.as_str().parse(), Ok(id));
    }
}
