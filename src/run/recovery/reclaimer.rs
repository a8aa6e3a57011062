//! Reclaiming in a task of its own, so that reclaimed operations are run or ended even if
//! the looking task is dropped.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::time::timeout;
use tracing::Instrument;

use super::{RecoveryStats, ending::EndingSlots};
use crate::{
    environment,
    operation::{FailureKind, RecordedResponse},
    run::{RunLimits, Runtime, catch_panic::CatchPanic, now_or_never},
    store::{Lease, LeaseHandle, Reclaimed, Record, StoreError},
};

/// The operations that can be reclaimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reclaimable {
    /// The released operations, which certainly no node holds.
    Released,
    /// The released operations, and those whose lease has expired.
    Over,
}

/// The way in which operations are rerun.
pub(super) struct Rerun<R> {
    pub(super) attempts: u32,
    /// The failure of a released operation that has no attempts left.
    pub(super) given_up: FailureKind,
    /// Starts an operation with its request, in a task of its own. Returns false if the operation is
    /// left to other nodes.
    pub(super) go: Box<Mutex<RerunFn<R>>>,
}

pub(super) type RerunFn<R> = dyn FnMut(Arc<Runtime<R>>, RunLimits, Record<RecordedResponse>, Bytes) -> Result<bool, FailureKind>
    + Send;

/// Reclaims operations, and reruns or ends them.
pub(super) struct Reclaimer<R> {
    pub(super) node: Arc<Runtime<R>>,
    pub(super) limits: RunLimits,
    pub(super) again: Option<Rerun<R>>,
    pub(super) ending: EndingSlots,
    pub(super) stats: RecoveryStats,
}

impl<R: Lease<Output = RecordedResponse>> Reclaimer<R> {
    /// Reclaims at most `limit` operations; returns how many. Returns an error if the store is
    /// too slow. Operations that are reclaimed after that are run or ended nevertheless.
    pub(super) async fn take(
        self: &Arc<Self>,
        which: Reclaimable,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let term = self.node.lease().term;
        let taking = Arc::clone(self).take_and_hand_on(which, limit);
        match timeout(term / 3, environment::spawn(taking.in_current_span())).await {
            Ok(taken) => taken.unwrap_or_else(|panicked| Err(StoreError::unavailable(panicked))),
            Err(_) => Err(StoreError::unavailable("no answer in time")),
        }
    }

    async fn take_and_hand_on(
        self: Arc<Self>,
        which: Reclaimable,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let (node, lease) = (&self.node, self.node.lease());
        // A drain waits for the result.
        let _passing = node.in_flight.pass();
        if node.in_flight.closed().is_cancelled() {
            return Ok(0);
        }
        crash_point!("taking-over");
        let taking = async {
            match which {
                Reclaimable::Released => node.store.reclaim_released(lease, limit).await,
                Reclaimable::Over => node.store.reclaim(lease, limit).await,
            }
        };
        // After a term the leases of all operations that were reclaimed here have expired again.
        let taken = timeout(lease.term, taking)
            .await
            .unwrap_or_else(|_| Err(StoreError::unavailable("no answer in time")))?;
        let count = taken.len();
        if count > 0 {
            crash_point!("taken-over");
        }
        if node.in_flight.closed().is_cancelled() {
            self.give_back(&taken).await;
            return Ok(0);
        }
        for taken in taken {
            let id = taken.record.operation().id();
            tracing::warn!(%id, attempts = taken.record.attempts(), "taken over");
            let record = taken.record.clone();
            match self.rerun_or_fail(taken, which) {
                Ok(true) => self.stats.add_rerun(1),
                Ok(false) => {}
                Err(kind) => self.ending.end(node, record, kind, &self.stats).await,
            }
        }
        self.stats.add_reclaimed(count);
        Ok(count)
    }

    /// Reruns the operation, or returns its failure. Returns false if it is left to other nodes.
    fn rerun_or_fail(
        &self,
        taken: Reclaimed<RecordedResponse>,
        which: Reclaimable,
    ) -> Result<bool, FailureKind> {
        let Reclaimed { record, request } = taken;
        let (Some(again), Some(request)) = (&self.again, request) else {
            return Err(FailureKind::Interrupted);
        };
        if record.attempts() >= again.attempts {
            return Err(match which {
                Reclaimable::Released => again.given_up,
                Reclaimable::Over => FailureKind::AttemptsExhausted,
            });
        }
        crash_point!("running-again");
        let id = record.operation().id().clone();
        // The function is code of the application, which may panic.
        let gone = now_or_never(CatchPanic::new(async {
            let mut go = again.go.lock().unwrap_or_else(PoisonError::into_inner);
            go(Arc::clone(&self.node), self.limits, record, request)
        }));
        match gone {
            Some(Ok(gone)) => gone,
            Some(Err(panicked)) => {
                panicked.of_handler(&id);
                Err(FailureKind::Panicked)
            }
            // The function never waits, so there is always an output.
            None => Err(FailureKind::Interrupted),
        }
    }

    /// Releases reclaimed operations if a drain has begun meanwhile, so that other nodes can
    /// reclaim them at once.
    async fn give_back(&self, taken: &[Reclaimed<RecordedResponse>]) {
        if taken.is_empty() {
            return;
        }
        let held = |taken: &Reclaimed<_>| LeaseHandle {
            id: taken.record.operation().id().clone(),
            token: taken.record.token(),
        };
        let held: Vec<_> = taken.iter().map(held).collect();
        let term = self.node.lease().term;
        let released = timeout(term / 3, self.node.store.release(&held)).await;
        if !matches!(released, Ok(Ok(()))) {
            let count = held.len();
            tracing::warn!(
                count,
                "reclaimed operations not released, reclaimable after their leases expire"
            );
        }
    }
}
