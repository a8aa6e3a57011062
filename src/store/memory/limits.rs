//! The limits of the store, and its current usage.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    ledger::{self, Ledger},
    shard::OperationEntry,
    share::OwnerUsage,
};
use crate::store::Record;

pub(super) struct Limits<T> {
    pub(super) ttl: Duration,
    pub(super) max_operations: usize,
    pub(super) max_bytes: usize,
    /// The limits per owner; a quarter of the whole by default.
    pub(super) max_operations_per_owner: Option<usize>,
    pub(super) max_bytes_per_owner: Option<usize>,
    pub(super) min_retention: Duration,
    heap_bytes: fn(&T) -> usize,
}

/// The approximate size of an operation's place in the table of its shard, at half load.
const OVERHEAD: usize = 2 * 5;

impl<T> Limits<T> {
    pub(super) fn new(heap_bytes: fn(&T) -> usize) -> Self {
        Self {
            ttl: Duration::from_secs(24 * 60 * 60),
            max_operations: 1_000_000,
            max_bytes: 256 * 1024 * 1024,
            max_operations_per_owner: None,
            max_bytes_per_owner: None,
            min_retention: Duration::from_secs(60),
            heap_bytes,
        }
    }

    /// Returns the heap size of a result in bytes.
    pub(super) fn heap_bytes(&self, result: &T) -> usize {
        (self.heap_bytes)(result)
    }

    /// Returns the approximate size of `record`, plus `of_request` bytes kept with it.
    pub(super) fn weigh(&self, record: &Record<T>, of_request: usize) -> Weight {
        let operation = record.operation();
        let bytes = OVERHEAD
            + of_request
            + size_of::<OperationEntry<T>>()
            + 2 * operation.id().heap_bytes()
            + record.owner().map_or(0, |_| ledger::OVERHEAD)
            + operation.metadata().heap_bytes()
            + record.heap_bytes()
            + operation.problem().map_or(0, crate::Problem::heap_bytes)
            + operation.reason().map_or(0, str::len)
            + operation.response().map_or(0, self.heap_bytes);
        Weight::from_bytes(bytes)
    }
}

/// The approximate size of an operation in bytes, stored in a `u32`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight(u32);

impl Weight {
    /// Sizes are rounded up to a multiple of this unit.
    const UNIT: usize = 16;

    pub(super) fn from_bytes(bytes: usize) -> Self {
        Self(u32::try_from(bytes.div_ceil(Self::UNIT)).unwrap_or(u32::MAX))
    }

    pub(super) fn bytes(self) -> usize {
        self.0 as usize * Self::UNIT
    }
}

impl<T> Clone for Limits<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Limits<T> {}

impl<T> fmt::Debug for Limits<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("ttl", &self.ttl)
            .field("max_operations", &self.max_operations)
            .field("max_bytes", &self.max_bytes)
            .field("max_operations_per_owner", &self.max_operations_per_owner)
            .field("max_bytes_per_owner", &self.max_bytes_per_owner)
            .field("min_retention", &self.min_retention)
            .finish_non_exhaustive()
    }
}

/// The current usage of all shards.
#[derive(Debug, Default)]
pub(super) struct Usage {
    operations: AtomicUsize,
    bytes: AtomicUsize,
    keys: AtomicUsize,
    waiters: Arc<AtomicUsize>,
    /// Whether operations have owners. If so, entries without an owner have a share too.
    owners_known: AtomicBool,
    /// The usage of entries with an owner.
    pub(super) ledger: Ledger,
}

impl Usage {
    pub(super) fn operations(&self) -> usize {
        self.operations.load(Relaxed)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Returns whether there are keys.
    pub(super) fn has_keys(&self) -> bool {
        self.keys.load(Relaxed) > 0
    }

    /// Counts one more key.
    pub(super) fn add_key(&self) {
        self.keys.fetch_add(1, Relaxed);
    }

    /// Counts one key less.
    pub(super) fn remove_key(&self) {
        self.keys.fetch_sub(1, Relaxed);
    }

    pub(super) fn waiters(&self) -> usize {
        self.waiters.load(Relaxed)
    }

    /// Gives entries without an owner a share from now on.
    pub(super) fn know_owners(&self) {
        // Read first, so that no core takes the cache line from the others.
        if !self.owners_known.load(Relaxed) {
            self.owners_known.store(true, Relaxed);
        }
    }

    pub(super) fn knows_owners(&self) -> bool {
        self.owners_known.load(Relaxed)
    }

    /// Returns the operations and bytes without an owner.
    pub(super) fn unowned(&self) -> OwnerUsage {
        OwnerUsage {
            operations: self.operations().saturating_sub(self.ledger.operations()),
            bytes: self.bytes().saturating_sub(self.ledger.bytes()),
        }
    }

    /// Returns whether one more operation of `bytes` fits.
    pub(super) fn has<T>(&self, limits: &Limits<T>, bytes: usize) -> bool {
        self.operations() < limits.max_operations
            && self.bytes().saturating_add(bytes) <= limits.max_bytes
    }

    /// Reserves room for one more operation, if available. A request that does not fit is
    /// never counted, so it cannot keep out one that does.
    pub(super) fn take<T>(&self, limits: &Limits<T>, bytes: usize) -> bool {
        if !raise(&self.operations, 1, limits.max_operations) {
            return false;
        }
        let taken = self.take_bytes(limits, bytes);
        if !taken {
            self.operations.fetch_sub(1, Relaxed);
        }
        taken
    }

    /// Reserves room for `bytes` more, if available.
    pub(super) fn take_bytes<T>(&self, limits: &Limits<T>, bytes: usize) -> bool {
        raise(&self.bytes, bytes, limits.max_bytes)
    }

    /// Changes the size of an entry from `before` to `after`, whatever the limits.
    pub(super) fn resize(&self, before: usize, after: usize) {
        // Added before it is subtracted, so that the count never falls below zero.
        self.bytes.fetch_add(after, Relaxed);
        self.bytes.fetch_sub(before, Relaxed);
    }

    /// Frees the room of an operation.
    pub(super) fn free(&self, bytes: usize) {
        self.operations.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Counts a wait until the guard is dropped.
    pub(super) fn wait(&self) -> WaiterGuard {
        self.waiters.fetch_add(1, Relaxed);
        WaiterGuard(Arc::clone(&self.waiters))
    }
}

/// Adds to a count, unless the sum exceeds the limit.
fn raise(count: &AtomicUsize, by: usize, limit: usize) -> bool {
    let raised = |now: usize| now.checked_add(by).filter(|sum| *sum <= limit);
    count.fetch_update(Relaxed, Relaxed, raised).is_ok()
}

pub(super) struct WaiterGuard(Arc<AtomicUsize>);

impl Drop for WaiterGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
