//! What is played, from the first node to the verdict.

use std::{env, sync::Arc, time::Duration};

use test_support::private::Folder;
use tokio::{task::JoinSet, time::Instant};
use tower_operations_conformance::checker::{Entry, Rules, Verdict};

use super::{
    cluster::{Cluster, Command},
    confirm::confirm,
    customer::{Customer, TENANTS},
    database::{Database, TOO_LARGE},
    nemesis::{Faults, haunt},
    record::Record,
    restarts::{Restarts, restart},
    world::{Tally, World},
};

/// Short, so that what is taken over is taken over within the test.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// How long a report may take; the longest that is ordered takes 3 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long what is handed off may be in the queue.
const CLAIMED_WITHIN: Duration = Duration::from_secs(5);
/// How many customers there are at a time, unless somebody says otherwise.
const CUSTOMERS: usize = 24;
/// How soon after a node is back what it held has ended or is run again, where nobody
/// else can hold it.
const RECLAIM: Duration = Duration::from_secs(1);

/// What customers may do.
const FLAGS: [&str; 2] = ["--list", "--client-ids"];

/// One scenario at a time: each wants the whole machine.
static STAGE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    /// How many run what the nodes accept; none, if they do so themselves.
    pub(crate) workers: usize,
    /// How often a request may be run; 1 is not to run it again.
    pub(crate) attempts: u32,
    pub(crate) database: Database,
    pub(crate) operations: usize,
    pub(crate) lease: Duration,
    pub(crate) plan: Plan,
}

/// What is done to it all.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
    /// This, for so many operations.
    Faults(fn(usize) -> Faults),
    /// The node is killed and started again at once.
    Restarts(Restarts),
}

/// How many operations are asked for; few, unless somebody says otherwise.
pub(crate) fn operations() -> usize {
    let asked = number("CHAOS_OPERATIONS").unwrap_or(300);
    usize::try_from(asked).expect("a number of operations")
}

/// More of them are done sooner, where the machine is fast enough for it.
fn customers_at_a_time() -> usize {
    let asked = number("CHAOS_CUSTOMERS").map(usize::try_from);
    asked.map_or(CUSTOMERS, |asked| asked.expect("a number of customers"))
}

/// What came of it.
pub(crate) struct Played {
    pub(crate) verdict: Verdict,
    name: &'static str,
    operations: usize,
    tally: Tally,
    plan: Plan,
    /// All that was seen of what was convicted.
    said: String,
}

/// Plays a scenario to its verdict.
pub(crate) async fn play(scenario: Scenario) -> Played {
    let _stage = STAGE.lock().await;
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
    let cluster = Cluster::start((scenario.nodes, &node), (scenario.workers, &worker)).await;
    scenario.database.refuse_large_results().await;
    let world = Arc::new(World::new(folder, cluster, record, seed, operations));

    let begun = Instant::now();
    let haunted = match plan {
        Plan::Faults(faults) => tokio::spawn(haunt(
            Arc::clone(&world),
            faults(operations),
            scenario.database,
        )),
        Plan::Restarts(restarts) => {
            tokio::spawn(restart(Arc::clone(&world), restarts, scenario.database))
        }
    };
    let mut customers = JoinSet::new();
    for number in 0..customers_at_a_time() {
        customers.spawn(Customer::new(Arc::clone(&world), number).shop());
    }
    while let Some(left) = customers.join_next().await {
        left.expect("a customer goes on");
    }
    // The database is still needed.
    let database = haunted.await.expect("all is healed");
    eprintln!("{name}: healed after {:.1?}", begun.elapsed());
    confirm(&world).await;
    for entry in world.cluster.absences().await {
        world.record.add(&Entry::Away(entry));
    }
    world.record.add_runs(&runs);
    let took = begun.elapsed();
    world.cluster.end().await;
    drop(database);

    let (verdict, log) = world.record.verdict();
    let tally = world.tally();
    eprintln!("{name}: {took:.1?}\n{verdict}\n{tally:?}");
    if let Some(kept) = env::var_os("CHAOS_LOG") {
        std::fs::copy(&log, kept).expect("the log can be kept");
    }
    Played {
        name,
        operations,
        tally,
        plan,
        said: Record::about(&log, &verdict.violations),
        verdict,
    }
}

impl Played {
    /// Insists on a good verdict, on all that was to be judged.
    pub(crate) fn is_acquitted(&self) {
        let Self {
            name,
            operations,
            tally,
            said,
            ..
        } = self;
        assert!(self.verdict.is_good(), "{name}:\n{said}");
        let counts = self.verdict.counts;
        assert_eq!(counts.accepted, tally.accepted);
        assert_eq!(counts.damaged, self.damages());
        assert!(counts.failed > 0 && counts.canceled > 0, "{counts:?}");
        assert!(
            (1..=tally.forgotten).contains(&counts.forgotten),
            "{counts:?}"
        );
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
    /// What it is judged by.
    fn rules(&self) -> Rules {
        let rules = Rules::new()
            .attempts(self.attempts)
            .lease(self.lease)
            .recovery(self.lease)
            .stop(Duration::from_secs(2));
        // Pending takes no time: there is no bound on what runs at once.
        let timeouts = TIMEOUT + Duration::from_secs(2);
        let rules = match self.workers {
            0 => rules.timeouts(timeouts),
            // What was in the hands of a worker that died, but not begun, is on its way
            // again.
            _ => rules.timeouts(timeouts + 2 * CLAIMED_WITHIN),
        };
        match self.database.is_in_the_node() {
            true => rules.reclaim(RECLAIM).causes(true),
            false => rules,
        }
    }

    /// What answers.
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

    /// What runs, if that is another.
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
