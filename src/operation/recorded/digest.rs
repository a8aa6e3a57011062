//! The digest of a recorded body.

use sha2::{Digest, Sha256};

use super::{COPIED, Recorded, RecordedResponse};

/// The SHA-256 of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyDigest(pub(crate) [u8; 32]);

impl RecordedResponse {
    /// Returns the digest of the body; `None` if neither the body nor its digest was read. Clones
    /// of a response with a large body share it.
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

    /// Returns the digest that is stored with the response: of a long body alone, since that of a
    /// short one is computed faster than it is read.
    pub(crate) fn stored_digest(&self) -> Option<BodyDigest> {
        match self.stores_digest() {
            true => self.digest(),
            false => None,
        }
    }

    /// Returns whether a digest is stored with the response.
    pub(crate) fn stores_digest(&self) -> bool {
        self.body_len() > COPIED
    }

    /// Sets the digest of a long body, if it is known.
    pub(crate) fn with_known_digest(self, digest: Option<BodyDigest>) -> Self {
        if let (Recorded::Parts(parts), Some(digest)) = (&self.0, digest) {
            parts.digest.get_or_init(|| digest);
        }
        self
    }
}
