//! What is played, from the first node to the verdict.

use std::{
    collections::BTreeSet,
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time::Instant};
use tower_operations::checker::{Entry, Rules, Verdict};

use super::{
    client::Client,
    cluster::{Cluster, Command},
    customer::{Customer, confirm},
    nemesis::{Faults, haunt},
    record::Record,
};
use crate::{postgres::Postgres, private::Folder, redis::Redis};

/// Short, so that what is taken over is taken over within the test.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// How long a report may take; the longest that is ordered takes 3 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long what is handed off may be in the queue.
const CLAIMED_WITHIN: Duration = Duration::from_secs(5);
/// How many customers there are at a time.
const CUSTOMERS: usize = 24;

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
    /// What is done to it all, for so many operations.
    pub(crate) faults: fn(usize) -> Faults,
}

/// How many operations are asked for; few, unless somebody says otherwise.
pub(crate) fn operations() -> usize {
    let asked = number("CHAOS_OPERATIONS").unwrap_or(300);
    usize::try_from(asked).expect("a number of operations")
}

/// What came of it.
pub(crate) struct Played {
    pub(crate) verdict: Verdict,
    name: &'static str,
    operations: usize,
    /// How many got a 202, by the customers' own count.
    accepted: usize,
    faults: Faults,
    /// All that was seen of what was convicted.
    said: String,
}

/// Where operations are kept.
pub(crate) enum Database {
    Memory,
    Redb,
    Postgres(Postgres),
    Redis(Redis),
}

/// What everybody in a scenario sees.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) cluster: Cluster,
    pub(crate) record: Record,
    pub(crate) seed: u64,
    /// What got a 202.
    pub(crate) accepted: Mutex<BTreeSet<Accepted>>,
    operations: usize,
    next: AtomicUsize,
    done: watch::Sender<usize>,
}

/// An operation, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Accepted {
    pub(crate) operation: String,
    pub(crate) tenant: String,
}

impl World {
    /// The number of the next order, while there are any.
    pub(crate) fn next(&self) -> Option<usize> {
        let next = self.next.fetch_add(1, Relaxed);
        (next < self.operations).then_some(next)
    }

    pub(crate) fn done(&self) {
        self.done.send_modify(|done| *done += 1);
    }

    /// Waits until this part of all orders is done.
    pub(crate) async fn reached(&self, part: f64) {
        #[allow(clippy::cast_precision_loss)]
        let reached = |done: &usize| *done as f64 >= part * self.operations as f64;
        let mut done = self.done.subscribe();
        done.wait_for(reached).await.expect("the world goes on");
    }
}

/// Plays a scenario to its verdict.
pub(crate) async fn play(scenario: Scenario) -> Played {
    let _stage = STAGE.lock().await;
    let Scenario {
        name,
        attempts,
        operations,
        ..
    } = scenario;
    let seed = number("CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("{name}: CHAOS_OPERATIONS={operations} CHAOS_SEED={seed}");

    let folder = Folder::new(name);
    let rules = Rules::new()
        .attempts(attempts)
        .lease(LEASE)
        .recovery(LEASE)
        .stop(Duration::from_secs(2))
        // Pending takes no time: there is no bound on what runs at once.
        .timeouts(TIMEOUT + Duration::from_secs(2));
    let rules = match scenario.workers {
        0 => rules,
        // What was in the hands of a worker that died, but not begun, is on its way again.
        _ => rules.timeouts(TIMEOUT + Duration::from_secs(2) + 2 * CLAIMED_WITHIN),
    };
    let runs = folder.join("runs");
    let (node, worker) = (scenario.node(&folder), scenario.worker(&folder));
    let cluster = Cluster::start((scenario.nodes, &node), (scenario.workers, &worker)).await;
    let world = Arc::new(World {
        client: Client::new(),
        cluster,
        record: Record::new(&folder.join("log"), rules),
        seed,
        accepted: Mutex::default(),
        operations,
        next: AtomicUsize::new(0),
        done: watch::Sender::new(0),
    });

    let faults = (scenario.faults)(operations);
    let begun = Instant::now();
    let haunted = tokio::spawn(haunt(Arc::clone(&world), faults, scenario.database));
    let mut customers = JoinSet::new();
    for number in 0..CUSTOMERS {
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
    eprintln!("{name}: {took:.1?}\n{verdict}");
    if let Some(kept) = env::var_os("CHAOS_LOG") {
        std::fs::copy(&log, kept).expect("the log can be kept");
    }
    Played {
        name,
        operations,
        accepted: world.accepted.lock().unwrap().len(),
        faults,
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
            faults,
            said,
            ..
        } = self;
        assert!(self.verdict.is_good(), "{name}:\n{said}");
        let counts = self.verdict.counts;
        assert_eq!(counts.accepted, self.accepted);
        assert!(counts.accepted >= *operations, "{counts:?}");
        assert!(counts.succeeded > operations / 2, "{counts:?}");
        assert!(counts.failed > 0 && counts.canceled > 0, "{counts:?}");
        assert_eq!(counts.kills, faults.all_kills());
        assert_eq!(counts.stops, faults.stops);
        assert!(counts.outages >= faults.outages, "{counts:?}");
    }
}

impl Scenario {
    /// What answers.
    fn node(&self, folder: &Folder) -> Command {
        let seconds = |duration: Duration| duration.as_secs().to_string();
        let mut arguments = vec![
            ("--lease", seconds(LEASE)),
            ("--timeout", seconds(TIMEOUT)),
            ("--idempotency", "optional".into()),
            ("--drain", "1".into()),
        ];
        let attempts = self.attempts;
        if self.attempts > 1 {
            arguments.push(("--on-interrupted", format!("rerun:{attempts}")));
        }
        match self.workers {
            0 => {
                arguments.push(("--store", self.url(folder)));
                arguments.push(("--runs", folder.join("runs").display().to_string()));
                Command::new("server", &[], arguments)
            }
            _ => {
                arguments.push(("--queue", self.url(folder)));
                arguments.push(("--claimed-within", seconds(CLAIMED_WITHIN)));
                Command::new("workers", &["front"], arguments)
            }
        }
    }

    /// What runs, if that is another.
    fn worker(&self, folder: &Folder) -> Command {
        let seconds = |duration: Duration| duration.as_secs().to_string();
        let arguments = [
            ("--queue", self.url(folder)),
            ("--lease", seconds(LEASE)),
            ("--timeout", seconds(TIMEOUT)),
            ("--drain", "1".into()),
            ("--runs", folder.join("runs").display().to_string()),
        ];
        Command::new("workers", &["worker"], arguments)
    }

    fn url(&self, folder: &Folder) -> String {
        match &self.database {
            Database::Memory => "memory".into(),
            Database::Redb => format!("redb:{}", folder.join("store").display()),
            Database::Postgres(postgres) => postgres.url(),
            Database::Redis(redis) => redis.url(),
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}
