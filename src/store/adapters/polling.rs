use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::forward::forward;
use crate::{
    operation::{OperationId, Outcome, Progress},
    store::{
        Created, FencingToken, Health, IdempotencyKey, IdempotencyKeys, Lease, LeaseConfig,
        LeaseHandle, List, ListQuery, NewOperation, NodeId, Page, Placed, Purge, Reader, Reclaimed,
        Repository, Reservation, Stamp, Store, StoreError, Version, Watch, Written, traits::Found,
    },
};

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
        reader: Reader<'_>,
    ) -> Found<R::Output> {
        let read = || self.inner.get_for(id, reader);
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

impl<R> Polling<R> {
    /// Does nothing: the holder learns of the end when it renews its leases.
    fn force_finished<T>(&self, _: &Written<T>) {}
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

forward!(Polling);
