//! One lock's worth of operations.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hashbrown::HashTable;
use slab::Slab;

pub(super) use super::tick::Tick;
use super::{
    SHARDS,
    expiring::Expiring,
    limits::{Limits, Weight},
    lines::{Lines, Linked, Links},
};
use crate::{
    operation::OperationId,
    store::{
        Record,
        record::Change,
        wait::{WaitCell, Waiter},
    },
};

pub(super) struct Shard<T> {
    entries: Slab<Entry<T>>,
    /// The slot of each operation, by the hash of its id. It is half empty at times: it
    /// has the least that it can.
    slots: HashTable<Slot>,
    expiring: Expiring,
    /// The live operations that are leased, by the moment the lease ends.
    leased: Lines,
}

/// Where an operation is among the entries of its shard.
pub(super) type Slot = u32;

pub(super) struct Entry<T> {
    /// Which of all operations it is, in the order of creation.
    pub(super) number: u64,
    pub(super) record: Arc<Record<T>>,
    pub(super) weight: Weight,
    /// Of its id: nothing else is looked at when the table grows, or when it goes.
    hash: Hash,
    /// Of a live operation when its lease ends, of a terminal one when it ended.
    moment: Tick,
    /// When it expires; never, before it has ended.
    expires: Tick,
    /// Its place among those that are leased, or among those that expire.
    links: Links,
    /// Made only when somebody waits.
    waiters: Option<Arc<WaitCell>>,
    /// Made only for what has some.
    origin: Option<Box<Origin>>,
}

/// The part of an id's hash that its shard goes by.
#[derive(Debug, Clone, Copy)]
struct Hash(u32);

impl Hash {
    /// For a table, which goes by the low bits and the top seven.
    fn spread(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }
}

/// An id that is looked for, hashed once.
#[derive(Clone, Copy)]
pub(super) struct Hashed<'a> {
    id: &'a OperationId,
    hash: u64,
}

impl<'a> Hashed<'a> {
    pub(super) fn new(id: &'a OperationId, hash: u64) -> Self {
        Self { id, hash }
    }

    /// The shard that it is in, by bits that the shard itself does not use.
    pub(super) fn shard(self) -> usize {
        (self.hash >> 32) as usize % SHARDS
    }

    fn in_shard(self) -> Hash {
        Hash(self.hash as u32)
    }
}

/// What made an operation, as far as that is kept.
struct Origin {
    /// The name of the key.
    key: Option<Arc<str>>,
    /// For running it again, while it is live.
    request: Option<Bytes>,
}

impl<T> Linked for Entry<T> {
    fn at(&self) -> Tick {
        match self.is_live() {
            true => self.moment,
            false => self.expires,
        }
    }

    fn is_owned(&self) -> bool {
        self.record.owner().is_some()
    }

