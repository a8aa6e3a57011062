//! A pool shared with other users.

use std::time::Duration;

use sqlx::PgPool;
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, timeout},
};
use tower_operations::store::{NewOperation, Repository, Store};
use tower_operations_postgres::PostgresStore;

use crate::{common::pool, server::Postgres};

const STUCK: Duration = Duration::from_secs(20);

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

async fn some_statements(store: &PostgresStore) {
    let new = NewOperation::new(tower_operations::OperationId::new());
    let id = new.id.clone();
    store.create(new).await.unwrap();
    store.get(&id).await.unwrap().unwrap();
}

/// Tasks that wait for the pool receive the connection that another task keeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_connections_do_not_delay_pool_waiters() {
    let server = Postgres::start().await;
    let pool = pool(server.port(), 2);
    let store = PostgresStore::connect(pool.clone()).await.unwrap();
    let time = async || {
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let store = store.clone();
            tasks.spawn(async move {
                for _ in 0..25 {
                    some_statements(&store).await;
                }
            });
        }
        tasks.join_all().await;
        begun.elapsed()
    };
    time().await;
    let alone = time().await;
    let _others = pool.acquire().await.unwrap();
    let beside = time().await;
    // Half the connections and the checks of the pool, but no pause for each statement.
    assert!(
        beside < 8 * alone + Duration::from_millis(500),
        "{beside:?}, {alone:?} alone"
    );
}

/// A kept connection is soon available to others, even if the store is idle.
#[tokio::test]
async fn kept_connections_are_returned() {
    let server = Postgres::start().await;
    let pool = pool(server.port(), 1);
    let store = PostgresStore::connect(pool.clone()).await.unwrap();
    for _ in 0..5 {
        some_statements(&store).await;
        let begun = Instant::now();
        drop(timeout(STUCK, pool.acquire()).await.unwrap().unwrap());
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
    some_statements(&store).await;
    timeout(STUCK, pool.close()).await.unwrap();
    assert!(store.get(&"unknown".parse().unwrap()).await.is_err());
}

/// The task that returns kept connections may stop with the runtime of the last user.
#[test]
fn connections_used_by_a_stopped_runtime_are_returned() {
    let home = runtime();
    let (server, pool, store) = home.block_on(async {
        let server = Postgres::start().await;
        let pool: PgPool = pool(server.port(), 1);
        let store = PostgresStore::connect(pool.clone()).await.unwrap();
        (server, pool, store)
    });
    for _ in 0..3 {
        let other = runtime();
        other.block_on(some_statements(&store));
        other.shutdown_background();
        home.block_on(async {
            drop(timeout(STUCK, pool.acquire()).await.unwrap().unwrap());
        });
    }
    drop(server);
}

/// The store is dropped after its runtime.
#[test]
fn a_store_may_outlive_its_runtime() {
    let home = runtime();
    let (server, store) = home.block_on(async {
        let server = Postgres::start().await;
        let store = PostgresStore::connect(pool(server.port(), 4))
            .await
            .unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let store = store.clone();
            tasks.spawn(async move { some_statements(&store).await });
        }
        tasks.join_all().await;
        (server, store)
    });
    home.shutdown_timeout(Duration::from_secs(5));
    drop(store);
    drop(server);
}
