//! Writes of concurrent callers share statements, and have results of their own.

use std::{future::Future, pin::pin, task::Context};

use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use tokio::time::timeout;
use tower_operations::{
    OperationId, Outcome,
    store::{Created, FencingToken, Repository, Stamp, Store, StoreError, Version, Written},
};
use tower_operations_postgres::PostgresStore;

use crate::{
    common::{STUCK, create, pool, store, success, url, without_lease},
    proxy::Proxy,
    server::Postgres,
};

/// Runs all at the same time.
async fn join_all<F>(all: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let tasks: Vec<_> = all.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

/// Creates operations at the same time.
async fn create_all(store: &PostgresStore, count: usize) -> Vec<(OperationId, FencingToken)> {
    let creates = (0..count).map(|_| {
        let store = store.clone();
        async move { create(&store).await }
    });
    join_all(creates).await
}

/// Ends operations at the same time, each with the result of its number.
async fn finish_all(
    store: &PostgresStore,
    created: &[(OperationId, FencingToken)],
    result: impl Fn(usize) -> String,
) {
    let ends = created
        .iter()
        .cloned()
        .enumerate()
        .map(|(number, (id, token))| {
            let (store, outcome) = (store.clone(), success(result(number)));
            async move { store.finish(&id, token, outcome, None).await }
        });
    for ended in join_all(ends).await {
        assert!(matches!(ended, Ok(Written::Done(_))));
    }
}

async fn admin(server: &Postgres) -> PgConnection {
    PgConnection::connect(&url(server.port())).await.unwrap()
}

async fn run(admin: &mut PgConnection, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    raw_sql(sql).execute(admin).await.unwrap();
}

#[tokio::test]
async fn concurrent_writes_share_a_statement() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 4)).await.unwrap();
    proxy.executed();
    create_all(&store, 300).await;
    assert_eq!(proxy.executed().len(), 3, "at most 128 creates a statement");
    let created = create_all(&store, 100).await;
    assert_eq!(proxy.executed().len(), 1, "a hundred creates");
    let starts = created.iter().cloned().map(|(id, token)| {
        let store = store.clone();
        async move { store.start(&id, token).await }
    });
    for started in join_all(starts).await {
        assert!(matches!(started, Ok(Written::Done(_))));
    }
    assert_eq!(proxy.executed().len(), 1, "a hundred starts");
    finish_all(&store, &created, |number| number.to_string()).await;
    assert_eq!(proxy.executed().len(), 1, "a hundred ends");
    for (number, (id, _)) in created.iter().enumerate() {
        let record = store.get(id).await.unwrap().unwrap();
        let result = record.operation().result().unwrap();
        assert_eq!(result.body().unwrap(), number.to_string().as_bytes());
    }
}

#[tokio::test]
async fn statements_are_bounded_in_bytes_and_large_results_have_their_own() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 4)).await.unwrap();
    let created = create_all(&store, 3).await;
    proxy.executed();
    finish_all(&store, &created, |_| "x".repeat(100 * 1024)).await;
    assert_eq!(proxy.executed().len(), 3, "a hundred KiB each");
    let created = create_all(&store, 100).await;
    proxy.executed();
    finish_all(&store, &created, |_| "x".repeat(40 * 1024)).await;
    assert_eq!(proxy.executed().len(), 4, "40 KiB each, a MiB a statement");
}

#[tokio::test]
async fn concurrent_changes_of_one_operation_happen_once() {
    let server = Postgres::start().await;
    let stores = [store(&server).await, store(&server).await];
    for _ in 0..20 {
        let (id, token) = create(&stores[0]).await;
        let first = Stamp::new(Version::FIRST, token);
        let ends = (0..6).map(|number| {
            let outcome = Outcome::CanceledFor(format!("by {number}").into());
            let (store, id) = (stores[number % 2].clone(), id.clone());
            async move { store.force_finish(&id, first, outcome).await }
        });
        let ends = join_all(ends).await;
        let done: Vec<_> = (ends.iter())
            .filter_map(|end| match end.as_ref().unwrap() {
                Written::Done(record) => Some(record.operation().clone()),
                _ => None,
            })
            .collect();
        assert_eq!(done.len(), 1);
        let stored = stores[1].get(&id).await.unwrap().unwrap();
        assert_eq!(
            format!("{:?}", stored.operation()),
            format!("{:?}", done[0])
        );
    }
}

#[tokio::test]
async fn concurrent_creates_of_one_id_happen_once() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let creates = (0..6).map(|_| {
        let store = store.clone();
        async move { store.create(without_lease("one")).await }
    });
    let creates = join_all(creates).await;
    let new = (creates.iter()).filter(|created| matches!(created, Ok(Created::New(_))));
    assert_eq!(new.count(), 1);
    let existing = (creates.iter()).filter(|created| matches!(created, Ok(Created::Existing(_))));
    assert_eq!(existing.count(), 5);
}

#[tokio::test]
async fn a_row_that_another_transaction_holds_delays_only_its_operation() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let created = create_all(&store, 5).await;
    let mut admin = admin(&server).await;
    let held = &created[2].0;
    run(
        &mut admin,
        &format!("BEGIN; SELECT FROM operations WHERE id = '{held}' FOR UPDATE"),
    )
    .await;
    let mut waiting = Vec::new();
    for (id, token) in &created {
        let (store, id, token) = (store.clone(), id.clone(), *token);
        waiting.push(tokio::spawn(async move {
            store.finish(&id, token, success("x"), None).await
        }));
    }
    let last = waiting.remove(2);
    for waiting in waiting {
        let ended = timeout(STUCK / 2, waiting)
            .await
            .expect("it is not delayed");
        assert!(matches!(ended.unwrap(), Ok(Written::Done(_))));
    }
    // Later writes are not delayed either.
    timeout(STUCK / 2, create(&store)).await.expect("a create");
    assert!(!last.is_finished());
    run(&mut admin, "COMMIT").await;
    let ended = timeout(STUCK, last).await.expect("the row is free");
    assert!(matches!(ended.unwrap(), Ok(Written::Done(_))));
}

