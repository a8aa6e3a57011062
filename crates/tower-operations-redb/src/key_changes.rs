//! The changes of keys.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::redb::ReadableTable;
use bytes::Bytes;
use tower_operations::{
    engine::{KeyCell, KeyState},
    store::FencingToken,
};

use super::{
    desk::{Desk, ReservedRequest},
    error::RedbFault,
    expiring_map::{ExpiringEntry, until},
    rows::{KeyRow, RowBinding, after, millis},
    writer_request::Transaction,
};

/// The number of expired reservations that each new reservation removes.
const LAPSED_PER_RESERVATION: usize = 2;

/// Reserves a key.
pub(super) struct ReserveKey {
    pub(super) name: Arc<str>,
    pub(super) reserved: ReservedRequest,
    pub(super) term: Duration,
    pub(super) now: SystemTime,
}

impl Transaction for ReserveKey {
    type Answer = Option<KeyCell>;

    fn apply(&self, desk: &mut Desk<'_>) -> Result<Option<KeyCell>, RedbFault> {
        let found = match desk.reservation(&self.name) {
            Some(before) if before.token == self.reserved.token => None,
            Some(before) => Some(KeyCell::new(before.fingerprint, KeyState::Reserved)),
            None => desk.key(&self.name, millis(self.now))?,
        };
        if found.is_none() {
            let lapsed = desk.memory.reservations.over(desk.now);
            let lapsed = lapsed.map(|(name, _)| Arc::clone(name));
            let lapsed: Vec<_> = lapsed.take(LAPSED_PER_RESERVATION).collect();
            for name in lapsed {
                desk.reserve(&name, None);
            }
            let entry = ExpiringEntry {
                until: until(desk.now, self.term),
                value: self.reserved.clone(),
            };
            desk.reserve(&self.name, Some(entry));
        }
        Ok(found)
    }
}

/// Stores an answer under a key.
pub(super) struct CompleteKey {
    pub(super) name: Arc<str>,
    pub(super) token: FencingToken,
    pub(super) answer: Bytes,
    pub(super) ttl: Duration,
}

impl Transaction for CompleteKey {
    type Answer = bool;

    fn weight(&self) -> usize {
        self.answer.len()
    }

    fn apply(&self, desk: &mut Desk<'_>) -> Result<bool, RedbFault> {
        let name = self.name.as_bytes();
        let is_settled = match desk.keys.get(name)? {
            Some(row) => {
                let row = KeyRow::decode(row.value())?;
                matches!(row.bound, RowBinding::Answer(_))
                    && row.token == self.token
                    && !row.has_expired(desk.wall)
            }
            None => false,
        };
        let reserved = desk.reservation(&self.name);
        let Some(reserved) = reserved.filter(|reserved| reserved.token == self.token) else {
            return Ok(is_settled);
        };
        let reserved = reserved.clone();
        let row = KeyRow {
            owner: reserved
                .owner
                .as_ref()
                .map(|owner| owner.as_str().as_bytes()),
            fingerprint: reserved.fingerprint,
            token: self.token,
            until: Some(after(desk.wall, self.ttl)),
            bound: RowBinding::Answer(&self.answer),
        };
        if !is_settled {
            desk.bind(name, &row)?;
        }
        desk.reserve(&self.name, None);
        Ok(true)
    }
}

/// Releases a reserved key.
pub(super) struct ReleaseKey {
    pub(super) name: Arc<str>,
    pub(super) token: FencingToken,
}

impl Transaction for ReleaseKey {
    type Answer = bool;

    fn apply(&self, desk: &mut Desk<'_>) -> Result<bool, RedbFault> {
        let reserved = desk.reservation(&self.name);
        let is_reserved = reserved.is_some_and(|reserved| reserved.token == self.token);
        if is_reserved {
            desk.reserve(&self.name, None);
        }
        Ok(is_reserved)
    }
}
