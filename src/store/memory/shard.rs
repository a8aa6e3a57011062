//! One lock's worth of operations.

use std::{hash::BuildHasher, sync::Arc, time::Duration};

use bytes::Bytes;
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::{expiring::Expiring, limits::Limits};
use crate::{
    operation::OperationId,
    store::{
        Record,
        record::Change,
        wait::{WaitCell, Waiter},
    },
};

/// Nanoseconds on the monotonic clock since the store was made: 584 years of
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u64);

impl Tick {
    pub(super) const NEVER: Self = Self(u64::MAX);

    pub(super) fn after(elapsed: Duration) -> Self {
        Self(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn at(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }

    /// However long the span is, it is over before `NEVER`.
    pub(super) fn plus(self, span: Duration) -> Self {
        let at = self.0.saturating_add(Self::after(span).0);
        Self(at.min(Self::NEVER.0 - 1))
    }
}

pub(super) struct Shard<T> {
    entries: Slab<Entry<T>>,
    /// The slot of each operation, by the hash of its id. It is half empty at times: it
    /// has the least that it can.
    slots: HashTable<Slot>,
    hasher: RandomState,
    expiring: Expiring,
}

/// Where an operation is among the entries of its shard.
pub(super) type Slot = u32;

pub(super) struct Entry<T> {
    /// Which of all operations it is, in the order of creation.
    pub(super) number: u64,
    pub(super) record: Arc<Record<T>>,
    /// When the lease ends, or, of a terminal operation, when it expires.
    pub(super) deadline: Tick,
    /// When it ended.
    finished: Tick,
    /// Made only when somebody waits.
    waiters: Option<Arc<WaitCell>>,
    /// Made only for what has some.
    origin: Option<Box<Origin>>,
}

/// What made an operation, as far as that is kept.
struct Origin {
    /// The name of the key.
    key: Option<Arc<str>>,
    /// For running it again, while it is live.
    request: Option<Bytes>,
}

impl<T> Entry<T> {
    fn id(&self) -> &OperationId {
        self.record.operation().id()
    }

    fn is_expired(&self, now: Tick) -> bool {
        self.record.operation().state().is_terminal() && self.deadline <= now
    }

    /// Whether its lease may be taken over.
    pub(super) fn is_abandoned(&self, now: Tick) -> bool {
        !self.record.operation().state().is_terminal() && self.deadline <= now
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
    pub(super) entry: &'a mut Entry<T>,
    expiring: &'a mut Expiring,
}

impl<T> Place<'_, T> {
    /// It has ended, and expires then; returns whom to wake.
    pub(super) fn end(self, expires: Tick, now: Tick) -> Option<Arc<WaitCell>> {
        let Self {
            slot,
            entry,
            expiring,
        } = self;
        entry.deadline = expires;
        entry.finished = now;
        if let Some(origin) = &mut entry.origin {
            origin.request = None;
        }
        expiring.insert(expires, slot);
        entry.changed()
    }
}

impl<T> Shard<T> {
    pub(super) fn new(hasher: RandomState, expiring: Expiring) -> Self {
        Self {
            entries: Slab::new(),
            slots: HashTable::new(),
            hasher,
            expiring,
        }
    }

    pub(super) fn get(&self, id: &OperationId, now: Tick) -> Option<&Entry<T>> {
        let entry = self.entries.get(self.slot(id)? as usize);
        entry.filter(|entry| !entry.is_expired(now))
    }

    pub(super) fn get_mut(&mut self, id: &OperationId, now: Tick) -> Option<&mut Entry<T>> {
        self.place(id, now).map(|place| place.entry)
    }

    fn slot(&self, id: &OperationId) -> Option<Slot> {
        let is_there = |slot: &Slot| self.entries[*slot as usize].id() == id;
        (self.slots.find(self.hasher.hash_one(id), is_there)).copied()
    }

    pub(super) fn entries(&self, now: Tick) -> impl Iterator<Item = &Entry<T>> {
        let entries = self.entries.iter().map(|(_, entry)| entry);
        entries.filter(move |entry| !entry.is_expired(now))
    }

    /// Puts a new operation in, in the place of one that has expired, if there
    /// is one: that is returned.
    pub(super) fn insert(
        &mut self,
        number: u64,
        record: Arc<Record<T>>,
        deadline: Tick,
        key: Option<Arc<str>>,
        request: Option<Bytes>,
    ) -> Option<Entry<T>> {
        let id = record.operation().id();
        let (replaced, hash) = (self.remove(id), self.hasher.hash_one(id));
        let has_origin = key.is_some() || request.is_some();
        let slot = self.entries.insert(Entry {
            number,
            record,
            deadline,
            finished: Tick::NEVER,
            waiters: None,
            origin: has_origin.then(|| Box::new(Origin { key, request })),
        });
        let hash_of = |slot: &Slot| self.hasher.hash_one(self.entries[*slot as usize].id());
        self.slots.insert_unique(hash, slot as Slot, hash_of);
        replaced
    }

    /// The operation in its place, to be changed.
    pub(super) fn place(&mut self, id: &OperationId, now: Tick) -> Option<Place<'_, T>> {
        let slot = self.slot(id)?;
        let entry = self.entries.get_mut(slot as usize);
        Some(Place {
            slot,
            entry: entry.filter(|entry| !entry.is_expired(now))?,
            expiring: &mut self.expiring,
        })
    }

    pub(super) fn remove(&mut self, id: &OperationId) -> Option<Entry<T>> {
        let slot = self.slot(id)?;
        let entry = self.take(slot)?;
        self.expiring.remove(entry.deadline, slot);
        Some(entry)
    }

    /// Empties a slot, all but its place among what expires.
    fn take(&mut self, slot: Slot) -> Option<Entry<T>> {
        let entry = self.entries.try_remove(slot as usize)?;
        let hash = self.hasher.hash_one(entry.id());
        if let Ok(found) = self.slots.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        Some(entry)
    }

    /// Takes out at most `limit` of what has expired.
    pub(super) fn purge(&mut self, now: Tick, limit: usize) -> Vec<Entry<T>> {
        let mut purged = Vec::new();
        while purged.len() < limit
            && self
                .expiring
                .first()
                .is_some_and(|(deadline, _)| deadline <= now)
        {
            purged.extend(self.pop_first());
        }
        purged
    }

    /// When the first one expires, and whether it may go for a new operation.
    pub(super) fn expiring_next(&self, now: Tick, limits: &Limits<T>) -> Option<(Tick, bool)> {
        let (expires, slot) = self.expiring.first()?;
        let has_been_kept = |entry: &Entry<T>| entry.finished.plus(limits.min_retention) <= now;
        let entry = self.entries.get(slot as usize);
        Some((expires, expires <= now || entry.is_none_or(has_been_kept)))
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
        {
            let Some(entry) = self.pop_first() else {
                continue;
            };
            let freed = limits.weigh(&entry.record);
            evicted.push(entry);
            if !more(freed) {
                break;
            }
        }
        evicted
    }

    fn pop_first(&mut self) -> Option<Entry<T>> {
        let slot = self.expiring.pop_first()?;
        self.take(slot)
    }
}
