use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use ::redb::ReadTransaction;
use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use super::{
    RedbError, RedbStats,
    changes::{Forget, Insert, Purge, Replace},
    desk::{Reserved, text},
    error::Fault,
    file::{Access, Medium, ReadError, Slot, closed},
    hot::Hot,
    key_changes::{ReleaseKey, Reserve, Settle},
    leases::LeaseAsk,
    origin::Origin,
    reading,
    writer::{self, Ask, Change, Counted, Started},
};
use crate::{
    operation::OperationId,
    store::{
        FencingToken, Health, IdempotencyKey, LeaseHandle, StoreError,
        durable::{
            Abandoned, Cell, Engine, Free, Inserted, KeyCell, ListAsk, Listed, NewCell, NextCell,
            Notice, Reader, Replaced, Stamp,
        },
    },
};

/// What the cells of a [`RedbStore`](super::RedbStore) are kept in.
pub struct RedbEngine {
    pub(super) slot: Slot,
    asks: mpsc::Sender<Ask>,
    counted: Arc<Counted>,
    hot: Arc<Hot>,
    origin: Option<Origin>,
}

impl RedbEngine {
    pub(super) fn on(medium: Medium) -> Result<Self, RedbError> {
        let origin = medium.origin();
        let Started {
            slot,
            asks,
            counted,
            hot,
        } = writer::start(medium)?;
        Ok(Self {
            slot,
            asks,
            counted,
            hot,
            origin,
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

    /// Asks the writer; `None` if it is gone.
    pub(super) async fn ask<A>(&self, ask: impl FnOnce(oneshot::Sender<A>) -> Ask) -> Option<A> {
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

    /// Reads, all in one state of the file, on a thread that may wait for the disk. If
    /// that has failed, possibly long ago, the writer opens the file again and it is read
    /// once more.
    async fn look<A: Send + 'static>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<A, Fault> + Clone + Send + 'static,
    ) -> Result<A, StoreError> {
        match self.look_once(read.clone()).await {
            Err(error) if error.is_of_the_disk() => {
                self.ask(Ask::Check).await.ok_or_else(closed)?;
                Ok(self.look_once(read).await?)
            }
            answer => Ok(answer?),
        }
    }

    async fn look_once<A: Send + 'static>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<A, Fault> + Send + 'static,
    ) -> Result<A, ReadError> {
        let access = Arc::clone(&self.slot).read_owned().await;
        let look = move || access.read(read);
        let Ok(runtime) = Handle::try_current() else {
            return look(); // it keeps nobody
        };
        match runtime.spawn_blocking(look).await {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(ReadError::Closed(StoreError::unavailable(error))),
            },
        }
    }

    /// What was written last, while the file is open; `None` says that the file has to be
    /// asked.
    fn hot(&self, access: &Access, id: &[u8], reader: Reader<'_>) -> Option<Answer<Option<Cell>>> {
        match access.database() {
            Ok(_) => {}
            Err(error) if error.is_transient() => return None,
            Err(error) => return Some(Err(error)),
        }
        let cell = self.hot.read(id, reader)?;
        Some(cell.map(Some).map_err(StoreError::from))
    }
}

impl fmt::Debug for RedbEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb").finish_non_exhaustive()
    }
}

type Answer<T> = Result<T, StoreError>;

impl Engine for RedbEngine {
    /// All handles are in this process, and hear everything.
    const READ_AGAIN: Option<Duration> = None;
    const KEEPS_EXPIRED: bool = true;

    async fn read(&self, id: &OperationId, reader: Reader<'_>) -> Answer<Option<Cell>> {
        let id = text(id);
        if let Some(answer) = self.hot(&*self.slot.read().await, &id, reader) {
            return answer;
        }
        let asks = match reader {
            Reader::Store => None,
            Reader::Owner(owner) => Some(owner.cloned()),
        };
        let read = move |read: &ReadTransaction| {
            let asks = asks.as_ref().map(Option::as_ref);
            reading::cell(read, &id, asks.map_or(Reader::Store, Reader::Owner))
        };
        self.look(read).await
    }

    fn read_now(&self, id: &OperationId, reader: Reader<'_>) -> Option<Answer<Option<Cell>>> {
        let access = self.slot.try_read().ok()?;
        self.hot(&access, &text(id), reader)
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

    async fn delete(
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

    async fn renew(&self, held: &[LeaseHandle], term: Duration) -> Answer<Vec<LeaseHandle>> {
        self.lease(|waiting| LeaseAsk::Renew(held.to_vec(), term, waiting))
            .await
    }

    async fn release(&self, held: &[LeaseHandle]) -> Answer<()> {
        self.lease(|waiting| LeaseAsk::Release(held.to_vec(), waiting))
            .await
    }

    async fn abandoned(&self, which: Free, limit: usize) -> Answer<Vec<Abandoned>> {
        self.lease(|waiting| LeaseAsk::Abandoned(which, limit, waiting))
            .await
    }

    async fn put_aside(&self, ids: &[Bytes], term: Duration) -> Answer<()> {
        self.lease(|waiting| LeaseAsk::PutAside(ids.to_vec(), term, waiting))
            .await
    }

    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
        now: SystemTime,
    ) -> Answer<Option<KeyCell>> {
        let reserved = Reserved {
            owner: key.owner.clone(),
            fingerprint: key.fingerprint,
            token,
        };
        let reserve = Reserve {
            name: key.scoped_name(),
            reserved,
            term,
            now,
        };
        self.change(reserve).await
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: &[u8],
        ttl: Duration,
    ) -> Answer<bool> {
        let settle = Settle {
            name: key.scoped_name(),
            token,
            answer: Bytes::copy_from_slice(answer),
            ttl,
        };
        self.change(settle).await
    }

    async fn release_reservation(&self, key: &IdempotencyKey, token: FencingToken) -> Answer<bool> {
        let name = key.scoped_name();
        self.change(ReleaseKey { name, token }).await
    }

    async fn list(&self, ask: ListAsk<'_>) -> Answer<Vec<Listed>> {
        let mut page = Vec::<Listed>::new();
        let (mut before, owner) = (ask.before, ask.owner.cloned());
        let ListAsk {
            states,
            limit,
            max_bytes,
            now,
            ..
        } = ask;
        while page.len() < limit {
            let bytes = page.iter().map(Listed::result_bytes).sum();
            let (owner, limit) = (owner.clone(), limit - page.len());
            let part = move |read: &ReadTransaction| {
                let ask = ListAsk {
                    owner: owner.as_ref(),
                    states,
                    limit,
                    max_bytes,
                    before,
                    now,
                };
                reading::list(read, ask, bytes)
            };
            let (more, next) = self.look(part).await?;
            page.extend(more);
            let Some(next) = next else { break };
            before = Some(next);
        }
        Ok(page)
    }

    async fn cursor_secret(&self) -> Answer<[u8; 32]> {
        self.look(reading::secret).await
    }

    async fn purge(&self, limit: usize, now: SystemTime) -> Answer<usize> {
        self.change(Purge { limit, now }).await
    }

    async fn health(&self) -> Answer<Health> {
        let Some(origin) = self.origin.clone() else {
            return Ok(Health::default());
        };
        // The folder may be slow.
        let look = tokio::task::spawn_blocking(move || origin.look()).await;
        let warning = look.map_err(StoreError::unavailable)?;
        let warning = warning.map_err(StoreError::unavailable)?;
        Ok(Health::new(warning.into_iter().collect()))
    }

    fn announce(&self, _notice: Notice) {}
}
