//! Benchmark of the latency of a durable `202 Accepted` over HTTP, on each durable store.
//!
//! ```not_rust
//! cargo bench -p system-benches --bench durable
//! ```
//!
//! prints a table and draws `docs/durable.svg`, in a minute and a half. Private servers of
//! PostgreSQL and Redis are started on the disk that `TMPDIR` names; Redis syncs each write.
//!
//! A 202 is sent once its operation is durable. The handler answers at once with 1 KiB of JSON,
//! which is recorded. First 64 connections send as much as they can. Then requests are due at
//! regular intervals, half as often, whether or not earlier ones were answered; the latency of a
//! request counts from its due time.
//!
//! Server, store and client share the machine.

#[path = "../../support/plot/mod.rs"]
mod page;

mod client;
mod plot;
mod served;

use std::time::Duration;

use test_support::{postgres, private, redis};

/// The time of each of the two loads.
const LOAD: Duration = Duration::from_secs(10);

/// The latency of one store.
#[derive(Debug)]
struct Latency {
    store: &'static str,
    /// The answers a second that 64 connections get at most.
    most: f64,
    /// The latency at half of that, in milliseconds.
    p50: f64,
    p99: f64,
}

#[tokio::main]
async fn main() {
    let mut rows = Vec::new();
    {
        let folder = private::Folder::new("durable");
        let store = tower_operations_redb::RedbStore::open(folder.join("operations.redb"));
        rows.push(measure("redb", store.expect("opened")).await);
    }
    {
        let server = postgres::Postgres::start().await;
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(32);
        let pool = pool.connect(&server.url()).await.expect("connected");
        let store = tower_operations_postgres::PostgresStore::connect(pool);
        rows.push(measure("PostgreSQL", store.await.expect("connected")).await);
    }
    {
        let server = redis::Redis::start().await;
        let store = tower_operations_redis::RedisBuilder::new(&server.url()).connect();
        rows.push(measure("Redis", store.await.expect("connected")).await);
    }
    println!("| store | 202s a second, at most | at half of it: p50, ms | p99, ms |");
    println!("| --- | --- | --- | --- |");
    for row in &rows {
        let Latency {
            store,
            most,
            p50,
            p99,
        } = row;
        println!("| {store} | {most:.0} | {p50:.2} | {p99:.2} |");
    }
    page::write(&page::docs().join("durable.svg"), &plot::svg(&rows));
}

async fn measure<R>(name: &'static str, store: R) -> Latency
where
    R: tower_operations::store::Lease<Output = tower_operations::RecordedResponse> + Clone,
{
    let port = served::serve(store).await;
    // Connections, statements and pages are ready after this.
    client::most(port, LOAD / 5).await;
    let most = client::most(port, LOAD).await;
    let mut delays = client::at_rate(port, most / 2.0, LOAD).await;
    delays.sort_unstable();
    let percentile = |part: f64| {
        let index = (part * (delays.len() - 1) as f64) as usize;
        delays[index].as_secs_f64() * 1e3
    };
    Latency {
        store: name,
        most,
        p50: percentile(0.5),
        p99: percentile(0.99),
    }
}
