//! The changes of cells.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::redb::ReadableTable;
use bytes::Bytes;
use tower_operations::{
    engine::{Inserted, KeyCell, KeyState, LeaseChange, NewCell, NextCell, Replaced},
    operation::{OperationId, State},
    store::{FencingToken, Owner, Stamp},
};

use super::{
    desk::{Desk, Holder, text},
    error::RedbFault,
    expiring_map::ExpiringEntry,
    rows::{CellParts, CellRow, KeyRow, ResultPart, RowBinding, millis},
    writer_request::Transaction,
};

/// A key by its scoped name.
struct BoundKey {
    name: Arc<str>,
    fingerprint: [u8; 32],
}

/// Inserts a cell.
pub(super) struct InsertCell {
    id: OperationId,
    stamp: Stamp,
    state: State,
    owner: Option<Owner>,
    head: Bytes,
    lease: Option<Duration>,
    request: Option<Bytes>,
    key: Option<BoundKey>,
    reservation: Option<FencingToken>,
    now: u64,
}

impl From<NewCell<'_>> for InsertCell {
    fn from(new: NewCell<'_>) -> Self {
        Self {
            id: new.id.clone(),
            stamp: new.stamp,
            state: new.state,
            owner: new.owner.cloned(),
            head: Bytes::copy_from_slice(new.head),
            lease: new.lease,
            request: new.request.map(Bytes::copy_from_slice),
            key: new.key.map(|key| BoundKey {
                name: key.scoped_name(),
                fingerprint: key.fingerprint,
            }),
            reservation: new.reservation,
            now: millis(new.now),
        }
    }
}

impl Transaction for InsertCell {
    type Answer = Inserted;

    fn weight(&self) -> usize {
        self.head.len() + self.request.as_ref().map_or(0, Bytes::len)
    }

    fn apply(&self, desk: &mut Desk<'_>) -> Result<Inserted, RedbFault> {
        if let Some(key) = &self.key
            && let Some(found) = self.held_key(key, desk)?
        {
            return Ok(Inserted::Key(found));
        }
        let id = &*text(&self.id);
        while let Some(row) = desk.insert(id, &self.row(desk.memory.next_number))? {
            let row = CellRow::decode(&row)?;
            if !row.has_expired(self.now) {
                return self.found(id, &row, desk);
            }
            desk.remove(&self.id, &row)?;
            if let Some(name) = row.key {
                desk.unbind_from(name, id)?;
            }
        }
        self.add_parts(id, desk)?;
        Ok(Inserted::Done)
    }
}

impl InsertCell {
    /// Returns the present state of the key, unless the key is free for this insert.
    fn held_key(&self, key: &BoundKey, desk: &Desk<'_>) -> Result<Option<KeyCell>, RedbFault> {
        match desk.reservation(&key.name) {
            Some(reserved) if Some(reserved.token) == self.reservation => Ok(None),
            Some(reserved) => Ok(Some(KeyCell::new(reserved.fingerprint, KeyState::Reserved))),
            None => desk.key(&key.name, self.now),
        }
    }

    fn owner(&self) -> Option<&[u8]> {
        self.owner.as_ref().map(|owner| owner.as_str().as_bytes())
    }

    fn row(&self, number: u64) -> CellRow<'_> {
        CellRow {
            stamp: self.stamp,
            number,
            expires_at: None,
            state: self.state,
            parts: CellParts {
                lease: self.lease.is_some(),
                request: self.request.is_some(),
                result: ResultPart::None,
            },
            owner: self.owner(),
            key: self.key.as_ref().map(|key| key.name.as_bytes()),
            head: &self.head,
        }
    }

    /// Returns the live cell that has the id.
    fn found(
        &self,
        id: &[u8],
        row: &CellRow<'_>,
        desk: &mut Desk<'_>,
    ) -> Result<Inserted, RedbFault> {
        let made_by = row.key.map(|name| String::from_utf8_lossy(name).into());
        if let Some(key) = &self.key
            && row.key == Some(key.name.as_bytes())
            && desk.bound_to(key.name.as_bytes(), id)?
        {
            // An earlier attempt inserted the cell, but its caller never got the answer.
            desk.reserve(&key.name, None);
        }
        let head = Bytes::copy_from_slice(row.head);
        Ok(Inserted::Id(head, made_by))
    }

    /// Adds the parts of the inserted cell that are in other tables and in memory.
    fn add_parts(&self, id: &[u8], desk: &mut Desk<'_>) -> Result<(), RedbFault> {
        let (owner, number) = (self.owner(), desk.memory.next_number);
        desk.memory.next_number += 1;
        desk.listed.insert((owner, number), id)?;
        if let Some(request) = &self.request {
            desk.requests.insert(id, &**request)?;
        }
        if let Some(term) = self.lease {
            desk.leased.insert(number, id)?;
            let token = self.stamp.token;
            desk.memory.lease(&self.id, token, desk.now, term);
        }
        if let Some(key) = &self.key {
            let row = KeyRow {
                owner,
                fingerprint: key.fingerprint,
                token: FencingToken::NONE,
                until: None,
                bound: RowBinding::Operation(id),
            };
            desk.bind(key.name.as_bytes(), &row)?;
            desk.reserve(&key.name, None);
        }
        Ok(())
    }
}

