use std::time::Duration;

/// How much time and space a run may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunLimits {
    /// From being accepted to being started.
    pub(crate) pending: Duration,
    /// From being started to the end of the response body.
    pub(crate) running: Duration,
    /// The response body, in bytes.
    pub(crate) result: u64,
    /// From being canceled to being dropped.
    pub(crate) grace: Duration,
}

/// The longest that anything may take: no operation is pending or running
/// without an end.
pub(super) const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

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
