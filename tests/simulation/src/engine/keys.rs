//! Idempotency keys.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;
use tower_operations::{
    OperationId,
    engine::{EngineKeys, KeyCell, KeyState},
    store::{FencingToken, IdempotencyKey, StoreResult},
};

use crate::Mutant;

use super::{
    SimulatedEngine,
    database::{Rows, now},
};

/// The keys, by scoped name.
#[derive(Debug, Default)]
pub(super) struct KeyRows {
    bound: BTreeMap<Arc<str>, KeyRow>,
    pub(super) reservations: BTreeMap<Arc<str>, Reservation>,
}

#[derive(Debug)]
struct KeyRow {
    fingerprint: [u8; 32],
    bound: BoundKey,
    /// The expiry; `None` if the key lasts as long as its operation, or forever.
    until: Option<SystemTime>,
}

/// The binding of a key.
#[derive(Debug)]
pub(super) enum BoundKey {
    Operation(OperationId),
    /// The remains of a deleted operation.
    Remains(Bytes),
    /// An early answer, stored by the holder of this token.
    Answer(Bytes, FencingToken),
}

/// A key whose request is in progress.
#[derive(Debug)]
pub(super) struct Reservation {
    fingerprint: [u8; 32],
    token: FencingToken,
    until: Instant,
}

impl KeyRows {
    pub(super) fn bind(
        &mut self,
        name: Arc<str>,
        fingerprint: [u8; 32],
        bound: BoundKey,
        until: Option<SystemTime>,
    ) {
        let row = KeyRow {
            fingerprint,
            bound,
            until,
        };
        self.bound.insert(name, row);
    }

    pub(super) fn unbind(&mut self, name: &str) {
        self.bound.remove(name);
    }

    pub(super) fn is_bound_to(&self, name: &str, id: &OperationId) -> bool {
        let bound = self.bound.get(name).map(|row| &row.bound);
        matches!(bound, Some(BoundKey::Operation(other)) if other == id)
    }

    pub(super) fn fingerprint(&self, name: &str) -> Option<[u8; 32]> {
        Some(self.bound.get(name)?.fingerprint)
    }

    pub(super) fn purge(&mut self, now: SystemTime) {
        self.bound
            .retain(|_, row| row.until.is_none_or(|until| until > now));
    }

    fn reservation(&self, name: &str) -> Option<&Reservation> {
        self.reservations
            .get(name)
            .filter(|reserved| reserved.until > now())
    }
}

impl Rows {
    /// Returns the state of a key, unless the key is free for an insert with this reservation.
    pub(super) fn held_key(
        &self,
        name: &str,
        reservation: Option<FencingToken>,
        now: SystemTime,
    ) -> Option<KeyCell> {
        match self.keys.reservation(name) {
            Some(reserved) if Some(reserved.token) == reservation => None,
            Some(reserved) => Some(KeyCell::new(reserved.fingerprint, KeyState::Reserved)),
            None => self.key(name, now),
        }
    }

    /// Returns the state of a key without a reservation; `None` if the key is free.
    fn key(&self, name: &str, now: SystemTime) -> Option<KeyCell> {
        let row = self.keys.bound.get(name)?;
        if row.until.is_some_and(|until| until <= self.wall()) {
            return None;
        }
        let state = match &row.bound {
            BoundKey::Remains(head) => KeyState::Deleted(head.clone()),
            BoundKey::Answer(answer, _) => KeyState::Answer(answer.clone()),
            BoundKey::Operation(id) => {
                let cell = self.get(id).filter(|row| !row.has_expired(now))?;
                KeyState::Operation(cell.cell.head.clone())
            }
        };
        Some(KeyCell::new(row.fingerprint, state))
    }

    fn reserve(
        &mut self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
        at: SystemTime,
    ) -> Option<KeyCell> {
        let name = key.scoped_name();
        let found = self.held_key(&name, Some(token), at);
        if found.is_none() {
            let reserved = Reservation {
                fingerprint: key.fingerprint,
                token,
                until: now() + term,
            };
            self.keys.reservations.insert(name, reserved);
        }
        found
    }

    fn complete(
        &mut self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: &[u8],
        ttl: Duration,
    ) -> bool {
        let (name, wall) = (key.scoped_name(), self.wall());
        let is_completed = self.keys.bound.get(&name).is_some_and(|row| {
            matches!(&row.bound, BoundKey::Answer(_, by) if *by == token)
                && row.until.is_none_or(|until| until > wall)
        });
        let reserved = self.keys.reservation(&name);
        let Some(reserved) = reserved.filter(|reserved| reserved.token == token) else {
            return is_completed;
        };
        let fingerprint = reserved.fingerprint;
        self.keys.reservations.remove(&name);
        if !is_completed && !self.bug.shows(Mutant::AnswerForgotten, 2) {
            let answer = BoundKey::Answer(Bytes::copy_from_slice(answer), token);
            self.keys.bind(name, fingerprint, answer, Some(wall + ttl));
        }
        true
    }

    fn release_reservation(&mut self, key: &IdempotencyKey, token: FencingToken) -> bool {
        let name = key.scoped_name();
        let reserved = self.keys.reservation(&name);
        let is_reserved = reserved.is_some_and(|reserved| reserved.token == token);
        if is_reserved {
            self.keys.reservations.remove(&name);
        }
        is_reserved
    }
}

impl<const POLLS: bool> EngineKeys for SimulatedEngine<POLLS> {
    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
        now: SystemTime,
    ) -> StoreResult<Option<KeyCell>> {
        self.call(|rows| rows.reserve(key, token, term, now)).await
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: &[u8],
        ttl: Duration,
    ) -> StoreResult<bool> {
        self.call(|rows| rows.complete(key, token, answer, ttl))
            .await
    }

    async fn release_reservation(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
    ) -> StoreResult<bool> {
        self.call(|rows| rows.release_reservation(key, token)).await
    }
}
