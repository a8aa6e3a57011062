//! A scenario, from the start of its nodes to the verdict.

use std::{env, sync::Arc, time::Duration};

use test_customers::{Customer, Log, TENANTS, Tally, confirm};
use test_support::private::Folder;
use tokio::{task::JoinSet, time::Instant};
use tower_operations_conformance::checker::{Entry, Rules, Verdict};

use super::{
    cluster::{Command, Processes},
    database::{Database, TOO_LARGE},
    nemesis::{Faults, inject_faults},
    record::Record,
    restarts::{Restarts, run_restarts},
};

/// A short lease, so that operations are reclaimed within the test.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// The time-out of a report; the longest ordered report takes 3 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time for which a dispatched request may be in the queue.
const CLAIMED_WITHIN: Duration = Duration::from_secs(5);
/// The default number of concurrent customers.
const CUSTOMERS: usize = 24;
/// The time in which a restarted node ends or reruns its operations, where no other node can
/// reclaim them.
const RECLAIM: Duration = Duration::from_secs(1);

/// Flags that allow the requests of customers.
const FLAGS: [&str; 2] = ["--list", "--client-ids"];

/// Allows one scenario at a time, since each needs the whole machine.
static SCENARIO_LOCK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The world of customers of processes.
pub(crate) type World = test_customers::World<Processes, Record>;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    /// The number of workers that run the accepted requests; 0 if the nodes run them.
    pub(crate) workers: usize,
    /// The maximum number of attempts; 1 means no rerun.
    pub(crate) attempts: u32,
    pub(crate) database: Database,
    pub(crate) operations: usize,
    pub(crate) lease: Duration,
    pub(crate) plan: Plan,
}

/// The faults of a scenario.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
    /// The faults for a number of operations.
    Faults(fn(usize) -> Faults),
    /// Kills and immediate restarts of the node.
    Restarts(Restarts),
}

/// Returns the number of operations: `CHAOS_OPERATIONS`, or a few.
pub(crate) fn operations() -> usize {
    let operations = number("CHAOS_OPERATIONS").unwrap_or(300);
    usize::try_from(operations).expect("a number of operations")
}

/// Returns the number of concurrent customers; more are faster on a fast machine.
fn customers_at_a_time() -> usize {
    let customers = number("CHAOS_CUSTOMERS").map(usize::try_from);
    customers.map_or(CUSTOMERS, |number| number.expect("a number of customers"))
}

/// The result of a scenario.
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    name: &'static str,
    operations: usize,
    tally: Tally,
    plan: Plan,
    /// The violations with their lines of the log.
    details: String,
}

/// Runs a scenario to its verdict.
pub(crate) async fn run(scenario: Scenario) -> Report {
    let _lock = SCENARIO_LOCK.lock().await;
    let Scenario {
        name,
        operations,
        plan,
        ..
    } = scenario;
    let seed = number("CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    match plan {
        Plan::Faults(_) => eprintln!("{name}: CHAOS_OPERATIONS={operations} CHAOS_SEED={seed}"),
        Plan::Restarts(restarts) => {
            eprintln!(
                "{name}: CHAOS_RESTARTS={} CHAOS_SEED={seed}",
                restarts.times
            );
        }
    }

    let folder = Folder::new(name);
    let runs = folder.join("runs");
    let record = Record::new(&folder.join("log"), scenario.rules());
    let (node, worker) = (scenario.node(&folder), scenario.worker(&folder));
    let (nodes, workers) = ((scenario.nodes, &node), (scenario.workers, &worker));
    let cluster = Processes::start(folder, nodes, workers).await;
    scenario.database.refuse_large_results().await;
    let world = Arc::new(World::new(cluster, record, seed, operations));

    let begun = Instant::now();
    let faults_task = match plan {
        Plan::Faults(faults) => tokio::spawn(inject_faults(
            Arc::clone(&world),
            faults(operations),
            scenario.database,
        )),
        Plan::Restarts(restarts) => tokio::spawn(run_restarts(
            Arc::clone(&world),
            restarts,
            scenario.database,
        )),
    };
    let mut customers = JoinSet::new();
    for number in 0..customers_at_a_time() {
        customers.spawn(Customer::new(Arc::clone(&world), number).place_orders());
    }
    while let Some(customer) = customers.join_next().await {
        customer.expect("a customer does not panic");
    }
    // The database is kept until the end.
    let database = faults_task.await.expect("the faults are healed");
    eprintln!("{name}: healed after {:.1?}", begun.elapsed());
    confirm(&world).await;
    for entry in world.cluster.absences().await {
        world.log.add(&Entry::Away(entry));
    }
    world.log.add_runs(&runs);
    let took = begun.elapsed();
    world.cluster.end().await;
    drop(database);

    let (verdict, log) = world.log.verdict();
    let tally = world.tally();
    eprintln!("{name}: {took:.1?}\n{verdict}\n{tally:?}");
    if let Some(copy) = env::var_os("CHAOS_LOG") {
        std::fs::copy(&log, copy).expect("the log can be kept");
    }
    Report {
        name,
        operations,
        tally,
        plan,
        details: Record::about(&log, &verdict.violations),
        verdict,
    }
}

