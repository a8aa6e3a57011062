//! The faults of a world.

use std::{sync::Arc, time::Duration};

use test_customers::{Cluster, Customer, Log, Random};
use tokio::{sync::oneshot, task::JoinSet, time::sleep};
use tower_operations_conformance::checker::{Away, Entry};

use crate::{
    node::Node,
    process::LEASE,
    world::{Nodes, SimulatedWorld},
};

/// The number of faults of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultNumbers {
    /// Kills of a node.
    pub kills: usize,
    /// Stops of a node.
    pub stops: usize,
    /// Drains of a node.
    pub drains: usize,
    /// Outages of the store, half of them together with the result store.
    pub outages: usize,
    /// Outages of the result store alone.
    pub result_outages: usize,
    /// Changes of the wall clock of a node.
    pub skews: usize,
}

/// A fault, with all that is random about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    kind: FaultKind,
    node: usize,
    pause: Duration,
    skew: i64,
    /// The largest error of a clock that is ahead.
    fastest: i64,
    /// The node that is stopped after an upload while a killed node starts again.
    stopped: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum FaultKind {
    Kill,
    Stop,
    Drain,
    Outage { takes_results: bool },
    ResultOutage,
    Skew,
}

/// The number of customers with held requests at a node that is drained.
const HOLDING: usize = 4;
/// The time before a drain, in which the held requests arrive.
const BEFORE: Duration = Duration::from_millis(1_300);

impl FaultNumbers {
    /// Returns this number of kills, and faults of the other kinds in proportion.
    #[must_use]
    pub fn with_kills(kills: usize) -> Self {
        Self {
            kills,
            stops: kills.div_ceil(3),
            drains: kills.div_ceil(5),
            outages: kills.div_ceil(5),
            result_outages: kills.div_ceil(5),
            skews: kills.div_ceil(3),
        }
    }

    /// Returns the number of faults of all kinds.
    #[must_use]
    pub fn all(self) -> usize {
        self.kills + self.stops + self.drains + self.outages + self.result_outages + self.skews
    }

    /// Returns the faults in a random order.
    pub(crate) fn shuffled(
        self,
        nodes: usize,
        largest_skew: Duration,
        random: &mut Random,
    ) -> Vec<Fault> {
        let largest_skew = u64::try_from(largest_skew.as_millis()).expect("a small skew");
        let kinds = [
            (FaultKind::Kill, self.kills),
            (FaultKind::Stop, self.stops),
            (FaultKind::Drain, self.drains),
            (
                FaultKind::Outage {
                    takes_results: false,
                },
                self.outages / 2,
            ),
            (
                FaultKind::Outage {
                    takes_results: true,
                },
                self.outages.div_ceil(2),
            ),
            (FaultKind::ResultOutage, self.result_outages),
            (FaultKind::Skew, self.skews),
        ];
        let kinds = kinds
            .into_iter()
            .flat_map(|(kind, number)| std::iter::repeat_n(kind, number));
        let mut faults: Vec<_> = kinds
            .map(|kind| Fault {
                kind,
                node: random.below(nodes),
                pause: Duration::from_millis(random.between(0, 1_500)),
                skew: random.between(0, 2 * largest_skew).cast_signed()
                    - largest_skew.cast_signed(),
                fastest: largest_skew.cast_signed(),
                stopped: random.one_in(3).then(|| random.below(nodes)),
            })
            .collect();
        for last in (1..faults.len()).rev() {
            faults.swap(last, random.below(last + 1));
        }
        faults
    }
}

/// Injects the first faults while the customers are busy, and returns when all are healed.
pub(crate) async fn inject(world: Arc<SimulatedWorld>, faults: Vec<Fault>, prefix: usize) {
    let mut disturbances = JoinSet::new();
    #[allow(clippy::cast_precision_loss)]
    let all = (faults.len() + 1) as f64;
    for (number, fault) in faults.into_iter().take(prefix).enumerate() {
        #[allow(clippy::cast_precision_loss)]
        world.wait_for_part((number as f64 + 0.5) / all).await;
        let world = Arc::clone(&world);
        disturbances.spawn(disturb(world, fault));
    }
    while let Some(disturbance) = disturbances.join_next().await {
        disturbance.expect("a disturbance ends");
    }
}

/// Kills a node. If another node is stopped after an upload when the node starts again, its first
/// sweep, whose clock is ahead, finds an old upload of an operation that has not ended.
async fn kill(world: &Arc<SimulatedWorld>, node: &Node, fault: Fault) {
    let mut stop = None;
    let pause = async {
        sleep(fault.pause).await;
        let Some(other) = fault.stopped.filter(|other| *other != fault.node) else {
            return;
        };
        let (sender, stopped) = oneshot::channel();
        let world = Arc::clone(world);
        stop = Some(tokio::spawn(async move {
            world.cluster.nodes[other].stop_after_upload(sender).await;
        }));
        if stopped.await.is_ok() {
            node.set_skew(fault.fastest);
        }
    };
    node.kill(pause).await;
    if let Some(stop) = stop {
        stop.await.expect("a stop ends");
    }
}

async fn disturb(world: Arc<SimulatedWorld>, fault: Fault) {
    let Nodes {
        nodes,
        stores,
        results,
        ..
    } = &world.cluster;
    let node = &nodes[fault.node];
    match fault.kind {
        FaultKind::Kill => kill(&world, node, fault).await,
        FaultKind::Stop => node.stop(LEASE * 3 / 2 + fault.pause).await,
        FaultKind::Drain => {
            let mut held = JoinSet::new();
            let before = async {
                // No customer calls a worker.
                let holding = match fault.node < world.cluster.nodes() {
                    true => HOLDING,
                    false => 0,
                };
                for number in 0..holding {
                    let mut customer = Customer::new(Arc::clone(&world), number);
                    let at = world.log.now();
                    let name = format!("held {number} by node {} at {at}", fault.node);
                    let node = fault.node;
                    held.spawn(async move { customer.hold_at(node, &name).await });
                }
                sleep(BEFORE).await;
            };
            node.drain(before).await;
            held.join_all().await;
        }
        FaultKind::Outage { takes_results } => {
            let begin = world.log.now();
            if takes_results {
                results.set_away(true);
            }
            stores.fail(fault.pause).await;
            if takes_results {
                results.set_away(false);
            }
            world.log.add(&Entry::Away(Away {
                node: None,
                begin,
                end: world.log.now(),
            }));
        }
        FaultKind::ResultOutage => results.fail(fault.pause).await,
        FaultKind::Skew => node.set_skew(fault.skew),
    }
}
