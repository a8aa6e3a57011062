//! Keys before there is an operation.

use std::{sync::Arc, time::Duration};

use super::{Durable, Engine, KeyCell, StandsFor, head};
use crate::{
    operation::Stored,
    store::{FencingToken, Key, Keys, Owner, Reservation, StoreError},
};

impl<E: Engine, T: Stored> Durable<E, T> {
    /// What a key stands for to `owner`, with this request.
    pub(super) fn reservation(
        &self,
        found: KeyCell,
        key: &Key,
        owner: Option<&Owner>,
    ) -> Result<Reservation<T>, StoreError> {
        if found.owner.as_ref() != owner {
            return Ok(Reservation::Taken);
        }
        if found.fingerprint != key.fingerprint {
            return Ok(Reservation::Mismatch);
        }
        Ok(match found.stands_for {
            StandsFor::Request => Reservation::InProgress,
            StandsFor::Operation(cell) => Reservation::Operation(Arc::new(head::decode(cell)?)),
            StandsFor::Remains(head) => {
                let cell = super::Cell { head, result: None };
                Reservation::Operation(Arc::new(head::decode(cell)?))
            }
            StandsFor::Answer(bytes) => {
                let answer = T::from_bytes(bytes).map_err(StoreError::Refused)?;
                Reservation::Answered(Arc::new(answer))
            }
        })
    }
}

impl<E: Engine, T: Stored> Keys for Durable<E, T> {
    async fn reserve(
        &self,
        key: &Key,
        owner: Option<&Owner>,
        token: FencingToken,
        term: Duration,
    ) -> Result<Reservation<T>, StoreError> {
        let reserve = (self.shared.engine).reserve(key, owner, token, term, self.now());
        match reserve.await? {
            None => Ok(Reservation::Reserved(token)),
            Some(found) => self.reservation(found, key, owner),
        }
    }

    async fn settle(&self, key: &Key, token: FencingToken, answer: T) -> Result<bool, StoreError> {
        let answer = answer.to_bytes().map_err(StoreError::Refused)?;
        (self.shared.engine)
            .settle(&key.name, token, &answer, self.ttl)
            .await
    }

    async fn release_key(&self, key: &Key, token: FencingToken) -> Result<bool, StoreError> {
        self.shared.engine.release_key(&key.name, token).await
    }
}