/// Replaces a cell.
pub(super) struct ReplaceCell {
    id: OperationId,
    expected: Stamp,
    stamp: Stamp,
    state: State,
    head: Bytes,
    result: Option<Bytes>,
    expires_at: Option<u64>,
    lease: LeaseChange,
}

impl ReplaceCell {
    pub(super) fn new(id: &OperationId, expected: Stamp, next: NextCell<'_>) -> Self {
        Self {
            id: id.clone(),
            expected,
            stamp: next.stamp,
            state: next.state,
            head: Bytes::copy_from_slice(next.head),
            result: next.result.map(Bytes::copy_from_slice),
            expires_at: next.expires_at.map(millis),
            lease: next.lease,
        }
    }
}

impl Transaction for ReplaceCell {
    type Answer = Replaced;

    fn weight(&self) -> usize {
        self.head.len() + self.result.as_ref().map_or(0, Bytes::len)
    }

    fn apply(&self, desk: &mut Desk<'_>) -> Result<Replaced, RedbFault> {
        let id = &*text(&self.id);
        let Some(bytes) = desk.row(id)? else {
            return Ok(Replaced::Gone);
        };
        let row = CellRow::decode(&bytes)?;
        let lease = desk.memory.leases.get(&self.id).cloned();
        let may_be = match self.lease {
            LeaseChange::Keep | LeaseChange::Transfer(_) => true,
            LeaseChange::Reclaim(_) => lease.as_ref().is_some_and(|lease| lease.is_over(desk.now)),
        };
        if row.stamp != self.expected || !may_be {
            return Ok(Replaced::Found(bytes.slice_ref(row.head)));
        }

        let mut parts = row.parts;
        if self.expires_at.is_some() {
            desk.end_lease(&self.id, id, &row)?;
            (parts.lease, parts.request) = (false, false);
        } else if let Some(lease) = lease {
            let token = self.stamp.token;
            match self.lease {
                LeaseChange::Reclaim(term) | LeaseChange::Transfer(term) => {
                    desk.memory.lease(&self.id, token, desk.now, term);
                }
                LeaseChange::Keep if lease.value.token != token => {
                    let value = Holder {
                        token,
                        ..lease.value
                    };
                    let lease = Some(ExpiringEntry { value, ..lease });
                    desk.memory.leases.set(&self.id, lease);
                }
                LeaseChange::Keep => {}
            }
        }
        match &self.result {
            Some(result) => drop(desk.results.insert(id, &**result)?),
            None if parts.result != ResultPart::None => drop(desk.results.remove(id)?),
            None => {}
        }
        parts.result = ResultPart::of(self.result.as_deref());
        if row.expires_at != self.expires_at {
            if let Some(at) = row.expires_at {
                desk.expiry.remove((at, row.number))?;
            }
            if let Some(at) = self.expires_at {
                desk.expiry.insert((at, row.number), id)?;
            }
        }
        let next = CellRow {
            stamp: self.stamp,
            expires_at: self.expires_at,
            state: self.state,
            parts,
            head: &self.head,
            ..row
        };
        desk.replace(id, &next, self.result.as_ref())?;
        Ok(Replaced::Done)
    }
}

/// Removes a cell before its expiry.
pub(super) struct DeleteCell {
    pub(super) id: OperationId,
    pub(super) expected: Stamp,
    pub(super) remains: Bytes,
    pub(super) until: Option<SystemTime>,
}

impl Transaction for DeleteCell {
    type Answer = Replaced;

    fn apply(&self, desk: &mut Desk<'_>) -> Result<Replaced, RedbFault> {
        let id = &*text(&self.id);
        let Some(bytes) = desk.row(id)? else {
            return Ok(Replaced::Gone);
        };
        let row = CellRow::decode(&bytes)?;
        if row.stamp != self.expected {
            return Ok(Replaced::Found(bytes.slice_ref(row.head)));
        }
        desk.remove(&self.id, &row)?;
        if let Some(name) = row.key
            && desk.bound_to(name, id)?
            && let Some(bytes) = super::desk::copy(desk.keys.get(name))?
        {
            let remains = KeyRow {
                until: self.until.map(millis),
                bound: RowBinding::Remains(&self.remains),
                ..KeyRow::decode(&bytes)?
            };
            desk.bind(name, &remains)?;
        }
        Ok(Replaced::Done)
    }
}
