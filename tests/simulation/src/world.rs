//! A world, from the start of its nodes to the verdict.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use test_customers::{Cluster, Customer, Random, World, confirm, look_after};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tower_operations_conformance::checker::{Counts, Rules};

use crate::{
    Mutant,
    engine::{NetworkCounts, NetworkFaults},
    faults::{FaultNumbers, inject},
    hours::let_hours_pass,
    journal::{Closed, Journal},
    node::{Node, Site},
    process::{ATTEMPTS, LEASE, Role, TIMEOUT},
    queue::{CLAIMED_WITHIN, Queue},
    results::{Bucket, ResultCounts},
    stores::{StoreKind, Stores},
};

/// The time after the return of a killed node in which its operations end or are rerun, with a
/// store of one process.
const BACK: Duration = Duration::from_secs(1);
/// The time that an attempt may take in addition to its run.
const SLACK: Duration = Duration::from_secs(2);

/// The longest time from the end of an operation to the write of the end, by a node that is
/// stopped in between.
const UNWRITTEN: Duration = Duration::from_secs(10);

/// The beginning of the message if a customer panics.
pub const CUSTOMER_PANIC: &str = "a customer does not panic";

/// The plan of a world.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The seed of all that is random.
    pub seed: u64,
    /// The store.
    pub store: StoreKind,
    /// The number of operations that the customers order.
    pub operations: usize,
    /// The number of nodes that answer requests.
    pub nodes: usize,
    /// The number of workers, which run the requests that the nodes put into a queue; with none
    /// the nodes run them.
    pub workers: usize,
    /// The time for which an operation is kept after its end, and the largest error of a wall
    /// clock, which is smaller.
    pub lifetime: Lifetime,
    /// The number of customers at a time.
    pub customers: usize,
    /// The faults of nodes and store.
    pub faults: FaultNumbers,
    /// The number of these faults that happen, the first ones first.
    pub prefix: usize,
    /// The faults of the network between the nodes and the store.
    pub network: NetworkFaults,
    /// The bug to plant.
    pub mutant: Option<Mutant>,
    /// Whether the lines of the log are kept.
    pub keeps_log: bool,
}

/// How long operations are kept, and how wrong the wall clocks are.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    /// The time for which an operation is kept after its end.
    pub ttl: Duration,
    /// The largest error of a wall clock, by which operations expire.
    pub skew: Duration,
}

impl Lifetime {
    /// Operations outlive the world, and clocks are very wrong.
    pub const LONG: Self = Self {
        ttl: Duration::from_secs(24 * 60 * 60),
        skew: Duration::from_secs(30),
    };
    /// Operations expire in the world.
    pub const SHORT: Self = Self {
        ttl: Duration::from_secs(30),
        skew: Duration::from_secs(2),
    };
}

/// The outcome of a world.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The contents of the log in numbers.
    pub counts: Counts,
    /// The faults of the network.
    pub network: NetworkCounts,
    /// The work and the faults of the result store.
    pub results: ResultCounts,
    /// The calls to the result store.
    pub result_calls: u64,
    /// The number of power failures.
    pub power_failures: u64,
    /// The number of operations that nodes reclaimed.
    pub reclaims: u64,
    /// The time that passed in the world.
    pub elapsed: Duration,
    /// The broken laws, and the broken invariants of the store.
    pub violations: Vec<String>,
    /// The log.
    pub log: Closed,
}

pub(crate) type SimulatedWorld = World<Nodes, Arc<Journal>>;

/// The nodes of a world, and their store.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// The nodes that answer requests, and after them the workers.
    pub(crate) nodes: Vec<Node>,
    /// The number of nodes that answer requests.
    answering: usize,
    pub(crate) stores: Arc<Stores>,
    pub(crate) results: Arc<Bucket>,
}

impl Cluster for Nodes {
    fn nodes(&self) -> usize {
        self.answering
    }

    fn name(&self, node: usize) -> &str {
        self.nodes[node].name()
    }

    fn url(&self, _: usize) -> &str {
        ""
    }

    async fn send(&self, node: usize, request: Request<Bytes>) -> Option<Response<Bytes>> {
        self.nodes[node].answer(request).await
    }

    async fn stream(
        &self,
        node: usize,
        request: Request<Bytes>,
        body: &mut Vec<u8>,
    ) -> Option<Response<()>> {
        self.nodes[node].stream(request, body).await
    }
}

impl Plan {
    /// Returns a plan with three to five nodes, or one with a store of one process, the usual network, and this number of kills.
    #[must_use]
    pub fn new(seed: u64, store: StoreKind, operations: usize, kills: usize) -> Self {
        let faults = FaultNumbers::with_kills(kills);
        Self {
            seed,
            store,
            operations,
            nodes: match store {
                StoreKind::Redb => 1,
                StoreKind::Engine | StoreKind::Memory => 3 + usize::from(seed.to_le_bytes()[7] % 3),
            },
            workers: 0,
            lifetime: match seed.to_le_bytes()[6] % 2 {
                0 => Lifetime::LONG,
                _ => Lifetime::SHORT,
            },
            customers: 24,
            faults,
            prefix: faults.all(),
            network: NetworkFaults::usual(),
            mutant: None,
            keeps_log: false,
        }
    }
}

