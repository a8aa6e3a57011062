//! The interface of engines.

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{
    Cell, CellQuery, CellReader, Inserted, KeyCell, LapsedCell, ListedCell, NewCell, NextCell,
    Notice, ReclaimFilter, Replaced,
};
use crate::{
    operation::OperationId,
    store::{FencingToken, Health, IdempotencyKey, LeaseHandle, Stamp, StoreError, StoreResult},
};

/// A storage of [cells](Cell), which knows nothing of states and steps.
///
/// # Semantics
/// * Each method is atomic. Of two concurrent calls, one comes first. The cell that a
///   failed change [found](Replaced::Found) may be slightly newer.
/// * [`insert`](Self::insert), [`replace`](Self::replace), [`delete`](Self::delete),
///   [`reserve`](EngineKeys::reserve) and [`complete`](EngineKeys::complete) are durable when they
///   return, and every read that begins afterwards, on any node, sees them.
/// * A [transient](StoreError::is_transient) error leaves open whether the call took effect.
/// * Terms (`Duration`) are measured by the engine's own clock, if it has one, because the
///   clocks of the nodes may differ. Times (`SystemTime`) come from the nodes.
/// * A key is filed under its [scoped name](IdempotencyKey::scoped_name), so the keys of
///   two owners differ.
/// * A cell whose `expires_at` has passed may be deleted at any time.
///   [`EngineStore`](super::EngineStore) does not show such a cell.
pub trait Engine: Send + Sync + 'static {
    /// The interval at which a wait reads the cell again without a notice; one second by
    /// default. Several seconds fit an engine whose notices rarely get lost, `None` an
    /// engine that loses none.
    const POLL_INTERVAL: Option<Duration> = Some(Duration::from_secs(1));

    /// Whether expired cells stay until [`purge`](Self::purge) deletes them; true by
    /// default.
    const KEEPS_EXPIRED: bool = true;

    /// Returns the cell of an operation, expired or not, with its result if the reader
    /// [reads](CellReader::reads) it.
    fn read(
        &self,
        id: &OperationId,
        reader: CellReader<'_>,
    ) -> impl Future<Output = StoreResult<Option<Cell>>> + Send;

    /// Returns what [`read`](Self::read) returns, if it is known without waiting; `None` by
    /// default.
    fn read_now(
        &self,
        id: &OperationId,
        reader: CellReader<'_>,
    ) -> Option<StoreResult<Option<Cell>>> {
        let _ = (id, reader);
        None
    }

    /// Inserts a new cell and binds its key to it. The cell may replace one that had expired by
    /// `new.now`, and the key must be free. Either both happen, or neither. Only an engine with
    /// [`EngineKeys`] gets a key.
    fn insert(&self, new: NewCell<'_>) -> impl Future<Output = StoreResult<Inserted>> + Send;

    /// Replaces the cell that has the stamp `expected` by `next`. A cell that has ended
    /// (`next.expires_at`) loses its lease and its request.
    fn replace(
        &self,
        id: &OperationId,
        expected: Stamp,
        next: NextCell<'_>,
    ) -> impl Future<Output = StoreResult<Replaced>> + Send;

    /// Deletes the cell that has the stamp `expected`. The key of the cell reports the deletion
    /// with `remains` from now on, until `until`.
    fn delete(
        &self,
        id: &OperationId,
        expected: Stamp,
        remains: &[u8],
        until: Option<SystemTime>,
    ) -> impl Future<Output = StoreResult<Replaced>> + Send;

    /// Extends the leases on `held` to `term` from now on, in one round trip. Returns the
    /// handles whose token no live cell has. The extension need not be durable.
    fn renew(
        &self,
        held: &[LeaseHandle],
        term: Duration,
    ) -> impl Future<Output = StoreResult<Vec<LeaseHandle>>> + Send;

    /// Ends the leases on `held` now, and marks them as released. The end need not be durable.
    fn release(&self, held: &[LeaseHandle]) -> impl Future<Output = StoreResult<()>> + Send;

    /// Returns at most `limit` live cells that may be reclaimed, those with the longest
    /// expired lease first. A cell without a lease is not among them.
    fn reclaimable(
        &self,
        filter: ReclaimFilter,
        limit: usize,
    ) -> impl Future<Output = StoreResult<Vec<LapsedCell>>> + Send;

    /// Extends the expired leases on these live cells to `term` from now on, whichever node held
    /// them, because none of them can be reclaimed. The extension need not be durable. The
    /// default returns an error: such cells are then examined again each time.
    fn defer(&self, ids: &[Bytes], term: Duration) -> impl Future<Output = StoreResult<()>> + Send {
        let _ = (ids, term);
        std::future::ready(Err(StoreError::refused("leases cannot be deferred")))
    }

    /// Deletes at most `limit` cells that had expired by `now`, with the keys bound to
    /// them, and expired keys. Returns how many cells it deleted.
    fn purge(
        &self,
        limit: usize,
        now: SystemTime,
    ) -> impl Future<Output = StoreResult<usize>> + Send;

    /// Returns the known problems that make the engine less durable than when it was
    /// opened; none by default.
    fn health(&self) -> impl Future<Output = StoreResult<Health>> + Send {
        std::future::ready(Ok(Health::default()))
    }

    /// Makes sure that notices of other nodes are received on this runtime from now on, even if
    /// the runtime on which the receiving task was started has ended. A wait calls this method
    /// when it begins.
    fn ensure_listening(&self) {}

    /// Sends a notice to the other nodes soon. This node has already handled the notice. A
    /// notice may get lost. The default sends none: a change on another node is then seen after
    /// [`POLL_INTERVAL`](Self::POLL_INTERVAL).
    fn publish(&self, notice: Notice) {
        let _ = notice;
    }
}

/// Stores idempotency keys. An [`EngineStore`](super::EngineStore) on such an engine implements
/// [`IdempotencyKeys`](crate::store::IdempotencyKeys).
///
/// A key is free, reserved, bound to a cell, or has an answer.
pub trait EngineKeys: Engine {
    /// Reserves a key if it is free or reserved by the same token. Otherwise returns the
    /// state of the key.
    fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
        now: SystemTime,
    ) -> impl Future<Output = StoreResult<Option<KeyCell>>> + Send;

    /// Stores an answer under a key that is reserved by `token`, for `ttl` from now on.
    /// Returns true also if the answer is stored already, and false if the key is not
    /// reserved by `token`.
    fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: &[u8],
        ttl: Duration,
    ) -> impl Future<Output = StoreResult<bool>> + Send;

    /// Frees a key that is reserved by `token`. Returns false if the key is not reserved by
    /// `token`.
    fn release_reservation(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
    ) -> impl Future<Output = StoreResult<bool>> + Send;
}

/// Lists cells. An [`EngineStore`](super::EngineStore) on such an engine implements
/// [`List`](crate::store::List).
pub trait EngineList: Engine {
    /// Returns the cells of one owner that expire after `now`, newest first. A result longer than
    /// `max_result` is not read. Once the results that were read reach `max_bytes`, no more cells
    /// are read: further entries have no cell.
    fn list(
        &self,
        query: CellQuery<'_>,
    ) -> impl Future<Output = StoreResult<Vec<ListedCell>>> + Send;

    /// Returns the secret of list cursors: random, the same for all nodes, and stored as
    /// long as the cells are.
    fn cursor_secret(&self) -> impl Future<Output = StoreResult<[u8; 32]>> + Send;
}
