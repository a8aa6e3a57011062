//! An operation in memory, with the data that its shard needs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{SHARDS, expiry_queue::ExpiringEntry, limits::Weight, tick::Tick};
use crate::{
    deadline_lists::{ListEntry, ListLinks},
    operation::OperationId,
    store::{
        Record,
        wait::{WaitCell, Waiter},
    },
};

pub(super) struct OperationEntry<T> {
    /// The number of the operation, in the order of creation.
    pub(super) number: u64,
    pub(super) record: Record<T>,
    pub(super) weight: Weight,
    /// The hash of the id, stored so that growth and removal need not read the id.
    hash: ShardHash,
    /// The end of the lease of a live operation; the time at which a terminal operation ended.
    moment: Tick,
    /// The time at which the operation expires; `NEVER` before it has ended.
    expires: Tick,
    /// The links in the list of leased or of expiring operations.
    links: ListLinks,
    /// The parts that few operations have.
    rare: Option<Box<RareEntry>>,
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

/// The parts that few operations have.
#[derive(Default)]
struct RareEntry {
    /// The name of the key.
    key: Option<Arc<str>>,
    /// The data to rerun the operation, while it is live.
    request: Option<Bytes>,
    /// The waiters, created only when a reader waits.
    waiters: Option<Arc<WaitCell>>,
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
        record: Record<T>,
        weight: Weight,
        hashed: HashedId<'_>,
        lease_ends: Tick,
        key: Option<Arc<str>>,
        request: Option<Bytes>,
    ) -> Self {
        let is_rare = key.is_some() || request.is_some();
        let rare = RareEntry {
            key,
            request,
            waiters: None,
        };
        Self {
            number,
            record,
            weight,
            hash: hashed.kept(),
            moment: lease_ends,
            expires: Tick::NEVER,
            links: ListLinks::NONE,
            rare: is_rare.then(|| Box::new(rare)),
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
        self.rare.as_ref()?.key.as_ref()
    }

    /// Removes the key, which now belongs to another operation.
    pub(super) fn lose_key(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.key = None;
        }
    }

    /// Returns the data to rerun the operation, while it is live.
    pub(super) fn request(&self) -> Option<&Bytes> {
        self.rare.as_ref()?.request.as_ref()
    }

    /// Sets when the lease of a live operation ends.
    pub(super) fn hold_until(&mut self, lease_ends: Tick) {
        self.moment = lease_ends;
    }

    /// Ends the operation and keeps it for `ttl`. Returns the waiters to wake.
    pub(super) fn end(&mut self, now: Tick, ttl: Duration) -> Option<Arc<WaitCell>> {
        (self.moment, self.expires) = (now, now.plus(ttl));
        if let Some(rare) = &mut self.rare {
            rare.request = None;
        }
        self.changed()
    }

    /// Returns the waiters to wake after a change.
    pub(super) fn changed(&mut self) -> Option<Arc<WaitCell>> {
        self.rare.as_mut()?.waiters.take()
    }

    /// Wakes the waiters of a removed operation.
    pub(super) fn wake(&self) {
        let waiters = self.rare.as_ref().and_then(|rare| rare.waiters.as_ref());
        if let Some(cell) = waiters {
            cell.notify();
        }
    }

    /// Returns a waiter for the next change.
    pub(super) fn waiter(&mut self) -> Waiter {
        let rare = self.rare.get_or_insert_default();
        Waiter::new(rare.waiters.get_or_insert_default())
    }
}