/// Runs a world to its verdict.
///
/// # Panics
/// Panics if a customer or a request panics.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(run_world(*plan))
}

async fn run_world(plan: Plan) -> Outcome {
    let mut random = Random::new(plan.seed);
    let rules = Rules::new()
        .attempts(ATTEMPTS)
        .lease(LEASE)
        .recovery(LEASE)
        // The clock of the node that ends an operation may be late, and that of the node that
        // deletes it early.
        .kept(plan.lifetime.ttl - 2 * plan.lifetime.skew - UNWRITTEN)
        .timeouts(match plan.workers {
            0 => TIMEOUT + SLACK,
            // A message that is lost, or taken by a worker that dies, is sent again.
            _ => TIMEOUT + SLACK + 2 * CLAIMED_WITHIN,
        })
        .stop(LEASE / 3 * plan.network.renewals)
        // Without a notice a wait looks again after a second, by a call that may be slow.
        .wake(Duration::from_millis(2_500));
    let rules = match plan.store {
        StoreKind::Redb => rules.reclaim(BACK),
        StoreKind::Engine | StoreKind::Memory => rules,
    };
    let journal = Arc::new(Journal::new(rules, plan.keeps_log));
    let stores = Stores::new(
        plan.store,
        plan.nodes + plan.workers,
        plan.network,
        plan.lifetime,
        &journal,
        plan.mutant,
        &mut random,
    );
    let stores = Arc::new(stores);
    let results = Bucket::new(
        plan.network,
        plan.lifetime.skew,
        &journal,
        plan.mutant,
        &mut random,
    );
    let queue = Queue::new(Random::new(random.next_u64()));
    let nodes = (0..plan.nodes + plan.workers).map(|number| {
        let random = Random::new(random.next_u64());
        let (name, role) = match number {
            _ if plan.workers == 0 => (format!("node-{number}"), Role::Server),
            _ if number < plan.nodes => (format!("node-{number}"), Role::Front),
            _ => (format!("worker-{}", number - plan.nodes), Role::Worker),
        };
        let site = Site {
            name: name.into(),
            number,
            role,
            journal: Arc::clone(&journal),
            stores: Arc::clone(&stores),
            results: Arc::clone(&results),
            queue: queue.clone(),
            mutant: plan.mutant,
        };
        Node::start(site, random)
    });
    let cluster = Nodes {
        nodes: nodes.collect(),
        answering: plan.nodes,
        stores: Arc::clone(&stores),
        results: Arc::clone(&results),
    };
    let (seed, log) = (random.next_u64(), Arc::clone(&journal));
    let world = Arc::new(World::new(cluster, log, seed, plan.operations));

    let mut of_faults = Random::new(random.next_u64());
    let faults = plan.faults.shuffled(
        plan.nodes + plan.workers,
        plan.lifetime.skew,
        &mut of_faults,
    );
    let faults = tokio::spawn(inject(Arc::clone(&world), faults, plan.prefix));
    let mut customers = JoinSet::new();
    for number in 0..plan.customers {
        customers.spawn(Customer::new(Arc::clone(&world), number).place_orders());
    }
    let looking = look_after(Arc::clone(&world), plan.lifetime.ttl / 5);
    let looking = AbortOnDropHandle::new(tokio::spawn(looking));
    while let Some(customer) = customers.join_next().await {
        customer.expect(CUSTOMER_PANIC);
    }
    faults.await.expect("the faults are healed");
    confirm(&world).await;
    drop(looking);
    let (log, elapsed) = (journal.close(), journal.elapsed());
    let network = stores.network().counts();
    let_hours_pass(&world.cluster, &mut random).await;

    let violations = log.verdict.violations.iter().map(ToString::to_string);
    let violations = violations
        .chain(stores.take_violations())
        .chain(results.take_violations())
        .collect();
    Outcome {
        counts: log.verdict.counts,
        network,
        results: results.counts(),
        result_calls: results.calls(),
        power_failures: stores.power_failures(),
        reclaims: world.cluster.nodes.iter().map(Node::reclaims).sum(),
        elapsed,
        violations,
        log,
    }
}

/// Returns the smallest number of first faults with which a world still breaks a law, by
/// bisection, and that world with its log. `plan` has to break a law.
#[must_use]
pub fn shortest_prefix(plan: &Plan) -> (usize, Outcome) {
    let with = |prefix| {
        run(&Plan {
            prefix,
            keeps_log: true,
            ..*plan
        })
    };
    let (mut low, mut high) = (0, plan.prefix);
    let mut shown = None;
    while low < high {
        let middle = low.midpoint(high);
        let outcome = with(middle);
        match outcome.violations.is_empty() {
            true => low = middle + 1,
            false => (high, shown) = (middle, Some(outcome)),
        }
    }
    let outcome = shown.unwrap_or_else(|| with(high));
    (high, outcome)
}
