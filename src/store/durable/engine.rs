//! What an engine has to be able to do to keep operations.
//!
//! An engine keeps *cells*: the bytes of a record, with the few values it has to
//! compare, order and search by. It knows nothing of states and steps; those are
//! [`Record`](crate::store::Record)'s, and [`EngineStore`](super::EngineStore) brings the
//! two together. So the laws hold on every engine that keeps these promises:
//!
//! * Each method is atomic. Of two that race, one comes first. What a change that did
//!   not happen [found](Replaced::Found) may be a moment younger.
//! * [`insert`](Engine::insert), [`replace`](Engine::replace),
//!   [`forget`](Engine::delete), [`reserve`](Engine::reserve) and
//!   [`settle`](Engine::complete) are durable when they return, and every read that
//!   begins afterwards, on any node, sees them.
//! * An error that is transient leaves it open whether it happened.
//! * Terms (`Duration`) are counted by the engine's own clock, if it has one: the
//!   nodes' clocks may differ. Moments (`SystemTime`) are nodes' moments.
//! * A key is filed under its [scoped name](IdempotencyKey::scoped_name): two owners' keys are two.
//! * A cell whose `expires_at` has passed may be removed at any time; whether it
//!   is still there is nobody's business, since `EngineStore` does not show it.

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

/// What keeps the cells.
pub trait Engine: Send + Sync + 'static {
    /// How often a wait reads again although nothing was heard: an engine whose
    /// notices can get lost says some seconds.
    const READ_AGAIN: Option<Duration>;

    /// Whether what has expired stays until it is purged.
    const KEEPS_EXPIRED: bool;

    /// The cell of an operation, expired or not; without its result, which is not read
    /// then, if that is not for the reader.
    fn read(
        &self,
        id: &OperationId,
        reader: CellReader<'_>,
    ) -> impl Future<Output = StoreResult<Option<Cell>>> + Send;

    /// The same from an engine that never has to wait.
    fn read_now(
        &self,
        id: &OperationId,
        reader: CellReader<'_>,
    ) -> Option<StoreResult<Option<Cell>>> {
        let _ = (id, reader);
        None
    }

    /// Puts in a new cell, and binds its key to it; in the place of one that had
    /// expired by `new.now`, and of a key that is free. Neither happens without
    /// the other.
    fn insert(&self, new: NewCell<'_>) -> impl Future<Output = StoreResult<Inserted>> + Send;

    /// Puts `next` in the place of the cell that has the stamp `expected`. A cell
    /// that has ended (`next.expires_at`) loses its lease and its request.
    fn replace(
        &self,
        id: &OperationId,
        expected: Stamp,
        next: NextCell<'_>,
    ) -> impl Future<Output = StoreResult<Replaced>> + Send;

    /// Removes the cell that has the stamp `expected`. The key that is bound to it
    /// stands for `remains` from now on, until `until`.
    fn delete(
        &self,
        id: &OperationId,
        expected: Stamp,
        remains: &[u8],
        until: Option<SystemTime>,
    ) -> impl Future<Output = StoreResult<Replaced>> + Send;

    /// Lets the leases on `held` last for `term` from now on, in one round trip,
    /// and answers those it has no live cell with that token for. Need not be
    /// durable.
    fn renew(
        &self,
        held: &[LeaseHandle],
        term: Duration,
    ) -> impl Future<Output = StoreResult<Vec<LeaseHandle>>> + Send;

    /// Lets the leases on `held` end now, so that it shows that nobody holds them. Need
    /// not be durable.
    fn release(&self, held: &[LeaseHandle]) -> impl Future<Output = StoreResult<()>> + Send;

    /// At most `limit` live cells that are free, those whose lease has been over for
    /// longest first. A cell without a lease is not among them.
    fn abandoned(
        &self,
        which: ReclaimFilter,
        limit: usize,
    ) -> impl Future<Output = StoreResult<Vec<LapsedCell>>> + Send;

    /// Lets the leases that are over on these live cells last for `term` from now on,
    /// whoever held them: none of them can be taken over. Need not be durable.
    fn put_aside(
        &self,
        ids: &[Bytes],
        term: Duration,
    ) -> impl Future<Output = StoreResult<()>> + Send;

    /// Reserves a key, if it is free or reserved by the same token, and answers
    /// what it stands for otherwise.
    fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
        now: SystemTime,
    ) -> impl Future<Output = StoreResult<Option<KeyCell>>> + Send;

    /// Keeps an answer under a key that is reserved by `token`, for `ttl` from now
    /// on; true also if it is kept already. False if the key is not reserved by
    /// it.
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

    /// Cells of one owner, the newest first, those that expire after `now`. Once their
    /// results have `max_bytes`, no more are read: what comes then has no cell.
    fn list(&self, ask: ListCells<'_>)
    -> impl Future<Output = StoreResult<Vec<ListedCell>>> + Send;

    /// Returns the secret of list cursors: random, the same for all nodes, and stored as
    /// long as the cells are.
    fn cursor_secret(&self) -> impl Future<Output = StoreResult<[u8; 32]>> + Send;

    /// Removes at most `limit` cells that had expired by `now`, with the keys bound
    /// to them, and keys whose time is over. Answers how many cells it removed.
    fn purge(
        &self,
        limit: usize,
        now: SystemTime,
    ) -> impl Future<Output = StoreResult<usize>> + Send;

    /// What is known to keep it from being as durable as it was when it was opened.
    fn health(&self) -> impl Future<Output = StoreResult<Health>> + Send;

    /// Somebody begins to wait on this runtime: what hears of other nodes' changes is to be
    /// at work, also if the runtime that it was begun on has gone.
    fn attend(&self) {}

    /// Tells the other nodes, soon; this node knows already. A notice may get lost.
    fn announce(&self, notice: Notice);
}

