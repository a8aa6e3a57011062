//! One store across several handles.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tower_operations::{
    operation::{OperationId, Outcome, Progress, RecordedResponse},
    store::{
        Created, FencingToken, Health, IdempotencyKey, IdempotencyKeys, Lease, LeaseConfig,
        LeaseHandle, List, ListQuery, NewOperation, NodeId, Page, Purge, Reader, Reclaimed, Record,
        Repository, Reservation, Stamp, Store, StoreError, Version, Watch, Written,
    },
};

/// Several handles to the same operations, as several nodes or connections have them. Each
/// call goes to the next handle, so that the checks see whether a write by one node holds
/// for the others.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use tower_operations::MemoryStore;
/// use tower_operations_conformance::{self as conformance, Nodes};
///
/// conformance::watch(async |ttl| {
///     let store = MemoryStore::new().ttl(ttl);
///     Nodes::new([store.clone(), store])
/// }).await;
/// # }
/// ```
#[derive(Debug)]
pub struct Nodes<R> {
    handles: Vec<R>,
    calls: AtomicUsize,
}

impl<R> Nodes<R> {
    /// Creates one store from these handles.
    ///
    /// # Panics
    /// Panics if there are no handles.
    #[must_use]
    pub fn new(handles: impl IntoIterator<Item = R>) -> Self {
        let handles: Vec<R> = handles.into_iter().collect();
        assert!(!handles.is_empty(), "a store has at least one handle");
        Self {
            handles,
            calls: AtomicUsize::new(0),
        }
    }

    fn next(&self) -> &R {
        &self.handles[self.calls.fetch_add(1, Relaxed) % self.handles.len()]
    }
}

type FoundByNode = Result<Option<Record<RecordedResponse>>, StoreError>;

impl<R: Store<Output = RecordedResponse>> Store for Nodes<R> {
    type Output = RecordedResponse;

    async fn get(&self, id: &OperationId) -> FoundByNode {
        self.next().get(id).await
    }

    fn get_now(&self, id: &OperationId) -> Option<FoundByNode> {
        self.next().get_now(id)
    }

    async fn get_for(&self, id: &OperationId, reader: Reader<'_>) -> FoundByNode {
        self.next().get_for(id, reader).await
    }

    fn get_now_for(&self, id: &OperationId, reader: Reader<'_>) -> Option<FoundByNode> {
        self.next().get_now_for(id, reader)
    }

    async fn health(&self) -> Result<Health, StoreError> {
        self.next().health().await
    }
}

impl<R: Repository<Output = RecordedResponse>> Repository for Nodes<R> {
    async fn create(&self, new: NewOperation) -> Result<Created<RecordedResponse>, StoreError> {
        self.next().create(new).await
    }

    async fn start(
        &self,
        id: &OperationId,
        token: FencingToken,
    ) -> Result<Written<RecordedResponse>, StoreError> {
        self.next().start(id, token).await
    }

    async fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> Result<Written<RecordedResponse>, StoreError> {
        self.next().report(id, token, progress).await
    }

    async fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<RecordedResponse>,
        progress: Option<Progress>,
    ) -> Result<Written<RecordedResponse>, StoreError> {
        self.next().finish(id, token, outcome, progress).await
    }

    async fn force_finish(
        &self,
        id: &OperationId,
        expected: Stamp,
        outcome: Outcome<RecordedResponse>,
    ) -> Result<Written<RecordedResponse>, StoreError> {
        self.next().force_finish(id, expected, outcome).await
    }

    async fn delete(
        &self,
        id: &OperationId,
        expected: Stamp,
    ) -> Result<Written<RecordedResponse>, StoreError> {
        self.next().delete(id, expected).await
    }
}

impl<R: Watch<Output = RecordedResponse>> Watch for Nodes<R> {
    async fn changed(&self, id: &OperationId, since: Version, at_most: Duration) -> FoundByNode {
        self.next().changed(id, since, at_most).await
    }

    async fn changed_for(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
        reader: Reader<'_>,
    ) -> FoundByNode {
        self.next().changed_for(id, since, at_most, reader).await
    }
}

impl<R: Lease<Output = RecordedResponse>> Lease for Nodes<R> {
    async fn renew(
        &self,
        lease: &LeaseConfig,
        held: &[LeaseHandle],
    ) -> Result<Vec<LeaseHandle>, StoreError> {
        self.next().renew(lease, held).await
    }

    async fn reclaim(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Result<Vec<Reclaimed<RecordedResponse>>, StoreError> {
        self.next().reclaim(lease, limit).await
    }

    async fn reclaim_released(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Result<Vec<Reclaimed<RecordedResponse>>, StoreError> {
        self.next().reclaim_released(lease, limit).await
    }

    async fn claim(
        &self,
        lease: &LeaseConfig,
        held: &LeaseHandle,
    ) -> Result<Written<RecordedResponse>, StoreError> {
        self.next().claim(lease, held).await
    }

    async fn release(&self, held: &[LeaseHandle]) -> Result<(), StoreError> {
        self.next().release(held).await
    }

    fn released(&self) -> impl Future<Output = ()> + Send {
        self.next().released()
    }

    async fn purge_expired(&self, limit: usize) -> Result<Option<usize>, StoreError> {
        self.next().purge_expired(limit).await
    }

    async fn revoked(
        &self,
        node: &NodeId,
        at_most: Duration,
    ) -> Result<Vec<OperationId>, StoreError> {
        self.next().revoked(node, at_most).await
    }
}

impl<R: IdempotencyKeys<Output = RecordedResponse>> IdempotencyKeys for Nodes<R> {
    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
    ) -> Result<Reservation<RecordedResponse>, StoreError> {
        self.next().reserve(key, token, term).await
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: RecordedResponse,
    ) -> Result<bool, StoreError> {
        self.next().complete(key, token, answer).await
    }

    async fn release_reservation(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
    ) -> Result<bool, StoreError> {
        self.next().release_reservation(key, token).await
    }
}

impl<R: List<Output = RecordedResponse>> List for Nodes<R> {
    async fn list(&self, query: &ListQuery) -> Result<Page<RecordedResponse>, StoreError> {
        self.next().list(query).await
    }
}

impl<R: Purge<Output = RecordedResponse>> Purge for Nodes<R> {
    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        self.next().purge(limit).await
    }
}
