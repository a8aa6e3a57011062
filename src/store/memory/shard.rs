//! A shard: the operations under one lock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hashbrown::HashTable;

pub(super) use super::{
    entry::{HashedId, OperationEntry},
    tick::Tick,
};
use super::{expiry_queue::ExpiryQueue, limits::Limits};
pub(super) use crate::slots::Slot;
use crate::{
    deadline_lists::DeadlineLists, operation::OperationId, slots::Slots, store::wait::WaitCell,
};

pub(super) struct Shard<T> {
    entries: Slots<OperationEntry<T>>,
    /// The slot of each operation, by the hash of its id. The table can be half empty, so
    /// its entries are as small as possible.
    slots: HashTable<Slot>,
    expiring: ExpiryQueue,
    /// The live operations with a lease, in the order of its end.
    leased: DeadlineLists,
    /// The operations without an owner, by number; created by the first list of them.
    unowned: Option<BTreeMap<u64, Slot>>,
}

/// An operation in its shard, for changes.
pub(super) struct EntryMut<'a, T> {
    slot: Slot,
    shard: &'a mut Shard<T>,
}

impl<T> EntryMut<'_, T> {
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    pub(super) fn entry(&mut self) -> &mut OperationEntry<T> {
        &mut self.shard.entries[self.slot]
    }

    /// Leases a live operation for `term` from now on; without a term, releases it.
    pub(super) fn hold(&mut self, now: Tick, term: Option<Duration>) {
        let Shard {
            entries, leased, ..
        } = &mut *self.shard;
        leased.remove(entries, self.slot);
        let lease_ends = term.map_or(Tick::RELEASED, |term| now.plus(term));
        entries[self.slot].hold_until(lease_ends);
        leased.insert(entries, self.slot, term.unwrap_or_default());
    }

    /// Ends the operation and keeps it for `ttl`. Returns the waiters to wake.
    pub(super) fn end(&mut self, now: Tick, ttl: Duration) -> Option<Arc<WaitCell>> {
        let Shard {
            entries, leased, ..
        } = &mut *self.shard;
        leased.remove(entries, self.slot);
        let woken = self.entry().end(now, ttl);
        let Shard {
            entries, expiring, ..
        } = &mut *self.shard;
        expiring.insert(entries, self.slot, ttl);
        woken
    }
}

impl<T> Shard<T> {
    pub(super) fn new(expiring: ExpiryQueue) -> Self {
        Self {
            entries: Slots::default(),
            slots: HashTable::new(),
            expiring,
            leased: DeadlineLists::default(),
            unowned: None,
        }
    }

    pub(super) fn get(&self, id: HashedId<'_>, now: Tick) -> Option<&OperationEntry<T>> {
        let entry = self.entries.get(self.slot(id)?);
        entry.filter(|entry| !entry.is_expired(now))
    }

    pub(super) fn get_mut(
        &mut self,
        id: HashedId<'_>,
        now: Tick,
    ) -> Option<&mut OperationEntry<T>> {
        let entry = self.entries.get_mut(self.slot(id)?);
        entry.filter(|entry| !entry.is_expired(now))
    }

    fn slot(&self, id: HashedId<'_>) -> Option<Slot> {
        let is_there = |slot: &Slot| self.entries[*slot].record.operation().id() == id.id();
        (self.slots.find(id.in_shard(), is_there)).copied()
    }

    /// Returns at most `limit` operations whose lease ended by a moment.
    pub(super) fn abandoned(&self, by: Tick, limit: usize) -> Vec<OperationId> {
        let slots = self.leased.until(&self.entries, by).take(limit);
        let id = |slot: Slot| self.entries[slot].record.operation().id().clone();
        slots.map(id).collect()
    }

    /// Creates the index of the operations without an owner, unless it exists. Returns how many
    /// operations were visited.
    pub(super) fn index_unowned(&mut self) -> usize {
        if self.unowned.is_some() {
            return 0;
        }
        let slots = self.slots.iter().copied();
        let unowned = slots.filter(|slot| self.entries[*slot].record.owner().is_none());
        let index = unowned
            .map(|slot| (self.entries[slot].number, slot))
            .collect();
        self.unowned = Some(index);
        self.entries.len()
    }

    /// Returns the newest operation without an owner that was created before the one with this
    /// number, if the index exists.
    pub(super) fn unowned_before(&self, number: u64) -> Option<(u64, Slot)> {
        let (number, slot) = self.unowned.as_ref()?.range(..number).next_back()?;
        Some((*number, *slot))
    }