#[tokio::test]
async fn a_row_that_is_refused_fails_no_other_row() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let mut admin = admin(&server).await;
    run(
        &mut admin,
        "ALTER TABLE operations ADD CHECK (id <> 'refused')",
    )
    .await;
    let error = error_of_one_row(&store, "refused").await;
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
}

/// Creates this operation and others at the same moment. Returns its error; the others succeed.
async fn error_of_one_row(store: &PostgresStore, id: &'static str) -> StoreError {
    let created = join_all(["a", id, "z"].map(|id| {
        let store = store.clone();
        async move { store.create(without_lease(id)).await }
    }));
    let [first, failed, last] = <[_; 3]>::try_from(created.await).expect("three answers");
    assert!(matches!(first, Ok(Created::New(_))), "{first:?}");
    assert!(matches!(last, Ok(Created::New(_))), "{last:?}");
    failed.expect_err("the row has an error")
}

/// Such as the error of a trigger, after which a retry may succeed.
#[tokio::test]
async fn a_row_with_a_transient_error_fails_no_other_row() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let mut admin = admin(&server).await;
    run(
        &mut admin,
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
        CREATE TRIGGER fail BEFORE INSERT ON operations FOR EACH ROW
            WHEN (NEW.id = 'failing') EXECUTE FUNCTION fail()",
    )
    .await;
    let error = error_of_one_row(&store, "failing").await;
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_write_that_was_given_up_while_it_waited_is_not_sent() {
    let server = Postgres::start().await;
    let pool = pool(server.port(), 1);
    let store = PostgresStore::connect(pool.clone()).await.unwrap();
    let connection = pool.acquire().await.unwrap();
    let short = std::time::Duration::from_millis(100);
    let given_up = timeout(short, store.create(without_lease("given-up"))).await;
    assert!(given_up.is_err());
    drop(connection);
    create(&store).await;
    let id = "given-up".parse().unwrap();
    assert!(store.get(&id).await.unwrap().is_none());
}

/// The task that sends a statement ends with its runtime.
#[tokio::test]
async fn writes_continue_after_the_runtime_of_a_writer_has_ended() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let of_another = store.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut create = pin!(of_another.create(without_lease("left")));
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert!(create.as_mut().poll(&mut context).is_pending());
        });
    })
    .join()
    .unwrap();
    let new = timeout(STUCK, store.create(without_lease("later"))).await;
    assert!(matches!(new.expect("in time"), Ok(Created::New(_))));
}

/// The task of the runtime that has begun to send may never run.
#[tokio::test]
async fn writes_do_not_wait_for_a_runtime_that_is_not_driven() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let of_another = store.clone();
    let (kept, runtime) = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut create = Box::pin(async move { of_another.create(without_lease("left")).await });
        runtime.block_on(async {
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert!(create.as_mut().poll(&mut context).is_pending());
        });
        (create, runtime)
    })
    .join()
    .unwrap();
    let new = timeout(STUCK / 2, store.create(without_lease("later"))).await;
    assert!(matches!(new.expect("in time"), Ok(Created::New(_))));
    drop(kept);
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_statement_that_waits_for_an_uncommitted_insert_holds_up_no_other_write() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let mut admin = admin(&server).await;
    let insert = "INSERT INTO operations (id, version, token, state, head)
        VALUES ('taken', 1, 1, 'pending', '{}')";
    run(&mut admin, &format!("BEGIN; {insert}")).await;
    let of_taken = store.clone();
    let waiting = tokio::spawn(async move { of_taken.create(without_lease("taken")).await });
    while !waits_for_a_lock(&server).await {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let others = timeout(STUCK / 2, create_all(&store, 3)).await;
    others.expect("they are not delayed");
    run(&mut admin, "ROLLBACK").await;
    let created = timeout(STUCK, waiting).await.expect("the id is free");
    assert!(matches!(created.unwrap(), Ok(Created::New(_))));
}

#[tokio::test]
async fn a_create_of_an_id_whose_row_is_held_delays_no_other_create() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let (held, _) = create(&store).await;
    let mut admin = admin(&server).await;
    run(
        &mut admin,
        &format!("BEGIN; UPDATE operations SET request = '' WHERE id = '{held}'"),
    )
    .await;
    let of_held = store.clone();
    let id = held.to_string();
    let again = tokio::spawn(async move { of_held.create(without_lease(&id)).await });
    let beside = timeout(STUCK / 2, create_all(&store, 3)).await;
    beside.expect("they are not delayed");
    run(&mut admin, "ROLLBACK").await;
    let again = timeout(STUCK, again).await.expect("the row is free");
    assert!(matches!(again.unwrap(), Ok(Created::Existing(_))));
}

/// Returns whether a statement waits for a lock.
async fn waits_for_a_lock(server: &Postgres) -> bool {
    let mut connection = admin(server).await;
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
    let waits: bool = sqlx::query_scalar(waits)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    waits
}
