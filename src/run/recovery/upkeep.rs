//! Maintenance of the store, once a term: deleting expired operations, and checking
//! durability.

use std::{future::Future, time::Duration};

use tokio::time::{sleep, timeout};

use super::RecoveryStats;
use crate::{
    run::{Runtime, catch_panic::CatchPanic},
    store::{Health, Lease, StoreError},
};

/// The number of operations that are deleted at a time.
const BATCH: usize = 500;

/// The pause between two batches, in which the store serves other requests.
const PAUSE: Duration = Duration::from_millis(100);

/// Deletes expired operations until the store says that it deletes them itself.
pub(super) async fn purge<R: Lease>(node: &Runtime<R>, stats: &RecoveryStats) {
    let term = node.lease().term;
    loop {
        let mut purged = 0;
        loop {
            match answer_within(term, node.store.purge_expired(BATCH)).await {
                Ok(Some(some)) => {
                    purged += some;
                    stats.add_purged(some);
                    if some < BATCH {
                        break;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(error = error.report(), "expired operations not deleted");
                    break;
                }
            }
            sleep(PAUSE).await;
        }
        if purged > 0 {
            tracing::debug!(purged, "expired operations deleted");
        }
        sleep(term).await;
    }
}

/// Checks the health of the store once a term, and logs each new warning once.
pub(super) async fn look_after<R: Lease>(node: &Runtime<R>, stats: &RecoveryStats) {
    let term = node.lease().term;
    let mut known = Health::default();
    loop {
        // An unreachable store is reported elsewhere.
        if let Ok(health) = answer_within(term, node.store.health()).await {
            for warning in &health.warnings {
                if !known.warnings.contains(warning) {
                    tracing::warn!(%warning, "store can lose acknowledged writes");
                }
            }
            if health.is_good() && !known.is_good() {
                tracing::info!("store durable again");
            }
            known = health.clone();
            stats.set_health(health);
        }
        sleep(term).await;
    }
}

/// Returns the answer of the store, within a time. A store that panics counts as
/// unavailable.
async fn answer_within<T>(
    term: Duration,
    ask: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout(term / 3, CatchPanic::new(ask)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panicked)) => {
            panicked.forget();
            Err(StoreError::unavailable("the store panicked"))
        }
        Err(_) => Err(StoreError::unavailable("no answer in time")),
    }
}
