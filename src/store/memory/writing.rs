//! Creates, changes and deletes operations, each under one lock.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    CurrentTime, MemoryStore,
    eviction::NeededRoom,
    keyring::Keyed,
    keys::KeyEntry,
    ledger::EntryLocation,
    limits::Weight,
    shard::{OperationEntry, Tick},
};
use crate::{
    operation::{OperationId, Payload},
    store::{
        Created, NewOperation, NodeId, Record, Reservation, StoreError, Written,
        record::ChangeOutcome,
    },
};

/// The number of expired operations to purge with each one that ends, so that the store
/// needs no purge task.
pub(super) const PURGED_PER_END: usize = 2;

impl<T: Payload> MemoryStore<T> {
    /// Inserts a new operation of this weight and its key, which takes `of_key` bytes,
    /// unless the key or the id is taken or there is no room.
    pub(super) fn insert(
        &self,
        new: &NewOperation,
        record: &Arc<Record<T>>,
        (weight, of_key): (Weight, usize),
        has_room: bool,
        now: CurrentTime,
    ) -> Result<Created<T>, StoreError> {
        // Held to the end, so that key and operation are created together.
        let mut keyring = new.key.as_ref().map(|key| {
            let name = key.scoped_name();
            let keyring = self.lock_key(&name);
            (key, name, keyring)
        });
        if let Some((key, name, keyring)) = &keyring
            && let Some(entry) = keyring.get(name)
            && !new
                .reservation
                .is_some_and(|token| entry.is_reserved_by(token, now.tick))
            && let Some(held) = entry.look_up(key, now.tick, |id| self.made_by(name, id))
        {
            return Ok(match held {
                Reservation::Operation(record) => Created::Existing(record),
                held => Created::KeyHeld(held),
            });
        }

        let name = keyring.as_ref().map(|(_, name, _)| Arc::clone(name));
        let hashed = self.hashed(&new.id);
        let mut shard = self.lock(hashed.shard());
        if let Some(entry) = shard.get(hashed, now.tick) {
            let is_owned = entry.record.owner() == new.owner.as_ref();
            return Ok(match is_owned {
                // Another request of the same owner created the operation.
                true if name.is_some() && entry.key() != name.as_ref() => {
                    Created::KeyHeld(Reservation::Mismatch)
                }
                true => Created::Existing(Arc::clone(&entry.record)),
                false => Created::IdTaken,
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
            Arc::clone(record),
            weight,
            hashed,
            lease_ends,
            name.clone(),
            new.request.clone(),
        );
        let (slot, mut replaced) = shard.insert(hashed, entry, term);
        self.settle(replaced.as_slice());
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
        Ok(Created::New(Arc::clone(record)))
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
        let change = change(entry, now);
        let record = Arc::clone(&entry.record);
        match change {
            ChangeOutcome::Made => {}
            ChangeOutcome::MadeBefore => return Ok(Written::Done(record)),
            ChangeOutcome::Refused => return Ok(Written::Lost(record)),
        }
        if term.is_some() {
            place.hold(now.tick, term);
        }
        let ends = record.operation().state().is_terminal();
        // The operation ends before code of the application runs, such as its weigher.
        let woken = match ends {
            true => place.end(now.tick, self.limits.ttl),
            false => place.entry().changed(),
        };
        let entry = place.entry();
        let of_request = entry.request().map_or(0, bytes::Bytes::len);
        let after = self.limits.weigh(&record, of_request);
        let before = std::mem::replace(&mut entry.weight, after);
        let (before, after) = (before.bytes(), after.bytes());
        self.shared.room.resize(before, after);
        if let Some(owner) = record.owner() {
            let (number, expires) = (entry.number, ends.then(|| entry.expires()));
            let ledger = &self.shared.room.ledger;
            ledger.change(owner, number, before, after, expires);
        }
        let purged = match ends {
            true => {
                let purged = shard.purge(now.tick, PURGED_PER_END);
                self.settle(&purged);
                purged
            }
            false => Vec::new(),
        };
        drop(shard);
        self.freed(&purged);
        if let Some(cell) = woken {
            cell.notify();
        }
        Ok(Written::Done(record))
    }

    /// Notifies the node that held the operation.
    pub(super) fn notify_holder(&self, id: &OperationId, node: Option<&NodeId>) {
        if let Some(node) = node {
            self.shared.mailboxes.send(node, id.clone());
        }
    }
}
