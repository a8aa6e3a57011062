//! Processes that die, a database that dies, and clients that keep account of
//! what they were told.
//!
//! Several `server` examples share a store. Customers post, poll, wait, cancel,
//! read results and repeat keys, at any node, the same key at two nodes at the
//! same moment. Meanwhile nodes are killed, drained, or stopped past their lease
//! and continued, and the database is restarted and killed. Then all is healed,
//! everything accepted is polled until it has ended, and the checker judges what
//! the customers saw.
//!
//! ```not_rust
//! cargo test --all-features --test chaos                             short
//! CHAOS_OPERATIONS=20000 cargo test --all-features --test chaos -- --nocapture
//! CHAOS_SEED=7 cargo test --all-features --test chaos postgres       as it was
//! CHAOS_LOG=chaos.log cargo test --all-features --test chaos redis   what was seen
//! ```
//!
//! The seed decides what is asked and what dies; when exactly is up to the
//! machine. As with `tests/examples.rs`, `cargo test --test chaos` takes the
//! example that is there.

mod chaos {
    pub(crate) mod client;
    pub(crate) mod cluster;
    pub(crate) mod customer;
    pub(crate) mod nemesis;
    pub(crate) mod record;
    pub(crate) mod scenario;
    pub(crate) mod wish;
}
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/private.rs"]
mod private;
#[path = "support/process.rs"]
mod process;
#[path = "support/redis.rs"]
mod redis;

use chaos::scenario::{Database, Scenario, play};
use postgres::Postgres;
use redis::Redis;

/// The harness itself, where nothing dies.
#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    play(Scenario {
        name: "memory",
        nodes: 1,
        attempts: 1,
        database: Database::Memory,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    play(Scenario {
        name: "postgres",
        nodes: 3,
        attempts: 3,
        database: Database::Postgres(Postgres::start().await),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    play(Scenario {
        name: "redis",
        nodes: 3,
        attempts: 3,
        database: Database::Redis(Redis::start().await),
    })
    .await;
}

/// The store is in the node: whatever is killed, both are.
#[tokio::test(flavor = "multi_thread")]
async fn redb() {
    play(Scenario {
        name: "redb",
        nodes: 1,
        attempts: 1,
        database: Database::Redb,
    })
    .await;
}
