//! Adapters that add a capability to a store that lacks it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    Created, FencingToken, Health, IdempotencyKey, IdempotencyKeys, Lease, LeaseConfig,
    LeaseHandle, List, ListQuery, NewOperation, NodeId, Owner, Page, Purge, Reclaimed, Repository,
    Reservation, Store, StoreError, Version, Watch, Written, mailbox::Mailboxes, traits::Found,
};
use crate::operation::{OperationId, Outcome, Progress};

/// Adds [`Watch`] to a store by reading repeatedly.
///
/// Every wait costs one read per interval. Use it where the store cannot notify of changes
/// itself.
///
/// ```
/// use std::time::Duration;
/// use tower_operations::{PollService, store::Polling};
/// # fn with<R: tower_operations::store::Repository<Output = u32>>(store: R) {
/// let polls = PollService::new(Polling::new(store, Duration::from_millis(500)));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Polling<R> {
    inner: R,
    interval: Duration,
}

/// The shortest interval, so that a wait does not become a busy loop.
const SHORTEST: Duration = Duration::from_millis(1);

impl<R> Polling<R> {
    /// Wraps a store. A wait reads every `interval`, but at most once a millisecond.
    #[must_use]
    pub fn new(inner: R, interval: Duration) -> Self {
        Self {
            inner,
            interval: interval.max(SHORTEST),
        }
    }
}

impl<R: Store> Watch for Polling<R> {
    async fn changed(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
    ) -> Found<R::Output> {
        let read = || self.inner.get(id);
        changed(read, since, at_most, self.interval).await
    }

    async fn changed_for(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
        owner: Option<&Owner>,
    ) -> Found<R::Output> {
        let read = || self.inner.get_for(id, owner);
        changed(read, since, at_most, self.interval).await
    }
}

/// Reads every `interval` until the version is not `since`, or `at_most` is over.
async fn changed<T, F>(
    read: impl Fn() -> F + Send,
    since: Version,
    at_most: Duration,
    interval: Duration,
) -> Found<T>
where
    F: Future<Output = Found<T>> + Send,
{
    let until = Instant::now() + at_most.min(FOREVER);
    loop {
        let record = read().await?;
        let now = Instant::now();
        match &record {
            Some(record) if record.version() == Some(since) && now < until => {
                sleep_until(until.min(now + interval.min(FOREVER))).await;
            }
            _ => return Ok(record),
        }
    }
}

/// Longer than any wait, and short enough to be added to any `Instant`.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Adds [`Lease`] to a store that only one process writes to.
///
/// Nothing is ever reclaimed, because there is no other node. The store is therefore
/// unsuitable for requests that are dispatched through a queue: a request that the queue
/// loses is lost, and one that it delivers twice may run twice. A cancel through this
/// handle or a clone of it reaches the running work at once.
#[derive(Debug, Clone)]
pub struct SingleNode<R> {
    inner: R,
    mailboxes: Arc<Mailboxes>,
}

impl<R> SingleNode<R> {
    /// Wraps a store. From now on operations are written only through this handle and its
    /// clones.
    #[must_use]
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            mailboxes: Arc::default(),
        }
    }

    /// Notifies the holder that its operation was ended from outside.
    fn overruled<T>(&self, write: &Written<T>) {
        if let Written::Done(record) = write
            && let Some(node) = record.node()
        {
            self.mailboxes.send(node, record.operation().id().clone());
        }
    }
}

impl<R> Polling<R> {
    /// Does nothing: the holder learns of the end when it renews its leases.
    fn overruled<T>(&self, _: &Written<T>) {}
}

impl<R: Repository> Lease for SingleNode<R> {
    async fn renew(
        &self,
        _: &LeaseConfig,
        held: &[LeaseHandle],
    ) -> Result<Vec<LeaseHandle>, StoreError> {
        let mut lost = Vec::new();
        for held in held {
            let record = self.inner.get(&held.id).await?;
            if record.is_none_or(|record| !record.is_held_by(held.token)) {
                lost.push(held.clone());
            }
        }
        Ok(lost)
    }

    async fn reclaim(
        &self,
        _: &LeaseConfig,
        _: usize,
    ) -> Result<Vec<Reclaimed<Self::Output>>, StoreError> {
        Ok(Vec::new())
    }

    /// No other node can hold the operation, so the token does not change.
    async fn claim(
        &self,
        _: &LeaseConfig,
        held: &LeaseHandle,
    ) -> Result<Written<R::Output>, StoreError> {
        Ok(match self.inner.get(&held.id).await? {
            Some(record) if record.is_held_by(held.token) => Written::Done(record),
            Some(record) => Written::Lost(record),
            None => Written::Gone,
        })
    }

    async fn release(&self, _: &[LeaseHandle]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn revoked(
        &self,
        node: &NodeId,
        at_most: Duration,
    ) -> Result<Vec<OperationId>, StoreError> {
        Ok(self.mailboxes.receive(node, at_most).await)
    }
}

impl<R: Watch> Watch for SingleNode<R> {
    async fn changed(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
    ) -> Found<R::Output> {
        self.inner.changed(id, since, at_most).await
    }

