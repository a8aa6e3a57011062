//! The interface of engines, which store the operations.
//!
//! An engine stores *cells*: the bytes of a record, with the few values that it must
//! compare, order and search by. It knows nothing of states and steps, which belong to
//! [`Record`](crate::store::Record). [`EngineStore`](super::EngineStore) combines the two.
//! The laws therefore hold on every engine that keeps these promises:
//!
//! * Each method is atomic. Of two concurrent calls, one comes first. The cell that a
//!   failed change [found](Replaced::Found) may be slightly newer.
//! * [`insert`](Engine::insert), [`replace`](Engine::replace), [`delete`](Engine::delete),
//!   [`reserve`](Engine::reserve) and [`complete`](Engine::complete) are durable when they
//!   return, and every read that begins afterwards, on any node, sees them.
//! * A transient error leaves open whether the call took effect.
//! * Terms (`Duration`) are measured by the engine's own clock, if it has one, because the
//!   clocks of the nodes may differ. Times (`SystemTime`) come from the nodes.
//! * A key is filed under its [scoped name](IdempotencyKey::scoped_name), so the keys of
//!   two owners differ.
//! * A cell whose `expires_at` has passed may be deleted at any time. `EngineStore` does
//!   not show it meanwhile.

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{
    operation::{OperationId, State, StateSet},
    store::{
        FencingToken, Health, IdempotencyKey, LeaseHandle, NodeId, Owner, StoreResult, Version,
    },
};

/// An engine that stores cells.
pub trait Engine: Send + Sync + 'static {
    /// The interval at which a wait reads again without a notice: some seconds for an
    /// engine whose notices can get lost.
    const READ_AGAIN: Option<Duration>;

    /// Whether expired cells stay until they are purged.
    const KEEPS_EXPIRED: bool;

    /// Returns the cell of an operation, expired or not. If the reader may not see its
    /// result, the result is not read.
    fn read(
        &self,
        id: &OperationId,
        reader: CellReader<'_>,
    ) -> impl Future<Output = StoreResult<Option<Cell>>> + Send;

    /// [`read`](Self::read) without waiting, from an engine that never has to wait.
    fn read_now(
        &self,
        id: &OperationId,
        reader: CellReader<'_>,
    ) -> Option<StoreResult<Option<Cell>>> {
        let _ = (id, reader);
        None
    }

    /// Inserts a new cell and binds its key to it. The cell may replace one that had
    /// expired by `new.now`, and the key must be free. Both happen, or neither.
    fn insert(&self, new: NewCell<'_>) -> impl Future<Output = StoreResult<Inserted>> + Send;

    /// Replaces the cell that has the stamp `expected` by `next`. A cell that has ended
    /// (`next.expires_at`) loses its lease and its request.
    fn replace(
        &self,
        id: &OperationId,
        expected: Stamp,
        next: NextCell<'_>,
    ) -> impl Future<Output = StoreResult<Replaced>> + Send;

    /// Deletes the cell that has the stamp `expected`. The key that is bound to the cell
    /// stands for `remains` from now on, until `until`.
    fn delete(
        &self,
        id: &OperationId,
        expected: Stamp,
        remains: &[u8],
        until: Option<SystemTime>,
    ) -> impl Future<Output = StoreResult<Replaced>> + Send;

    /// Extends the leases on `held` to `term` from now on, in one round trip. Returns those
    /// without a live cell with that token. Need not be durable.
    fn renew(
        &self,
        held: &[LeaseHandle],
        term: Duration,
    ) -> impl Future<Output = StoreResult<Vec<LeaseHandle>>> + Send;

    /// Ends the leases on `held` now, and marks them as released. Need not be durable.
    fn release(&self, held: &[LeaseHandle]) -> impl Future<Output = StoreResult<()>> + Send;

    /// Returns at most `limit` live cells that may be reclaimed, those with the longest
    /// expired lease first. A cell without a lease is not among them.
    fn abandoned(
        &self,
        which: ReclaimFilter,
        limit: usize,
    ) -> impl Future<Output = StoreResult<Vec<LapsedCell>>> + Send;

    /// Extends the expired leases on these live cells to `term` from now on, whichever node held
    /// them, because none of them can be reclaimed. Need not be durable.
    fn put_aside(
        &self,
        ids: &[Bytes],
        term: Duration,
    ) -> impl Future<Output = StoreResult<()>> + Send;

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

    /// Frees a key that is reserved by `token`; false if it is not.
    fn release_reservation(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
    ) -> impl Future<Output = StoreResult<bool>> + Send;

    /// Returns the cells of one owner that expire after `now`, newest first. Once their
    /// results reach `max_bytes`, no more cells are read: further entries have no cell.
    fn list(&self, ask: ListCells<'_>)
    -> impl Future<Output = StoreResult<Vec<ListedCell>>> + Send;

    /// Returns the secret of list cursors: random, the same for all nodes, and stored as
    /// long as the cells are.
    fn cursor_secret(&self) -> impl Future<Output = StoreResult<[u8; 32]>> + Send;

    /// Deletes at most `limit` cells that had expired by `now`, with the keys bound to
    /// them, and expired keys. Returns how many cells it deleted.
    fn purge(
        &self,
        limit: usize,
        now: SystemTime,
    ) -> impl Future<Output = StoreResult<usize>> + Send;

    /// Returns the known problems that make the engine less durable than when it was
    /// opened.
    fn health(&self) -> impl Future<Output = StoreResult<Health>> + Send;

    /// Called when somebody begins to wait on this runtime. The task that receives notices
    /// of other nodes must run from then on, even if the runtime that it was started on has
    /// ended.
    fn attend(&self) {}

    /// Announces a notice to the other nodes, soon. This node already has it. A notice may
    /// get lost.
    fn announce(&self, notice: Notice);
}

/// The reader on whose behalf a cell is read.
#[derive(Debug, Clone, Copy)]
pub enum CellReader<'a> {
    /// The store itself.
    Store,
    /// This owner, who may read only the results of its own cells.
    Owner(Option<&'a Owner>),
}

impl CellReader<'_> {
    /// Returns whether the reader may read the result of a cell of this owner.
    #[allow(dead_code)] // PostgreSQL and Redis compare on the server
    pub(crate) fn may_read(self, owner: Option<&[u8]>) -> bool {
        match self {
            Self::Store => true,
            Self::Owner(asks) => asks.map(|asks| asks.as_str().as_bytes()) == owner,
        }
    }
}

