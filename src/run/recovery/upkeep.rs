//! What is done for the store itself, once a term: deleting what has expired, and looking
//! whether it is as durable as it was.

use std::{future::Future, time::Duration};

use tokio::time::{sleep, timeout};

use super::RecoveryStats;
use crate::{
    run::{Runtime, catch_panic::CatchPanic},
    store::{Health, Lease, StoreError},
};

/// So many are deleted at a time.
const BATCH: usize = 500;

/// Between two batches the store serves others.
const PAUSE: Duration = Duration::from_millis(100);

/// Deletes what has expired, for ever, or until the store says that it needs nobody.
pub(super) async fn purge<R: Lease>(node: &Runtime<R>, stats: &RecoveryStats) {
    let term = node.lease().term;
    loop {
        let mut purged = 0;
        loop {
            match asked(term, node.store.purge_expired(BATCH)).await {
                Ok(Some(some)) => {
                    purged += some;
                    stats.add_purged(some);
                    if some < BATCH {
                        break;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(error = error.chain(), "what has expired was not deleted");
                    break;
                }
            }
            sleep(PAUSE).await;
        }
        if purged > 0 {
            tracing::debug!(purged, "what has expired was deleted");
        }
        sleep(term).await;
    }
}

/// Looks how the store is, for ever, and warns once of what is new.
pub(super) async fn look_after<R: Lease>(node: &Runtime<R>, stats: &RecoveryStats) {
    let term = node.lease().term;
    let mut known = Health::default();
    loop {
        // A store that cannot be asked is told of elsewhere.
        if let Ok(health) = asked(term, node.store.health()).await {
            for warning in &health.warnings {
                if !known.warnings.contains(warning) {
                    tracing::warn!(%warning, "what the store acknowledges can be lost");
                }
            }
            if health.is_good() && !known.is_good() {
                tracing::info!("the store is as durable as it was again");
            }
            known = health.clone();
            stats.set_health(health);
        }
        sleep(term).await;
    }
}

/// What the store says, in time. A store that panics is a store that is unavailable.
async fn asked<T>(
    term: Duration,
    ask: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout(term / 3, CatchPanic::new(ask)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panicked)) => {
            panicked.forget();
            Err(StoreError::unavailable("it panicked"))
        }
        Err(_) => Err(StoreError::unavailable("it did not answer in time")),
    }
}
