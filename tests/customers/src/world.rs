//! The state shared by all customers.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;
use tower_operations_conformance::checker::CallAnswer;

use crate::{Cluster, Log, id_of};

/// The cluster, the log and the knowledge that all customers share.
#[derive(Debug)]
pub struct World<C, L> {
    /// The nodes that the customers send their requests to.
    pub cluster: C,
    /// The log of the requests and the answers.
    pub log: L,
    /// The seed of all random numbers.
    pub seed: u64,
    operations: usize,
    next: AtomicUsize,
    closed: AtomicBool,
    done: AtomicUsize,
    /// Wakes those that wait for a part of the orders, in the order of their waits.
    completed: Notify,
    ledger: Mutex<Ledger>,
}

/// The shared knowledge of all customers.
#[derive(Debug, Default)]
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
pub const CHOSEN: &str = "chosen-";

/// An operation and its tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Accepted {
    /// The name of the operation in the log.
    pub operation: String,
    /// The tenant that posted the operation.
    pub tenant: String,
}

/// The numbers of operations and answers.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    /// Operations that got a 202, as counted by the customers.
    pub accepted: usize,
    /// Posts that were answered without an operation.
    pub answered: usize,
    /// Operations whose deletion was confirmed.
    pub deleted: usize,
    /// Operations whose outcome was too large for the store.
    pub refused: usize,
}

impl<C: Cluster, L: Log> World<C, L> {
    /// Returns a world for this number of orders.
    pub fn new(cluster: C, log: L, seed: u64, operations: usize) -> Self {
        Self {
            cluster,
            log,
            seed,
            operations,
            next: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            done: AtomicUsize::new(0),
            completed: Notify::new(),
            ledger: Mutex::default(),
        }
    }

    /// Returns the number of the next order, or `None` once there are no more orders.
    pub fn next(&self) -> Option<usize> {
        let next = self.next.fetch_add(1, Relaxed);
        let is_open = !self.closed.load(Relaxed);
        (is_open && next < self.operations).then_some(next)
    }

    /// Ends the orders.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// Counts an order as complete.
    pub fn complete_order(&self) {
        self.done.fetch_add(1, Relaxed);
        self.completed.notify_waiters();
    }

    /// Waits until this part of all orders is complete.
    pub async fn wait_for_part(&self, part: f64) {
        loop {
            // Subscribes before the check.
            let completed = self.completed.notified();
            let done = self.done.load(Relaxed);
            #[allow(clippy::cast_precision_loss)]
            let is_reached = done as f64 >= part * self.operations as f64;
            if is_reached {
                return;
            }
            completed.await;
        }
    }

    /// Records a 202.
    pub fn record_accepted(&self, accepted: Accepted) {
        let mut ledger = self.ledger();
        if ledger.accepted.insert(accepted.clone()) {
            ledger.open.insert(accepted.operation);
        }
    }

    /// Records an answer about an operation to its owner.
    pub fn record_answer(&self, accepted: &Accepted, answer: &CallAnswer) {
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

    /// Records that a deletion was confirmed.
    pub fn record_deleted(&self, accepted: &Accepted) {
        let mut ledger = self.ledger();
        ledger.open.remove(&accepted.operation);
        ledger.deleted.insert(accepted.clone());
    }

    /// Records a post that was answered without an operation.
    pub fn record_direct_answer(&self) {
        self.ledger().answered += 1;
    }

    /// Records an operation that is about to be damaged in the store, whose end no customer
    /// waits for.
    pub fn record_damaged(&self, operation: &str) {
        let mut ledger = self.ledger();
        ledger.open.remove(operation);
        ledger.damaged.insert(operation.into());
    }

    /// Returns whether an operation was damaged in the store.
    pub fn is_damaged(&self, operation: &str) -> bool {
        self.ledger().damaged.contains(id_of(operation))
    }

    /// Returns the operations whose end was not observed.
    pub fn open(&self) -> Vec<Accepted> {
        let ledger = self.ledger();
        let all = ledger.accepted.iter();
        all.filter(|accepted| ledger.open.contains(&accepted.operation))
            .cloned()
            .collect()
    }

    /// Returns the operations to confirm at the end. A deleted operation with a chosen id is
    /// excluded, because another operation may have the id by now.
    pub fn to_confirm(&self) -> Vec<Accepted> {
        let ledger = self.ledger();
        let is_certain = |accepted: &&Accepted| {
            !ledger.deleted.contains(accepted) || !accepted.operation.starts_with(CHOSEN)
        };
        ledger.accepted.iter().filter(is_certain).cloned().collect()
    }

    /// Returns the numbers of operations and answers until now.
    pub fn tally(&self) -> Tally {
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
