//! Kills of the server while operations run.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use test_support::versions::assert_same_version;
use tokio::task::JoinSet;
use tower_operations::{
    OperationId, Progress, RecordedResponse,
    store::{
        Created, FencingToken, Lease, LeaseHandle, NewOperation, Record, Repository, Store,
        StoreError, Written,
    },
};
use tower_operations_postgres::{PostgresError, PostgresStore};

use crate::{
    common::{create, pool, store, success, term},
    server::Postgres,
};

type Stored = Record<RecordedResponse>;

/// Records that were acknowledged or read, by id and version.
#[derive(Default)]
struct Observations {
    records: Mutex<HashMap<(OperationId, u64), Stored>>,
    newest: Mutex<HashMap<OperationId, u64>>,
    acknowledged: AtomicUsize,
    errors: AtomicUsize,
    has_ended: AtomicBool,
}

impl Observations {
    /// Records a version, and asserts that an earlier observation of the version is equal.
    fn observe(&self, record: &Stored) {
        let id = record.operation().id().clone();
        let version = record.version().unwrap().get();
        let mut newest = self.newest.lock().unwrap();
        let newest = newest.entry(id.clone()).or_default();
        *newest = version.max(*newest);
        let mut records = self.records.lock().unwrap();
        let before = records
            .entry((id, version))
            .or_insert_with(|| record.clone());
        assert_same_version(before, record);
    }

