//! An operation in memory, with what its shard has to know of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    SHARDS,
    deadline_lists::{ListEntry, ListLinks},
    limits::Weight,
    tick::Tick,
};
use crate::{
    operation::OperationId,
    store::{
        Record,
        record::ChangeOutcome,
        wait::{WaitCell, Waiter},
    },
};

pub(super) struct OperationEntry<T> {
    /// Which of all operations it is, in the order of creation.
    pub(super) number: u64,
    pub(super) record: Arc<Record<T>>,
    pub(super) weight: Weight,
    /// The hash of its id: nothing else is read when the table grows, or when it goes.
    hash: ShardHash,
    /// Of a live operation when its lease ends, of a terminal one when it ended.
    moment: Tick,
    /// When it expires; never, before it has ended.
    expires: Tick,
    /// Its place among those that are leased, or among those that expire.
    links: ListLinks,
    /// Made only when somebody waits.
    waiters: Option<Arc<WaitCell>>,
    /// Made only for what has some.
    origin: Option<Box<EntryOrigin>>,
}

/// The part of an id's hash that its shard goes by.
#[derive(Debug, Clone, Copy)]
struct ShardHash(u32);

impl ShardHash {
    /// For a table, which goes by the low bits and the top seven.
    fn spread(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }
}

/// An id that is looked for, hashed once.
#[derive(Clone, Copy)]
pub(super) struct HashedId<'a> {
    id: &'a OperationId,
    hash: u64,
}

impl<'a> HashedId<'a> {
    pub(super) fn new(id: &'a OperationId, hash: u64) -> Self {
        Self { id, hash }
    }

    /// The shard that it is in, by bits that the shard itself does not use.
    pub(super) fn shard(self) -> usize {
        (self.hash >> 32) as usize % SHARDS
    }

    pub(super) fn id(self) -> &'a OperationId {
        self.id
    }

    /// The hash for the table of its shard.
    pub(super) fn in_shard(self) -> u64 {
        self.kept().spread()
    }

    fn kept(self) -> ShardHash {
        ShardHash(self.hash as u32)
    }
}

/// What made an operation, as far as that is kept.
struct EntryOrigin {
    /// The name of the key.
    key: Option<Arc<str>>,
    /// For running it again, while it is live.
    request: Option<Bytes>,
}

impl<T> ListEntry for OperationEntry<T> {
    fn at(&self) -> Tick {
        match self.is_live() {
            true => self.moment,
            false => self.expires,
        }
    }

    fn is_owned(&self) -> bool {
        self.record.owner().is_some()
    }

    fn links(&self) -> ListLinks {
        self.links
    }

    fn links_mut(&mut self) -> &mut ListLinks {
        &mut self.links
    }
}

impl<T> OperationEntry<T> {
    /// A new operation, held until `lease_ends`.
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

    /// When it expires; never, before it has ended.
    pub(super) fn expires(&self) -> Tick {
        self.expires
    }

    pub(super) fn is_expired(&self, now: Tick) -> bool {
        self.expires() <= now
    }

    /// The hash of its id, for the table of its shard.
    pub(super) fn hash(&self) -> u64 {
        self.hash.spread()
    }

    pub(super) fn is_live(&self) -> bool {
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

    /// It is live, and leased until then.
    pub(super) fn hold_until(&mut self, lease_ends: Tick) {
        self.moment = lease_ends;
    }

    /// It has ended now, and is kept for `ttl`; returns whom to wake.
    pub(super) fn end(&mut self, now: Tick, ttl: Duration) -> Option<Arc<WaitCell>> {
        (self.moment, self.expires) = (now, now.plus(ttl));
        if let Some(origin) = &mut self.origin {
            origin.request = None;
        }
        self.changed()
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
