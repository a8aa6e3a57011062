use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Dispatcher, InFlight};
use crate::store::{KeyCapability, LeaseConfig};

/// One running instance: its store, its lease, and what it has in flight.
#[derive(Debug)]
pub(crate) struct Runtime<R> {
    pub(crate) store: R,
    lease: OnceLock<LeaseConfig>,
    pub(crate) in_flight: Arc<InFlight>,
    /// Set once the application wants requests to be idempotent.
    pub(crate) keys: OnceLock<KeyCapability<R>>,
    /// How often an operation is started before it is not run again; 0 if none is.
    attempts: AtomicU32,
    /// Where its requests are run, if not here.
    pub(crate) hand_off: Option<Dispatcher>,
    /// When it was logged last that the store is full.
    warned_of_full_store: Mutex<Option<Instant>>,
}

/// A lease is renewed three times a term, which takes a while.
pub(super) const SHORTEST: Duration = Duration::from_millis(100);

/// A store that is full refuses many requests: so often it is logged.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// How many operations are pending or running at the most, unless said.
const MAX_IN_FLIGHT: usize = 10_000;

impl<R> Runtime<R> {
    pub(crate) fn new(store: R) -> Self {
        Self {
            store,
            lease: OnceLock::new(),
            in_flight: Arc::new(InFlight::new(MAX_IN_FLIGHT)),
            keys: OnceLock::new(),
            attempts: AtomicU32::new(0),
            hand_off: None,
            warned_of_full_store: Mutex::default(),
        }
    }

    pub(crate) fn dispatching(store: R, hand_off: Dispatcher) -> Self {
        Self {
            hand_off: Some(hand_off),
            ..Self::new(store)
        }
    }

    /// Logs that the store is full, once a minute at the most.
    #[cold]
    pub(crate) fn warn_of_full_store(&self) {
        let now = Instant::now();
        let last = self.warned_of_full_store.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= BETWEEN_WARNINGS) {
            *last = Some(now);
            tracing::warn!("the store is full: requests are refused");
        }
    }

    /// The lease by which this node holds what it runs.
    pub(crate) fn lease(&self) -> &LeaseConfig {
        self.lease.get_or_init(LeaseConfig::default)
    }

    /// Somebody runs again what this node leaves behind, if it was started less often.
    pub(super) fn allow_reruns(&self, attempts: u32) {
        self.attempts.fetch_max(attempts, SeqCst);
    }

    /// Whether somebody runs again what this node leaves behind.
    pub(super) fn reruns(&self) -> bool {
        self.reruns_after(0)
    }

    /// The same of what was started so often.
    pub(super) fn reruns_after(&self, starts: u32) -> bool {
        starts < self.attempts.load(SeqCst)
    }

    /// Sets the lease; nothing may be held by another yet.
    pub(crate) fn set_lease(&self, lease: LeaseConfig) {
        let term = lease.term.max(SHORTEST);
        if self.lease.set(LeaseConfig { term, ..lease }).is_err() {
            tracing::error!("the lease is in use, and stays what it is");
        }
    }
}