/// The stored data of one operation.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The record without its result.
    pub head: Bytes,
    /// The result, once there is one.
    pub result: Option<Bytes>,
}

/// Identifies a cell: an operation at one version of one holder. No two cells of an id ever
/// have the same stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The version.
    pub version: Version,
    /// The token of the latest holder.
    pub token: FencingToken,
}

/// A cell to insert.
#[derive(Debug, Clone, Copy)]
pub struct NewCell<'a> {
    /// The operation.
    pub id: &'a OperationId,
    /// The stamp of the cell.
    pub stamp: Stamp,
    /// The state, which lists are filtered by.
    pub state: State,
    /// The owner.
    pub owner: Option<&'a Owner>,
    /// The record.
    pub head: &'a [u8],
    /// The term of the lease; `None` creates the cell without a lease.
    pub lease: Option<Duration>,
    /// The data to rerun the operation, kept as long as it is live.
    pub request: Option<&'a [u8]>,
    /// The key that creates the cell.
    pub key: Option<&'a IdempotencyKey>,
    /// The token by which the key is reserved, if it is.
    pub reservation: Option<FencingToken>,
    /// Cells that expired by this time are absent.
    pub now: SystemTime,
}

/// A cell that replaces another.
#[derive(Debug, Clone, Copy)]
pub struct NextCell<'a> {
    /// The stamp of the cell.
    pub stamp: Stamp,
    /// The state, which lists are filtered by.
    pub state: State,
    /// The record.
    pub head: &'a [u8],
    /// The result.
    pub result: Option<&'a [u8]>,
    /// When the cell expires; set if and only if the operation has ended.
    pub expires_at: Option<SystemTime>,
    /// The change of the lease.
    pub lease: LeaseChange,
}