    async fn changed_for(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
        owner: Option<&Owner>,
    ) -> Found<R::Output> {
        self.inner.changed_for(id, since, at_most, owner).await
    }
}

impl<R: Lease> Lease for Polling<R> {
    async fn renew(
        &self,
        lease: &LeaseConfig,
        held: &[LeaseHandle],
    ) -> Result<Vec<LeaseHandle>, StoreError> {
        self.inner.renew(lease, held).await
    }

    async fn reclaim(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Result<Vec<Reclaimed<Self::Output>>, StoreError> {
        self.inner.reclaim(lease, limit).await
    }

    async fn reclaim_released(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Result<Vec<Reclaimed<Self::Output>>, StoreError> {
        self.inner.reclaim_released(lease, limit).await
    }

    async fn claim(
        &self,
        lease: &LeaseConfig,
        held: &LeaseHandle,
    ) -> Result<Written<R::Output>, StoreError> {
        self.inner.claim(lease, held).await
    }

    async fn release(&self, held: &[LeaseHandle]) -> Result<(), StoreError> {
        self.inner.release(held).await
    }

    fn released(&self) -> impl Future<Output = ()> + Send {
        self.inner.released()
    }

    async fn purge_expired(&self, limit: usize) -> Result<Option<usize>, StoreError> {
        self.inner.purge_expired(limit).await
    }

    async fn revoked(
        &self,
        node: &NodeId,
        at_most: Duration,
    ) -> Result<Vec<OperationId>, StoreError> {
        self.inner.revoked(node, at_most).await
    }
}

/// Forwards the capabilities of the inner store unchanged.
macro_rules! forward {
    ($adaptor:ident) => {
        impl<R: Store> Store for $adaptor<R> {
            type Output = R::Output;

            async fn get(&self, id: &OperationId) -> Found<R::Output> {
                self.inner.get(id).await
            }

            fn get_now(&self, id: &OperationId) -> Option<Found<R::Output>> {
                self.inner.get_now(id)
            }

            async fn get_for(&self, id: &OperationId, owner: Option<&Owner>) -> Found<R::Output> {
                self.inner.get_for(id, owner).await
            }

            fn get_now_for(
                &self,
                id: &OperationId,
                owner: Option<&Owner>,
            ) -> Option<Found<R::Output>> {
                self.inner.get_now_for(id, owner)
            }

            async fn health(&self) -> Result<Health, StoreError> {
                self.inner.health().await
            }
        }

        impl<R: Repository> Repository for $adaptor<R> {
            fn never_waits(&self) -> bool {
                self.inner.never_waits()
            }

            async fn create(&self, new: NewOperation) -> Result<Created<R::Output>, StoreError> {
                self.inner.create(new).await
            }

            async fn start(
                &self,
                id: &OperationId,
                token: FencingToken,
            ) -> Result<Written<R::Output>, StoreError> {
                self.inner.start(id, token).await
            }

            async fn report(
                &self,
                id: &OperationId,
                token: FencingToken,
                progress: Progress,
            ) -> Result<Written<R::Output>, StoreError> {
                self.inner.report(id, token, progress).await
            }

            async fn finish(
                &self,
                id: &OperationId,
                token: FencingToken,
                outcome: Outcome<R::Output>,
                progress: Option<Progress>,
            ) -> Result<Written<R::Output>, StoreError> {
                self.inner.finish(id, token, outcome, progress).await
            }

            async fn force_finish(
                &self,
                id: &OperationId,
                version: Version,
                outcome: Outcome<R::Output>,
            ) -> Result<Written<R::Output>, StoreError> {
                let write = self.inner.force_finish(id, version, outcome).await?;
                self.overruled(&write);
                Ok(write)
            }

            async fn delete(
                &self,
                id: &OperationId,
                version: Version,
            ) -> Result<Written<R::Output>, StoreError> {
                self.inner.delete(id, version).await
            }
        }

        impl<R: IdempotencyKeys> IdempotencyKeys for $adaptor<R> {
            async fn reserve(
                &self,
                key: &IdempotencyKey,
                token: FencingToken,
                term: Duration,
            ) -> Result<Reservation<R::Output>, StoreError> {
                self.inner.reserve(key, token, term).await
            }

            async fn complete(
                &self,
                key: &IdempotencyKey,
                token: FencingToken,
                answer: R::Output,
            ) -> Result<bool, StoreError> {
                self.inner.complete(key, token, answer).await
            }

            async fn release_reservation(
                &self,
                key: &IdempotencyKey,
                token: FencingToken,
            ) -> Result<bool, StoreError> {
                self.inner.release_reservation(key, token).await
            }
        }

        impl<R: List> List for $adaptor<R> {
            async fn list(&self, query: &ListQuery) -> Result<Page<R::Output>, StoreError> {
                self.inner.list(query).await
            }
        }

        impl<R: Purge> Purge for $adaptor<R> {
            async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
                self.inner.purge(limit).await
            }
        }
    };
}

forward!(Polling);
forward!(SingleNode);
