mod keys;
mod lists;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use ::redb::ReadTransaction;
use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};
use tower_operations::{
    engine::{
        Cell, CellReader, Engine, Inserted, LapsedCell, NewCell, NextCell, Notice, ReclaimFilter,
        Replaced,
    },
    operation::OperationId,
    store::{Health, LeaseHandle, Owner, Stamp, StoreError, StoreResult},
};

use super::{
    RedbError, RedbStats,
    cell_cache::CellCache,
    changes::{DeleteCell, InsertCell, ReplaceCell},
    desk::text,
    error::RedbFault,
    file::{Access, DatabaseSlot, Medium, ReadError, closed},
    leases::LeaseRequest,
    named_file::NamedFile,
    purging::PurgeExpired,
    reading,
    writer::{self, Started, WriterCounters},
    writer_request::{Transaction, WriterRequest},
};

/// The engine of a [`RedbStore`](super::RedbStore).
pub struct RedbEngine {
    pub(super) slot: DatabaseSlot,
    asks: mpsc::Sender<WriterRequest>,
    counted: Arc<WriterCounters>,
    hot: Arc<CellCache>,
    origin: Option<NamedFile>,
    driver: Driver,
}

/// The threads or tasks that write and read the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driver {
    /// Threads of their own, which may wait for the disk.
    Threads,
    /// A task and its callers, for a storage that never waits.
    #[cfg(any(test, feature = "testing"))]
    Task,
}

impl Driver {
    /// Returns the time for leases and reservations. That of a task is tokio's, which a test can
    /// pause.
    pub(super) fn now(self) -> Instant {
        match self {
            Self::Threads => Instant::now(),
            #[cfg(any(test, feature = "testing"))]
            Self::Task => tokio::time::Instant::now().into_std(),
        }
    }
}

impl RedbEngine {
    pub(super) fn on(medium: Medium, driver: Driver) -> Result<Self, RedbError> {
        let origin = medium.origin();
        let Started {
            slot,
            asks,
            counted,
            hot,
        } = writer::start(medium, driver)?;
        Ok(Self {
            slot,
            asks,
            counted,
            hot,
            origin,
            driver,
        })
    }

    pub(super) fn stats(&self) -> RedbStats {
        RedbStats {
            commits: self.counted.commits.load(Relaxed),
            changes: self.counted.changes.load(Relaxed),
            failures: self.counted.failures.load(Relaxed),
            queued: self.asks.max_capacity() - self.asks.capacity(),
        }
    }

    /// Sends a request to the writer; `None` if the writer has ended.
    pub(super) async fn ask<A>(
        &self,
        ask: impl FnOnce(oneshot::Sender<A>) -> WriterRequest,
    ) -> Option<A> {
        let (waiting, answer) = oneshot::channel();
        self.asks.send(ask(waiting)).await.ok()?;
        answer.await.ok()
    }

    async fn change<C: Transaction>(&self, change: C) -> Result<C::Answer, StoreError> {
        let answer = self
            .ask(|waiting| WriterRequest::change(change, waiting))
            .await;
        answer.unwrap_or_else(|| Err(closed()))
    }

    async fn lease<A>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<A, StoreError>>) -> LeaseRequest,
    ) -> Result<A, StoreError> {
        let answer = self.ask(|waiting| WriterRequest::Lease(ask(waiting))).await;
        answer.unwrap_or_else(|| Err(closed()))
    }

    /// Reads one state of the file, on a thread that may wait for the disk. If the file has
    /// failed, possibly long ago, the writer opens the file again and the read is retried
    /// once.
    async fn look<A: Send + 'static>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<A, RedbFault> + Clone + Send + 'static,
    ) -> Result<A, StoreError> {
        match self.look_once(read.clone()).await {
            Err(error) if error.is_of_the_disk() => {
                self.ask(WriterRequest::Check).await.ok_or_else(closed)?;
                Ok(self.look_once(read).await?)
            }
            answer => Ok(answer?),
        }
    }

    async fn look_once<A: Send + 'static>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<A, RedbFault> + Send + 'static,
    ) -> Result<A, ReadError> {
        let access = self.slot.read().await;
        let look = move || access.read(read);
        let (Driver::Threads, Ok(runtime)) = (self.driver, Handle::try_current()) else {
            return look(); // no task to block, or nothing to wait for
        };
        match runtime.spawn_blocking(look).await {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(ReadError::Closed(StoreError::unavailable(error))),
            },
        }
    }

    /// Reads from the cache of latest writes, while the file is open; `None` means that the
    /// file has to be read.
    fn hot(
        &self,
        access: &Access,
        id: &[u8],
        reader: CellReader<'_>,
    ) -> Option<StoreResult<Option<Cell>>> {
        match access.database() {
            Ok(_) => {}
            Err(error) if error.is_transient() => return None,
            Err(error) => return Some(Err(error)),
        }
        let cell = self.hot.read(id, reader)?;
        Some(cell.map(Some).map_err(StoreError::from))
    }
}

