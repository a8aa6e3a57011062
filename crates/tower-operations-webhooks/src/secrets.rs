use std::time::SystemTime;

use crate::{KeyId, Secret, WebhookId, unix_seconds};

/// The version of a signature by HMAC-SHA-256.
pub(crate) const SIGNATURE_VERSION: &str = "v1";

/// The secrets of one receiver: the current one and, while it is rotated, previous ones.
///
/// A sender signs with each secret, so a receiver can change to the new one at any time within the
/// rotation. A receiver accepts a signature of any of them.
#[derive(Debug, Clone)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// Creates a set of one secret.
    #[must_use]
    pub fn new(current: Secret) -> Self {
        Self(vec![current])
    }

    /// Adds a previous secret.
    #[must_use]
    pub fn previous(mut self, secret: Secret) -> Self {
        self.0.push(secret);
        self
    }

    /// Returns the current secret.
    #[must_use]
    pub fn current(&self) -> &Secret {
        &self.0[0]
    }

    /// Returns the key ids, that of the current secret first.
    pub fn key_ids(&self) -> impl Iterator<Item = &KeyId> {
        self.0.iter().map(Secret::key_id)
    }

    /// Returns the value of the field `webhook-signature`: a signature for each secret, separated by
    /// spaces. The time counts in whole seconds.
    ///
    /// [`Attempt`](crate::Attempt) signs what it sends. This method is for other senders, and for
    /// tests of receivers.
    #[must_use]
    pub fn sign(&self, id: &WebhookId, timestamp: SystemTime, body: &[u8]) -> String {
        let timestamp = unix_seconds(timestamp);
        let signatures = self.0.iter().map(|secret| {
            let signature = secret.sign(id, timestamp, body);
            format!("{SIGNATURE_VERSION},{signature}")
        });
        signatures.collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter()
    }
}

impl From<Secret> for Secrets {
    fn from(current: Secret) -> Self {
        Self::new(current)
    }
}
