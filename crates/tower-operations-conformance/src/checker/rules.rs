use std::time::Duration;

/// The settings of the nodes, by which a log is judged.
///
/// The defaults are strict wherever that needs no knowledge: one attempt, and operations are
/// kept forever.
#[derive(Debug, Clone)]
pub struct Rules {
    pub(super) attempts: u32,
    pub(super) lease: Duration,
    pub(super) recovery: Duration,
    pub(super) timeouts: Duration,
    pub(super) kept: Option<Duration>,
    pub(super) wake: Duration,
    pub(super) stop: Option<Duration>,
    pub(super) reclaim: Option<Duration>,
    pub(super) causes: bool,
    pub(super) reach: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            attempts: 1,
            lease: Duration::from_secs(30),
            recovery: Duration::from_secs(30),
            timeouts: Duration::from_secs(2 * 60 * 60),
            kept: None,
            wake: Duration::from_secs(5),
            stop: None,
            reclaim: None,
            causes: false,
            reach: Duration::from_secs(1),
        }
    }
}

impl Rules {
    /// Returns the default rules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how often a request may be run; once by default.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// Sets the length of a lease; 30 s by default. After an outage of the store the same
    /// time may pass before a lease is reclaimed.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// Sets the interval at which the recovery looks for expired leases; 30 s by default.
    #[must_use]
    pub fn recovery(self, interval: Duration) -> Self {
        Self {
            recovery: interval,
            ..self
        }
    }

    /// Sets how long an attempt may be pending and running, together; 2 h by default.
    #[must_use]
    pub fn timeouts(self, timeouts: Duration) -> Self {
        Self { timeouts, ..self }
    }

    /// Sets how long an operation is kept after its end; forever by default.
    #[must_use]
    pub fn kept(self, time_to_live: Duration) -> Self {
        Self {
            kept: Some(time_to_live),
            ..self
        }
    }

    /// Sets how late the answer to a held poll may be: after other clients saw the change that
    /// the poll waits for, and after the poll's own time; 5 s by default. This time includes the
    /// way to the client.
    #[must_use]
    pub fn wake(self, within: Duration) -> Self {
        Self {
            wake: within,
            ..self
        }
    }

    /// Sets how long the inner service may still run after a cancellation was answered, on any
    /// node. This is not judged by default, since not all work can be stopped. The times of runs
    /// and of clients are compared.
    #[must_use]
    pub fn stop(self, within: Duration) -> Self {
        Self {
            stop: Some(within),
            ..self
        }
    }

    /// Sets how soon after the return of a killed node its operations have ended or are rerun.
    /// This is not judged by default. The rule is for a store of one process, where no other
    /// node can hold the operations. The times of runs and of clients are compared.
    #[must_use]
    pub fn reclaim(self, within: Duration) -> Self {
        Self {
            reclaim: Some(within),
            ..self
        }
    }

    /// Sets whether the log has a cause for every operation that fails as interrupted: a node
    /// that was killed, stopped or drained, or a store that was away. This is not judged by
    /// default, since a node may also be too slow to renew its leases.
    #[must_use]
    pub fn causes(self, are_known: bool) -> Self {
        Self {
            causes: are_known,
            ..self
        }
    }

    /// Sets the longest time that a request takes to its node; 1 s by default. A request that
    /// was sent at least this time before the node began to drain must be answered.
    #[must_use]
    pub fn reach(self, within: Duration) -> Self {
        Self {
            reach: within,
            ..self
        }
    }

    /// Returns the time within which an accepted operation ends.
    pub(super) fn limit(&self) -> Duration {
        (self.lease + self.recovery + self.timeouts).saturating_mul(self.attempts.max(1))
    }
}
