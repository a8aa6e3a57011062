//! Reservations of keys, before an operation exists.

use std::{sync::Arc, time::Duration};

use super::{Engine, EngineKeys, EngineStore, KeyCell, KeyState, record_head};
use crate::{
    operation::Stored,
    store::{FencingToken, IdempotencyKey, IdempotencyKeys, Reservation, StoreError},
};

impl<E: Engine, T: Stored> EngineStore<E, T> {
    /// Returns the state of a key for this request.
    pub(super) fn reservation(
        &self,
        found: KeyCell,
        key: &IdempotencyKey,
    ) -> Result<Reservation<T>, StoreError> {
        if found.fingerprint != key.fingerprint {
            return Ok(Reservation::Mismatch);
        }
        Ok(match found.state {
            KeyState::Reserved => Reservation::InProgress,
            KeyState::Operation(head) => Reservation::Operation(record_head::decode_head(head)?),
            KeyState::Deleted(head) => Reservation::Deleted(record_head::decode_head(head)?),
            KeyState::Answer(bytes) => {
                let answer = T::from_bytes(bytes).map_err(StoreError::Refused)?;
                Reservation::Answered(Arc::new(answer))
            }
        })
    }
}

impl<E: EngineKeys, T: Stored> IdempotencyKeys for EngineStore<E, T> {
    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
    ) -> Result<Reservation<T>, StoreError> {
        let reserve = (self.shared.engine).reserve(key, token, term, self.now());
        match reserve.await? {
            None => Ok(Reservation::Reserved(token)),
            Some(found) => self.reservation(found, key),
        }
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: T,
    ) -> Result<bool, StoreError> {
        let answer = answer.to_bytes().map_err(StoreError::Refused)?;
        (self.shared.engine)
            .complete(key, token, &answer, self.ttl)
            .await
    }

    async fn release_reservation(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
    ) -> Result<bool, StoreError> {
        self.shared.engine.release_reservation(key, token).await
    }
}
