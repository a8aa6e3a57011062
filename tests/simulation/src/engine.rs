//! An engine in memory, reached over a simulated network.
//!
//! Each node has an engine of its own on the same [`Database`]. A call takes time, and may lose
//! its request or its answer.

mod database;
mod invariants;
mod keys;
mod leases;
mod lists;
mod network;
#[cfg(test)]
mod tests;
mod undone;

use std::{
    sync::{Arc, MutexGuard},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::sleep;
use tower_operations::{
    OperationId,
    engine::{
        Cell, CellReader, Engine, Inserted, LapsedCell, LeaseChange, NewCell, NextCell, Notice,
        ReclaimFilter, Replaced,
    },
    store::{LeaseHandle, Stamp, StoreError, StoreResult},
    testing::TaskGroup,
};

pub(crate) use self::network::CallFate;
pub use self::{
    database::Database,
    network::{Network, NetworkCounts, NetworkFaults},
};
use self::{
    database::{Rows, now},
    undone::edit_number,
};
use crate::{Mutant, process::LEASE};

/// The engine of a node. `POLLS` says whether a wait looks again without a notice.
#[derive(Debug)]
pub struct SimulatedEngine<const POLLS: bool = true> {
    database: Arc<Database>,
    network: Arc<Network>,
    node: usize,
    /// The tasks of the node. A dead node sends nothing.
    tasks: TaskGroup,
}

impl<const POLLS: bool> SimulatedEngine<POLLS> {
    /// Creates the engine of a node.
    #[must_use]
    pub fn new(
        database: &Arc<Database>,
        network: &Arc<Network>,
        node: usize,
        tasks: TaskGroup,
    ) -> Self {
        Self {
            database: Arc::clone(database),
            network: Arc::clone(network),
            node,
            tasks,
        }
    }

    /// Makes a call to the database.
    async fn call<A>(&self, apply: impl FnOnce(&mut Rows) -> A + Send) -> StoreResult<A> {
        let fate = self.network.draw();
        sleep(fate.there).await;
        if self.network.is_away() && !self.rows().bug.is(Mutant::RecoveryDuringOutage) {
            return Err(StoreError::unavailable("the database is away"));
        }
        if fate.loses_request {
            sleep(fate.silence).await;
            return Err(StoreError::unavailable("the request was lost"));
        }
        let answer = apply(&mut self.rows());
        if fate.loses_answer {
            sleep(fate.silence).await;
            return Err(StoreError::unavailable("the answer was lost"));
        }
        if !fate.back.is_zero() {
            sleep(fate.back).await;
        }
        Ok(answer)
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.database.rows()
    }
}

impl<const POLLS: bool> Engine for SimulatedEngine<POLLS> {
    const POLL_INTERVAL: Option<Duration> = match POLLS {
        true => Some(Duration::from_secs(1)),
        false => None,
    };

    async fn read(&self, id: &OperationId, reader: CellReader<'_>) -> StoreResult<Option<Cell>> {
        self.call(|rows| {
            let is_stale = rows.bug.shows(Mutant::StaleRead, 20);
            let is_mixed_up = rows.bug.shows(Mutant::ResultsMixedUp, 100);
            let row = rows.get(id)?;
            if is_stale && let Some(before) = &row.before {
                return Some(before.clone());
            }
            let wanted = |result: &Bytes| reader.reads(row.owner.as_ref(), result.len());
            let mut result = row.cell.result.clone().filter(wanted);
            if is_mixed_up && let Some(own) = &result {
                result = rows.result_of_another(id, own.len()).or(result);
            }
            Some(Cell::new(row.cell.head.clone(), result))
        })
        .await
    }

    async fn insert(&self, new: NewCell<'_>) -> StoreResult<Inserted> {
        self.call(|rows| {
            let inserted = rows.insert(&new);
            if matches!(inserted, Inserted::Done) && rows.bug.is(Mutant::AnswerBeforeWrite) {
                rows.undo_if_dead(new.id, None, &self.tasks);
            }
            inserted
        })
        .await
    }

    async fn replace(
        &self,
        id: &OperationId,
        expected: Stamp,
        next: NextCell<'_>,
    ) -> StoreResult<Replaced> {
        self.call(|rows| {
            let mut next = next;
            let uncounted;
            if rows.bug.is(Mutant::AttemptsNotCounted) {
                uncounted = edit_number(next.head, "attempts", |_| 0);
                next.head = &uncounted;
            }
            let before = match rows.bug.is(Mutant::AnswerBeforeWrite) {
                true => rows.get(id).cloned(),
                false => None,
            };
            let is_trusted = !self.network.distrusts_leases(self.node, LEASE);
            let replaced = rows.replace(id, expected, &next, is_trusted);
            if matches!(replaced, Replaced::Done) && before.is_some() {
                rows.undo_if_dead(id, before, &self.tasks);
            }
            replaced
        })
        .await
    }

    async fn delete(
        &self,
        id: &OperationId,
        expected: Stamp,
        remains: &[u8],
        until: Option<SystemTime>,
    ) -> StoreResult<Replaced> {
        self.call(|rows| rows.delete(id, expected, remains, until))
            .await
    }

    async fn renew(&self, held: &[LeaseHandle], term: Duration) -> StoreResult<Vec<LeaseHandle>> {
        if self.network.is_away() {
            return Err(StoreError::unavailable("the database is away"));
        }
        self.call(|rows| rows.renew(held, term)).await
    }

    async fn release(&self, held: &[LeaseHandle]) -> StoreResult<()> {
        self.call(|rows| rows.release(held)).await
    }

    async fn reclaimable(
        &self,
        filter: ReclaimFilter,
        limit: usize,
    ) -> StoreResult<Vec<LapsedCell>> {
        self.call(|rows| rows.reclaimable(filter, limit)).await
    }

    async fn defer(&self, ids: &[Bytes], term: Duration) -> StoreResult<()> {
        self.call(|rows| rows.defer(ids, now() + term)).await
    }

    async fn purge(&self, limit: usize, now: SystemTime) -> StoreResult<usize> {
        self.call(|rows| rows.purge(limit, now)).await
    }

    fn publish(&self, notice: Notice) {
        let is_untold = matches!(&notice, Notice::Changed { revoked_from, .. } if revoked_from.is_some())
            && self.rows().bug.is(Mutant::CancelNotTold);
        if !self.tasks.is_aborted() && !is_untold && POLLS {
            self.network.publish(self.node, &notice);
        }
    }
}

/// Returns whether a change of this kind needs a lease that is over.
fn needs_lapse(change: LeaseChange) -> bool {
    matches!(change, LeaseChange::Reclaim(_))
}
