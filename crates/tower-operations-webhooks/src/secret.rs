use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{KeyId, WebhookId};

/// The prefix of the text of a secret.
pub(crate) const PREFIX: &str = "whsec_";

/// The length in bytes of a secret that this crate generates.
const GENERATED_LENGTH: usize = 32;

/// A secret that a sender and a receiver of webhooks share: 24 to 64 random bytes.
///
/// The text is `whsec_` and the bytes in Base64 with padding (Standard Webhooks 1.0.0). `Debug`
/// shows the [`KeyId`] alone, which may be stored and logged.
///
/// ```
/// use tower_operations_webhooks::Secret;
///
/// let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
/// assert_eq!(secret.expose_secret(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
/// assert_eq!(format!("{secret:?}"), format!("Secret({})", secret.key_id()));
/// # Ok::<(), tower_operations_webhooks::InvalidSecret>(())
/// ```
#[derive(Clone)]
pub struct Secret {
    bytes: Box<[u8]>,
    key_id: KeyId,
}

impl Secret {
    /// Generates a secret of 32 random bytes.
    ///
    /// # Panics
    /// Panics if the operating system has no randomness.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = [0; GENERATED_LENGTH];
        getrandom::fill(&mut bytes).expect("the operating system has randomness");
        Self::from_valid(&bytes)
    }

    /// Creates a secret from its bytes.
    ///
    /// # Errors
    /// [`InvalidSecret::Length`] if there are fewer than 24 bytes, or more than 64.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidSecret> {
        match bytes.len() {
            24..=64 => Ok(Self::from_valid(bytes)),
            _ => Err(InvalidSecret::Length),
        }
    }

    fn from_valid(bytes: &[u8]) -> Self {
        Self {
            key_id: KeyId::derive(bytes),
            bytes: bytes.into(),
        }
    }

    /// Replaces the derived key id by one that the application chooses, for example the number of
    /// the row that has the secret.
    #[must_use]
    pub fn with_key_id(self, key_id: KeyId) -> Self {
        Self { key_id, ..self }
    }

    /// Returns the key id.
    #[must_use]
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// Returns the text of the secret, `whsec_…`, for the receiver.
    #[must_use]
    pub fn expose_secret(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.bytes))
    }

    /// Returns the signature in Base64.
    pub(crate) fn sign(&self, id: &WebhookId, timestamp: u64, body: &[u8]) -> String {
        STANDARD.encode(self.mac(id, timestamp, body).finalize().into_bytes())
    }

    /// Returns whether one of the signatures is that of this secret. Signatures are compared in
    /// constant time.
    pub(crate) fn matches_any(
        &self,
        signatures: &[Vec<u8>],
        (id, timestamp, body): (&WebhookId, u64, &[u8]),
    ) -> bool {
        let mac = self.mac(id, timestamp, body);
        signatures
            .iter()
            .any(|signature| mac.clone().verify_slice(signature).is_ok())
    }

    fn mac(&self, id: &WebhookId, timestamp: u64, body: &[u8]) -> Hmac<Sha256> {
        keyed(&self.bytes)
            .chain_update(format!("{id}.{timestamp}."))
            .chain_update(body)
    }
}

/// Returns an HMAC-SHA-256 under a key.
pub(crate) fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let base64 = text.strip_prefix(PREFIX).ok_or(InvalidSecret::Prefix)?;
        let bytes = STANDARD.decode(base64);
        Self::from_bytes(&bytes.map_err(|_| InvalidSecret::Base64)?)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.key_id)
    }
}

/// The reason why a text or bytes are not a [`Secret`]. The text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSecret {
    /// The text does not begin with `whsec_`.
    #[error("a webhook secret begins with {PREFIX}")]
    Prefix,
    /// The text after the prefix is not Base64 with padding.
    #[error("a webhook secret is {PREFIX} and Base64 with padding")]
    Base64,
    /// The secret has fewer than 24 bytes, or more than 64.
    #[error("a webhook secret has 24 to 64 bytes")]
    Length,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_judged() {
        let text = |length| format!("whsec_{}", STANDARD.encode(vec![7; length]));
        for length in [24, 25, 32, 64] {
            let secret: Secret = text(length).parse().unwrap();
            assert_eq!(secret.expose_secret(), text(length));
        }
        for length in [0, 1, 23, 65, 1000] {
            assert_eq!(
                text(length).parse::<Secret>().unwrap_err(),
                InvalidSecret::Length
            );
        }
        let valid = text(24);
        for (text, expected) in [
            ("", InvalidSecret::Prefix),
            (&valid[6..], InvalidSecret::Prefix),
            (&format!(" {valid}"), InvalidSecret::Prefix),
            (&format!("{valid}\n"), InvalidSecret::Base64),
            (&format!("{valid}="), InvalidSecret::Base64),
            (&valid.replace('H', "-"), InvalidSecret::Base64),
            ("whsec_é", InvalidSecret::Base64),
        ] {
            assert_eq!(text.parse::<Secret>().unwrap_err(), expected, "{text:?}");
        }
    }

    #[test]
    fn generated_secrets_differ() {
        let (first, second) = (Secret::generate(), Secret::generate());
        assert_ne!(first.expose_secret(), second.expose_secret());
        assert_ne!(first.key_id(), second.key_id());
        assert_eq!(first.bytes.len(), GENERATED_LENGTH);
    }

    #[test]
    fn the_application_can_choose_the_key_id() {
        let chosen: KeyId = "tenant-7".parse().unwrap();
        let secret = Secret::generate().with_key_id(chosen.clone());
        assert_eq!(secret.key_id(), &chosen);
        assert_eq!(format!("{secret:?}"), "Secret(tenant-7)");
    }

    #[test]
    fn the_signature_is_that_of_the_standard() {
        // The example of the specification.
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek".parse().unwrap();
        let signature = secret.sign(&id, 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
