//! Processes that die, a database that dies, and clients that keep account of
//! what they were told.
//!
//! Several `server` examples share a store, or hand what they accept to `workers` examples. Customers post, poll, wait, cancel,
//! read results and repeat keys, at any node, the same key at two nodes at the
//! same moment, and for two tenants; they choose ids, cancel, have forgotten, and choose
//! the same ids again; they wait for posts to be answered, and list what is theirs. Some
//! results are more than the store takes. Meanwhile nodes are killed, drained while
//! customers hold on to them, or stopped past their lease and continued, operations are
//! damaged in the store, and the database is restarted and killed. Then all is healed,
//! everything accepted is polled until it has ended, and the checker judges what
//! the customers saw.
//!
//! ```not_rust
//! cargo test -p system-tests --test chaos                             short
//! CHAOS_OPERATIONS=20000 cargo test -p system-tests --test chaos -- --nocapture
//! CHAOS_CUSTOMERS=96 …                                               sooner, if it can
//! CHAOS_SEED=7 cargo test -p system-tests --test chaos postgres       as it was
//! CHAOS_LOG=chaos.log cargo test -p system-tests --test chaos redis   what was seen
//! CHAOS_RESTARTS=50 cargo test -p system-tests --test chaos gone -- --nocapture
//! ```
//!
//! The seed decides what is asked and what dies; when exactly is up to the
//! machine. As with `tests/examples.rs`, `cargo test --test chaos` takes the
//! example that is there.

mod chaos {
    pub(crate) mod client;
    pub(crate) mod cluster;
    pub(crate) mod confirm;
    pub(crate) mod customer;
    pub(crate) mod database;
    pub(crate) mod errands;
    pub(crate) mod nemesis;
    pub(crate) mod random;
    pub(crate) mod record;
    pub(crate) mod restarts;
    pub(crate) mod scenario;
    pub(crate) mod wish;
    pub(crate) mod world;
}

use std::time::Duration;

use chaos::{
    database::Database,
    nemesis::Faults,
    restarts::Restarts,
    scenario::{LEASE, Plan, Scenario, operations, play},
};
use tower_operations_conformance::checker::Violation;

/// The harness itself, where nothing dies.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_where_nothing_dies() {
    let played = play(Scenario {
        name: "memory",
        nodes: 1,
        workers: 0,
        attempts: 1,
        database: Database::Memory,
        operations: operations(),
        lease: LEASE,
        plan: Plan::Faults(Faults::none),
    });
    played.await.is_acquitted();
}

/// The harness itself, with a store that keeps nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_dies_with_its_node_is_convicted() {
    let played = play(Scenario {
        name: "memory-killed",
        nodes: 1,
        workers: 0,
        attempts: 1,
        database: Database::Memory,
        operations: operations().min(100),
        lease: LEASE,
        plan: Plan::Faults(Faults::of_processes),
    });
    let verdict = played.await.verdict;
    let is_loss = |violation: &Violation| matches!(violation, Violation::Lost { .. });
    assert!(verdict.violations.iter().any(is_loss), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_postgres() {
    let played = play(Scenario {
        name: "postgres",
        nodes: 3,
        workers: 0,
        attempts: 3,
        database: Database::postgres().await,
        operations: operations(),
        lease: LEASE,
        plan: Plan::Faults(Faults::of_all),
    });
    played.await.is_acquitted();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_redis() {
    let played = play(Scenario {
        name: "redis",
        nodes: 3,
        workers: 0,
        attempts: 3,
        database: Database::redis().await,
        operations: operations(),
        lease: LEASE,
        plan: Plan::Faults(Faults::of_all),
    });
    played.await.is_acquitted();
}

/// Fronts accept, and workers run what comes out of a queue of apalis; queue and store are
/// in one database.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_between_fronts_and_workers_on_postgres() {
    let database = Database::postgres().await;
    let played = play(through_a_queue("workers-postgres", database));
    played.await.is_acquitted();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_between_fronts_and_workers_on_redis() {
    let database = Database::redis().await;
    let played = play(through_a_queue("workers-redis", database));
    played.await.is_acquitted();
}

fn through_a_queue(name: &'static str, database: Database) -> Scenario {
    Scenario {
        name,
        nodes: 2,
        workers: 3,
        attempts: 3,
        database,
        operations: operations(),
        lease: LEASE,
        plan: Plan::Faults(Faults::of_fronts_and_workers),
    }
}

/// The store is in the node: each kill ends both and interrupts every running operation.
/// Enough operations are played that most of them succeed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_redb() {
    let played = play(Scenario {
        operations: operations().max(600),
        ..on_a_file("redb", 1)
    });
    played.await.is_acquitted();
}

/// The same; what was under way is run again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_redb_that_runs_again() {
    let played = play(on_a_file("redb-rerun", 3));
    played.await.is_acquitted();
}

/// A process that dies again and again before a lease of before can be over.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_lease_whose_process_is_gone() {
    for (name, attempts) in [("redb-restarts", 1), ("redb-restarts-rerun", 3)] {
        let restarts = Restarts::planned();
        let played = play(Scenario {
            lease: Duration::from_secs(30),
            plan: Plan::Restarts(restarts),
            operations: usize::MAX,
            ..on_a_file(name, attempts)
        });
        played.await.is_acquitted();
    }
}

fn on_a_file(name: &'static str, attempts: u32) -> Scenario {
    Scenario {
        name,
        nodes: 1,
        workers: 0,
        attempts,
        database: Database::Redb,
        operations: operations(),
        lease: LEASE,
        plan: Plan::Faults(Faults::of_nodes),
    }
}
