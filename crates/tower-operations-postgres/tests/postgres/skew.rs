//! Clock skew: nodes whose clocks differ by the term of a lease keep the laws of leases,
//! holders and waits, which depend on the clock of the server.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use tower_operations_conformance::{self as conformance, Nodes};
use tower_operations_postgres::PostgresStore;

/// The default term of leases.
const LEASE: Duration = Duration::from_secs(30);

/// Returns handles that take turns, each on a node with a clock of its own.
fn nodes(stores: &[PostgresStore], ttl: Duration) -> Nodes<PostgresStore> {
    let number = AtomicU32::new(0);
    let skewed = stores.iter().cloned().map(|store| {
        let ahead = LEASE / 2 * number.fetch_add(1, Relaxed);
        store.ttl(ttl).clock(move || SystemTime::now() + ahead)
    });
    Nodes::new(skewed.collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn skewed_clocks_keep_the_laws_of_leases_and_waits() {
    let server = test_support::postgres::Postgres::start().await;
    let mut stores = Vec::new();
    for _ in 0..3 {
        let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
        stores.push(PostgresStore::connect(pool).await.unwrap());
    }
    conformance::lease(async |ttl| nodes(&stores, ttl)).await;
    conformance::watch(async |ttl| nodes(&stores, ttl)).await;
}
