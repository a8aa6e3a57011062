//! The laws for stores whose calls may fail before or after they take effect. A client that
//! retries as the traits specify finds the laws kept.

use std::{
    collections::HashSet,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use tower_operations::{
    MemoryStore, OperationId, Outcome, Progress, RecordedResponse,
    store::{
        Created, FencingToken, IdempotencyKey, IdempotencyKeys, Lease, LeaseConfig, LeaseHandle,
        List, ListQuery, NewOperation, NodeId, Page, Purge, Reclaimed, Record, Repository,
        Reservation, Stamp, Store, StoreError, Version, Watch, Written,
    },
};
use tower_operations_conformance as conformance;

type Answer<T> = Result<T, StoreError>;
type Found = Answer<Option<Record<RecordedResponse>>>;

/// An operation and its time of creation.
type Creation = (OperationId, Option<SystemTime>);

/// A client with an unreliable connection to a store, which retries its calls.
#[derive(Clone)]
struct Flaky<R> {
    inner: R,
    calls: Arc<AtomicU64>,
    /// The operations that were returned as new. The suite creates several times with one
    /// token, which applications do not do.
    created: Arc<Mutex<HashSet<Creation>>>,
}

impl<R> Flaky<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            calls: Arc::default(),
            created: Arc::default(),
        }
    }

    /// Retries a call until its answer arrives. One call of four is not delivered, and the
    /// answer to another one of four is lost.
    async fn retry<T, F>(&self, call: impl Fn() -> F) -> Answer<T>
    where
        F: Future<Output = Answer<T>>,
    {
        self.retry_noting_loss(call).await.1
    }

    /// Retries a call, and also returns whether an earlier answer was lost.
    async fn retry_noting_loss<T, F>(&self, call: impl Fn() -> F) -> (bool, Answer<T>)
    where
        F: Future<Output = Answer<T>>,
    {
        let mut lost = false;
        loop {
            let luck = self
                .calls
                .fetch_add(1, SeqCst)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                >> 62;
            if luck == 0 {
                continue;
            }
            match call().await {
                Err(error) if error.is_transient() => lost = true,
                _ if luck == 1 => lost = true,
                answer => return (lost, answer),
            }
        }
    }
}

impl<R: Store<Output = RecordedResponse>> Store for Flaky<R> {
    type Output = RecordedResponse;

    async fn get(&self, id: &OperationId) -> Found {
        self.retry(|| self.inner.get(id)).await
    }
}

impl<R: Repository<Output = RecordedResponse>> Repository for Flaky<R> {
    async fn create(&self, new: NewOperation) -> Answer<Created<RecordedResponse>> {
        let (lost, created) = self
            .retry_noting_loss(|| self.inner.create(new.clone()))
            .await;
        let is_first = |record: &Record<RecordedResponse>| {
            let created_at = record.operation().metadata().created_at();
            let mut created = self.created.lock().unwrap();
            created.insert((new.id.clone(), created_at))
        };
        Ok(match created? {
            // Another call with the same token may have returned the operation as new already.
            Created::New(record) if !is_first(&record) => Created::Existing(record),
            // The token identifies an operation of an earlier try.
            Created::Existing(record)
                if lost && record.token() == new.token && is_first(&record) =>
            {
                Created::New(record)
            }
            created => created,
        })
    }

    async fn start(
        &self,
        id: &OperationId,
        token: FencingToken,
    ) -> Answer<Written<RecordedResponse>> {
        self.retry(|| self.inner.start(id, token)).await
    }

    /// A lost report is not retried, because the next report supersedes it.
    async fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> Answer<Written<RecordedResponse>> {
        self.inner.report(id, token, progress).await
    }