impl Report {
    /// Asserts a good verdict on a complete scenario.
    pub(crate) fn assert_good(&self) {
        let Self {
            name,
            operations,
            tally,
            details,
            ..
        } = self;
        assert!(self.verdict.is_good(), "{name}:\n{details}");
        let counts = self.verdict.counts;
        assert_eq!(counts.accepted, tally.accepted);
        assert_eq!(counts.damaged, self.damages());
        assert!(counts.failed > 0 && counts.canceled > 0, "{counts:?}");
        assert!((1..=tally.deleted).contains(&counts.deleted), "{counts:?}");
        assert!(counts.lists >= TENANTS, "{counts:?}");
        match self.plan {
            Plan::Faults(faults) => {
                let faults = faults(*operations);
                assert!(tally.accepted + tally.answered >= *operations, "{tally:?}");
                assert!(counts.succeeded > operations / 2, "{counts:?}");
                assert!(tally.refused > 0, "{tally:?}");
                assert_eq!(counts.kills, faults.all_kills());
                assert_eq!(counts.stops, faults.stops);
                assert!(counts.outages >= faults.outages, "{counts:?}");
            }
            Plan::Restarts(restarts) => assert_eq!(counts.kills, restarts.times),
        }
    }

    fn damages(&self) -> usize {
        match self.plan {
            Plan::Faults(faults) => faults(self.operations).damages,
            Plan::Restarts(_) => 0,
        }
    }
}

impl Scenario {
    /// Returns the rules of the verdict.
    fn rules(&self) -> Rules {
        let rules = Rules::new()
            .attempts(self.attempts)
            .lease(self.lease)
            .recovery(self.lease)
            .stop(Duration::from_secs(2));
        // Operations are not pending for long, since the number of concurrent runs is not limited.
        let timeouts = TIMEOUT + Duration::from_secs(2);
        let rules = match self.workers {
            0 => rules.timeouts(timeouts),
            // A task that a killed worker took but did not start is dispatched again.
            _ => rules.timeouts(timeouts + 2 * CLAIMED_WITHIN),
        };
        match self.database.is_in_the_node() {
            true => rules.reclaim(RECLAIM).causes(true),
            false => rules,
        }
    }

    /// Returns the command of a node that serves HTTP.
    fn node(&self, folder: &Folder) -> Command {
        let seconds = |duration: Duration| duration.as_secs().to_string();
        let mut arguments = vec![
            ("--lease", seconds(self.lease)),
            ("--timeout", seconds(TIMEOUT)),
            ("--idempotency", "optional".into()),
            ("--drain", "1".into()),
        ];
        if self.database.is_in_the_node() {
            arguments.push(("--result-limit", TOO_LARGE.to_string()));
        }
        let attempts = self.attempts;
        if self.attempts > 1 {
            arguments.push(("--on-interrupted", format!("rerun:{attempts}")));
        }
        match self.workers {
            0 => {
                arguments.push(("--store", self.database.url(folder)));
                arguments.push(("--runs", folder.join("runs").display().to_string()));
                Command::new("server", &FLAGS, arguments)
            }
            _ => {
                arguments.push(("--queue", self.database.url(folder)));
                arguments.push(("--claimed-within", seconds(CLAIMED_WITHIN)));
                Command::new("workers", &[&["front"], &FLAGS[..]].concat(), arguments)
            }
        }
    }

    /// Returns the command of a worker.
    fn worker(&self, folder: &Folder) -> Command {
        let seconds = |duration: Duration| duration.as_secs().to_string();
        let arguments = [
            ("--queue", self.database.url(folder)),
            ("--lease", seconds(self.lease)),
            ("--timeout", seconds(TIMEOUT)),
            ("--drain", "1".into()),
            ("--runs", folder.join("runs").display().to_string()),
        ];
        Command::new("workers", &["worker"], arguments)
    }
}

pub(crate) fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}