/// A reader that is sent to another thread.
#[derive(Clone)]
enum SentReader {
    Head,
    Store,
    Owner(Option<Owner>, usize),
}

impl From<CellReader<'_>> for SentReader {
    fn from(reader: CellReader<'_>) -> Self {
        match reader {
            CellReader::Head => Self::Head,
            CellReader::Store => Self::Store,
            CellReader::Owner { owner, max_result } => Self::Owner(owner.cloned(), max_result),
        }
    }
}

impl SentReader {
    fn reader(&self) -> CellReader<'_> {
        match self {
            Self::Head => CellReader::Head,
            Self::Store => CellReader::Store,
            Self::Owner(owner, max_result) => CellReader::Owner {
                owner: owner.as_ref(),
                max_result: *max_result,
            },
        }
    }
}

impl fmt::Debug for RedbEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbEngine").finish_non_exhaustive()
    }
}

impl Engine for RedbEngine {
    /// All handles are in this process and get every notice.
    const POLL_INTERVAL: Option<Duration> = None;
    const KEEPS_EXPIRED: bool = true;

    async fn read(&self, id: &OperationId, reader: CellReader<'_>) -> StoreResult<Option<Cell>> {
        let id = text(id);
        if let Some(answer) = self.hot(&*self.slot.read().await, &id, reader) {
            return answer;
        }
        let reader = SentReader::from(reader);
        let read = move |read: &ReadTransaction| reading::cell(read, &id, reader.reader());
        self.look(read).await
    }

    fn read_now(
        &self,
        id: &OperationId,
        reader: CellReader<'_>,
    ) -> Option<StoreResult<Option<Cell>>> {
        let access = self.slot.read_now()?;
        self.hot(&access, &text(id), reader)
    }

    async fn insert(&self, new: NewCell<'_>) -> StoreResult<Inserted> {
        self.change(InsertCell::from(new)).await
    }

    async fn replace(
        &self,
        id: &OperationId,
        expected: Stamp,
        next: NextCell<'_>,
    ) -> StoreResult<Replaced> {
        self.change(ReplaceCell::new(id, expected, next)).await
    }

    async fn delete(
        &self,
        id: &OperationId,
        expected: Stamp,
        remains: &[u8],
        until: Option<SystemTime>,
    ) -> StoreResult<Replaced> {
        let delete = DeleteCell {
            id: id.clone(),
            expected,
            remains: Bytes::copy_from_slice(remains),
            until,
        };
        self.change(delete).await
    }

    async fn renew(&self, held: &[LeaseHandle], term: Duration) -> StoreResult<Vec<LeaseHandle>> {
        self.lease(|waiting| LeaseRequest::Renew(held.to_vec(), term, waiting))
            .await
    }

    async fn release(&self, held: &[LeaseHandle]) -> StoreResult<()> {
        self.lease(|waiting| LeaseRequest::Release(held.to_vec(), waiting))
            .await
    }

    async fn reclaimable(
        &self,
        which: ReclaimFilter,
        limit: usize,
    ) -> StoreResult<Vec<LapsedCell>> {
        self.lease(|waiting| LeaseRequest::Abandoned(which, limit, waiting))
            .await
    }

    async fn defer(&self, ids: &[Bytes], term: Duration) -> StoreResult<()> {
        self.lease(|waiting| LeaseRequest::PutAside(ids.to_vec(), term, waiting))
            .await
    }

    async fn purge(&self, limit: usize, now: SystemTime) -> StoreResult<usize> {
        self.change(PurgeExpired { limit, now }).await
    }

    async fn health(&self) -> StoreResult<Health> {
        let Some(origin) = self.origin.clone() else {
            return Ok(Health::default());
        };
        // The file system may be slow.
        let look = tokio::task::spawn_blocking(move || origin.look()).await;
        let warning = look.map_err(StoreError::unavailable)?;
        let warning = warning.map_err(StoreError::unavailable)?;
        Ok(Health::new(warning.into_iter().collect()))
    }

    fn publish(&self, _notice: Notice) {}
}
