use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use http::uri::PathAndQuery;
use tokio::time::Instant;

use super::{Dispatcher, Hook, InFlight, Recording, RunLimits, run_context::RunContext};
use crate::{
    results::ResultStorage,
    store::{KeyCapability, LeaseConfig},
};

/// The state of a node: its store, its lease and its requests in flight.
#[derive(Debug)]
pub(crate) struct Runtime<R> {
    pub(crate) store: R,
    lease: LeaseConfig,
    pub(crate) in_flight: Arc<InFlight>,
    /// The key functions of the store, set once idempotency is turned on.
    pub(crate) keys: OnceLock<KeyCapability<R>>,
    /// The number of starts after which an operation is not rerun; 0 without a recovery
    /// that reruns.
    attempts: AtomicU32,
    /// The queue that requests are dispatched to; `None` if requests run here.
    pub(crate) dispatcher: Option<Dispatcher>,
    /// The store for long results, if there is one.
    pub(crate) results: Option<ResultStorage>,
    /// The hook for operations that have ended, if there is one.
    pub(crate) hook: Option<Hook>,
    /// The moment of the last warning about a full store.
    warned_of_full_store: Mutex<Option<Instant>>,
}

/// The shortest term of a lease. A lease is renewed three times a term.
pub(super) const SHORTEST: Duration = Duration::from_millis(100);

/// The interval between warnings about a full store, which refuses many requests.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// The default bound on pending and running operations.
const MAX_IN_FLIGHT: usize = 10_000;

impl<R> Runtime<R> {
    pub(crate) fn new(store: R) -> Self {
        Self {
            store,
            lease: LeaseConfig::default(),
            in_flight: Arc::new(InFlight::new(MAX_IN_FLIGHT)),
            keys: OnceLock::new(),
            attempts: AtomicU32::new(0),
            dispatcher: None,
            results: None,
            hook: None,
            warned_of_full_store: Mutex::default(),
        }
    }

    pub(crate) fn dispatching(store: R, dispatcher: Dispatcher) -> Self {
        Self {
            dispatcher: Some(dispatcher),
            ..Self::new(store)
        }
    }

    /// Returns the rules by which the response of a run is recorded.
    pub(super) fn recording<'a>(
        &'a self,
        work: &'a RunContext,
        limits: &RunLimits,
        base: &'a PathAndQuery,
    ) -> Recording<'a> {
        Recording {
            id: &work.id,
            base: Some(base),
            limit: limits.result_limit(self.results.is_some()),
            budget: self.in_flight.bytes(),
            apart: self.results.as_ref().map(|results| (results, work)),
        }
    }

    /// Logs that the store is full, at most once a minute.
    #[cold]
    pub(crate) fn warn_of_full_store(&self) {
        let now = Instant::now();
        let last = self.warned_of_full_store.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= BETWEEN_WARNINGS) {
            *last = Some(now);
            tracing::warn!("store full, requests refused");
        }
    }

    /// Returns the lease of this node on its operations.
    pub(crate) fn lease(&self) -> &LeaseConfig {
        &self.lease
    }

    /// Notes that a recovery reruns operations of this node that were started less than
    /// `attempts` times.
    pub(super) fn allow_reruns(&self, attempts: u32) {
        self.attempts.fetch_max(attempts, SeqCst);
    }

    /// Returns whether a recovery reruns operations that this node leaves.
    pub(super) fn reruns(&self) -> bool {
        self.reruns_after(0)
    }

    /// Returns whether a recovery reruns an operation that was started this often.
    pub(super) fn reruns_after(&self, starts: u32) -> bool {
        starts < self.attempts.load(SeqCst)
    }

    pub(crate) fn set_lease(&mut self, lease: LeaseConfig) {
        let term = lease.term.max(SHORTEST);
        self.lease = lease.with_term(term);
    }
}
