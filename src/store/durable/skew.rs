//! Nodes whose clocks differ by the length of a lease break no law that is about
//! leases, holders or waiting: those go by the clock of the server.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use super::{Engine, EngineStore};
use crate::{
    operation::RecordedResponse,
    store::{
        PostgresStore, RedisStore,
        conformance::{self, Nodes},
    },
};

#[path = "../../../tests/support/postgres.rs"]
mod postgres;
#[path = "../../../tests/support/private.rs"]
mod private;
#[path = "../../../tests/support/redis.rs"]
mod redis;

/// The default term of leases.
const LEASE: Duration = Duration::from_secs(30);

/// Returns handles that take turns, each on a node with a clock of its own.
fn nodes<E: Engine>(
    stores: &[EngineStore<E, RecordedResponse>],
    ttl: Duration,
) -> Nodes<EngineStore<E, RecordedResponse>> {
    let number = AtomicU32::new(0);
    let skewed = stores.iter().cloned().map(|store| {
        let mut store = store.ttl(ttl);
        store.ahead = LEASE / 2 * number.fetch_add(1, Relaxed);
        store
    });
    Nodes::new(skewed.collect::<Vec<_>>())
}

async fn check<E: Engine>(stores: Vec<EngineStore<E, RecordedResponse>>) {
    conformance::lease(async |ttl| nodes(&stores, ttl)).await;
    conformance::watch(async |ttl| nodes(&stores, ttl)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    let server = postgres::Postgres::start().await;
    let mut stores = Vec::new();
    for _ in 0..3 {
        let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
        stores.push(PostgresStore::connect(pool).await.unwrap());
    }
    check(stores).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis() {
    let server = redis::Redis::start().await;
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(RedisStore::connect(&server.url()).await.unwrap());
    }
    check(stores).await;
}
