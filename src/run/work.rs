//! One operation while it is in this process's hands.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    operation::{OperationId, Progress},
    store::{FencingToken, Held},
};

/// What the task that runs an operation, the handler inside it and the node
/// around it know of each other.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) id: OperationId,
    pub(crate) token: FencingToken,
    /// From 1.
    pub(crate) attempt: u32,
    stop: CancellationToken,
    cause: OnceLock<Cause>,
    progress: Mutex<Reports>,
    reported: Notify,
}

/// Why a run is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was ended from outside, or is somebody else's now: there is nothing
    /// left to record.
    Recalled,
    /// Its node is drained.
    Interrupted,
}

#[derive(Debug, Default)]
struct Reports {
    latest: Option<Progress>,
    /// How many there were, and how many of them the store knows.
    made: u64,
    written: u64,
}

impl Work {
    pub(crate) fn new(id: OperationId, token: FencingToken, attempt: u32) -> Self {
        Self {
            id,
            token,
            attempt,
            stop: CancellationToken::new(),
            cause: OnceLock::new(),
            progress: Mutex::default(),
            reported: Notify::new(),
        }
    }

    pub(super) fn held(&self) -> Held {
        Held {
            id: self.id.clone(),
            token: self.token,
        }
    }

    /// Asks the run to stop. The first cause counts.
    pub(super) fn stop(&self, cause: Cause) {
        let _ = self.cause.set(cause);
        self.stop.cancel();
    }

    /// Waits until the run is asked to stop.
    pub(super) async fn stopped(&self) -> Cause {
        self.stop.cancelled().await;
        // The cause is set before the token is.
        self.cause.get().copied().unwrap_or(Cause::Recalled)
    }

    pub(super) fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    pub(super) fn report(&self, progress: Progress) {
        let mut reports = self.reports();
        reports.latest = Some(progress);
        reports.made += 1;
        drop(reports);
        self.reported.notify_one();
    }

    /// Waits for a report that the store does not know, and gives it with its
    /// number.
    pub(super) async fn next_report(&self) -> (Progress, u64) {
        loop {
            if let Some(unwritten) = self.unwritten_report() {
                return unwritten;
            }
            self.reported.notified().await;
        }
    }

    /// The latest report, if the store does not know it.
    pub(super) fn unwritten_report(&self) -> Option<(Progress, u64)> {
        let reports = self.reports();
        let latest = reports
            .latest
            .clone()
            .filter(|_| reports.made > reports.written)?;
        Some((latest, reports.made))
    }

    /// The store knows the reports up to this number.
    pub(super) fn report_written(&self, number: u64) {
        self.reports().written = number;
    }

    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
