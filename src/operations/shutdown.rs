//! Health and shutdown of operations.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::Operations;
use crate::{
    operation::OperationId,
    run::{Drain, DrainReport},
    store::{Health, Store, StoreError},
};

/// The time for the store to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

impl<R: Store, D> Operations<R, D> {
    /// Reads from the store, and returns what makes it less durable than it was opened with:
    /// a health check of a process.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be reached, or does not answer within 5 seconds.
    pub async fn ping(&self) -> Result<Health, StoreError> {
        let store = &self.runtime.store;
        let id = OperationId::new();
        let asked = timeout(PING_TIMEOUT, async {
            store.get(&id).await?;
            store.health().await
        });
        let silent = |_| Err(StoreError::unavailable("it did not answer in time"));
        asked.await.unwrap_or_else(silent)
    }
}

impl<R, D> Operations<R, D> {
    /// Returns the number of requests that are being accepted, pending or running.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.drain_handle().in_flight()
    }

    /// Returns the handle that drains these operations. Handles are clones of one another.
    #[must_use]
    pub fn drain_handle(&self) -> Drain {
        Drain::new(Arc::clone(&self.runtime.in_flight))
    }

    /// Accepts no more requests, and waits until those in flight have ended, at most until
    /// the deadline; see [`Drain::drain`].
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        self.drain_handle().drain(deadline).await
    }

    /// Waits for `signal`, then [drains](Self::drain) and logs the report. It is made for
    /// axum's `with_graceful_shutdown`: polls are answered until the drain is over.
    pub fn drain_on<S>(
        &self,
        signal: S,
        deadline: Duration,
    ) -> impl Future<Output = ()> + Send + use<S, R, D>
    where
        S: Future<Output = ()> + Send,
    {
        let drain = self.drain_handle();
        async move {
            signal.await;
            let report = drain.drain(deadline).await;
            match report.is_clean() {
                true => tracing::info!(?report, "operations drained"),
                false => tracing::warn!(?report, "operations drained, not all of them ended"),
            }
        }
    }
}
