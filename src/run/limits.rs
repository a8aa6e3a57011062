use std::time::Duration;

use crate::{environment, store::Record};

/// The time and size limits of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunLimits {
    /// The longest time from the acceptance to the start.
    pub(crate) pending: Duration,
    /// The longest time from the start to the end of the response body.
    pub(crate) running: Duration,
    /// The largest response body, in bytes.
    pub(crate) result: u64,
    /// The time from the cancellation to the drop of the run.
    pub(crate) grace: Duration,
}

/// The greatest value of every time limit, so that no operation is pending or running forever.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            pending: Duration::from_secs(60 * 60),
            running: Duration::from_secs(60 * 60),
            result: 8 * 1024 * 1024,
            grace: Duration::from_millis(500),
        }
    }
}

impl RunLimits {
    /// Returns whether the operation has existed for longer than it may be pending.
    pub(crate) fn is_overdue<T>(&self, record: &Record<T>) -> bool {
        let created = record.operation().metadata().created_at();
        let age = created.and_then(|at| environment::wall_clock().duration_since(at).ok());
        age.is_some_and(|age| age > self.pending)
    }

    pub(crate) fn set_pending(&mut self, limit: Duration) {
        self.pending = limit.min(LONGEST);
    }

    pub(crate) fn set_running(&mut self, limit: Duration) {
        self.running = limit.min(LONGEST);
    }

    pub(crate) fn set_grace(&mut self, grace: Duration) {
        self.grace = grace.min(LONGEST);
    }
}
