//! The digest of a recorded body.

use sha2::{Digest, Sha256};

use super::{COPIED, Recorded, RecordedResponse};

/// The SHA-256 of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyDigest(pub(crate) [u8; 32]);

impl RecordedResponse {
    /// Returns the digest of the body; `None` if neither the body nor its digest was read. The digest
    /// is shared by the clones of a response with a large body.
    pub(crate) fn digest(&self) -> Option<BodyDigest> {
        let known = self.known_digest();
        if known.is_some() {
            return known;
        }
        let digest = BodyDigest(Sha256::digest(self.body()?).into());
        Some(match &self.0 {
            Recorded::Block(_) => digest,
            Recorded::Parts(parts) => *parts.digest.get_or_init(|| digest),
        })
    }

    /// Returns the digest of the body, if it was computed before.
    pub(crate) fn known_digest(&self) -> Option<BodyDigest> {
        match &self.0 {
            Recorded::Block(_) => None,
            Recorded::Parts(parts) => parts.digest.get().copied(),
        }
    }

    /// Returns the digest that is stored with the response. The digest of a short body in the same
    /// store is computed faster than it is read, so it is not stored.
    pub(crate) fn stored_digest(&self) -> Option<BodyDigest> {
        match self.stores_digest() {
            true => self.digest(),
            false => None,
        }
    }

    /// Returns whether a digest is stored with the response.
    pub(crate) fn stores_digest(&self) -> bool {
        self.uploader().is_some() || self.body_len() > COPIED
    }

    /// Sets the digest of a long body, if it is known.
    pub(crate) fn with_known_digest(self, digest: Option<BodyDigest>) -> Self {
        if let (Recorded::Parts(parts), Some(digest)) = (&self.0, digest) {
            parts.digest.get_or_init(|| digest);
        }
        self
    }
}