    fn links(&self) -> Links {
        self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl<T> Entry<T> {
    /// A new operation, held until `lease_ends`.
    pub(super) fn new(
        number: u64,
        record: Arc<Record<T>>,
        weight: Weight,
        hashed: Hashed<'_>,
        lease_ends: Tick,
        key: Option<Arc<str>>,
        request: Option<Bytes>,
    ) -> Self {
        let has_origin = key.is_some() || request.is_some();
        Self {
            number,
            record,
            weight,
            hash: hashed.in_shard(),
            moment: lease_ends,
            expires: Tick::NEVER,
            links: Links::NONE,
            waiters: None,
            origin: has_origin.then(|| Box::new(Origin { key, request })),
        }
    }

    /// When it expires; never, before it has ended.
    pub(super) fn expires(&self) -> Tick {
        self.expires
    }

    pub(super) fn is_expired(&self, now: Tick) -> bool {
        self.expires() <= now
    }

    fn is_live(&self) -> bool {
        self.expires() == Tick::NEVER
    }

    /// Whether its lease may be taken over.
    pub(super) fn is_abandoned(&self, now: Tick) -> bool {
        self.is_live() && self.moment <= now
    }

    /// Whether its holder gave it up.
    pub(super) fn is_released(&self) -> bool {
        self.is_live() && self.moment == Tick::RELEASED
    }

    /// Whether it is kept no more, or was kept for long enough to go for a new one.
    pub(super) fn may_go(&self, now: Tick, retention: Duration) -> bool {
        self.is_expired(now) || !self.is_live() && self.moment.plus(retention) <= now
    }

    /// The name of the key that made it.
    pub(super) fn key(&self) -> Option<&Arc<str>> {
        self.origin.as_ref()?.key.as_ref()
    }

    /// Its key is another's now.
    pub(super) fn lose_key(&mut self) {
        if let Some(origin) = &mut self.origin {
            origin.key = None;
        }
    }

    /// For running it again, while it is live.
    pub(super) fn request(&self) -> Option<&Bytes> {
        self.origin.as_ref()?.request.as_ref()
    }

    /// Changes the record: in place if nobody is reading it, else whoever does keeps it
    /// as it was.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Record<T>) -> Change) -> Change {
        if let Some(record) = Arc::get_mut(&mut self.record) {
            return change(record);
        }
        let mut next = self.record.without_result();
        let change = change(&mut next);
        if change == Change::Made {
            self.record = Arc::new(next);
        }
        change
    }

    /// It has changed; returns whom to wake.
    pub(super) fn changed(&mut self) -> Option<Arc<WaitCell>> {
        self.waiters.take()
    }

    /// Wakes whoever waits for a change: it is gone.
    pub(super) fn wake(&self) {
        if let Some(cell) = &self.waiters {
            cell.notify();
        }
    }

    /// A waiter for the next change.
    pub(super) fn waiter(&mut self) -> Waiter {
        Waiter::new(self.waiters.get_or_insert_default())
    }
}

/// An operation among the others of its shard.
pub(super) struct Place<'a, T> {
    slot: Slot,
    shard: &'a mut Shard<T>,
}

impl<T> Place<'_, T> {
    pub(super) fn entry(&mut self) -> &mut Entry<T> {
        &mut self.shard.entries[self.slot as usize]
    }

    /// It is live, and leased for `term` from now on, or released without one.
    pub(super) fn hold(&mut self, now: Tick, term: Option<Duration>) {
        let Shard {
            entries, leased, ..
        } = &mut *self.shard;
        leased.remove(entries, self.slot);
        entries[self.slot as usize].moment = term.map_or(Tick::RELEASED, |term| now.plus(term));
        leased.insert(entries, self.slot, term.unwrap_or_default());
    }

    /// It has ended now, and is kept for `ttl`; returns whom to wake.
    pub(super) fn end(&mut self, now: Tick, ttl: Duration) -> Option<Arc<WaitCell>> {
        let Shard {
            entries, leased, ..
        } = &mut *self.shard;
        leased.remove(entries, self.slot);
        let entry = self.entry();
        (entry.moment, entry.expires) = (now, now.plus(ttl));
        if let Some(origin) = &mut entry.origin {
            origin.request = None;
        }
        let woken = entry.changed();
        let Shard {
            entries, expiring, ..
        } = &mut *self.shard;
        expiring.insert(entries, self.slot, ttl);
        woken
    }
}

impl<T> Shard<T> {
    pub(super) fn new(expiring: Expiring) -> Self {
        Self {
            entries: Slab::new(),
            slots: HashTable::new(),
            expiring,
            leased: Lines::new(),
        }
    }

    pub(super) fn get(&self, id: Hashed<'_>, now: Tick) -> Option<&Entry<T>> {
        let entry = self.entries.get(self.slot(id)? as usize);
        entry.filter(|entry| !entry.is_expired(now))
    }

    pub(super) fn get_mut(&mut self, id: Hashed<'_>, now: Tick) -> Option<&mut Entry<T>> {
        let entry = self.entries.get_mut(self.slot(id)? as usize);
        entry.filter(|entry| !entry.is_expired(now))
    }

    fn slot(&self, id: Hashed<'_>) -> Option<Slot> {
        let is_there = |slot: &Slot| self.entries[*slot as usize].record.operation().id() == id.id;
        (self.slots.find(id.in_shard().spread(), is_there)).copied()
    }

