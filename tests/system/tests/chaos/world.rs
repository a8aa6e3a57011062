//! What everybody in a scenario sees.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use test_support::private::Folder;
use tokio::sync::watch;
use tower_operations_conformance::checker::CallAnswer;

use super::{client::Client, cluster::Cluster, record::Record, wish::id_of};

pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) cluster: Cluster,
    pub(crate) record: Record,
    /// Where the nodes keep what they keep.
    pub(crate) folder: Folder,
    pub(crate) seed: u64,
    operations: usize,
    next: AtomicUsize,
    closed: AtomicBool,
    done: watch::Sender<usize>,
    known: Mutex<Known>,
}

/// What the customers know, all of them together.
#[derive(Default)]
struct Known {
    /// What got a 202.
    accepted: BTreeSet<Accepted>,
    /// What is no more, as its owner has been told.
    forgotten: BTreeSet<Accepted>,
    /// What got a 202, and nobody has seen the end of.
    open: BTreeSet<String>,
    /// Ids of what was damaged in the store.
    damaged: BTreeSet<String>,
    /// Of what the store would not take.
    refused: BTreeSet<String>,
    /// How many posts were answered without an operation.
    answered: usize,
}

/// How the ids begin that customers choose.
pub(crate) const CHOSEN: &str = "chosen-";

/// An operation, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Accepted {
    pub(crate) operation: String,
    pub(crate) tenant: String,
}

/// How much there was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    /// Operations that got a 202, by the customers' own count.
    pub(crate) accepted: usize,
    pub(crate) answered: usize,
    pub(crate) forgotten: usize,
    /// Operations whose outcome was too large for the store.
    pub(crate) refused: usize,
}

impl World {
    pub(crate) fn new(
        folder: Folder,
        cluster: Cluster,
        record: Record,
        seed: u64,
        operations: usize,
    ) -> Self {
        Self {
            client: Client::new(),
            cluster,
            record,
            folder,
            seed,
            operations,
            next: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            done: watch::Sender::new(0),
            known: Mutex::default(),
        }
    }

    /// The number of the next order, while there are any.
    pub(crate) fn next(&self) -> Option<usize> {
        let next = self.next.fetch_add(1, Relaxed);
        let is_open = !self.closed.load(Relaxed);
        (is_open && next < self.operations).then_some(next)
    }

    /// There are no more orders.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
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

    pub(crate) fn accepts(&self, accepted: Accepted) {
        let mut known = self.known();
        if known.accepted.insert(accepted.clone()) {
            known.open.insert(accepted.operation);
        }
    }

    /// What its owner was told of an operation.
    pub(crate) fn saw(&self, accepted: &Accepted, answer: &CallAnswer) {
        let has_ended = match answer {
            CallAnswer::Operation(sighting) => sighting.state.is_terminal(),
            CallAnswer::Result(_) | CallAnswer::Absent => true,
            _ => false,
        };
        if !has_ended {
            return;
        }
        let mut known = self.known();
        if !known.accepted.contains(accepted) {
            return;
        }
        let operation = &accepted.operation;
        known.open.remove(operation);
        if let CallAnswer::Result(outcome) = answer
            && outcome.failure.as_deref() == Some("urn:tower-operations:result-too-large")
        {
            known.refused.insert(operation.clone());
        }
    }

    pub(crate) fn forgets(&self, accepted: &Accepted) {
        let mut known = self.known();
        known.open.remove(&accepted.operation);
        known.forgotten.insert(accepted.clone());
    }

    pub(crate) fn answered(&self) {
        self.known().answered += 1;
    }

    pub(crate) fn damages(&self, operation: &str) {
        let mut known = self.known();
        known.open.remove(operation);
        known.damaged.insert(operation.into());
    }

    pub(crate) fn is_damaged(&self, operation: &str) -> bool {
        self.known().damaged.contains(id_of(operation))
    }

    /// Those that nobody has seen the end of.
    pub(crate) fn open(&self) -> Vec<Accepted> {
        let known = self.known();
        let all = known.accepted.iter();
        all.filter(|accepted| known.open.contains(&accepted.operation))
            .cloned()
            .collect()
    }

    /// All that is to be looked at in the end. A forgotten id that was chosen may be that
    /// of another operation by now.
    pub(crate) fn left(&self) -> Vec<Accepted> {
        let known = self.known();
        let is_certain = |accepted: &&Accepted| {
            !known.forgotten.contains(accepted) || !accepted.operation.starts_with(CHOSEN)
        };
        known.accepted.iter().filter(is_certain).cloned().collect()
    }

    pub(crate) fn tally(&self) -> Tally {
        let known = self.known();
        Tally {
            accepted: known.accepted.len(),
            answered: known.answered,
            forgotten: known.forgotten.len(),
            refused: known.refused.len(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }
}
