//! Ending what was taken over, apart from the look for more.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::Instrument;

use super::RecoveryStats;
use crate::{
    operation::{FailureKind, Outcome, RecordedResponse},
    run::{AdmissionPermit, RunContext, RunOutcome, Runtime, heartbeat, record::record_within},
    store::{Lease, LeaseConfig, Record},
};

/// So many are being ended at a time.
pub(super) const AT_ONCE: usize = 64;

/// How often the store may refuse to end one, before it is put aside.
const REFUSALS: u32 = 5;

/// For so many terms of a lease: then it is tried again.
const ASIDE: u32 = 20;

/// Places for what is being ended.
#[derive(Debug)]
pub(super) struct EndingSlots(Arc<Semaphore>);

impl EndingSlots {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// How many more can be ended now. If there is no place, one is waited for.
    pub(super) async fn room(&self, at_most: Duration) -> usize {
        if self.0.available_permits() == 0 {
            // What holds it gives up in its time.
            drop(timeout(at_most, self.0.acquire()).await);
        }
        self.0.available_permits()
    }

    /// Ends an operation that was taken over, in a task of its own: whatever keeps it
    /// from ending keeps no other.
    pub(super) async fn end<R>(
        &self,
        node: &Arc<Runtime<R>>,
        record: Arc<Record<RecordedResponse>>,
        kind: FailureKind,
        stats: &RecoveryStats,
    ) where
        R: Lease<Output = RecordedResponse>,
    {
        // It is never closed.
        if let Ok(place) = Arc::clone(&self.0).acquire_owned().await {
            // Before it begins: a drain waits for it from now on.
            let places = (place, node.in_flight.admit_anyway());
            let end = end(Arc::clone(node), record, kind, places, stats.clone());
            tokio::spawn(end.in_current_span());
        }
    }
}

async fn end<R>(
    node: Arc<Runtime<R>>,
    record: Arc<Record<RecordedResponse>>,
    kind: FailureKind,
    _places: (OwnedSemaphorePermit, AdmissionPermit),
    stats: RecoveryStats,
) where
    R: Lease<Output = RecordedResponse>,
{
    let id = record.operation().id().clone();
    let work = Arc::new(RunContext::new(id, record.token(), record.attempts()));
    // Its lease is renewed until that is recorded.
    let Some(entered) = node.in_flight.enter(Arc::clone(&work), Duration::ZERO) else {
        return;
    };
    heartbeat::ensure(&node);
    let lease = node.lease();
    let recorded = record_within(&node, &work, Outcome::failed(kind), REFUSALS);
    match timeout(lease.term, recorded).await {
        // Whoever looks once its lease is over tries again.
        Err(_) => tracing::warn!(id = %work.id, "it could not be ended so far"),
        // An error was logged where it happened.
        Ok(Err(error)) if !error.is_transient() => {
            stats.add_refused(1);
            // The heartbeat has nothing to do with it any more.
            drop(entered);
            put_aside(&node, &work).await;
        }
        Ok(Ok(RunOutcome::Recorded(_))) => stats.add_ended(1),
        Ok(_) => {}
    }
}

/// Keeps what the store refuses to end out of the way of others for a while.
async fn put_aside<R: Lease>(node: &Runtime<R>, work: &RunContext) {
    let LeaseConfig { node: name, term } = node.lease().clone();
    let aside = LeaseConfig {
        node: name,
        term: term.saturating_mul(ASIDE),
    };
    let held = [work.held()];
    let put = timeout(term / 3, node.store.renew(&aside, &held)).await;
    if !matches!(put, Ok(Ok(_))) {
        tracing::warn!(id = %work.id, "what cannot be ended is taken over again soon");
    }
}
