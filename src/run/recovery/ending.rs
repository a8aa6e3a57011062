//! Ending reclaimed operations in separate tasks.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::Instrument;

use super::RecoveryStats;
use crate::{
    environment,
    operation::{FailureKind, Outcome, RecordedResponse},
    run::{AdmissionPermit, RunContext, RunOutcome, Runtime, heartbeat, record::record_within},
    store::{Lease, LeaseConfig, Record},
};

/// The number of operations that are ended at a time.
pub(super) const AT_ONCE: usize = 64;

/// The number of refusals by the store after which an operation is put aside.
const REFUSALS: u32 = 5;

/// The number of lease terms after which ending an operation that was put aside is retried.
const ASIDE: u32 = 20;

/// Places for operations that are being ended.
#[derive(Debug)]
pub(super) struct EndingSlots(Arc<Semaphore>);

impl EndingSlots {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Returns how many more operations can be ended now. Waits for at most `at_most` if there
    /// is no place.
    pub(super) async fn room(&self, at_most: Duration) -> usize {
        if self.0.available_permits() == 0 {
            // Every place is released in time.
            drop(timeout(at_most, self.0.acquire()).await);
        }
        self.0.available_permits()
    }

    /// Ends a reclaimed operation in a task of its own, so that a failure to end it does
    /// not delay others.
    pub(super) async fn end<R>(
        &self,
        node: &Arc<Runtime<R>>,
        record: Record<RecordedResponse>,
        kind: FailureKind,
        stats: &RecoveryStats,
    ) where
        R: Lease<Output = RecordedResponse>,
    {
        // The semaphore is never closed.
        if let Ok(place) = Arc::clone(&self.0).acquire_owned().await {
            // The place in flight is taken before the end begins: a drain waits for it from now
            // on.
            let places = (place, node.in_flight.admit_anyway());
            let end = end(Arc::clone(node), record, kind, places, stats.clone());
            environment::spawn(end.in_current_span());
        }
    }
}

async fn end<R>(
    node: Arc<Runtime<R>>,
    record: Record<RecordedResponse>,
    kind: FailureKind,
    _places: (OwnedSemaphorePermit, AdmissionPermit),
    stats: RecoveryStats,
) where
    R: Lease<Output = RecordedResponse>,
{
    let id = record.operation().id().clone();
    let work = Arc::new(RunContext::new(id, record.token(), record.attempts()));
    // The lease is renewed until the end is recorded.
    let Some(entered) = node.in_flight.enter(Arc::clone(&work), Duration::ZERO) else {
        return;
    };
    heartbeat::ensure(&node);
    let lease = node.lease();
    let recorded = record_within(&node, &work, Outcome::failed(kind), REFUSALS);
    match timeout(lease.term, recorded).await {
        // A recovery retries once the lease has expired.
        Err(_) => {
            tracing::warn!(id = %work.id, "operation not ended, retried after its lease expires");
        }
        // The error was logged where it occurred.
        Ok(Err(error)) if !error.is_transient() => {
            stats.add_refused(1);
            // The heartbeat no longer renews this lease.
            drop(entered);
            put_aside(&node, &work).await;
        }
        Ok(Ok(RunOutcome::Recorded(_))) => stats.add_ended(1),
        Ok(_) => {}
    }
}

/// Puts an operation aside for a while if the store refuses to end it, so that the operation
/// does not delay others.
async fn put_aside<R: Lease>(node: &Runtime<R>, work: &RunContext) {
    let LeaseConfig { node: name, term } = node.lease().clone();
    let aside = LeaseConfig::new(name, term.saturating_mul(ASIDE));
    let held = [work.lease_handle()];
    let put = timeout(term / 3, node.store.renew(&aside, &held)).await;
    if !matches!(put, Ok(Ok(_))) {
        tracing::warn!(id = %work.id, "operation not put aside, reclaimed again soon");
    }
}
