//! Laws 1, 3 and 4 when the server is killed: acknowledged writes survive, and no version
//! changes its content.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use test_support::versions::assert_same_version;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tower_operations::{
    OperationId, Progress,
    store::{Created, NewOperation, Repository, Store, StoreError, Version, Written},
};
use tower_operations_redis::RedisStore;

use super::{Stored, connect, lease, server::Redis, success};

/// The record of every observed version.
#[derive(Default)]
struct Log(Mutex<HashMap<(OperationId, Version), Stored>>);

impl Log {
    fn observe(&self, record: &Stored) {
        let id = record.operation().id().clone();
        let version = record.version().unwrap();
        let mut versions = self.0.lock().unwrap();
        let first = versions
            .entry((id, version))
            .or_insert_with(|| record.clone());
        assert_same_version(first, record);
    }
}

/// Retries a call while its error is transient.
async fn retry<T, F>(mut write: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        match write().await {
            Ok(done) => return done,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Runs one operation from creation to end.
async fn run_operation(store: &RedisStore, log: &Log) -> OperationId {
    let term = Duration::from_secs(600);
    let new = NewOperation::new(OperationId::new()).with_lease(lease(term));
    let record = match retry(|| store.create(new.clone())).await {
        Created::New(record) | Created::Existing(record) => record,
        other => panic!("{other:?}"),
    };
    log.observe(&record);
    let (id, token) = (new.id, record.token());
    let observe_write = |write| match write {
        Written::Done(record) => log.observe(&record),
        other => panic!("{id} was lost: {other:?}"),
    };
    observe_write(retry(|| store.start(&id, token)).await);
    for part in 0..3 {
        let progress = Progress::from_count(part, 3);
        observe_write(retry(|| store.report(&id, token, progress.clone())).await);
    }
    let result = success(&format!("of {id}"));
    observe_write(retry(|| store.finish(&id, token, result.clone(), None)).await);
    id
}

/// Waits until `target` operations have ended. Panics if a writer or the reader has
/// failed.
async fn wait_for_operations(
    target: usize,
    finished: &AtomicUsize,
    writers: &mut JoinSet<Vec<OperationId>>,
    reader: &JoinHandle<()>,
) {
    while finished.load(SeqCst) < target {
        if let Some(ended) = writers.try_join_next() {
            panic!("a writer ended: {:?}", ended.unwrap());
        }
        assert!(!reader.is_finished(), "the reader failed");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_writes_survive_kills() {
    let mut redis = Redis::start().await;
    let stores = [connect(&redis).await, connect(&redis).await];
    let (log, finished) = (Arc::<Log>::default(), Arc::new(AtomicUsize::new(0)));
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for number in 0..16 {
        let store = stores[number % 2].clone();
        let (log, finished, over) = (Arc::clone(&log), Arc::clone(&finished), Arc::clone(&over));
        writers.spawn(async move {
            let mut ids = Vec::new();
            while !over.load(SeqCst) {
                ids.push(run_operation(&store, &log).await);
                finished.fetch_add(1, SeqCst);
            }
            ids
        });
    }
    // The reader observes versions before they are acknowledged.
    let reader = tokio::spawn({
        let (store, log, over) = (stores[1].clone(), Arc::clone(&log), Arc::clone(&over));
        async move {
            while !over.load(SeqCst) {
                let ids: Vec<_> = {
                    let versions = log.0.lock().unwrap();
                    versions
                        .keys()
                        .take(200)
                        .map(|(id, _)| id.clone())
                        .collect()
                };
                for id in ids {
                    if let Ok(Some(record)) = store.get(&id).await {
                        log.observe(&record);
                    }
                }
                tokio::task::yield_now().await;
            }
        }
    });
    for kill in 1..=5 {
        wait_for_operations(40 * kill, &finished, &mut writers, &reader).await;
        redis.kill().await;
        sleep(Duration::from_millis(50)).await;
        redis.run().await;
    }
    let now = finished.load(SeqCst);
    wait_for_operations(now + 40, &finished, &mut writers, &reader).await;
    over.store(true, SeqCst);
    reader.await.unwrap();
    let mut ids = Vec::new();
    while let Some(written) = writers.join_next().await {
        ids.extend(written.unwrap());
    }
    assert!(ids.len() >= 240);
    redis.kill().await;
    redis.run().await;
    for id in &ids {
        let record = retry(|| stores[0].get(id)).await;
        let record = record.unwrap_or_else(|| panic!("{id} is lost"));
        assert!(
            record.operation().state().is_terminal(),
            "{id} is live again"
        );
        assert_eq!(record.version().unwrap().get(), 6);
        log.observe(&record);
    }
}

/// Leases are timed by the clock of the server across restarts.
#[tokio::test]
async fn leases_survive_a_restart() {
    use tower_operations::store::Lease;

    let mut redis = Redis::start().await;
    let store = connect(&redis).await;
    let short = lease(Duration::from_millis(300));
    let expiring = super::create(
        &store,
        NewOperation::new(OperationId::new()).with_lease(short),
    );
    let expiring = expiring.await;
    let long = lease(Duration::from_secs(600));
    super::create(
        &store,
        NewOperation::new(OperationId::new()).with_lease(long),
    )
    .await;
    redis.kill().await;
    redis.run().await;
    let reclaimed = loop {
        match store.reclaim(&lease(Duration::from_secs(9)), 10).await {
            Ok(reclaimed) if reclaimed.is_empty() => {}
            Ok(reclaimed) => break reclaimed,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    };
    let ids: Vec<_> = reclaimed
        .iter()
        .map(|reclaimed| reclaimed.record.operation().id())
        .collect();
    assert_eq!(ids, [expiring.operation().id()]);
}
