use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use ::redb::ReadTransaction;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    RedbError, RedbStats,
    changes::{Forget, Insert, Purge, Replace},
    desk::{Reserved, text},
    error::Fault,
    file::{Medium, Slot, closed},
    key_changes::{ReleaseKey, Reserve, Settle},
    leases::LeaseAsk,
    reading,
    writer::{self, Ask, Change, Counted, Started},
};
use crate::{
    operation::OperationId,
    store::{
        FencingToken, Held, Key, Owner, StoreError,
        durable::{
            Abandoned, Cell, Engine, Free, Inserted, KeyCell, ListAsk, Listed, NewCell, NextCell,
            Notice, Reader, Replaced, Stamp,
        },
    },
};

/// What the cells of a [`RedbStore`](super::RedbStore) are kept in.
pub struct Redb {
    slot: Slot,
    asks: mpsc::Sender<Ask>,
    counted: Arc<Counted>,
}

impl Redb {
    pub(super) fn on(medium: Medium) -> Result<Self, RedbError> {
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

    /// Reads, all in one state of the file. If the disk has failed, possibly
    /// long ago, the writer opens the file again and it is read once more.
    async fn look<A>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<A, Fault> + Send,
    ) -> Result<A, StoreError> {
        let first = self.slot.read().await.read(&read);
        match first {
            Err(error) if error.is_of_the_disk() => {
                self.ask(Ask::Check).await.ok_or_else(closed)?;
                Ok(self.slot.read().await.read(&read)?)
            }
            answer => Ok(answer?),
        }
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

    async fn read(&self, id: &OperationId, reader: Reader<'_>) -> Answer<Option<Cell>> {
        let id = text(id);
        self.look(|read| reading::cell(read, &id, reader)).await
    }

    fn read_now(&self, id: &OperationId, reader: Reader<'_>) -> Option<Answer<Option<Cell>>> {
        let access = self.slot.try_read().ok()?;
        match access.read(|read| reading::cell(read, &text(id), reader)) {
            Err(error) if error.is_of_the_disk() => None,
            answer => Some(answer.map_err(StoreError::from)),
        }
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

    async fn abandoned(&self, which: Free, limit: usize) -> Answer<Vec<Abandoned>> {
        self.lease(|waiting| LeaseAsk::Abandoned(which, limit, waiting))
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
        let (limit, mut page) = (ask.limit, Vec::<Listed>::new());
        while ask.limit > 0 {
            let bytes = page.iter().map(Listed::result_bytes).sum();
            let part = self.look(|read| reading::list(read, ask, bytes)).await?;
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
