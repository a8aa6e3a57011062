//! Chaos tests: processes and databases that are killed, and clients that log every answer.
//!
//! Several `server` examples share a store, or dispatch accepted requests to `workers`
//! examples. The customers of `test-customers` use them in every way. Meanwhile nodes are
//! killed, drained with held requests, or suspended past their lease, operations are damaged
//! in the store, and the database is restarted and killed. Then all faults are healed, each
//! accepted operation is polled until it has ended, and the checker judges the answers to the
//! customers.
//!
//! ```not_rust
//! cargo test -p system-tests --test chaos                             short
//! CHAOS_OPERATIONS=20000 cargo test -p system-tests --test chaos -- --nocapture
//! CHAOS_CUSTOMERS=96 …                                               faster, if possible
//! CHAOS_SEED=7 cargo test -p system-tests --test chaos postgres       the same again
//! CHAOS_LOG=chaos.log cargo test -p system-tests --test chaos redis   with the log
//! CHAOS_RESTARTS=50 cargo test -p system-tests --test chaos gone -- --nocapture
//! ```
//!
//! The seed determines the requests and the faults, but not their exact times.
//! `cargo test -p system-tests --test chaos` uses the existing build of the example.

mod chaos {
    pub(crate) mod cluster;
    pub(crate) mod database;
    pub(crate) mod nemesis;
    pub(crate) mod record;
    pub(crate) mod restarts;
    pub(crate) mod scenario;
}

use std::time::Duration;

use chaos::{
    database::Database,
    nemesis::Faults,
    restarts::Restarts,
    scenario::{LEASE, Plan, Scenario, operations, run},
};
use tower_operations_conformance::checker::Violation;

/// Tests the harness without faults.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_where_nothing_dies() {
    let report = run(Scenario {
        name: "memory",
        nodes: 1,
        workers: 0,
        attempts: 1,
        database: Database::Memory,
        operations: operations(),
        lease: LEASE,
        plan: Plan::Faults(Faults::none),
    });
    report.await.assert_good();
}

/// Tests the harness with a store that loses its operations.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_lost_with_its_node_is_reported() {
    let report = run(Scenario {
        name: "memory-killed",
        nodes: 1,
        workers: 0,
        attempts: 1,
        database: Database::Memory,
        operations: operations().min(100),
        lease: LEASE,
        plan: Plan::Faults(Faults::of_processes),
    });
    let verdict = report.await.verdict;
    let is_loss = |violation: &Violation| matches!(violation, Violation::Lost { .. });
    assert!(verdict.violations.iter().any(is_loss), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_postgres() {
    let report = run(Scenario {
        name: "postgres",
        nodes: 3,
        workers: 0,
        attempts: 3,
        database: Database::postgres().await,
        operations: operations(),
        lease: LEASE,
        plan: Plan::Faults(Faults::of_all),
    });
    report.await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_redis() {
    let report = run(Scenario {
        name: "redis",
        nodes: 3,
        workers: 0,
        attempts: 3,
        database: Database::redis().await,
        operations: operations(),
        lease: LEASE,
        plan: Plan::Faults(Faults::of_all),
    });
    report.await.assert_good();
}

/// Fronts accept requests, and workers run them from a queue of apalis. The queue and the
/// store are in one database.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_between_fronts_and_workers_on_postgres() {
    let database = Database::postgres().await;
    let report = run(through_a_queue("workers-postgres", database));
    report.await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_between_fronts_and_workers_on_redis() {
    let database = Database::redis().await;
    let report = run(through_a_queue("workers-redis", database));
    report.await.assert_good();
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

/// The store is in the node, so each kill interrupts every running operation. The number of
/// operations is large enough that most of them succeed.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_redb() {
    let report = run(Scenario {
        operations: operations().max(600),
        ..on_a_file("redb", 1)
    });
    report.await.assert_good();
}

/// The store is in the node, and interrupted operations are rerun.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_redb_that_runs_again() {
    let report = run(on_a_file("redb-rerun", 3));
    report.await.assert_good();
}

/// A process is killed repeatedly before the leases of the previous process expire.
#[tokio::test(flavor = "multi_thread")]
async fn leases_of_gone_processes_delay_no_operation() {
    for (name, attempts) in [("redb-restarts", 1), ("redb-restarts-rerun", 3)] {
        let restarts = Restarts::planned();
        let report = run(Scenario {
            lease: Duration::from_secs(30),
            plan: Plan::Restarts(restarts),
            operations: usize::MAX,
            ..on_a_file(name, attempts)
        });
        report.await.assert_good();
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
