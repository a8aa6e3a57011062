//! One operation while it is in this process's hands.

use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use crate::{
    operation::{Failure, FailureKind, Operation, OperationId, Progress},
    store::{FencingToken, LeaseHandle},
};

/// What the task that runs an operation, the handler inside it and the node
/// around it know of each other.
#[derive(Debug)]
pub(crate) struct RunContext {
    pub(crate) id: OperationId,
    /// Known once the operation is created.
    token: AtomicU64,
    /// From 1.
    pub(crate) attempt: u32,
    /// Whether what is needed to run it again is in the store.
    pub(super) kept: bool,
    /// Whether the attempt is counted in the store, or may be.
    is_started: AtomicBool,
    /// Where the call may still be answered directly.
    gate: Option<Gate>,
    /// Made for whoever waits for it or asks for it: most runs end before.
    stop: OnceLock<CancellationToken>,
    cause: OnceLock<StopCause>,
    /// Somebody has said that the operation was ended, or taken, from outside.
    is_told: AtomicBool,
    ended: Mutex<Option<RunEnded>>,
    progress: Mutex<ProgressReports>,
    /// The heartbeat of its node has gone.
    is_unrenewed: AtomicBool,
    /// Wakes the run: there is a report, a cause to stop, or no heartbeat.
    signal: Notify,
}

/// Why a run is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopCause {
    /// It was ended from outside, or is somebody else's now: there is nothing
    /// left to record.
    Recalled,
    /// Its node is drained.
    Interrupted,
}

/// What is known to have become of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunEnded {
    /// The operation has an outcome of its own, or is somebody else's.
    ByItself,
    /// It is recorded as interrupted.
    Interrupted,
    /// It is left to whoever runs it again.
    Released,
}

#[derive(Debug, Default)]
struct ProgressReports {
    latest: Option<Progress>,
    /// How many there were, and how many of them the store knows.
    made: u64,
    written: u64,
}

impl ProgressReports {
    /// Whether there is one that the store does not know.
    fn is_unwritten(&self) -> bool {
        self.made > self.written
    }
}

impl RunContext {
    pub(crate) fn new(id: OperationId, token: FencingToken, attempt: u32) -> Self {
        Self {
            id,
            token: AtomicU64::new(token.get()),
            attempt,
            kept: false,
            is_started: AtomicBool::new(false),
            gate: None,
            stop: OnceLock::new(),
            cause: OnceLock::new(),
            is_told: AtomicBool::new(false),
            ended: Mutex::default(),
            progress: Mutex::default(),
            is_unrenewed: AtomicBool::new(false),
            signal: Notify::new(),
        }
    }

    /// The same; the store may have what is needed to run it again.
    pub(super) fn kept(self, kept: bool) -> Self {
        Self { kept, ..self }
    }

    pub(super) fn held(&self) -> LeaseHandle {
        LeaseHandle {
            id: self.id.clone(),
            token: self.token(),
        }
    }

    /// The same, for a call that may still be answered directly.
    pub(crate) fn held_at_a_gate(id: OperationId, kept: bool) -> Self {
        Self {
            kept,
            gate: Some(Gate::new()),
            ..Self::new(id, FencingToken::NONE, 1)
        }
    }

    pub(crate) fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    pub(crate) fn token(&self) -> FencingToken {
        FencingToken::from_number(self.token.load(SeqCst))
    }

    pub(super) fn set_token(&self, token: FencingToken) {
        self.token.store(token.get(), SeqCst);
    }

    /// From now on the store may have counted the attempt.
    pub(super) fn starting(&self) {
        self.is_started.store(true, SeqCst);
    }

    /// How often the operation may have been started so far.
    pub(super) fn starts(&self) -> u32 {
        let before = self.attempt.saturating_sub(1);
        before + u32::from(self.is_started.load(SeqCst))
    }

    /// Asks the run to stop. The first cause counts.
    pub(super) fn stop(&self, cause: StopCause) {
        let _ = self.cause.set(cause);
        self.stop_token().cancel();
        self.signal.notify_one();
    }