    /// Inserts a new operation, leased for `term`. Returns its slot, and the expired
    /// operation that it replaces, if there is one.
    pub(super) fn insert(
        &mut self,
        id: HashedId<'_>,
        entry: OperationEntry<T>,
        term: Option<Duration>,
    ) -> (Slot, Option<OperationEntry<T>>) {
        let replaced = self.remove(id);
        let hash = entry.hash();
        let unowned = entry.record.owner().is_none().then_some(entry.number);
        let slot = self.entries.insert(entry);
        if let (Some(index), Some(number)) = (&mut self.unowned, unowned) {
            index.insert(number, slot);
        }
        let hash_of = |slot: &Slot| self.entries[*slot].hash();
        self.slots.insert_unique(hash, slot, hash_of);
        if let Some(term) = term {
            self.leased.insert(&mut self.entries, slot, term);
        }
        (slot, replaced)
    }

    /// Returns the operation in its shard, for changes.
    pub(super) fn place(&mut self, id: HashedId<'_>, now: Tick) -> Option<EntryMut<'_, T>> {
        let slot = self.slot(id)?;
        let is_there = !self.entries.get(slot)?.is_expired(now);
        is_there.then_some(EntryMut { slot, shard: self })
    }

    pub(super) fn remove(&mut self, id: HashedId<'_>) -> Option<OperationEntry<T>> {
        self.take(self.slot(id)?)
    }

    /// Returns the operation in this slot, for changes.
    pub(super) fn get_at_mut(&mut self, slot: Slot) -> Option<&mut OperationEntry<T>> {
        self.entries.get_mut(slot)
    }

    /// Returns the occupied slot, for changes.
    pub(super) fn place_at(&mut self, slot: Slot) -> EntryMut<'_, T> {
        EntryMut { slot, shard: self }
    }

    /// Returns the operation in this slot.
    pub(super) fn get_at(&self, slot: Slot) -> Option<&OperationEntry<T>> {
        self.entries.get(slot)
    }

    /// Returns the operation in this slot, if it has this number.
    pub(super) fn numbered(&self, slot: Slot, number: u64) -> Option<&OperationEntry<T>> {
        self.get_at(slot).filter(|entry| entry.number == number)
    }

    /// Returns the earliest expiry of operations without an owner, and its slot.
    pub(super) fn unowned_next(&self) -> Option<(Tick, Slot)> {
        self.expiring.unowned(&self.entries)
    }

    /// Removes the operation in this slot.
    pub(super) fn take(&mut self, slot: Slot) -> Option<OperationEntry<T>> {
        let entry = self.entries.get(slot)?;
        let hash = entry.hash();
        if let Some(index) = &mut self.unowned {
            index.remove(&entry.number);
        }
        if let Ok(found) = self.slots.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        match self.entries[slot].is_live() {
            true => drop(self.leased.remove(&mut self.entries, slot)),
            false => self.expiring.remove(&mut self.entries, slot),
        }
        self.entries.remove(slot)
    }

    /// Removes at most `limit` expired operations.
    pub(super) fn purge(&mut self, now: Tick, limit: usize) -> Vec<OperationEntry<T>> {
        let mut purged = Vec::new();
        while purged.len() < limit && self.expiring.is_due(now) {
            purged.extend(self.take_first());
        }
        purged
    }

    /// Returns the earliest expiry, and whether its operation may be evicted for a new one.
    pub(super) fn expiring_next(&self, now: Tick, limits: &Limits<T>) -> Option<(Tick, bool)> {
        let (expires, slot) = self.expiring.first(&self.entries)?;
        let entry = self.entries.get(slot)?;
        Some((expires, entry.may_go(now, limits.min_retention)))
    }

    /// Evicts operations that expire by `until`, soonest first, as long as they may be
    /// evicted and `more` returns true for the freed bytes.
    pub(super) fn evict(
        &mut self,
        now: Tick,
        until: Tick,
        limits: &Limits<T>,
        mut more: impl FnMut(usize) -> bool,
    ) -> Vec<OperationEntry<T>> {
        let mut evicted = Vec::new();
        while let Some((expires, true)) = self.expiring_next(now, limits)
            && expires <= until
            && let Some(entry) = self.take_first()
        {
            let freed = entry.weight.bytes();
            evicted.push(entry);
            if !more(freed) {
                break;
            }
        }
        evicted
    }

    fn take_first(&mut self) -> Option<OperationEntry<T>> {
        let (_, slot) = self.expiring.first(&self.entries)?;
        self.take(slot)
    }
}
