//! Looks for operations to reclaim.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    ending::AT_ONCE,
    reachability::Reachability,
    reclaimer::{Reclaimable, Reclaimer},
};
use crate::{
    operation::{OperationId, RecordedResponse},
    run::{catch_panic::CatchPanic, heartbeat},
    store::Lease,
};

/// The time within which released operations are reclaimed together.
const TOGETHER: Duration = Duration::from_millis(20);

/// The loop that looks for operations that were left behind.
pub(super) struct RecoveryLooks<R> {
    pub(super) taker: Arc<Reclaimer<R>>,
    pub(super) interval: Duration,
}

impl<R: Lease<Output = RecordedResponse>> RecoveryLooks<R> {
    /// Looks until the task is dropped.
    pub(super) async fn run(&self) {
        let term = self.taker.node.lease().term;
        let mut store = Reachability::new(term);
        let mut last_look = None::<Instant>;
        loop {
            // Subscribed before the look, so that no release is missed between two looks.
            let released = self.taker.node.store.released();
            let is_due = last_look.is_none_or(|last| last.elapsed() >= self.interval);
            // A store that panics counts as unavailable.
            let looked = CatchPanic::new(self.look(&mut store, is_due)).await;
            match looked {
                Ok(true) => last_look = Some(Instant::now()),
                Ok(false) => {}
                Err(panicked) => {
                    panicked.forget();
                    store.did_not_answer();
                }
            }
            let until_due = match (is_due, last_look) {
                (false, Some(last)) => self.interval.saturating_sub(last.elapsed()),
                // The look has just succeeded, or was due and not allowed.
                _ => self.interval,
            };
            let pause = until_due.min(term / 4);
            if timeout(pause, released).await.is_ok() {
                sleep(TOGETHER).await;
            }
        }
    }

    /// Asks the store whether it is reachable. Then reclaims the operations that were left
    /// behind, if a look is due and allowed; returns whether it reclaimed all of
    /// them.
    async fn look(&self, store: &mut Reachability, is_due: bool) -> bool {
        let node = &self.taker.node;
        let nobody = OperationId::new();
        if !matches!(
            timeout(node.lease().term / 3, node.store.get(&nobody)).await,
            Ok(Ok(None))
        ) {
            store.did_not_answer();
            return false;
        }
        let was_there = store.answered();
        // Released operations are reclaimed first, since they could not be distinguished
        // afterwards.
        let is_all = self.take_all(Reclaimable::Released, store).await;
        // The store may have been unreachable during a wait.
        if !was_there || !is_due || !is_all || !store.answered() {
            return false;
        }
        // Leases are renewed first, so that this node does not reclaim its own late leases.
        heartbeat::renew(node, &node.in_flight.lease_handles()).await;
        self.take_all(Reclaimable::Over, store).await
    }

    /// Reclaims free operations, one batch after the other. Returns whether all were
    /// reclaimed.
    async fn take_all(&self, which: Reclaimable, store: &mut Reachability) -> bool {
        let Reclaimer {
            node,
            again,
            ending,
            stats,
            ..
        } = &*self.taker;
        let mut all = 0;
        let is_all = loop {
            // This wait and the pause before the next look are together shorter than what counts
            // as an outage: waiting for a place is not an outage.
            let at_most = node.lease().term / 16;
            let limit = ending.room(at_most).await.min(match again {
                Some(_) => node.in_flight.room(),
                None => AT_ONCE,
            });
            match self.taker.take(which, limit).await {
                Ok(taken) => {
                    all += taken;
                    // The store may have been unreachable during a wait.
                    let was_away = |store: &mut Reachability| !store.answered();
                    if taken == 0 || limit == 0 || which == Reclaimable::Over && was_away(store) {
                        break true;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = error.report(), "no operations reclaimed");
                    store.did_not_answer();
                    break false;
                }
            }
        };
        if all > 0 {
            let (rerun, ended) = (stats.rerun(), stats.ended());
            tracing::info!(reclaimed = all, rerun, ended, "operations reclaimed");
        }
        is_all
    }
}