    /// Its client has left before it was an operation: there is nobody to go on for.
    pub(crate) fn abandon(&self) {
        self.stop(StopCause::Recalled);
    }

    /// Whether it was asked to.
    pub(super) fn is_stopped(&self) -> bool {
        self.cause.get().is_some()
    }

    /// Asks the run to see to it that the leases of its node are renewed.
    pub(super) fn needs_heartbeat(&self) {
        self.is_unrenewed.store(true, SeqCst);
        self.signal.notify_one();
    }

    /// Waits until there is something that a run has to look after: most never have.
    pub(super) async fn is_heard_of(&self) {
        while !self.is_stopped()
            && !self.is_unrenewed.load(SeqCst)
            && !self.reports().is_unwritten()
        {
            self.signal.notified().await;
        }
    }

    /// Waits for the loss of the heartbeat; the next time for the next one.
    pub(super) async fn lost_heartbeat(&self) {
        while !self.is_unrenewed.swap(false, SeqCst) {
            self.signal.notified().await;
        }
    }

    /// Waits until the run is asked to stop.
    pub(super) async fn stopped(&self) -> StopCause {
        self.stop_token().cancelled().await;
        // The cause is set before the token is.
        self.cause.get().copied().unwrap_or(StopCause::Interrupted)
    }

    /// A token for the handler. It can only cancel what it hands on itself.
    pub(super) fn handler_token(&self) -> CancellationToken {
        self.stop_token().child_token()
    }

    fn stop_token(&self) -> &CancellationToken {
        self.stop.get_or_init(CancellationToken::new)
    }

    /// The operation has ended as this shows.
    pub(super) fn recorded<T>(&self, operation: &Operation<T>) {
        self.end(match operation.failure().and_then(Failure::kind) {
            Some(FailureKind::Interrupted) => RunEnded::Interrupted,
            _ => RunEnded::ByItself,
        });
    }

    /// It is left to whoever runs it again.
    pub(super) fn released(&self) {
        self.end(RunEnded::Released);
    }

    /// Somebody says that the operation was ended, or taken, from outside.
    pub(super) fn told(&self) {
        self.is_told.store(true, SeqCst);
    }

    pub(super) fn is_told(&self) -> bool {
        self.is_told.load(SeqCst)
    }

    /// The store has the operation no more. One that was ended from outside may be deleted
    /// or have expired since; any other should be there.
    pub(super) fn is_gone(&self) {
        if !self.is_told() {
            tracing::error!(id = %self.id, "the store has lost an operation that ran here");
        }
    }

    /// The operation is in other hands.
    pub(super) fn recalled(&self) {
        self.end(RunEnded::ByItself);
    }

    /// What is known to have become of it.
    pub(super) fn ended(&self) -> Option<RunEnded> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known first counts.
    fn end(&self, ended: RunEnded) {
        let mut known = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert(ended);
    }

    pub(super) fn report(&self, progress: Progress) {
        let mut reports = self.reports();
        reports.latest = Some(progress);
        reports.made += 1;
        drop(reports);
        self.signal.notify_one();
    }

    /// Waits for a report that the store does not know, and gives it with its
    /// number; or for the loss of the heartbeat.
    pub(super) async fn next_report(&self) -> Option<(Progress, u64)> {
        loop {
            if self.is_unrenewed.swap(false, SeqCst) {
                return None;
            }
            if let Some(unwritten) = self.unwritten_report() {
                return Some(unwritten);
            }
            self.signal.notified().await;
        }
    }

    /// The latest report, if the store does not know it.
    pub(super) fn unwritten_report(&self) -> Option<(Progress, u64)> {
        let reports = self.reports();
        match reports.is_unwritten() {
            true => Some((reports.latest.clone()?, reports.made)),
            false => None,
        }
    }

    /// The store knows the reports up to this number.
    pub(super) fn report_written(&self, number: u64) {
        self.reports().written = number;
    }

    fn reports(&self) -> MutexGuard<'_, ProgressReports> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
