//! An operation in memory, with the data that its shard needs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{SHARDS, expiry_queue::ExpiringEntry, limits::Weight, tick::Tick};
use crate::{
    deadline_lists::{ListEntry, ListLinks},
    operation::OperationId,
    store::{
        Record,
        record::ChangeOutcome,
        wait::{WaitCell, Waiter},
    },
};

pub(super) struct OperationEntry<T> {
    /// The number of the operation, in the order of creation.
    pub(super) number: u64,
    pub(super) record: Arc<Record<T>>,
    pub(super) weight: Weight,
    /// The hash of the id, stored so that growth and removal need not read the id.
    hash: ShardHash,
    /// The end of the lease of a live operation; the time at which a terminal operation ended.
    moment: Tick,
    /// The time at which the operation expires; `NEVER` before it has ended.
    expires: Tick,
    /// The links in the list of leased or of expiring operations.
    links: ListLinks,
    /// The waiters, created only when a reader waits.
    waiters: Option<Arc<WaitCell>>,
    /// The key and the request, created only for operations that have one of them.
    origin: Option<Box<EntryOrigin>>,
}

/// The part of an id's hash that its shard uses.
#[derive(Debug, Clone, Copy)]
struct ShardHash(u32);

impl ShardHash {
    /// Spreads the hash for a table, which uses the low bits and the top seven.
    fn spread(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }
}

/// The id to look up, hashed once.
#[derive(Clone, Copy)]
pub(super) struct HashedId<'a> {
    id: &'a OperationId,
    hash: u64,
}

impl<'a> HashedId<'a> {
    pub(super) fn new(id: &'a OperationId, hash: u64) -> Self {
        Self { id, hash }
    }

    /// Returns the index of the shard, from hash bits that the shard itself does not use.
    pub(super) fn shard(self) -> usize {
        (self.hash >> 32) as usize % SHARDS
    }

    pub(super) fn id(self) -> &'a OperationId {
        self.id
    }

    /// Returns the hash for the table of the shard.
    pub(super) fn in_shard(self) -> u64 {
        self.kept().spread()
    }

    fn kept(self) -> ShardHash {
        ShardHash(self.hash as u32)
    }
}

/// The stored origin of an operation.
struct EntryOrigin {
    /// The name of the key.
    key: Option<Arc<str>>,
    /// The data to rerun the operation, while it is live.
    request: Option<Bytes>,
}

impl<T> ExpiringEntry for OperationEntry<T> {
    fn is_owned(&self) -> bool {
        self.record.owner().is_some()
    }
}

impl<T> ListEntry for OperationEntry<T> {
    type Moment = Tick;

    fn at(&self) -> Tick {
        match self.is_live() {
            true => self.moment,
            false => self.expires,
        }
    }

    fn links(&self) -> ListLinks {
        self.links
    }

    fn links_mut(&mut self) -> &mut ListLinks {
        &mut self.links
    }
}

impl<T> OperationEntry<T> {
    /// Returns the entry of a new operation, leased until `lease_ends`.
    pub(super) fn new(
        number: u64,
        record: Arc<Record<T>>,
        weight: Weight,
        hashed: HashedId<'_>,
        lease_ends: Tick,
        key: Option<Arc<str>>,
        request: Option<Bytes>,
    ) -> Self {
        let has_origin = key.is_some() || request.is_some();
        Self {
            number,
            record,
            weight,
            hash: hashed.kept(),
            moment: lease_ends,
            expires: Tick::NEVER,
            links: ListLinks::NONE,
            waiters: None,
            origin: has_origin.then(|| Box::new(EntryOrigin { key, request })),
        }
    }

    /// Returns the time at which the operation expires; `NEVER` before it has ended.
    pub(super) fn expires(&self) -> Tick {
        self.expires
    }

    pub(super) fn is_expired(&self, now: Tick) -> bool {
        self.expires() <= now
    }

    /// Returns the hash of the id, for the table of the shard.
    pub(super) fn hash(&self) -> u64 {
        self.hash.spread()
    }

    pub(super) fn is_live(&self) -> bool {
        self.expires() == Tick::NEVER
    }

    /// Returns whether the lease may be reclaimed.
    pub(super) fn is_abandoned(&self, now: Tick) -> bool {
        self.is_live() && self.moment <= now
    }

    /// Returns whether the holder released the lease.
    pub(super) fn is_released(&self) -> bool {
        self.is_live() && self.moment == Tick::RELEASED
    }

    /// Returns whether the operation has expired, or ended long enough ago to be evicted for a
    /// new one.
    pub(super) fn may_go(&self, now: Tick, retention: Duration) -> bool {
        self.is_expired(now) || !self.is_live() && self.moment.plus(retention) <= now
    }

    /// Returns the name of the key that created the operation.
    pub(super) fn key(&self) -> Option<&Arc<str>> {
        self.origin.as_ref()?.key.as_ref()
    }

    /// Removes the key, which now belongs to another operation.
    pub(super) fn lose_key(&mut self) {
        if let Some(origin) = &mut self.origin {
            origin.key = None;
        }
    }

    /// Returns the data to rerun the operation, while it is live.
    pub(super) fn request(&self) -> Option<&Bytes> {
        self.origin.as_ref()?.request.as_ref()
    }

    /// Changes the record: in place if there is no reader, otherwise in a copy, so that
    /// readers keep the record as it was.
    pub(super) fn change(
        &mut self,
        change: impl FnOnce(&mut Record<T>) -> ChangeOutcome,
    ) -> ChangeOutcome {
        if let Some(record) = Arc::get_mut(&mut self.record) {
            return change(record);
        }
        let mut next = self.record.without_result();
        let change = change(&mut next);
        if change == ChangeOutcome::Made {
            self.record = Arc::new(next);
        }
        change
    }

    /// Sets when the lease of a live operation ends.
    pub(super) fn hold_until(&mut self, lease_ends: Tick) {
        self.moment = lease_ends;
    }

    /// Ends the operation and keeps it for `ttl`. Returns the waiters to wake.
    pub(super) fn end(&mut self, now: Tick, ttl: Duration) -> Option<Arc<WaitCell>> {
        (self.moment, self.expires) = (now, now.plus(ttl));
        if let Some(origin) = &mut self.origin {
            origin.request = None;
        }
        self.changed()
    }

    /// Returns the waiters to wake after a change.
    pub(super) fn changed(&mut self) -> Option<Arc<WaitCell>> {
        self.waiters.take()
    }

    /// Wakes the waiters of a removed operation.
    pub(super) fn wake(&self) {
        if let Some(cell) = &self.waiters {
            cell.notify();
        }
    }

    /// Returns a waiter for the next change.
    pub(super) fn waiter(&mut self) -> Waiter {
        Waiter::new(self.waiters.get_or_insert_default())
    }
}
