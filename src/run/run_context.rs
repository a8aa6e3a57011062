//! One operation while it runs in this process.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use tokio_util::sync::CancellationToken;

use super::{
    race::Gate,
    signals::{RunSignals, StopCause},
};
use crate::{
    operation::{Failure, FailureKind, Operation, OperationId, Outcome, Progress},
    store::{FencingToken, LeaseHandle, Placed},
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
    /// The place of the operation in its store, if it was created at once.
    pub(super) placed: Option<Placed>,
    /// Whether the store has counted the attempt, or may have.
    is_started: AtomicBool,
    /// Whether a hint was received that the operation was ended or reclaimed from outside.
    is_told: AtomicBool,
    /// Whether the result store fails while this run uploads its result.
    storing_fails: AtomicBool,
    ended: OnceLock<RunEnded>,
    /// The gate, present while the call may still be answered directly.
    gate: Option<Box<Gate>>,
    /// The token, created when it is first needed: most runs end before.
    stop: OnceLock<CancellationToken>,
    pub(super) signals: RunSignals<Progress>,
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

impl RunContext {
    pub(crate) fn new(id: OperationId, token: FencingToken, attempt: u32) -> Self {
        Self {
            id,
            token: AtomicU64::new(token.get()),
            attempt,
            kept: false,
            placed: None,
            is_started: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
            storing_fails: AtomicBool::new(false),
            ended: OnceLock::new(),
            gate: None,
            stop: OnceLock::new(),
            signals: RunSignals::new(),
        }
    }

    /// Sets whether the store may have everything that a rerun needs.
    pub(super) fn kept(self, kept: bool) -> Self {
        Self { kept, ..self }
    }

    /// Sets whether the store has counted the attempt.
    pub(super) fn started(self, is_started: bool) -> Self {
        Self {
            is_started: AtomicBool::new(is_started),
            ..self
        }
    }

    /// Sets the place of the operation in its store.
    pub(super) fn placed(self, placed: Option<Placed>) -> Self {
        Self { placed, ..self }
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
            gate: Some(Box::new(Gate::new())),
            ..Self::new(id, FencingToken::NONE, 1)
        }
    }

    pub(crate) fn gate(&self) -> Option<&Gate> {
        self.gate.as_deref()
    }

    pub(crate) fn token(&self) -> FencingToken {
        FencingToken::from_number(self.token.load(SeqCst))
    }

    pub(super) fn set_token(&self, token: FencingToken) {
        self.token.store(token.get(), SeqCst);
    }

    /// Sets whether the result store fails while this run uploads its result.
    pub(super) fn set_storing_fails(&self, fails: bool) {
        self.storing_fails.store(fails, SeqCst);
    }

    /// Returns the failure of a run whose time is over.
    pub(super) fn failure_when_overdue(&self) -> FailureKind {
        match self.storing_fails.load(SeqCst) {
            true => FailureKind::ResultNotStored,
            false => FailureKind::TimedOut,
        }
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
        self.signals.stop(cause);
        // A token that is created from now on is created canceled.
        if let Some(token) = self.stop.get() {
            token.cancel();
        }
    }

    /// Stops a call whose client has disconnected before the call became an operation.
    pub(crate) fn abandon(&self) {
        self.stop(StopCause::Recalled);
    }

    /// Returns whether the run was asked to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.signals.raised().stopped.is_some()
    }

    /// Returns a token for the handler. Canceling it does not cancel the run.
    pub(super) fn handler_token(&self) -> CancellationToken {
        let token = self.stop.get_or_init(CancellationToken::new);
        // Checked after the token exists: a stop looks for the token last.
        if self.is_stopped() {
            token.cancel();
        }
        token.child_token()
    }

    /// Notes the recorded state of the operation.
    pub(super) fn recorded<T>(&self, operation: &Operation<T>) {
        self.end(match operation.failure().and_then(Failure::kind) {
            Some(FailureKind::Interrupted) => RunEnded::Interrupted,
            _ => RunEnded::ByItself,
        });
    }

    /// Notes the recorded outcome of the operation.
    pub(super) fn recorded_as<T>(&self, outcome: &Outcome<T>) {
        self.end(match outcome {
            Outcome::Failed(failure) if failure.kind() == Some(FailureKind::Interrupted) => {
                RunEnded::Interrupted
            }
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
        self.ended.get().copied()
    }

    /// Sets the end of the run. Only the first end counts.
    fn end(&self, ended: RunEnded) {
        let _ = self.ended.set(ended);
    }
}