/// On whose behalf a cell is read.
#[derive(Debug, Clone, Copy)]
pub enum CellReader<'a> {
    /// The store's own.
    Store,
    /// This owner's: results are read of its cells alone.
    Owner(Option<&'a Owner>),
}

impl CellReader<'_> {
    /// Whether the result of a cell of this owner's is for the reader.
    #[allow(dead_code)] // servers compare by themselves
    pub(crate) fn may_read(self, owner: Option<&[u8]>) -> bool {
        match self {
            Self::Store => true,
            Self::Owner(asks) => asks.map(|asks| asks.as_str().as_bytes()) == owner,
        }
    }
}

/// What is kept of one operation.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The record without its result.
    pub head: Bytes,
    /// The result, once there is one.
    pub result: Option<Bytes>,
}

/// Which cell: an operation at one version of one holder. No two cells of an id
/// ever have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The version.
    pub version: Version,
    /// The token of the latest holder.
    pub token: FencingToken,
}

/// A cell to be put in.
#[derive(Debug, Clone, Copy)]
pub struct NewCell<'a> {
    /// The operation.
    pub id: &'a OperationId,
    /// Its stamp.
    pub stamp: Stamp,
    /// The state, which lists are filtered by.
    pub state: State,
    /// Whose it is.
    pub owner: Option<&'a Owner>,
    /// The record.
    pub head: &'a [u8],
    /// How long the lease on it lasts; it has none without.
    pub lease: Option<Duration>,
    /// What is kept for running it again, as long as it is live.
    pub request: Option<&'a [u8]>,
    /// The key that makes it.
    pub key: Option<&'a IdempotencyKey>,
    /// The token by which that key is reserved, if it is.
    pub reservation: Option<FencingToken>,
    /// What has expired by then is not there.
    pub now: SystemTime,
}

