//! Operations in a file, for one process.

mod changes;
mod desk;
mod error;
mod file;
mod key_changes;
mod leases;
mod reading;
mod rows;
mod tables;
mod terms;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use self::{
    changes::{Forget, Insert, Purge, Replace},
    desk::{Reserved, text},
    file::{Access, Medium, ReadError, Slot, closed},
    key_changes::{ReleaseKey, Reserve, Settle},
    leases::LeaseAsk,
    writer::{Ask, Change, Counted, Started},
};
use super::durable::{
    Abandoned, Cell, Durable, Engine, Hub, Inserted, KeyCell, ListAsk, Listed, NewCell, NextCell,
    Notice, Replaced, Stamp,
};
use crate::{
    operation::{OperationId, RecordedResponse},
    store::{FencingToken, Held, Key, Owner, StoreError},
};

pub use self::error::RedbError;

/// The memory that a store takes for pages of its file, unless said.
const CACHE: usize = 64 * 1024 * 1024;

pub type RedbStore<T = RecordedResponse> = Durable<Redb, T>;

impl<T> Durable<Redb, T> {
    /// Opens the file at `path`, or makes it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RedbError> {
        Self::open_with_cache(path, CACHE)
    }

    /// The same with so many bytes of memory for pages of the file.
    pub fn open_with_cache(path: impl AsRef<Path>, bytes: usize) -> Result<Self, RedbError> {
        let engine = Redb::on(Medium::file(path.as_ref(), bytes)?)?;
        Ok(Self::on(engine, Arc::new(Hub::default())))
    }

    /// Makes the file as small as it can be.
    pub async fn compact(&self) -> Result<bool, RedbError> {
        self.engine()
            .ask(Ask::Compact)
            .await
            .unwrap_or(Err(RedbError::Closed))
    }

    /// What the store has done since it was opened, and what waits.
    #[must_use]
    pub fn stats(&self) -> RedbStats {
        let Redb { asks, counted, .. } = self.engine();
        RedbStats {
            commits: counted.commits.load(Relaxed),
            changes: counted.changes.load(Relaxed),
            failures: counted.failures.load(Relaxed),
            queued: asks.max_capacity() - asks.capacity(),
        }
    }

    /// Closes the file.
    pub async fn close(&self) -> Result<(), RedbError> {
        self.engine()
            .ask(Ask::Close)
            .await
            .unwrap_or(Err(RedbError::Closed))
    }
}

/// What a [`RedbStore`] has done since it was opened, and what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedbStats {
    /// How often it committed.
    pub commits: u64,
    /// How many changes were in these commits.
    pub changes: u64,
    /// How often the file had to be opened again, since the disk had failed.
    pub failures: u64,
    /// How many requests wait for the writer; near 1024 they wait for room in
    /// its queue.
    pub queued: usize,
}

/// The engine of a [`RedbStore`].
pub struct Redb {
    slot: Slot,
    asks: mpsc::Sender<Ask>,
    counted: Arc<Counted>,
}

impl Redb {
    fn on(medium: Medium) -> Result<Self, RedbError> {
        let Started {
            slot,
            asks,
            counted,
        } = writer::start(medium)?;
        Ok(Self {
            slot,
            asks,
            counted,
        })
    }

    /// Asks the writer; `None` if it is gone.
    async fn ask<A>(&self, ask: impl FnOnce(oneshot::Sender<A>) -> Ask) -> Option<A> {
        let (waiting, answer) = oneshot::channel();
        self.asks.send(ask(waiting)).await.ok()?;
        answer.await.ok()
    }

    async fn change<C: Change>(&self, change: C) -> Result<C::Answer, StoreError> {
        let answer = self.ask(|waiting| Ask::change(change, waiting)).await;
        answer.unwrap_or_else(|| Err(closed()))
    }