    /// Retries a call until the server answers.
    async fn retry<T, F>(&self, write: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match write().await {
                Ok(answer) => {
                    self.acknowledged.fetch_add(1, SeqCst);
                    return answer;
                }
                Err(error) => {
                    assert!(error.is_transient(), "{error:?}");
                    self.errors.fetch_add(1, SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }

    async fn run(&self, store: &PostgresStore, text: &str) {
        let new = NewOperation::new(OperationId::new()).with_lease(term(600));
        let created = self.retry(|| store.create(new.clone())).await;
        let (Created::New(record) | Created::Existing(record)) = created else {
            panic!("{created:?}");
        };
        let (id, token) = (record.operation().id().clone(), record.token());
        self.observe(&record);
        let started = self.retry(|| store.start(&id, token)).await;
        self.observe_write(started);
        let progress = Progress::from_count(1, 2);
        let reported = self.retry(|| store.report(&id, token, progress.clone()));
        self.observe_write(reported.await);
        let finished = self.retry(|| store.finish(&id, token, success(text), None));
        self.observe_write(finished.await);
    }

    fn observe_write(&self, write: Written<RecordedResponse>) {
        match write {
            Written::Done(record) => self.observe(&record),
            other => panic!("{other:?}"),
        }
    }

    /// Reads operations while they are written.
    async fn read_continuously(&self, store: &PostgresStore) {
        while !self.has_ended.load(SeqCst) {
            let ids: Vec<_> = self
                .newest
                .lock()
                .unwrap()
                .keys()
                .take(20)
                .cloned()
                .collect();
            for id in ids {
                if let Ok(found) = store.get(&id).await {
                    self.observe(&found.expect("an acknowledged operation exists"));
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_versions_survive_kills_of_the_server() {
    let mut server = Postgres::start().await;
    let nodes = [store(&server).await, store(&server).await];
    let observations = Arc::<Observations>::default();
    let mut tasks = JoinSet::new();
    for number in 0..6 {
        let (store, observations) = (nodes[number % 2].clone(), Arc::clone(&observations));
        tasks.spawn(async move {
            let mut round = 0;
            while !observations.has_ended.load(SeqCst) {
                observations.run(&store, &format!("{number}.{round}")).await;
                round += 1;
            }
        });
    }
    for store in nodes.clone() {
        let observations = Arc::clone(&observations);
        tasks.spawn(async move { observations.read_continuously(&store).await });
    }
    for kill in 0..4 {
        let before = observations.acknowledged.load(SeqCst);
        while observations.acknowledged.load(SeqCst) < before + 60 {
            if let Some(ended) = tasks.try_join_next() {
                ended.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match kill % 2 {
            0 => server.kill().await,
            _ => server.stop_immediately().await,
        }
        server.run().await;
    }
    observations.has_ended.store(true, SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert!(
        observations.errors.load(SeqCst) > 0,
        "no call failed while the server was down"
    );
    let newest = observations.newest.lock().unwrap().clone();
    for (id, version) in newest {
        let record = nodes[0].get(&id).await.unwrap();
        let record = record.unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
        assert_eq!(record.version().unwrap().get(), version, "{id}");
        assert!(record.operation().state().is_terminal());
        observations.observe(&record);
    }
}

/// Commits that do not wait lose an operation, so the test above is able to fail.
#[tokio::test]
async fn asynchronous_commits_are_refused_and_lose_operations() {
    let settings = [
        "synchronous_commit=off",
        "wal_writer_delay=10s",
        "wal_writer_flush_after=1GB",
    ];
    let mut server = Postgres::with(&settings).await;
    let refused = PostgresStore::connect(pool(server.port(), 2)).await;
    assert!(matches!(
        refused,
        Err(PostgresError::NotDurable {
            setting: "synchronous_commit",
            ..
        })
    ));
    let builder = PostgresStore::builder(pool(server.port(), 2));
    let store = builder.accept_data_loss().connect().await.unwrap();
    create(&store).await;
    sqlx::query("CHECKPOINT")
        .execute(&pool(server.port(), 1))
        .await
        .unwrap();
    let (id, _) = create(&store).await;
    server.kill().await;
    server.run().await;
    let found = Observations::default().retry(|| store.get(&id)).await;
    assert!(found.is_none(), "the commit waited for the disk");
}

/// A renewal does not wait for the disk. A crash that loses a renewal changes only
/// the expiry of the lease.
#[tokio::test]
async fn a_crash_loses_at_most_a_renewal() {
    let settings = ["wal_writer_delay=10s", "wal_writer_flush_after=1GB"];
    let mut server = Postgres::with(&settings).await;
    let store = store(&server).await;
    let (id, token) = create(&store).await;
    let Written::Done(record) = store.start(&id, token).await.unwrap() else {
        panic!("the operation was not started");
    };
    let held = [
        LeaseHandle::new(id.clone(), token),
        LeaseHandle::new(OperationId::new(), token),
    ];
    let lost = store.renew(&term(3600), &held).await.unwrap();
    assert_eq!(lost, held[1..]);
    let lasts = "SELECT lease_until > now() + interval '30 minutes' FROM operations";
    let lasts = async || -> bool {
        let pool = pool(server.port(), 1);
        sqlx::query_scalar(lasts).fetch_one(&pool).await.unwrap()
    };
    assert!(lasts().await);
    server.kill().await;
    server.run().await;
    let found = Observations::default().retry(|| store.get(&id)).await;
    assert_eq!(found, Some(record));
    let lasts: bool =
        sqlx::query_scalar("SELECT lease_until > now() + interval '30 minutes' FROM operations")
            .fetch_one(&pool(server.port(), 1))
            .await
            .unwrap();
    assert!(!lasts, "the renewal waited for the disk");
    assert!(store.renew(&term(60), &held[..1]).await.unwrap().is_empty());
}

/// A node whose lease was reclaimed before a crash cannot write after the crash.
#[tokio::test]
async fn a_reclaimed_lease_survives_a_crash() {
    let mut server = Postgres::start().await;
    let nodes = [store(&server).await, store(&server).await];
    let new = NewOperation::new(OperationId::new()).with_lease(term(0));
    let Created::New(record) = nodes[0].create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let reclaimed = nodes[1].reclaim(&term(60), 10).await.unwrap();
    assert_eq!(reclaimed.len(), 1);
    server.kill().await;
    server.run().await;
    let (id, old): (_, FencingToken) = (record.operation().id(), record.token());
    let late = Observations::default()
        .retry(|| nodes[0].finish(id, old, success("late"), None))
        .await;
    assert!(matches!(late, Written::Lost(_)), "{late:?}");
}
