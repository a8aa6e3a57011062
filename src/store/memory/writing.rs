//! Creates and changes operations, each under one lock.

use std::{
    sync::{Arc, MutexGuard, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    CurrentTime, MemoryStore, SHARDS,
    eviction::NeededRoom,
    keyring::Keyed,
    keys::KeyEntry,
    ledger::EntryLocation,
    limits::Weight,
    shard::{OperationEntry, Shard, Slot, Tick},
};
use crate::{
    operation::{OperationId, Outcome, Payload},
    store::{
        Created, FencingToken, NewOperation, NodeId, Placed, Record, Reservation, StoreError,
        Written, record::ChangeOutcome,
    },
};

/// The number of expired operations to purge with each one that ends, so that the store
/// needs no purge task.
pub(super) const PURGED_PER_END: usize = 2;

/// The bits of a [`Placed`] that are the slot; the others are the shard.
const SLOT_BITS: u32 = Slot::BITS;

/// The result of an insertion.
pub(super) enum InsertedEntry<T> {
    New(Placed),
    /// The operation is not new.
    Not(Created<T>),
}

impl<T> From<Reservation<T>> for InsertedEntry<T> {
    fn from(held: Reservation<T>) -> Self {
        Self::Not(match held {
            Reservation::Operation(record) => Created::Existing(record),
            held => Created::KeyHeld(held),
        })
    }
}

impl<T: Payload> MemoryStore<T> {
    /// Inserts a new operation, and makes room for it if there is none.
    pub(super) fn insert_with_room(
        &self,
        new: &NewOperation,
        now: CurrentTime,
    ) -> Result<InsertedEntry<T>, StoreError> {
        let record = Record::create(new, now.wall);
        let of_key = new
            .key()
            .map_or(0, |key| KeyEntry::<T>::of_operation(key, &new.id).weight());
        let of_request = new.request().map_or(0, bytes::Bytes::len);
        let of_operation = self.limits.weigh(&record, of_request);
        let weight = of_operation.bytes() + of_key;
        let wanted = NeededRoom {
            owner: new.owner.as_ref(),
            weight,
        };
        if new.owners_known || new.owner.is_some() {
            self.shared.room.know_owners();
        }
        let take = || self.shared.room.take(&self.limits, weight);
        let mut record = Some(record);
        let mut has_room = take();
        let mut was_made = false;
        let inserted = loop {
            let weights = (of_operation, of_key);
            match self.insert(new, &mut record, weights, has_room, now) {
                // An operation that already exists needs no room.
                Err(StoreError::Full) if !was_made => {
                    was_made = true;
                    has_room = self.make_room(take, wanted, now.tick);
                }
                Err(StoreError::FullForOwner) if self.make_room_in_share(wanted, now.tick) => {}
                inserted => break inserted,
            }
        };
        if has_room && !matches!(inserted, Ok(InsertedEntry::New(_))) {
            self.shared.room.free(weight);
        }
        inserted
    }

    /// Inserts a new operation of this weight and its key, which takes `of_key` bytes,
    /// unless the key or the id is taken or there is no room. Takes the record if the operation
    /// is inserted.
    fn insert(
        &self,
        new: &NewOperation,
        record: &mut Option<Record<T>>,
        (weight, of_key): (Weight, usize),
        has_room: bool,
        now: CurrentTime,
    ) -> Result<InsertedEntry<T>, StoreError> {
        // Held to the end, so that key and operation are created together.
        let mut keyring = new.key().map(|key| {
            let name = key.scoped_name();
            let keyring = self.lock_key(&name);
            (key, name, keyring)
        });
        if let Some((key, name, keyring)) = &keyring
            && let Some(entry) = keyring.get(name)
            && !new
                .reservation()
                .is_some_and(|token| entry.is_reserved_by(token, now.tick))
            && let Some(held) =
                entry.look_up(key, now.tick, |id| self.made_by(name, id, Clone::clone))
        {
            return Ok(held.into());
        }

        let name = keyring.as_ref().map(|(_, name, _)| Arc::clone(name));
        let hashed = self.hashed(&new.id);
        let mut shard = self.lock(hashed.shard());
        if let Some(entry) = shard.get(hashed, now.tick) {
            let is_owned = entry.record.owner() == new.owner.as_ref();
            return Ok(match is_owned {
                // Another request of the same owner created the operation.
                true if name.is_some() && entry.key() != name.as_ref() => {
                    Reservation::Mismatch.into()
                }
                true => Reservation::Operation(entry.record.clone()).into(),
                false => InsertedEntry::Not(Created::IdTaken),
            });
        }
        let wanted = NeededRoom {
            owner: new.owner.as_ref(),
            weight: weight.bytes() + of_key,
        };
        if new.owner.is_none() && !self.has_unowned_share(wanted.weight, has_room) {
            return Err(StoreError::FullForOwner);
        }
        if !has_room {
            let share = self.limits.share();
            let used = self.used_share(wanted);
            return Err(
                match used.is_none_or(|used| share.has(used, wanted.weight)) {
                    true => StoreError::Full,
                    false => StoreError::FullForOwner,
                },
            );
        }
        let term = new.lease.as_ref().map(|lease| lease.term);
        let lease_ends = term.map_or(Tick::NEVER, |term| now.tick.plus(term));
        let number = self.shared.created.fetch_add(1, Relaxed);
        let entry = OperationEntry::new(
            number,
            record
                .take()
                .unwrap_or_else(|| Record::create(new, now.wall)),
            weight,
            hashed,
            lease_ends,
            name.clone(),
            new.request().cloned(),
        );
        let (slot, mut replaced) = shard.insert(hashed, entry, term);
        self.close_accounts(replaced.as_slice());
        if let Some(owner) = &new.owner {
            let at = EntryLocation {
                shard: hashed.shard(),
                slot,
            };
            let (ledger, bytes) = (&self.shared.room.ledger, (weight.bytes(), of_key));
            if !ledger.open(owner, number, at, bytes, self.limits.share()) {
                // The shard is still locked, so no reader has seen the operation.
                drop(shard.take(slot));
                drop((shard, keyring));
                self.freed(replaced.as_slice());
                return Err(StoreError::FullForOwner);
            }
        }
        drop(shard);
        if let Some(replaced) = &mut replaced
            && replaced.key() == name.as_ref()
        {
            replaced.lose_key(); // the key belongs to the new operation
        }
        if let Some((key, name, keyring)) = &mut keyring {
            let entry = KeyEntry::of_operation(key, &new.id);
            // The room for the key was reserved together with that of the operation.
            let paid = entry.weight();
            keyring.put(name, entry, paid, &self.shared.room);
        }
        drop(keyring);
        self.freed(replaced.as_slice());
        let place = (hashed.shard() as u64) << SLOT_BITS | u64::from(slot);
        Ok(InsertedEntry::New(Placed::new(now.wall, place)))
    }

    /// Makes one conditional change by `change` under one lock, then wakes the waiters.
    pub(super) fn change(
        &self,
        id: &OperationId,
        change: impl FnOnce(&mut OperationEntry<T>, CurrentTime) -> ChangeOutcome,
    ) -> Result<Written<T>, StoreError> {
        self.change_holding(id, None, change)
    }

    /// Like [`change`](Self::change), and leases the operation for `term` from now on.
    pub(super) fn change_holding(
        &self,
        id: &OperationId,
        term: Option<Duration>,
        change: impl FnOnce(&mut OperationEntry<T>, CurrentTime) -> ChangeOutcome,
    ) -> Result<Written<T>, StoreError> {
        let now = self.now();
        let id = self.hashed(id);
        let mut shard = self.lock(id.shard());
        let Some(mut place) = shard.place(id, now.tick) else {
            return Ok(Written::Gone);
        };
        let entry = place.entry();
        match change(entry, now) {
            ChangeOutcome::Made => {}
            ChangeOutcome::MadeBefore => return Ok(Written::Done(entry.record.clone())),
            ChangeOutcome::Refused => return Ok(Written::Lost(entry.record.clone())),
        }
        if term.is_some() {
            place.hold(now.tick, term);
        }
        let slot = place.slot();
        Ok(Written::Done(self.changed(shard, slot, now, Record::clone)))
    }

    /// Records the outcome of an operation at this place. Returns false if its holder is
    /// another.
    pub(super) fn finish_at(
        &self,
        placed: Placed,
        id: &OperationId,
        token: FencingToken,
        outcome: &Outcome<T>,
    ) -> bool {
        // Cloned before the lock, since it is code of the application.
        let (now, outcome) = (self.now(), outcome.clone());
        let (shard, slot) = ((placed.place >> SLOT_BITS) as usize, placed.place as Slot);
        if shard >= SHARDS {
            return false;
        }
        let mut shard = self.lock(shard);
        // Another operation may have the place by now.
        let entry = shard.get_at_mut(slot);
        let entry = entry.filter(|entry| entry.record.operation().id() == id);
        let Some(entry) = entry.filter(|entry| entry.record.is_held_by(token)) else {
            return false;
        };
        let record = &mut entry.record;
        record.finish(token, outcome, None, now.wall, self.limits.ttl);
        self.changed(shard, slot, now, |_| ());
        true
    }

    /// Accounts for a change of the operation in this slot, and wakes its waiters. Returns what
    /// `read` returns of the record.
    fn changed<U>(
        &self,
        mut shard: MutexGuard<'_, Shard<T>>,
        slot: Slot,
        now: CurrentTime,
        read: impl FnOnce(&Record<T>) -> U,
    ) -> U {
        let mut place = shard.place_at(slot);
        let ends = place.entry().record.operation().state().is_terminal();
        // The operation ends before code of the application runs: its weigher, and the `Clone`
        // of its result.
        let woken = match ends {
            true => place.end(now.tick, self.limits.ttl),
            false => place.entry().changed(),
        };
        let entry = place.entry();
        let of_request = entry.request().map_or(0, bytes::Bytes::len);
        let after = self.limits.weigh(&entry.record, of_request);
        let before = std::mem::replace(&mut entry.weight, after);
        let (before, after) = (before.bytes(), after.bytes());
        self.shared.room.resize(before, after);
        if let Some(owner) = entry.record.owner() {
            let (number, expires) = (entry.number, ends.then(|| entry.expires()));
            let ledger = &self.shared.room.ledger;
            ledger.change(owner, number, before, after, expires);
        }
        let output = read(&entry.record);
        let purged = match ends {
            true => {
                let purged = shard.purge(now.tick, PURGED_PER_END);
                self.close_accounts(&purged);
                purged
            }
            false => Vec::new(),
        };
        drop(shard);
        self.freed(&purged);
        if let Some(cell) = woken {
            cell.notify();
        }
        output
    }

    /// Notifies the node that held the operation.
    pub(super) fn notify_holder(&self, id: &OperationId, node: Option<&NodeId>) {
        if let Some(node) = node {
            self.shared.mailboxes.send(node, id.clone());
        }
    }
}
