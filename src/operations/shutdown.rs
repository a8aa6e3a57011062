//! Health and shutdown of operations.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::Operations;
use crate::{
    operation::OperationId,
    run::{Drain, DrainReport, InFlightStats},
    store::{Health, Store, StoreError},
};

/// The time that the store has to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

impl<R: Store, D> Operations<R, D> {
    /// Reads from the store, and returns the reasons why the store is less durable now than when
    /// it was opened. Use this as the health check of a process.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store cannot be reached, or does not answer within 5
    /// seconds.
    pub async fn ping(&self) -> Result<Health, StoreError> {
        let store = &self.runtime.store;
        let id = OperationId::new();
        let asked = timeout(PING_TIMEOUT, async {
            store.get(&id).await?;
            store.health().await
        });
        let silent = |_| Err(StoreError::unavailable("no answer in time"));
        asked.await.unwrap_or_else(silent)
    }
}

impl<R, D> Operations<R, D> {
    /// Returns what is in flight now: the number of requests that are being accepted, pending or
    /// running, and the bytes that they buffer.
    #[must_use]
    pub fn in_flight(&self) -> InFlightStats {
        self.drain_handle().in_flight()
    }

    /// Returns the handle that drains these operations. All handles share one drain.
    #[must_use]
    pub fn drain_handle(&self) -> Drain {
        Drain::new(Arc::clone(&self.runtime.in_flight))
    }

    /// Refuses further requests, and waits until the requests in flight have ended, at most
    /// until the deadline; see [`Drain::drain`].
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        self.drain_handle().drain(deadline).await
    }

    /// Waits for `signal`, then [drains](Self::drain) and logs the report. Pass the future to
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
                false => tracing::warn!(
                    ?report,
                    "operations drained, some interrupted or unanswered"
                ),
            }
        }
    }
}
