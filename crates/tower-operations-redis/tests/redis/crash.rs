//! Laws 1, 3 and 4 when the server is killed: what was acknowledged is there, and
//! no version comes back with other content.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tower_operations::{
    OperationId, Progress,
    store::{Created, NewOperation, Repository, Store, StoreError, Version, Written},
};
use tower_operations_redis::RedisStore;

use super::{Seen, connect, lease, server::Redis, success};

/// Everything that was ever seen, by anybody.
#[derive(Default)]
struct Log(Mutex<HashMap<(OperationId, Version), Seen>>);

impl Log {
    fn saw(&self, record: &Seen) {
        let id = record.operation().id().clone();
        let version = record.version().unwrap();
        let mut seen = self.0.lock().unwrap();
        let first = seen.entry((id, version)).or_insert_with(|| record.clone());
        assert_eq!(first, record, "version {version} has two contents");
    }
}

/// Tries again for as long as that can help.
async fn insist<T, F>(mut write: impl FnMut() -> F) -> T
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

/// Takes one operation through its life.
async fn live(store: &RedisStore, log: &Log) -> OperationId {
    let term = Duration::from_secs(600);
    let new = NewOperation::new(OperationId::new()).with_lease(lease(term));
    let record = match insist(|| store.create(new.clone())).await {
        Created::New(record) | Created::Existing(record) => record,
        other => panic!("{other:?}"),
    };
    log.saw(&record);
    let (id, token) = (new.id, record.token());
    let wrote = |write| match write {
        Written::Done(record) => log.saw(&record),
        other => panic!("{id} was lost: {other:?}"),
    };
    wrote(insist(|| store.start(&id, token)).await);
    for part in 0..3 {
        let progress = Progress::from_count(part, 3);
        wrote(insist(|| store.report(&id, token, progress.clone())).await);
    }
    let result = success(&format!("of {id}"));
    wrote(insist(|| store.finish(&id, token, result.clone(), None)).await);
    id
}

/// Waits until so many operations have lived. Whoever found a law broken meanwhile
/// says so.
async fn reach(
    target: usize,
    lived: &AtomicUsize,
    writers: &mut JoinSet<Vec<OperationId>>,
    reader: &JoinHandle<()>,
) {
    while lived.load(SeqCst) < target {
        if let Some(ended) = writers.try_join_next() {
            panic!("a writer ended: {:?}", ended.unwrap());
        }
        assert!(!reader.is_finished(), "the reader found something");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_outlives_kills() {
    let mut redis = Redis::start().await;
    let stores = [connect(&redis).await, connect(&redis).await];
    let (log, lived) = (Arc::<Log>::default(), Arc::new(AtomicUsize::new(0)));
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for number in 0..16 {
        let store = stores[number % 2].clone();
        let (log, lived, over) = (Arc::clone(&log), Arc::clone(&lived), Arc::clone(&over));
        writers.spawn(async move {
            let mut ids = Vec::new();
            while !over.load(SeqCst) {
                ids.push(live(&store, &log).await);
                lived.fetch_add(1, SeqCst);
            }
            ids
        });
    }
    // Readers see what nobody was told yet.
    let reader = tokio::spawn({
        let (store, log, over) = (stores[1].clone(), Arc::clone(&log), Arc::clone(&over));
        async move {
            while !over.load(SeqCst) {
                let ids: Vec<_> = {
                    let seen = log.0.lock().unwrap();
                    seen.keys().take(200).map(|(id, _)| id.clone()).collect()
                };
                for id in ids {
                    if let Ok(Some(record)) = store.get(&id).await {
                        log.saw(&record);
                    }
                }
                tokio::task::yield_now().await;
            }
        }
    });
    for kill in 1..=5 {
        reach(40 * kill, &lived, &mut writers, &reader).await;
        redis.kill().await;
        sleep(Duration::from_millis(50)).await;
        redis.run().await;
    }
    let now = lived.load(SeqCst);
    reach(now + 40, &lived, &mut writers, &reader).await;
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
        let record = insist(|| stores[0].get(id)).await;
        let record = record.unwrap_or_else(|| panic!("{id} is lost"));
        assert!(record.operation().state().is_terminal(), "{id} came back");
        assert_eq!(record.version().unwrap().get(), 6);
        log.saw(&record);
    }
}

/// Leases go on by the server's clock, whatever happens to the server.
#[tokio::test]
async fn leases_outlive_a_restart() {
    use tower_operations::store::Lease;

    let mut redis = Redis::start().await;
    let store = connect(&redis).await;
    let short = lease(Duration::from_millis(300));
    let lapsing = super::create(
        &store,
        NewOperation::new(OperationId::new()).with_lease(short),
    );
    let lapsing = lapsing.await;
    let long = lease(Duration::from_secs(600));
    super::create(
        &store,
        NewOperation::new(OperationId::new()).with_lease(long),
    )
    .await;
    redis.kill().await;
    redis.run().await;
    let taken = loop {
        match store.reclaim(&lease(Duration::from_secs(9)), 10).await {
            Ok(taken) if taken.is_empty() => {}
            Ok(taken) => break taken,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    };
    let ids: Vec<_> = taken
        .iter()
        .map(|taken| taken.record.operation().id())
        .collect();
    assert_eq!(ids, [lapsing.operation().id()]);
}