    async fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<RecordedResponse>,
        progress: Option<Progress>,
    ) -> Answer<Written<RecordedResponse>> {
        let finish = || {
            self.inner
                .finish(id, token, outcome.clone(), progress.clone())
        };
        self.retry(finish).await
    }

    // A forced finish is conditional on a stamp, so a retry cannot tell its own success
    // from that of another call. The caller reads the operation again instead.
    async fn force_finish(
        &self,
        id: &OperationId,
        expected: Stamp,
        outcome: Outcome<RecordedResponse>,
    ) -> Answer<Written<RecordedResponse>> {
        self.inner.force_finish(id, expected, outcome).await
    }

    async fn delete(&self, id: &OperationId, expected: Stamp) -> Answer<Written<RecordedResponse>> {
        self.created
            .lock()
            .unwrap()
            .retain(|(known, _)| known != id);
        self.inner.delete(id, expected).await
    }
}

impl<R: Watch<Output = RecordedResponse>> Watch for Flaky<R> {
    async fn changed(&self, id: &OperationId, since: Version, at_most: Duration) -> Found {
        self.inner.changed(id, since, at_most).await
    }
}

impl<R: Lease<Output = RecordedResponse>> Lease for Flaky<R> {
    async fn renew(&self, lease: &LeaseConfig, held: &[LeaseHandle]) -> Answer<Vec<LeaseHandle>> {
        self.retry(|| self.inner.renew(lease, held)).await
    }

    /// A lost answer leaves the reclaimed leases to expire, so the call is not retried.
    async fn reclaim(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Answer<Vec<Reclaimed<RecordedResponse>>> {
        self.inner.reclaim(lease, limit).await
    }

    /// A claim is not retried, because a retry cannot tell whether the first claim was its own.
    async fn claim(
        &self,
        lease: &LeaseConfig,
        held: &LeaseHandle,
    ) -> Answer<Written<RecordedResponse>> {
        self.inner.claim(lease, held).await
    }

    async fn release(&self, held: &[LeaseHandle]) -> Answer<()> {
        self.retry(|| self.inner.release(held)).await
    }

    async fn revoked(&self, node: &NodeId, at_most: Duration) -> Answer<Vec<OperationId>> {
        self.inner.revoked(node, at_most).await
    }
}

impl<R: IdempotencyKeys<Output = RecordedResponse>> IdempotencyKeys for Flaky<R> {
    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
    ) -> Answer<Reservation<RecordedResponse>> {
        self.retry(|| self.inner.reserve(key, token, term)).await
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: RecordedResponse,
    ) -> Answer<bool> {
        self.retry(|| self.inner.complete(key, token, answer.clone()))
            .await
    }

    /// A release is not retried, because the second release would find the key free.
    async fn release_reservation(&self, key: &IdempotencyKey, token: FencingToken) -> Answer<bool> {
        self.inner.release_reservation(key, token).await
    }
}

impl<R: List<Output = RecordedResponse>> List for Flaky<R> {
    async fn list(&self, query: &ListQuery) -> Answer<Page<RecordedResponse>> {
        self.retry(|| self.inner.list(query)).await
    }
}

impl<R: Purge<Output = RecordedResponse>> Purge for Flaky<R> {
    /// A purge is not retried, because the second purge would not count the first one's rows.
    async fn purge(&self, limit: usize) -> Answer<usize> {
        self.inner.purge(limit).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_laws_despite_faults() {
    conformance::all(async |ttl| Flaky::new(MemoryStore::new().ttl(ttl))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redb_keeps_the_laws_despite_faults() {
    use tower_operations_redb::RedbStore;
    let name = format!("faults-{}.redb", std::process::id());
    let path = std::env::temp_dir().join(name);
    let store = RedbStore::open(&path).unwrap();
    conformance::all(async |ttl| Flaky::new(store.clone().ttl(ttl))).await;
    drop(store);
    std::fs::remove_file(path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_laws_despite_faults() {
    use tower_operations_postgres::PostgresStore;
    let server = test_support::postgres::Postgres::start().await;
    let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
    let store: PostgresStore = PostgresStore::connect(pool).await.unwrap();
    conformance::all(async |ttl| Flaky::new(store.clone().ttl(ttl))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_the_laws_despite_faults() {
    use tower_operations_redis::RedisStore;
    let server = test_support::redis::Redis::start().await;
    let store: RedisStore = RedisStore::connect(&server.url()).await.unwrap();
    conformance::all(async |ttl| Flaky::new(store.clone().ttl(ttl))).await;
}
