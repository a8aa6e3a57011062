//! The state shared by all parts of a scenario.

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
    /// The folder of the nodes' files.
    pub(crate) folder: Folder,
    pub(crate) seed: u64,
    operations: usize,
    next: AtomicUsize,
    closed: AtomicBool,
    done: watch::Sender<usize>,
    ledger: Mutex<Ledger>,
}

/// The shared knowledge of all customers.
#[derive(Default)]
struct Ledger {
    /// Operations that got a 202.
    accepted: BTreeSet<Accepted>,
    /// Operations whose deletion was confirmed.
    deleted: BTreeSet<Accepted>,
    /// Operations that got a 202 and whose end was not observed.
    open: BTreeSet<String>,
    /// Ids of operations that were damaged in the store.
    damaged: BTreeSet<String>,
    /// Operations whose outcome the store refused.
    refused: BTreeSet<String>,
    /// The number of posts that were answered without an operation.
    answered: usize,
}

/// The prefix of ids that customers choose.
pub(crate) const CHOSEN: &str = "chosen-";

/// An operation and its tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Accepted {
    pub(crate) operation: String,
    pub(crate) tenant: String,
}

/// The numbers of operations and answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    /// Operations that got a 202, as counted by the customers.
    pub(crate) accepted: usize,
    pub(crate) answered: usize,
    pub(crate) deleted: usize,
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
            ledger: Mutex::default(),
        }
    }

    /// Returns the number of the next order, or `None` once there are no more orders.
    pub(crate) fn next(&self) -> Option<usize> {
        let next = self.next.fetch_add(1, Relaxed);
        let is_open = !self.closed.load(Relaxed);
        (is_open && next < self.operations).then_some(next)
    }

    /// Ends the orders.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    pub(crate) fn complete_order(&self) {
        self.done.send_modify(|done| *done += 1);
    }

    /// Waits until this part of all orders is complete.
    pub(crate) async fn wait_for_part(&self, part: f64) {
        #[allow(clippy::cast_precision_loss)]
        let reached = |done: &usize| *done as f64 >= part * self.operations as f64;
        let mut done = self.done.subscribe();
        done.wait_for(reached).await.expect("the world exists");
    }

    pub(crate) fn record_accepted(&self, accepted: Accepted) {
        let mut ledger = self.ledger();
        if ledger.accepted.insert(accepted.clone()) {
            ledger.open.insert(accepted.operation);
        }
    }

    /// Records an answer about an operation to its owner.
    pub(crate) fn record_answer(&self, accepted: &Accepted, answer: &CallAnswer) {
        let has_ended = match answer {
            CallAnswer::Operation(sighting) => sighting.state.is_terminal(),
            CallAnswer::Result(_) | CallAnswer::Absent => true,
            _ => false,
        };
        if !has_ended {
            return;
        }
        let mut ledger = self.ledger();
        if !ledger.accepted.contains(accepted) {
            return;
        }
        let operation = &accepted.operation;
        ledger.open.remove(operation);
        if let CallAnswer::Result(outcome) = answer
            && outcome.failure.as_deref() == Some("urn:tower-operations:result-too-large")
        {
            ledger.refused.insert(operation.clone());
        }
    }

    pub(crate) fn record_deleted(&self, accepted: &Accepted) {
        let mut ledger = self.ledger();
        ledger.open.remove(&accepted.operation);
        ledger.deleted.insert(accepted.clone());
    }

    pub(crate) fn record_direct_answer(&self) {
        self.ledger().answered += 1;
    }

    pub(crate) fn record_damaged(&self, operation: &str) {
        let mut ledger = self.ledger();
        ledger.open.remove(operation);
        ledger.damaged.insert(operation.into());
    }

    pub(crate) fn is_damaged(&self, operation: &str) -> bool {
        self.ledger().damaged.contains(id_of(operation))
    }

    /// Returns the operations whose end was not observed.
    pub(crate) fn open(&self) -> Vec<Accepted> {
        let ledger = self.ledger();
        let all = ledger.accepted.iter();
        all.filter(|accepted| ledger.open.contains(&accepted.operation))
            .cloned()
            .collect()
    }

    /// Returns the operations to confirm at the end. A deleted operation with a chosen id is
    /// excluded, because another operation may have the id by now.
    pub(crate) fn to_confirm(&self) -> Vec<Accepted> {
        let ledger = self.ledger();
        let is_certain = |accepted: &&Accepted| {
            !ledger.deleted.contains(accepted) || !accepted.operation.starts_with(CHOSEN)
        };
        ledger.accepted.iter().filter(is_certain).cloned().collect()
    }

    pub(crate) fn tally(&self) -> Tally {
        let ledger = self.ledger();
        Tally {
            accepted: ledger.accepted.len(),
            answered: ledger.answered,
            deleted: ledger.deleted.len(),
            refused: ledger.refused.len(),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }
}
