//! A store in the memory of the process.

mod entry;
mod eviction;
mod expiry_queue;
mod keyring;
mod keys;
mod leasing;
mod ledger;
mod limits;
mod listing;
mod purging;
mod reading;
mod repository;
mod reserving;
mod shard;
mod share;
mod tick;
mod writing;

use std::{
    fmt,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use self::{
    expiry_queue::{EarliestExpiry, ExpiryQueue},
    keys::{StoredKeyring, StoredKeys},
    limits::Limits,
    shard::{HashedId, OperationEntry, Shard, Tick},
};
use super::{
    Record,
    cursor::{self, CursorKey},
    mailbox::Mailboxes,
    sync,
    wait::WaitCell,
};
use crate::{
    environment,
    operation::{OperationId, RecordedResponse},
};

/// A store in the memory of the process: bounded and fast. Its operations are lost with the
/// process.
///
/// Clones are handles to the same operations. Use this store where an operation may be lost with
/// the process that runs it.
///
/// # Bounds
/// The store keeps at most [`max_operations`](Self::max_operations) and about
/// [`max_bytes`](Self::max_bytes). A terminal operation expires [`ttl`](Self::ttl) after it
/// ended. When there is no room for a new operation, the store evicts another one: first
/// one that has expired, then the one that expires soonest of the owner with the most
/// bytes. Without owners, it evicts the one that expires soonest of all. An operation is
/// never evicted before it is terminal, nor less than
/// [`min_retention`](Self::min_retention) after it ended. The owner with the most bytes
/// cannot evict operations of others. When nothing may be evicted, `create` fails with
/// [`StoreError::Full`](super::StoreError::Full) and the client gets a 503. An outcome is
/// always stored, even above `max_bytes`: the excess is at most the largest result times
/// the operations in flight.
///
/// Where operations have owners, each owner has at most its share of the whole, so that no
/// owner shuts the others out. The share is a quarter, unless set with
/// [`max_operations_per_owner`](Self::max_operations_per_owner) and
/// [`max_bytes_per_owner`](Self::max_bytes_per_owner). Operations without an owner count as
/// those of one owner. A new operation of an owner that has used its share evicts one of
/// that owner's own. When none of these may be evicted, `create` fails with
/// [`StoreError::FullForOwner`](super::StoreError::FullForOwner).
///
/// The setters belong to the handle: set them before cloning it.
///
/// Keys take room as operations do: a reservation, an early answer and the key of a deleted
/// operation until they expire.
///
/// # Cost
/// Reads, writes and waits are O(1) in the number of operations, and linear in the number of
/// different times to live, which is usually one. A `create` that has to make room
/// visits each of 256 shards, or some owners. A list visits as many of its owner's
/// operations as it returns or skips for their state, and without an owner also each of 256
/// shards. The first list of operations without an owner visits every operation once, in batches,
/// and creates an index, which takes about 24 bytes for each of them. Operations to reclaim are
/// found by their lease.
///
/// # Clocks
/// Times that clients see come from the system's clock. Time spans (`ttl`, leases, waits)
/// come from the monotonic clock that tokio can pause.
pub struct MemoryStore<T = RecordedResponse> {
    shared: Arc<MemoryShared<T>>,
    limits: Limits<T>,
}

struct MemoryShared<T> {
    shards: Box<[Mutex<Shard<T>>]>,
    soonest: EarliestExpiry,
    hasher: sync::RandomState,
    started: Instant,
    room: limits::Usage,
    /// The number of operations ever created.
    created: AtomicU64,
    cursors: CursorKey,
    keys: StoredKeys<T>,
    mailboxes: Mailboxes,
    released: Arc<WaitCell>,
}

const SHARDS: usize = 256;

/// The number of parts that the keys are divided into.
const RINGS: usize = 64;

impl MemoryStore {
    /// Creates a store for recorded responses: at most 1,000,000 operations and 256 MiB. Each
    /// operation is kept for 24 hours after it ended.
    #[must_use]
    #[allow(clippy::new_without_default)] // `Default` would not know the result type
    pub fn new() -> Self {
        Self::with_weigher(RecordedResponse::heap_bytes)
    }
}

impl<T> MemoryStore<T> {
    /// Creates a store for results of your own type. `heap_bytes` returns the bytes that a
    /// result takes beyond its `size_of`. The bounds are those of [`MemoryStore::new`].
    ///
    /// ```
    /// use tower_operations::MemoryStore;
    ///
    /// let store = MemoryStore::<String>::with_weigher(String::capacity);
    /// ```
    #[must_use]
    pub fn with_weigher(heap_bytes: fn(&T) -> usize) -> Self {
        let soonest = EarliestExpiry::new();
        let hasher = sync::random_hasher();
        let shard = |index| {
            let expiring = ExpiryQueue::new(index, soonest.clone());
            Mutex::new(Shard::new(expiring))
        };
        Self {
            shared: Arc::new(MemoryShared {
                shards: (0..SHARDS).map(shard).collect(),
                soonest,
                hasher,
                started: Instant::now(),
                room: limits::Usage::default(),
                created: AtomicU64::new(0),
                cursors: CursorKey::new(&cursor::new_secret()),
                keys: StoredKeys::new(RINGS),
                mailboxes: Mailboxes::default(),
                released: Arc::default(),
            }),
            limits: Limits::new(heap_bytes),
        }
    }

    /// Sets how long an operation is kept after it ended; 24 hours by default.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.limits.ttl = ttl;
        self
    }

    /// Sets the maximum number of operations kept at a time; 1,000,000 by default.
    #[must_use]
    pub fn max_operations(mut self, operations: usize) -> Self {
        self.limits.max_operations = operations;
        self
    }

    /// Sets the approximate maximum of bytes kept at a time, including the store's own; 256
    /// MiB by default.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_bytes = bytes;
        self
    }

    /// Sets the maximum number of operations of one owner kept at a time; a quarter of
    /// [`max_operations`](Self::max_operations) by default.
    #[must_use]
    pub fn max_operations_per_owner(mut self, operations: usize) -> Self {
        self.limits.max_operations_per_owner = Some(operations);
        self
    }

    /// Sets the approximate maximum of bytes of one owner kept at a time; a quarter of
    /// [`max_bytes`](Self::max_bytes) by default.
    #[must_use]
    pub fn max_bytes_per_owner(mut self, bytes: usize) -> Self {
        self.limits.max_bytes_per_owner = Some(bytes);
        self
    }

    /// Sets how long a terminal operation is safe from eviction for a new one; 60 seconds
    /// by default.
    #[must_use]
    pub fn min_retention(mut self, retention: Duration) -> Self {
        self.limits.min_retention = retention;
        self
    }

    /// Returns the number of operations kept, including expired ones that are not yet
    /// deleted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.room.operations()
    }

    /// Returns whether no operation is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the approximate number of bytes that the operations take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shared.room.bytes()
    }

    /// Returns the number of pending waits for a change.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.shared.room.waiters()
    }

    fn hashed<'a>(&self, id: &'a OperationId) -> HashedId<'a> {
        HashedId::new(id, self.shared.hasher.hash_one(id))
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard<T>> {
        // Nothing in a critical section panics halfway through a change.
        self.shared.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_key(&self, name: &str) -> MutexGuard<'_, StoredKeyring<T>> {
        debug_assert!(!name.is_empty(), "an empty key is none");
        self.shared.keys.lock(self.shared.hasher.hash_one(name))
    }

    /// Returns what `read` returns of the operation, if the operation exists and was created by
    /// the key of this name.
    fn made_by<U>(
        &self,
        name: &str,
        id: &OperationId,
        read: impl FnOnce(&Record<T>) -> U,
    ) -> Option<U> {
        let now = self.now().tick;
        let id = self.hashed(id);
        let shard = self.lock(id.shard());
        let entry = shard.get(id, now)?;
        (entry.key().map(|key| &**key) == Some(name)).then(|| read(&entry.record))
    }

    /// Ends the waits and the keys of operations that were removed.
    fn end_waits(&self, entries: &[OperationEntry<T>]) {
        for entry in entries {
            entry.wake();
            let Some(name) = entry.key() else { continue };
            let id = entry.record.operation().id();
            let mut keyring = self.lock_key(name);
            // The same key may have created the same operation again.
            if keyring.get(name).is_some_and(|key| key.is_of(id))
                && self.made_by(name, id, |_| ()).is_none()
            {
                keyring.remove(name, &self.shared.room);
            }
        }
    }

    /// Removes entries from the accounts of their owners. Call this under the lock under
    /// which the entries are removed.
    fn close_accounts(&self, entries: &[OperationEntry<T>]) {
        for entry in entries {
            if let Some(owner) = entry.record.owner() {
                let (number, bytes) = (entry.number, entry.weight.bytes());
                let ledger = &self.shared.room.ledger;
                ledger.close(owner, number, bytes, entry.expires());
            }
        }
    }

    /// Frees the room of operations that were removed, and ends their waits and keys.
    fn freed(&self, entries: &[OperationEntry<T>]) {
        for entry in entries {
            self.shared.room.free(entry.weight.bytes());
        }
        self.end_waits(entries);
    }

    fn now(&self) -> CurrentTime {
        CurrentTime {
            tick: Tick::after(self.shared.started.elapsed()),
            wall: environment::wall_clock(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct CurrentTime {
    tick: Tick,
    wall: SystemTime,
}

impl<T> Clone for MemoryStore<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            limits: self.limits,
        }
    }
}

impl<T> fmt::Debug for MemoryStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("operations", &self.len())
            .field("bytes", &self.bytes())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
