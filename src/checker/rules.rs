use std::time::Duration;

/// What the log is held against: how the nodes were set.
///
/// Setters of what was set for the nodes. The defaults are strict where that
/// needs no knowledge: one attempt, and kept for ever.
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
    /// The default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How often a request may be run; once by default.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// The length of a lease; 30 s by default. So long after an outage of the
    /// store may also pass before anything is taken over.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// How often it is looked for expired leases; 30 s by default.
    #[must_use]
    pub fn recovery(self, interval: Duration) -> Self {
        Self {
            recovery: interval,
            ..self
        }
    }

    /// How long an attempt may be pending and running, together; 2 h by
    /// default.
    #[must_use]
    pub fn timeouts(self, timeouts: Duration) -> Self {
        Self { timeouts, ..self }
    }

    /// How long an operation is kept after it ended; for ever by default.
    #[must_use]
    pub fn kept(self, time_to_live: Duration) -> Self {
        Self {
            kept: Some(time_to_live),
            ..self
        }
    }

    /// How late a held poll may be: after the change it waits for was seen by
    /// others, and after its own time; 5 s by default. It covers the way to
    /// the client.
    #[must_use]
    pub fn wake(self, within: Duration) -> Self {
        Self {
            wake: within,
            ..self
        }
    }

    /// How long after a cancel was answered the inner service may still run,
    /// wherever that is; not judged by default, since not all work can be
    /// stopped. The times of runs and of clients are compared.
    #[must_use]
    pub fn stop(self, within: Duration) -> Self {
        Self {
            stop: Some(within),
            ..self
        }
    }

    /// How soon after a killed node is back what it held has ended, or is run again; not
    /// judged by default. It is for a store of one process, where nobody else can hold
    /// it. The times of runs and of clients are compared.
    #[must_use]
    pub fn reclaim(self, within: Duration) -> Self {
        Self {
            reclaim: Some(within),
            ..self
        }
    }

    /// Whether the log has a cause for everything that fails as interrupted: a node that
    /// was killed, stopped or drained, or a store that was away. Not judged by default,
    /// since a node may also be too slow to renew what it holds.
    #[must_use]
    pub fn causes(self, are_known: bool) -> Self {
        Self {
            causes: are_known,
            ..self
        }
    }

    /// How long a request takes to its node at the most; 1 s by default. What was sent
    /// that long before the node began to drain is answered.
    #[must_use]
    pub fn reach(self, within: Duration) -> Self {
        Self {
            reach: within,
            ..self
        }
    }

    /// Within this, what is accepted has ended.
    pub(super) fn limit(&self) -> Duration {
        (self.lease + self.recovery + self.timeouts).saturating_mul(self.attempts.max(1))
    }
}
