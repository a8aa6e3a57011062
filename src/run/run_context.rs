//! One operation while it runs in this process.

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

/// The state that is shared by the task of a run, its handler and its node.
#[derive(Debug)]
pub(crate) struct RunContext {
    pub(crate) id: OperationId,
    /// The fencing token, known once the operation is created.
    token: AtomicU64,
    /// The number of the attempt, counted from 1.
    pub(crate) attempt: u32,
    /// Whether the store has everything that a rerun needs.
    pub(super) kept: bool,
    /// Whether the store has counted the attempt, or may have.
    is_started: AtomicBool,
    /// The gate, present while the call may still be answered directly.
    gate: Option<Gate>,
    /// The token, created when it is first needed: most runs end before.
    stop: OnceLock<CancellationToken>,
    cause: OnceLock<StopCause>,
    /// Whether a hint was received that the operation was ended or reclaimed from outside.
    is_told: AtomicBool,
    ended: Mutex<Option<RunEnded>>,
    progress: Mutex<ProgressReports>,
    /// Whether the heartbeat of the node has ended.
    is_unrenewed: AtomicBool,
    /// Wakes the run for a report, a stop or a lost heartbeat.
    signal: Notify,
}

/// The reason why a run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopCause {
    /// The operation was ended from outside, or reclaimed by another node: there is no
    /// outcome to record.
    Recalled,
    /// The node is drained.
    Interrupted,
}

/// The known end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunEnded {
    /// The operation has an outcome of its own, or was reclaimed by another node.
    ByItself,
    /// The operation is recorded as interrupted.
    Interrupted,
    /// The operation is left to another node for a rerun.
    Released,
}

#[derive(Debug, Default)]
struct ProgressReports {
    latest: Option<Progress>,
    /// The number of reports, and the number of the last one that was written.
    made: u64,
    written: u64,
}

impl ProgressReports {
    /// Returns whether there is an unwritten report.
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

    /// Sets whether the store may have everything that a rerun needs.
    pub(super) fn kept(self, kept: bool) -> Self {
        Self { kept, ..self }
    }

    pub(super) fn lease_handle(&self) -> LeaseHandle {
        LeaseHandle {
            id: self.id.clone(),
            token: self.token(),
        }
    }

    /// Creates the context of a call that may still be answered directly.
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

    /// Notes that from now on the store may have counted the attempt.
    pub(super) fn note_start(&self) {
        self.is_started.store(true, SeqCst);
    }

    /// Returns how often the operation may have been started so far.
    pub(super) fn starts(&self) -> u32 {
        let before = self.attempt.saturating_sub(1);
        before + u32::from(self.is_started.load(SeqCst))
    }

    /// Asks the run to stop. Only the first cause counts.
    pub(super) fn stop(&self, cause: StopCause) {
        let _ = self.cause.set(cause);
        self.stop_token().cancel();
        self.signal.notify_one();
    }

    /// Stops a call whose client has disconnected before the call became an operation.
    pub(crate) fn abandon(&self) {
        self.stop(StopCause::Recalled);
    }

    /// Returns whether the run was asked to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.cause.get().is_some()
    }

    /// Asks the run to restart the heartbeat of its node.
    pub(super) fn needs_heartbeat(&self) {
        self.is_unrenewed.store(true, SeqCst);
        self.signal.notify_one();
    }

    /// Waits for a signal to the run: most runs never get one.
    pub(super) async fn signaled(&self) {
        while !self.is_stopped()
            && !self.is_unrenewed.load(SeqCst)
            && !self.reports().is_unwritten()
        {
            self.signal.notified().await;
        }
    }

    /// Waits for the loss of the heartbeat; a later call waits for the next loss.
    pub(super) async fn lost_heartbeat(&self) {
        while !self.is_unrenewed.swap(false, SeqCst) {
            self.signal.notified().await;
        }
    }

    /// Waits until the run is asked to stop.
    pub(super) async fn stopped(&self) -> StopCause {
        self.stop_token().cancelled().await;
        // The cause is set before the token is canceled.
        self.cause.get().copied().unwrap_or(StopCause::Interrupted)
    }

    /// Returns a token for the handler. Canceling it does not cancel the run.
    pub(super) fn handler_token(&self) -> CancellationToken {
        self.stop_token().child_token()
    }

    fn stop_token(&self) -> &CancellationToken {
        self.stop.get_or_init(CancellationToken::new)
    }

    /// Notes the recorded state of the operation.
    pub(super) fn recorded<T>(&self, operation: &Operation<T>) {
        self.end(match operation.failure().and_then(Failure::kind) {
            Some(FailureKind::Interrupted) => RunEnded::Interrupted,
            _ => RunEnded::ByItself,
        });
    }

    /// Notes that the operation is left to another node for a rerun.
    pub(super) fn released(&self) {
        self.end(RunEnded::Released);
    }

    /// Notes a hint that the operation was ended or reclaimed from outside.
    pub(super) fn note_revocation(&self) {
        self.is_told.store(true, SeqCst);
    }

    pub(super) fn may_be_revoked(&self) -> bool {
        self.is_told.load(SeqCst)
    }

    /// Notes that the operation is missing in the store. An operation that was ended from
    /// outside may have been deleted or have expired since; any other operation should exist.
    pub(super) fn missing_in_store(&self) {
        if !self.may_be_revoked() {
            tracing::error!(id = %self.id, "running operation missing in the store");
        }
    }

    /// Notes that the operation was ended or reclaimed from outside.
    pub(super) fn lease_lost(&self) {
        self.end(RunEnded::ByItself);
    }

    /// Returns the known end of the run.
    pub(super) fn ended(&self) -> Option<RunEnded> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the end of the run. Only the first end counts.
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

    /// Waits for an unwritten report, and returns it with its number. Returns `None` after the
    /// loss of the heartbeat.
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

    /// Returns the latest report, if it is unwritten.
    pub(super) fn unwritten_report(&self) -> Option<(Progress, u64)> {
        let reports = self.reports();
        match reports.is_unwritten() {
            true => Some((reports.latest.clone()?, reports.made)),
            false => None,
        }
    }

    /// Notes that the reports up to this number are written.
    pub(super) fn report_written(&self, number: u64) {
        self.reports().written = number;
    }

    fn reports(&self) -> MutexGuard<'_, ProgressReports> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