/// The change of the lease on a cell that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseChange {
    /// The lease stays as it is.
    Kept,
    /// The lease is reclaimed for this term, only if it has expired.
    Reclaimed(Duration),
    /// The lease is transferred for this term, whether or not it has expired.
    HandedOn(Duration),
}

/// The result of [`Engine::insert`].
#[derive(Debug)]
pub enum Inserted {
    /// The cell was inserted.
    Done,
    /// The key is in use.
    Key(KeyCell),
    /// The id has a cell that has not expired, with this head, created by the key with this
    /// [scoped name](IdempotencyKey::scoped_name), if any. Its result is not read.
    Id(Bytes, Option<Box<str>>),
}

/// The result of a conditional write.
#[derive(Debug)]
pub enum Replaced {
    /// The write happened.
    Done,
    /// The cell has another stamp, or a lease that has not expired. This is the cell. It
    /// may be slightly older, with the expected stamp; then the write is retried.
    Found(Cell),
    /// The cell does not exist.
    Gone,
}

/// Selects the live cells that may be reclaimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReclaimFilter {
    /// Cells that certainly have no holder: their lease was released, or their holder is
    /// known to be gone.
    Released,
    /// Cells with a lease that was released or has expired.
    Over,
}

/// A live cell without a valid lease.
#[derive(Debug)]
pub struct LapsedCell {
    /// The operation, by the engine's name for it.
    pub id: Bytes,
    /// The cell, or an error if it is not as it was written.
    pub cell: StoreResult<Cell>,
    /// The stored data to rerun the operation.
    pub request: Option<Bytes>,
}

/// The stored data of a key.
#[derive(Debug)]
pub struct KeyCell {
    /// The digest of the request that came with the key.
    pub fingerprint: [u8; 32],
    /// The state of the key.
    pub stands_for: StandsFor,
}

/// The state of a key.
#[derive(Debug)]
pub enum StandsFor {
    /// A request that is being answered.
    Request,
    /// An existing operation that has not expired: its head. Its result is not read.
    Operation(Bytes),
    /// The remains of a deleted operation: its head.
    Remains(Bytes),
    /// An early answer. It may be empty for a request with another fingerprint.
    Answer(Bytes),
}

/// A query for cells.
#[derive(Debug, Clone, Copy)]
pub struct ListCells<'a> {
    /// The owner; `None` lists cells without an owner.
    pub owner: Option<&'a Owner>,
    /// Only cells in one of these states.
    pub states: StateSet,
    /// The maximum number of cells.
    pub limit: usize,
    /// The maximum number of bytes of results. Once it is reached, no more cells are read.
    pub max_bytes: usize,
    /// Only cells created before the one with this number.
    pub before: Option<u64>,
    /// Cells that expired by this time are absent.
    pub now: SystemTime,
}

/// A cell in a list.
#[derive(Debug)]
pub struct ListedCell {
    /// The number in the order of creation, at least 1; newer cells have higher numbers.
    pub number: u64,
    /// The operation, by the engine's name for it.
    pub id: Bytes,
    /// The cell, if it was read; an error if it is not as it was written.
    pub cell: Option<StoreResult<Cell>>,
}

impl ListedCell {
    /// Returns the number of bytes read of a result.
    #[allow(dead_code)] // PostgreSQL counts by itself
    pub(crate) fn result_bytes(&self) -> usize {
        match &self.cell {
            Some(Ok(cell)) => cell.result.as_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        }
    }
}

/// A message to other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Notice {
    /// This operation has changed, or is gone.
    Changed {
        /// The id of the operation.
        id: OperationId,
        /// The node that lost the operation.
        recalled: Option<NodeId>,
    },
    /// Leases were released.
    Released,
}
