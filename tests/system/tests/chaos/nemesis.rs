//! Whoever disturbs the nodes and their database.

use std::{future::ready, sync::Arc, time::Duration};

use tokio::{sync::Mutex, task::JoinSet, time::sleep};
use tower_operations_conformance::checker::{Away, Damage, Entry};

use super::{
    customer::Customer, database::Database, random::Random, scenario::LEASE, world::World,
};

/// How often what is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) kills: usize,
    /// Of workers alone.
    pub(crate) worker_kills: usize,
    pub(crate) stops: usize,
    pub(crate) drains: usize,
    /// Of the database: half of them are restarts, half are kills.
    pub(crate) outages: usize,
    /// Of one operation in the store, each with a kill of a node.
    pub(crate) damages: usize,
}

/// How many customers hold on to a node that is drained, and how long before it is: what
/// they have sent is there.
const HOLDING: usize = 6;
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

    /// For 20,000 operations these are 60 kills, 20 stops, 10 drains and 10 damages.
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

    /// Without the damages, where nobody reaches the store.
    pub(crate) fn of_processes(operations: usize) -> Self {
        Self {
            damages: 0,
            ..Self::of_nodes(operations)
        }
    }

    /// With all of that, and for 20,000 operations 10 outages.
    pub(crate) fn of_all(operations: usize) -> Self {
        Self {
            outages: (operations / 2_000).max(2),
            ..Self::of_nodes(operations)
        }
    }

    /// Where there are workers: for 10,000 operations these are 25 kills of workers and 10
    /// of any, and 5 outages.
    pub(crate) fn of_fronts_and_workers(operations: usize) -> Self {
        Self {
            kills: (operations / 1_000).max(2),
            worker_kills: (operations / 400).max(3),
            ..Self::of_all(operations)
        }
    }

    /// How many processes are killed.
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

/// Does all of it while the customers are busy, and gives the database back
/// when everything is as it was.
pub(crate) async fn haunt(world: Arc<World>, faults: Faults, database: Database) -> Database {
    let mut random = Random::new(world.seed);
    let faults = faults.shuffled(&mut random);
    let database = Arc::new(Mutex::new(database));
    let mut disturbed = JoinSet::new();
    #[allow(clippy::cast_precision_loss)]
    let all = (faults.len() + 1) as f64;
    for (number, fault) in faults.into_iter().enumerate() {
        #[allow(clippy::cast_precision_loss)]
        world.reached((number as f64 + 0.5) / all).await;
        let spared = match fault {
            Fault::KillWorker => world.cluster.nodes.len(),
            _ => 0,
        };
        let node = spared + random.below(world.cluster.all().count() - spared);
        let pause = Duration::from_millis(random.between(0, 1_500));
        let (world, database) = (Arc::clone(&world), Arc::clone(&database));
        disturbed.spawn(async move {
            let number = node;
            let node = world.cluster.all().nth(node).expect("it is one of them");
            let record = &world.record;
            match fault {
                Fault::Kill | Fault::KillWorker => {
                    let mut state = node.disturb().await;
                    node.kill(&mut state, record, sleep(pause)).await;
                }
                Fault::Drain => {
                    let mut state = node.disturb().await;
                    let held = hold_on(&world, number);
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
    while let Some(disturbed) = disturbed.join_next().await {
        disturbed.expect("a disturbance comes to its end");
    }
    let database = Arc::into_inner(database).expect("nobody disturbs it any more");
    database.into_inner()
}

/// Customers that hold on to a node, by its number.
fn hold_on(world: &Arc<World>, node: usize) -> JoinSet<()> {
    let mut held = JoinSet::new();
    // Workers answer nobody.
    if node < world.cluster.nodes.len() {
        for number in 0..HOLDING {
            let mut customer = Customer::new(Arc::clone(world), number);
            let name = format!("held {number} by node {node} at {}", world.record.now());
            held.spawn(async move { customer.holds_on_to(node, &name).await });
        }
    }
    held
}

/// Has a node accept an operation, damages it in the store while it is live, and kills
/// the node.
async fn damage(world: &Arc<World>, database: &Mutex<Database>, node: usize, kind: usize) {
    let of_nodes = world.cluster.nodes.len();
    let mut customer = Customer::new(Arc::clone(world), kind);
    let name = format!("damaged {kind} at {}", world.record.now());
    let ordered = customer.orders_a_long_one(node % of_nodes, &name).await;
    let operation = ordered.expect("it is accepted in the end");
    let node = world.cluster.all().nth(node).expect("it is one of them");
    let mut state = node.disturb().await;
    let database = database.lock().await;
    world.damages(&operation);
    let damage = async {
        database.damage(&world.folder, &operation, kind).await;
        world.record.add(&Entry::Damage(Damage {
            operation: operation.clone(),
            at: world.record.now(),
        }));
    };
    if database.is_in_the_node() {
        node.kill(&mut state, &world.record, damage).await;
    } else {
        damage.await;
        node.kill(&mut state, &world.record, ready(())).await;
    }
}
