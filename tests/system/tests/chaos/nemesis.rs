//! Faults of the nodes and of their database.

use std::{future::ready, sync::Arc, time::Duration};

use test_customers::{Cluster, Customer, Log, Random};
use tokio::{sync::Mutex, task::JoinSet, time::sleep};
use tower_operations_conformance::checker::{Away, Damage, Entry};

use super::{
    database::Database,
    scenario::{LEASE, World},
};

/// The number of faults of each kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) kills: usize,
    /// Kills of workers only.
    pub(crate) worker_kills: usize,
    pub(crate) stops: usize,
    pub(crate) drains: usize,
    /// Outages of the database, half of which are restarts and half kills.
    pub(crate) outages: usize,
    /// Damages of one operation in the store, each with a kill of a node.
    pub(crate) damages: usize,
}

/// The number of customers with held requests at a node that is drained.
const HOLDING: usize = 6;
/// The time before the drain, in which the held requests arrive.
const BEFORE: Duration = Duration::from_millis(1_300);

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    KillWorker,
    Stop,
    Drain,
    Restart,
    KillDatabase,
    Damage(usize),
}

impl Faults {
    pub(crate) fn none(_: usize) -> Self {
        Self {
            kills: 0,
            worker_kills: 0,
            stops: 0,
            drains: 0,
            outages: 0,
            damages: 0,
        }
    }

    /// Faults of nodes: for 20,000 operations 60 kills, 20 stops, 10 drains and 10 damages.
    pub(crate) fn of_nodes(operations: usize) -> Self {
        Self {
            kills: (operations / 333).max(4),
            worker_kills: 0,
            stops: (operations / 1_000).max(2),
            drains: (operations / 2_000).max(1),
            outages: 0,
            damages: (operations / 2_000).max(1),
        }
    }

    /// Faults of nodes without damages, for a store in the node.
    pub(crate) fn of_processes(operations: usize) -> Self {
        Self {
            damages: 0,
            ..Self::of_nodes(operations)
        }
    }

    /// Faults of nodes, and for 20,000 operations 10 outages.
    pub(crate) fn of_all(operations: usize) -> Self {
        Self {
            outages: (operations / 2_000).max(2),
            ..Self::of_nodes(operations)
        }
    }

    /// Faults of fronts and workers: for 10,000 operations 25 kills of workers, 10 kills of any
    /// node, and 5 outages.
    pub(crate) fn of_fronts_and_workers(operations: usize) -> Self {
        Self {
            kills: (operations / 1_000).max(2),
            worker_kills: (operations / 400).max(3),
            ..Self::of_all(operations)
        }
    }

    /// Returns the number of killed processes.
    pub(crate) fn all_kills(&self) -> usize {
        self.kills + self.worker_kills + self.damages
    }

    fn shuffled(self, random: &mut Random) -> Vec<Fault> {
        let database = |number| match number % 2 {
            0 => Fault::KillDatabase,
            _ => Fault::Restart,
        };
        let mut faults: Vec<_> = (0..self.kills)
            .map(|_| Fault::Kill)
            .chain((0..self.worker_kills).map(|_| Fault::KillWorker))
            .chain((0..self.stops).map(|_| Fault::Stop))
            .chain((0..self.drains).map(|_| Fault::Drain))
            .chain((0..self.outages).map(database))
            .chain((0..self.damages).map(Fault::Damage))
            .collect();
        for last in (1..faults.len()).rev() {
            faults.swap(last, random.below(last + 1));
        }
        faults
    }
}

/// Injects the faults while the customers are busy, and returns the database when all faults
/// are healed.
pub(crate) async fn inject_faults(
    world: Arc<World>,
    faults: Faults,
    database: Database,
) -> Database {
    let mut random = Random::new(world.seed);
    let faults = faults.shuffled(&mut random);
    let database = Arc::new(Mutex::new(database));
    let mut disturbances = JoinSet::new();
    #[allow(clippy::cast_precision_loss)]
    let all = (faults.len() + 1) as f64;
    for (number, fault) in faults.into_iter().enumerate() {
        #[allow(clippy::cast_precision_loss)]
        world.wait_for_part((number as f64 + 0.5) / all).await;
        let first = match fault {
            Fault::KillWorker => world.cluster.nodes(),
            _ => 0,
        };
        let node = first + random.below(world.cluster.all().count() - first);
        let pause = Duration::from_millis(random.between(0, 1_500));
        let (world, database) = (Arc::clone(&world), Arc::clone(&database));
        disturbances.spawn(async move {
            let number = node;
            let node = world.cluster.all().nth(node).expect("the node exists");
            let record = &world.log;
            match fault {
                Fault::Kill | Fault::KillWorker => {
                    let mut state = node.disturb().await;
                    node.kill(&mut state, record, sleep(pause)).await;
                }
                Fault::Drain => {
                    let mut state = node.disturb().await;
                    let held = hold_requests(&world, number);
                    sleep(BEFORE).await;
                    node.drain(&mut state, record).await;
                    drop(state);
                    held.join_all().await;
                }
                Fault::Damage(kind) => damage(&world, &database, number, kind).await,
                Fault::Stop => {
                    let state = node.disturb().await;
                    node.stop(&state, record, LEASE * 3 / 2 + pause).await;
                }
                Fault::Restart | Fault::KillDatabase => {
                    let mut database = database.lock().await;
                    let begin = record.now();
                    let kills = matches!(fault, Fault::KillDatabase);
                    database.interrupt(kills, pause).await;
                    record.add(&Entry::Away(Away {
                        node: None,
                        begin,
                        end: record.now(),
                    }));
                }
            }
        });
    }
    while let Some(disturbance) = disturbances.join_next().await {
        disturbance.expect("a disturbance ends");
    }
    let database = Arc::into_inner(database).expect("all disturbances have ended");
    database.into_inner()
}

/// Starts customers with held requests at a node, by its number.
fn hold_requests(world: &Arc<World>, node: usize) -> JoinSet<()> {
    let mut held = JoinSet::new();
    // Workers answer no requests.
    if node < world.cluster.nodes() {
        for number in 0..HOLDING {
            let mut customer = Customer::new(Arc::clone(world), number);
            let name = format!("held {number} by node {node} at {}", world.log.now());
            held.spawn(async move { customer.hold_at(node, &name).await });
        }
    }
    held
}

/// Lets a node accept an operation, damages the live operation in the store, and kills the
/// node.
async fn damage(world: &Arc<World>, database: &Mutex<Database>, node: usize, kind: usize) {
    let node_count = world.cluster.nodes();
    let mut customer = Customer::new(Arc::clone(world), kind);
    let name = format!("damaged {kind} at {}", world.log.now());
    let accepted = customer.order_long_report(node % node_count, &name).await;
    let operation = accepted.expect("the order is accepted in the end");
    let node = world.cluster.all().nth(node).expect("the node exists");
    let mut state = node.disturb().await;
    let database = database.lock().await;
    world.record_damaged(&operation);
    let damage = async {
        let folder = &world.cluster.folder;
        database.damage(folder, &operation, kind).await;
        world.log.add(&Entry::Damage(Damage {
            operation: operation.clone(),
            at: world.log.now(),
        }));
    };
    if database.is_in_the_node() {
        node.kill(&mut state, &world.log, damage).await;
    } else {
        damage.await;
        node.kill(&mut state, &world.log, ready(())).await;
    }
}