    pub(super) fn entries(&self, now: Tick) -> impl Iterator<Item = &Entry<T>> {
        let entries = self.entries.iter().map(|(_, entry)| entry);
        entries.filter(move |entry| !entry.is_expired(now))
    }

    /// At most `limit` operations whose lease is over by a moment.
    pub(super) fn abandoned(&self, by: Tick, limit: usize) -> Vec<OperationId> {
        let slots = self.leased.until(&self.entries, by).take(limit);
        let id = |slot: Slot| self.entries[slot as usize].record.operation().id().clone();
        slots.map(id).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts a new operation in, that is leased for `term`, in the place of one that has
    /// expired, if there is one: that is returned.
    pub(super) fn insert(
        &mut self,
        id: Hashed<'_>,
        entry: Entry<T>,
        term: Option<Duration>,
    ) -> (Slot, Option<Entry<T>>) {
        let replaced = self.remove(id);
        let hash = entry.hash.spread();
        let slot = self.entries.insert(entry);
        let hash_of = |slot: &Slot| self.entries[*slot as usize].hash.spread();
        self.slots.insert_unique(hash, slot as Slot, hash_of);
        if let Some(term) = term {
            self.leased.insert(&mut self.entries, slot as Slot, term);
        }
        (slot as Slot, replaced)
    }

    /// The operation in its place, to be changed.
    pub(super) fn place(&mut self, id: Hashed<'_>, now: Tick) -> Option<Place<'_, T>> {
        let slot = self.slot(id)?;
        let is_there = !self.entries.get(slot as usize)?.is_expired(now);
        is_there.then_some(Place { slot, shard: self })
    }

    pub(super) fn remove(&mut self, id: Hashed<'_>) -> Option<Entry<T>> {
        self.take(self.slot(id)?)
    }

    /// The operation in this slot.
    pub(super) fn get_at(&self, slot: Slot) -> Option<&Entry<T>> {
        self.entries.get(slot as usize)
    }

    /// The operation in this slot, if it has this number.
    pub(super) fn numbered(&self, slot: Slot, number: u64) -> Option<&Entry<T>> {
        self.get_at(slot).filter(|entry| entry.number == number)
    }

    /// What expires first of what is nobody's, and when.
    pub(super) fn nobodys_next(&self) -> Option<(Tick, Slot)> {
        self.expiring.nobodys(&self.entries)
    }

    /// Empties a slot.
    pub(super) fn take(&mut self, slot: Slot) -> Option<Entry<T>> {
        let hash = self.entries.get(slot as usize)?.hash.spread();
        if let Ok(found) = self.slots.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        match self.entries[slot as usize].is_live() {
            true => drop(self.leased.remove(&mut self.entries, slot)),
            false => self.expiring.remove(&mut self.entries, slot),
        }
        self.entries.try_remove(slot as usize)
    }

    /// Takes out at most `limit` of what has expired.
    pub(super) fn purge(&mut self, now: Tick, limit: usize) -> Vec<Entry<T>> {
        let mut purged = Vec::new();
        while purged.len() < limit && self.expiring.is_due(now) {
            purged.extend(self.take_first());
        }
        purged
    }

    /// When the first one expires, and whether it may go for a new operation.
    pub(super) fn expiring_next(&self, now: Tick, limits: &Limits<T>) -> Option<(Tick, bool)> {
        let (expires, slot) = self.expiring.first(&self.entries)?;
        let entry = self.entries.get(slot as usize)?;
        Some((expires, entry.may_go(now, limits.min_retention)))
    }

    /// Takes out what may go for a new operation and expires by `until`, the
    /// soonest first, while `more` says so when told the bytes that were freed.
    pub(super) fn evict(
        &mut self,
        now: Tick,
        until: Tick,
        limits: &Limits<T>,
        mut more: impl FnMut(usize) -> bool,
    ) -> Vec<Entry<T>> {
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

    fn take_first(&mut self) -> Option<Entry<T>> {
        let (_, slot) = self.expiring.first(&self.entries)?;
        self.take(slot)
    }
}
