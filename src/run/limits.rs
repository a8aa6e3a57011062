use std::time::Duration;

use crate::{environment, store::Record};

/// The time and size limits of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunLimits {
    /// The longest time from the acceptance to the start.
    pub(crate) pending: Duration,
    /// The longest time from the start to the end of the response body.
    pub(crate) running: Duration,
    /// The largest response body, in bytes, if the application has set it.
    pub(crate) result: Option<u64>,
    /// The time from the cancellation to the drop of the run.
    pub(crate) grace: Duration,
}

/// The greatest value of every time limit, so that no operation is pending or running forever.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The greatest value of a time limit between the upload of a request and the creation of its
/// operation. A request that no operation names is deleted after two hours, by clocks that may differ
/// by an hour.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// The default of the largest response body that is recorded in a row, in bytes.
const LARGEST_RESULT: u64 = 8 * 1024 * 1024;

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            pending: Duration::from_secs(60 * 60),
            running: Duration::from_secs(60 * 60),
            result: None,
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

    /// Returns the largest response body of an operation, in bytes. Bodies that go to a result store
    /// have no limit by default.
    pub(super) fn result_limit(&self, has_results: bool) -> u64 {
        let limit = self.result.unwrap_or(match has_results {
            true => u64::MAX,
            false => LARGEST_RESULT,
        });
        limit.min(usize::MAX as u64)
    }

    /// Returns the largest direct answer that is kept under a key, in bytes. It is in memory as a
    /// whole, also where there is a result store.
    pub(crate) fn kept_answer_limit(&self, has_results: bool) -> u64 {
        match has_results {
            true => self.result_limit(true).min(LARGEST_RESULT),
            false => self.result_limit(false),
        }
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