    async fn lease<A>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<A, StoreError>>) -> LeaseAsk,
    ) -> Result<A, StoreError> {
        let answer = self.ask(|waiting| Ask::Lease(ask(waiting))).await;
        answer.unwrap_or_else(|| Err(closed()))
    }

    /// What was read; the writer looks after what failed.
    fn answer<A>(&self, read: Result<A, ReadError>) -> Result<A, StoreError> {
        if let Err(ReadError::Fault(fault)) = &read
            && fault.is_of_the_disk()
            && let Err(TrySendError::Closed(_)) = self.asks.try_send(Ask::Check)
        {
            return Err(closed());
        }
        Ok(read?)
    }

    fn read_in(&self, access: &Access, id: &OperationId) -> Result<Option<Cell>, StoreError> {
        self.answer(access.read(|read| reading::cell(read, &text(id))))
    }
}

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb").finish_non_exhaustive()
    }
}

type Answer<T> = Result<T, StoreError>;

impl Engine for Redb {
    /// All handles are in this process, and hear everything.
    const READ_AGAIN: Option<Duration> = None;

    async fn read(&self, id: &OperationId) -> Answer<Option<Cell>> {
        self.read_in(&*self.slot.read().await, id)
    }

    fn read_now(&self, id: &OperationId) -> Option<Answer<Option<Cell>>> {
        let access = self.slot.try_read().ok()?;
        Some(self.read_in(&access, id))
    }

    async fn insert(&self, new: NewCell<'_>) -> Answer<Inserted> {
        self.change(Insert::from(new)).await
    }

    async fn replace(
        &self,
        id: &OperationId,
        expected: Stamp,
        next: NextCell<'_>,
    ) -> Answer<Replaced> {
        self.change(Replace::new(id, expected, next)).await
    }

    async fn forget(
        &self,
        id: &OperationId,
        expected: Stamp,
        remains: &[u8],
        until: Option<SystemTime>,
    ) -> Answer<Replaced> {
        let forget = Forget {
            id: id.clone(),
            expected,
            remains: Bytes::copy_from_slice(remains),
            until,
        };
        self.change(forget).await
    }

    async fn renew(&self, held: &[Held], term: Duration) -> Answer<Vec<Held>> {
        self.lease(|waiting| LeaseAsk::Renew(held.to_vec(), term, waiting))
            .await
    }

    async fn release(&self, held: &[Held]) -> Answer<()> {
        self.lease(|waiting| LeaseAsk::Release(held.to_vec(), waiting))
            .await
    }

    async fn abandoned(&self, limit: usize) -> Answer<Vec<Abandoned>> {
        self.lease(|waiting| LeaseAsk::Abandoned(limit, waiting))
            .await
    }

    async fn reserve(
        &self,
        key: &Key,
        owner: Option<&Owner>,
        token: FencingToken,
        term: Duration,
        now: SystemTime,
    ) -> Answer<Option<KeyCell>> {
        let reserved = Reserved {
            owner: owner.cloned(),
            fingerprint: key.fingerprint,
            token,
        };
        let reserve = Reserve {
            name: Arc::clone(&key.name),
            reserved,
            term,
            now,
        };
        self.change(reserve).await
    }

    async fn settle(
        &self,
        name: &str,
        token: FencingToken,
        answer: &[u8],
        ttl: Duration,
    ) -> Answer<bool> {
        let settle = Settle {
            name: name.into(),
            token,
            answer: Bytes::copy_from_slice(answer),
            ttl,
        };
        self.change(settle).await
    }

    async fn release_key(&self, name: &str, token: FencingToken) -> Answer<bool> {
        let name = name.into();
        self.change(ReleaseKey { name, token }).await
    }

    async fn list(&self, mut ask: ListAsk<'_>) -> Answer<Vec<Listed>> {
        let (limit, mut page) = (ask.limit, Vec::new());
        while ask.limit > 0 {
            let part = {
                let access = self.slot.read().await;
                self.answer(access.read(|read| reading::list(read, ask)))?
            };
            page.extend(part.0);
            let Some(before) = part.1 else { break };
            ask.before = Some(before);
            ask.limit = limit - page.len();
            tokio::task::yield_now().await;
        }
        Ok(page)
    }

    async fn purge(&self, limit: usize, now: SystemTime) -> Answer<usize> {
        self.change(Purge { limit, now }).await
    }

    fn announce(&self, _notice: Notice) {}
}
