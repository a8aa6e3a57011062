use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;
use tower_operations::{
    OperationId, Owner, State,
    engine::{Cell, Inserted, LeaseChange, NewCell, NextCell, Replaced},
    store::Stamp,
};

use crate::{Mutant, bug::PlantedBug, journal::Journal};

use super::{
    invariants::{Before, Invariants},
    keys::{BoundKey, KeyRows},
    leases::LeaseRow,
    needs_lapse,
    undone::UndoneChanges,
};

/// The data that all nodes share. Its clock is right.
#[derive(Debug)]
pub struct Database {
    rows: Mutex<Rows>,
}

impl Database {
    /// Creates an empty database, whose secret of list cursors is `secret`. The clocks of nodes are
    /// wrong by at most `skew`.
    #[must_use]
    pub(crate) fn new(
        secret: [u8; 32],
        skew: Duration,
        journal: Arc<Journal>,
        bug: PlantedBug,
    ) -> Arc<Self> {
        let rows = Rows {
            secret,
            journal,
            number: 0,
            rows: BTreeMap::new(),
            live: BTreeSet::new(),
            ended: BTreeSet::new(),
            by_owner: BTreeMap::new(),
            keys: KeyRows::default(),
            invariants: Invariants::new(skew),
            bug,
            undone: UndoneChanges::default(),
        };
        Arc::new(Self {
            rows: Mutex::new(rows),
        })
    }

    /// Returns the broken invariants so far, and forgets them.
    #[must_use]
    pub fn take_violations(&self) -> Vec<String> {
        self.rows().invariants.take()
    }

    pub(super) fn rows(&self) -> MutexGuard<'_, Rows> {
        // A panic within a critical section fails the simulation.
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.undo_due();
        rows
    }
}

/// The rows of operations and keys.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) secret: [u8; 32],
    /// Its clock is that of the database.
    journal: Arc<Journal>,
    number: u64,
    pub(super) rows: BTreeMap<OperationId, Row>,
    pub(super) live: BTreeSet<OperationId>,
    /// The operations that have ended, by expiry.
    ended: BTreeSet<(SystemTime, OperationId)>,
    /// The operations of each owner, by number.
    pub(super) by_owner: BTreeMap<(Option<Box<str>>, u64), OperationId>,
    pub(super) keys: KeyRows,
    invariants: Invariants,
    pub(super) bug: PlantedBug,
    pub(super) undone: UndoneChanges,
}

/// The row of an operation.
#[derive(Debug, Clone)]
pub(super) struct Row {
    number: u64,
    pub(super) stamp: Stamp,
    pub(super) state: State,
    pub(super) owner: Option<Owner>,
    pub(super) key: Option<Arc<str>>,
    pub(super) cell: Cell,
    pub(super) request: Option<Bytes>,
    pub(super) lease: Option<LeaseRow>,
    pub(super) expires_at: Option<SystemTime>,
    /// The cell before the last change, for bugs.
    pub(super) before: Option<Cell>,
}

/// Returns the time by the clock of the database.
pub(super) fn now() -> Instant {
    Instant::now()
}

impl Row {
    pub(super) fn has_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    fn owner_name(&self) -> Option<Box<str>> {
        self.owner.as_ref().map(|owner| owner.as_str().into())
    }
}

impl Rows {
    pub(super) fn get(&self, id: &OperationId) -> Option<&Row> {
        self.rows.get(id)
    }

    /// Returns the wall time by the clock of the database.
    pub(super) fn wall(&self) -> SystemTime {
        self.journal.wall_clock()
    }

    pub(super) fn insert(&mut self, new: &NewCell<'_>) -> Inserted {
        let key = new.key.map(|key| (key, key.scoped_name()));
        if let Some((_, name)) = &key
            && let Some(found) = self.held_key(name, new.reservation, new.now)
        {
            return Inserted::Key(found);
        }
        if let Some(row) = self.rows.get(new.id) {
            if !row.has_expired(new.now) {
                let (head, made_by) = (row.cell.head.clone(), row.key.clone());
                if let Some((_, name)) = &key
                    && made_by.as_ref() == Some(name)
                    && self.keys.is_bound_to(name, new.id)
                {
                    // The answer to an earlier attempt was lost.
                    self.keys.reservations.remove(name);
                }
                return Inserted::Id(head, made_by.map(|name| (*name).into()));
            }
            self.check_expiry(new.id);
            self.remove(new.id);
        }
        if self.bug.shows(Mutant::CreateLost, 200) {
            return Inserted::Done;
        }
        self.number += 1;
        self.invariants.created(new.id, new.stamp.token);
        let row = Row {
            number: self.number,
            stamp: new.stamp,
            state: new.state,
            owner: new.owner.cloned(),
            key: key.as_ref().map(|(_, name)| Arc::clone(name)),
            cell: Cell::new(Bytes::copy_from_slice(new.head), None),
            request: new.request.map(Bytes::copy_from_slice),
            lease: new.lease.map(|term| LeaseRow {
                until: now() + term,
                is_released: false,
            }),
            expires_at: None,
            before: None,
        };
        self.by_owner
            .insert((row.owner_name(), self.number), new.id.clone());
        self.live.insert(new.id.clone());
        self.rows.insert(new.id.clone(), row);
        if let Some((key, name)) = key {
            self.keys.reservations.remove(&name);
            let bound = BoundKey::Operation(new.id.clone());
            if !self.bug.shows(Mutant::KeyForgotten, 10) {
                self.keys.bind(name, key.fingerprint, bound, None);
            }
        }
        Inserted::Done
    }

