use http::request::Parts;
use sha2::{Digest, Sha256};

use crate::{operation::OperationId, store::IdempotencyKey};

/// A key in the making, whose fingerprint is a digest of the request: no body has to be in
/// memory for it.
pub(super) struct KeyDigest {
    name: String,
    digest: Sha256,
}

impl KeyDigest {
    /// A key of this name, of a request that brings an id besides.
    pub(super) fn new((name, id): (String, Option<&OperationId>)) -> Self {
        let mut digest = Sha256::new();
        if let Some(id) = id {
            digest.update(format!("{id}\n"));
        }
        Self { name, digest }
    }

    /// Takes method, path and query in.
    pub(super) fn update_head(&mut self, parts: &Parts) {
        let target = parts.uri.path_and_query();
        let target = target.map_or("", |target| target.as_str());
        // Neither a method nor a target has a line break in it.
        self.digest.update(format!("{}\n{target}\n", parts.method));
    }

    /// Takes bytes in: of the body, or of a fingerprint.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    pub(super) fn finish(self) -> IdempotencyKey {
        IdempotencyKey::new(None, self.name, self.digest.finalize().into())
    }
}
