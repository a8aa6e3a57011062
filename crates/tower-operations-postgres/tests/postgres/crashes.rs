//! The server is killed while operations go on.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

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

type Stored = Arc<Record<RecordedResponse>>;

/// What was acknowledged or read, by version.
#[derive(Default)]
struct Seen {
    records: Mutex<HashMap<(OperationId, u64), Stored>>,
    newest: Mutex<HashMap<OperationId, u64>>,
    acknowledged: AtomicUsize,
    errors: AtomicUsize,
    has_ended: AtomicBool,
}

impl Seen {
    /// A version that was seen has the content it had.
    fn saw(&self, record: &Stored) {
        let id = record.operation().id().clone();
        let version = record.version().unwrap().get();
        let mut newest = self.newest.lock().unwrap();
        let newest = newest.entry(id.clone()).or_default();
        *newest = version.max(*newest);
        let mut records = self.records.lock().unwrap();
        let before = records
            .entry((id, version))
            .or_insert_with(|| Arc::clone(record));
        assert_eq!(before, record, "another content of the same version");
    }

    /// Repeats what failed for want of a server.
    async fn insist<T, F>(&self, write: impl Fn() -> F) -> T
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
        let created = self.insist(|| store.create(new.clone())).await;
        let (Created::New(record) | Created::Existing(record)) = created else {
            panic!("{created:?}");
        };
        let (id, token) = (record.operation().id().clone(), record.token());
        self.saw(&record);
        let started = self.insist(|| store.start(&id, token)).await;
        self.wrote(started);
        let progress = Progress::from_count(1, 2);
        let reported = self.insist(|| store.report(&id, token, progress.clone()));
        self.wrote(reported.await);
        let finished = self.insist(|| store.finish(&id, token, success(text), None));
        self.wrote(finished.await);
    }

    fn wrote(&self, write: Written<RecordedResponse>) {
        match write {
            Written::Done(record) => self.saw(&record),
            other => panic!("{other:?}"),
        }
    }

    /// Reads what is being written.
    async fn look(&self, store: &PostgresStore) {
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
                    self.saw(&found.expect("what was acknowledged is there"));
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_acknowledged_is_lost_and_no_version_changes_when_the_server_is_killed() {
    let mut server = Postgres::start().await;
    let nodes = [store(&server).await, store(&server).await];
    let seen = Arc::<Seen>::default();
    let mut tasks = JoinSet::new();
    for number in 0..6 {
        let (store, seen) = (nodes[number % 2].clone(), Arc::clone(&seen));
        tasks.spawn(async move {
            let mut round = 0;
            while !seen.has_ended.load(SeqCst) {
                seen.run(&store, &format!("{number}.{round}")).await;
                round += 1;
            }
        });
    }
    for store in nodes.clone() {
        let seen = Arc::clone(&seen);
        tasks.spawn(async move { seen.look(&store).await });
    }
    for kill in 0..4 {
        let before = seen.acknowledged.load(SeqCst);
        while seen.acknowledged.load(SeqCst) < before + 60 {
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
    seen.has_ended.store(true, SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert!(
        seen.errors.load(SeqCst) > 0,
        "nobody noticed that it was gone"
    );
    let newest = seen.newest.lock().unwrap().clone();
    for (id, version) in newest {
        let record = nodes[0].get(&id).await.unwrap();
        let record = record.unwrap_or_else(|| panic!("{id} was acknowledged, and is lost"));
        assert_eq!(record.version().unwrap().get(), version, "{id}");
        assert!(record.operation().state().is_terminal());
        seen.saw(&record);
    }
}

/// What it looks like if a commit does not wait: so the test above would notice.
#[tokio::test]
async fn a_server_that_forgets_is_refused_and_does_forget() {
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
    let found = Seen::default().insist(|| store.get(&id)).await;
    assert!(found.is_none(), "it did wait");
}

/// A renewal does not wait for the disk, and a crash that takes it back changes
/// nothing but when the lease is over.
#[tokio::test]
async fn a_renewal_may_be_forgotten_and_nothing_else_is() {
    let settings = ["wal_writer_delay=10s", "wal_writer_flush_after=1GB"];
    let mut server = Postgres::with(&settings).await;
    let store = store(&server).await;
    let (id, token) = create(&store).await;
    let Written::Done(record) = store.start(&id, token).await.unwrap() else {
        panic!("it was not started");
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
    let found = Seen::default().insist(|| store.get(&id)).await;
    assert_eq!(found, Some(record));
    let lasts: bool =
        sqlx::query_scalar("SELECT lease_until > now() + interval '30 minutes' FROM operations")
            .fetch_one(&pool(server.port(), 1))
            .await
            .unwrap();
    assert!(!lasts, "it did wait");
    assert!(store.renew(&term(60), &held[..1]).await.unwrap().is_empty());
}

/// A node whose lease was taken over before the crash stays out after it.
#[tokio::test]
async fn a_lease_that_was_taken_over_stays_so() {
    let mut server = Postgres::start().await;
    let nodes = [store(&server).await, store(&server).await];
    let new = NewOperation::new(OperationId::new()).with_lease(term(0));
    let Created::New(record) = nodes[0].create(new).await.unwrap() else {
        panic!("it was there");
    };
    let taken = nodes[1].reclaim(&term(60), 10).await.unwrap();
    assert_eq!(taken.len(), 1);
    server.kill().await;
    server.run().await;
    let (id, old): (_, FencingToken) = (record.operation().id(), record.token());
    let late = Seen::default()
        .insist(|| nodes[0].finish(id, old, success("late"), None))
        .await;
    assert!(matches!(late, Written::Lost(_)), "{late:?}");
}