    pub(super) fn replace(
        &mut self,
        id: &OperationId,
        expected: Stamp,
        next: &NextCell<'_>,
        trusts_leases: bool,
    ) -> Replaced {
        let lapsed_by = self.lapsed_by();
        let Some(row) = self.rows.get_mut(id) else {
            return Replaced::Gone;
        };
        let is_claim = matches!(next.lease, LeaseChange::Transfer(_));
        let is_expected = row.stamp == expected
            || self.bug.is(Mutant::FencingOff)
            || is_claim && self.bug.is(Mutant::ClaimedTwice);
        if !is_expected || (needs_lapse(next.lease) && !row.has_lapsed(lapsed_by)) {
            return Replaced::Found(row.cell.head.clone());
        }
        if self.bug.shows(Mutant::ChangeLost, 100) {
            return Replaced::Done;
        }
        let before = row.clone();
        let state = Before {
            stamp: row.stamp,
            has_ended: row.expires_at.is_some(),
            has_lapsed: row.has_lapsed(now()),
            is_trusted: trusts_leases || row.lease.is_some_and(|lease| lease.is_released),
        };
        self.invariants.changed(id, state, next);
        (row.stamp, row.state, row.expires_at) = (next.stamp, next.state, next.expires_at);
        let result = next.result.map(Bytes::copy_from_slice);
        row.before = Some(before.cell.clone());
        row.cell = Cell::new(Bytes::copy_from_slice(next.head), result);
        if let Some(at) = next.expires_at {
            (row.lease, row.request) = (None, None);
            self.live.remove(id);
            self.ended.insert((at, id.clone()));
        } else if let LeaseChange::Reclaim(term) | LeaseChange::Transfer(term) = next.lease {
            row.lease = Some(LeaseRow {
                until: now() + term,
                is_released: false,
            });
        }
        if next.expires_at.is_some() {
            self.undo_end(id, before);
        }
        Replaced::Done
    }

    pub(super) fn delete(
        &mut self,
        id: &OperationId,
        expected: Stamp,
        remains: &[u8],
        until: Option<SystemTime>,
    ) -> Replaced {
        let Some(row) = self.rows.get(id) else {
            return Replaced::Gone;
        };
        if row.stamp != expected {
            return Replaced::Found(row.cell.head.clone());
        }
        self.invariants.deleted(id, row.expires_at.is_some());
        let key = row.key.clone();
        let is_bound = key
            .as_ref()
            .is_some_and(|name| self.keys.is_bound_to(name, id));
        let fingerprint = key.as_ref().and_then(|name| self.keys.fingerprint(name));
        if self.bug.shows(Mutant::DeletionUndone, 3) {
            let row = row.clone();
            self.undone.restore_later(id, row);
        }
        self.remove(id);
        if let (true, Some(name), Some(fingerprint)) = (is_bound, key, fingerprint) {
            let remains = BoundKey::Remains(Bytes::copy_from_slice(remains));
            self.keys.bind(name, fingerprint, remains, until);
        }
        Replaced::Done
    }

    /// Puts a row back as it was.
    pub(super) fn restore(&mut self, id: &OperationId, row: Row) {
        self.remove(id);
        self.by_owner
            .insert((row.owner_name(), row.number), id.clone());
        match row.expires_at {
            Some(at) => drop(self.ended.insert((at, id.clone()))),
            None => drop(self.live.insert(id.clone())),
        }
        self.rows.insert(id.clone(), row);
    }

    pub(super) fn get_mut(&mut self, id: &OperationId) -> Option<&mut Row> {
        self.rows.get_mut(id)
    }

    /// Returns a result of this length of another operation.
    pub(super) fn result_of_another(&self, id: &OperationId, length: usize) -> Option<Bytes> {
        let ended = self.ended.iter().map(|(_, id)| id);
        ended
            .filter(|other| *other != id)
            .filter_map(|other| self.rows.get(other)?.cell.result.clone())
            .find(|result| result.len() == length)
    }

    fn check_expiry(&mut self, id: &OperationId) {
        if let Some(row) = self.rows.get(id) {
            let now = self.journal.wall_clock();
            self.invariants.purged(id, row.expires_at, now);
        }
    }

    /// Removes an operation, with the key that is bound to it.
    pub(super) fn remove(&mut self, id: &OperationId) {
        let Some(row) = self.rows.remove(id) else {
            return;
        };
        self.live.remove(id);
        if let Some(at) = row.expires_at {
            self.ended.remove(&(at, id.clone()));
        }
        self.by_owner.remove(&(row.owner_name(), row.number));
        if let Some(name) = &row.key
            && self.keys.is_bound_to(name, id)
        {
            self.keys.unbind(name);
        }
    }

    pub(super) fn purge(&mut self, limit: usize, now: SystemTime) -> usize {
        let early = usize::from(self.bug.is(Mutant::PurgedEarly));
        let is_due = |(index, (at, _)): &(usize, &(SystemTime, _))| *at <= now || *index < early;
        let expired = self.ended.iter().enumerate().take_while(is_due);
        let expired: Vec<_> = expired.take(limit).map(|(_, (_, id))| id.clone()).collect();
        for id in &expired {
            self.check_expiry(id);
            self.remove(id);
        }
        if self.bug.shows(Mutant::LivePurged, 5)
            && let Some(live) = self.live.first().cloned()
        {
            self.remove(&live);
        }
        self.keys.purge(now);
        expired.len()
    }
}
