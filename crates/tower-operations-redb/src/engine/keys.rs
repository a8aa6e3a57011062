//! Idempotency keys.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tower_operations::{
    engine::{EngineKeys, KeyCell},
    store::{FencingToken, IdempotencyKey, StoreResult},
};

use super::RedbEngine;
use crate::{
    desk::ReservedRequest,
    key_changes::{CompleteKey, ReleaseKey, ReserveKey},
};

impl EngineKeys for RedbEngine {
    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
        now: SystemTime,
    ) -> StoreResult<Option<KeyCell>> {
        let reserved = ReservedRequest {
            owner: key.owner.clone(),
            fingerprint: key.fingerprint,
            token,
        };
        let reserve = ReserveKey {
            name: key.scoped_name(),
            reserved,
            term,
            now,
        };
        self.change(reserve).await
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: &[u8],
        ttl: Duration,
    ) -> StoreResult<bool> {
        let settle = CompleteKey {
            name: key.scoped_name(),
            token,
            answer: Bytes::copy_from_slice(answer),
            ttl,
        };
        self.change(settle).await
    }

    async fn release_reservation(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
    ) -> StoreResult<bool> {
        let name = key.scoped_name();
        self.change(ReleaseKey { name, token }).await
    }
}