/// A cell to be put in the place of another.
#[derive(Debug, Clone, Copy)]
pub struct NextCell<'a> {
    /// Its stamp.
    pub stamp: Stamp,
    /// The state, which lists are filtered by.
    pub state: State,
    /// The record.
    pub head: &'a [u8],
    /// The result.
    pub result: Option<&'a [u8]>,
    /// When it expires; set if and only if it has ended.
    pub expires_at: Option<SystemTime>,
    /// What becomes of its lease.
    pub lease: LeaseChange,
}

/// What becomes of the lease on a cell that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseChange {
    /// It stays as it is.
    Kept,
    /// It is taken over, for so long: only if it is over by now.
    Reclaimed(Duration),
    /// It is handed on, for so long, whether it is over or not.
    HandedOn(Duration),
}

/// What became of [`Engine::insert`].
#[derive(Debug)]
pub enum Inserted {
    /// The cell is in.
    Done,
    /// The key stands for something.
    Key(KeyCell),
    /// The id has a cell that has not expired, with this head, made by the key with this
    /// [scoped name](IdempotencyKey::scoped_name), if any made it. Its result is not read.
    Id(Bytes, Option<Box<str>>),
}

/// What became of a conditional write.
#[derive(Debug)]
pub enum Replaced {
    /// It happened.
    Done,
    /// The cell has another stamp, or a lease that is not over: this is it. It may
    /// be as it was a moment ago, with the expected stamp; then it is tried again.
    Found(Cell),
    /// There is no such cell.
    Gone,
}

/// Which live cells are free to be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReclaimFilter {
    /// Those that certainly nobody holds: their lease was released, or their holder is
    /// known to be gone.
    Released,
    /// Those whose lease is over, whether it was released or has lapsed.
    Over,
}

/// A live cell whose lease is over.
#[derive(Debug)]
pub struct LapsedCell {
    /// The operation, by the name that the engine has for it.
    pub id: Bytes,
    /// The cell, unless it is not what was written.
    pub cell: StoreResult<Cell>,
    /// What was kept for running it again.
    pub request: Option<Bytes>,
}

/// What is kept of a key.
#[derive(Debug)]
pub struct KeyCell {
    /// The digest of the request that came with it.
    pub fingerprint: [u8; 32],
    /// What it stands for.
    pub stands_for: StandsFor,
}

/// What a key stands for.
#[derive(Debug)]
pub enum StandsFor {
    /// A request that is being answered.
    Request,
    /// An operation that is there and has not expired: a head. Its result is not read.
    Operation(Bytes),
    /// What remains of a forgotten operation: a head.
    Remains(Bytes),
    /// An early answer. Where another request asks, by its fingerprint, it may be empty.
    Answer(Bytes),
}

/// Which cells to list.
#[derive(Debug, Clone, Copy)]
pub struct ListCells<'a> {
    /// Whose; `None` lists what is nobody's.
    pub owner: Option<&'a Owner>,
    /// Only those in one of these states.
    pub states: StateSet,
    /// At most so many.
    pub limit: usize,
    /// Once there are so many bytes of results, nothing more is read.
    pub max_bytes: usize,
    /// Only those created before the one with this number.
    pub before: Option<u64>,
    /// What has expired by then is not there.
    pub now: SystemTime,
}

/// A cell in a list.
#[derive(Debug)]
pub struct ListedCell {
    /// Its number in the order of creation, newer ones higher; not before 1.
    pub number: u64,
    /// The operation, by the name that the engine has for it.
    pub id: Bytes,
    /// The cell, if it was read; an error, if it is not what was written.
    pub cell: Option<StoreResult<Cell>>,
}

impl ListedCell {
    /// How many bytes of a result were read.
    #[allow(dead_code)] // PostgreSQL counts by itself
    pub(crate) fn result_bytes(&self) -> usize {
        match &self.cell {
            Some(Ok(cell)) => cell.result.as_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        }
    }
}

/// What other nodes want to know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Notice {
    /// This operation has changed, or is gone.
    Changed {
        /// Which operation.
        id: OperationId,
        /// The node that it was taken from.
        recalled: Option<NodeId>,
    },
    /// Leases were released.
    Released,
}
