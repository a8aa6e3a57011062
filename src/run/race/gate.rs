//! The decision about a call that may still be answered directly: it becomes an
//! operation, or its answer is sent.
//!
//! Four events race: the handler accepts, the wait ends, the call returns, or the client
//! disconnects. One lock decides:
//!
//! ```text
//!          ┌──────── creating failed ────────┐
//!          ▼                                 │
//! Held ──▶ Creating ──▶ Accepted             │
//!  │          └── the client left meanwhile ─┴─▶ Dropped
//!  ├──▶ Answered
//!  └──▶ Dropped
//! ```

use super::{
    sync::{Arc, Mutex},
    wait::{WaitCell, Waiter},
};

#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Arc<WaitCell>,
}

#[derive(Debug)]
struct GateState {
    position: GatePosition,
    /// Whether the client disconnected during the creation.
    left: bool,
    /// The number of failed tries to create the operation.
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GatePosition {
    Held,
    Creating,
    Accepted,
    Answered,
    Dropped,
}

/// The next step for a call that is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterReturn {
    /// The answer is sent to the client.
    Answer,
    /// The operation is being created: the result of the creation comes first.
    Create,
    /// Nobody waits for the answer: the client has disconnected, or has its answer.
    Nobody,
}

/// The reason why the operation was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptDenied {
    /// Creating the operation failed; the handler has to answer.
    Failed,
    /// The request has been answered, or its client has disconnected.
    TooLate,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(GateState {
                position: GatePosition::Held,
                left: false,
                failures: 0,
            }),
            changed: Arc::new(WaitCell::default()),
        }
    }

    /// Moves `Held` → `Creating`; does nothing in any other state. Does not wait. Returns the
    /// number of failed creations so far.
    pub(crate) fn request_creation(&self) -> u32 {
        let (asked, failures) = self.lock(|state| {
            let held = state.position == GatePosition::Held;
            if held {
                state.position = GatePosition::Creating;
            }
            (held, state.failures)
        });
        if asked {
            self.changed.notify();
        }
        failures
    }

    /// Requests acceptance, and waits for the result.
    pub(crate) async fn accept(&self) -> Result<(), AcceptDenied> {
        // The count is read together with the request, so that an earlier failure is not taken
        // for the failure of this request.
        let failures = self.request_creation();
        loop {
            let waiter = Waiter::new(&self.changed);
            let decided = self.lock(|state| match state.position {
                GatePosition::Accepted => Some(Ok(())),
                _ if state.failures > failures => Some(Err(AcceptDenied::Failed)),
                GatePosition::Answered | GatePosition::Dropped => Some(Err(AcceptDenied::TooLate)),
                GatePosition::Held | GatePosition::Creating => None,
            });
            match decided {
                Some(decided) => return decided,
                None => waiter.await,
            }
        }
    }

    /// Waits until the state is `Creating`.
    pub(crate) async fn creation_requested(&self) {
        loop {
            let waiter = Waiter::new(&self.changed);
            if self.lock(|state| state.position == GatePosition::Creating) {
                return;
            }
            waiter.await;
        }
    }

    /// Moves `Creating` → `Accepted`, or back to `Held`. Returns false if the client has
    /// disconnected meanwhile, so that the call has no purpose any more.
    pub(crate) fn created(&self, succeeded: bool) -> bool {
        let goes_on = self.lock(|state| {
            state.position = match (succeeded, state.left) {
                (true, _) => GatePosition::Accepted,
                (false, false) => GatePosition::Held,
                (false, true) => GatePosition::Dropped,
            };
            state.failures += u32::from(!succeeded);
            state.position != GatePosition::Dropped
        });
        self.changed.notify();
        goes_on
    }

    /// Moves `Held` → `Answered`, for a call that has returned, or that a drain gives no more time.
    pub(crate) fn try_answer(&self) -> AfterReturn {
        let next = self.lock(|state| match state.position {
            GatePosition::Held => {
                state.position = GatePosition::Answered;
                AfterReturn::Answer
            }
            GatePosition::Creating => AfterReturn::Create,
            GatePosition::Accepted | GatePosition::Answered | GatePosition::Dropped => {
                AfterReturn::Nobody
            }
        });
        self.changed.notify();
        next
    }

    /// Moves `Held` → `Dropped`: the client has disconnected. Returns true if the
    /// call is to be dropped.
    pub(crate) fn client_left(&self) -> bool {
        let dropped = self.lock(|state| {
            state.left = true;
            let held = state.position == GatePosition::Held;
            if held {
                state.position = GatePosition::Dropped;
            }
            held
        });
        if dropped {
            self.changed.notify();
        }
        dropped
    }

    fn lock<T>(&self, critical: impl FnOnce(&mut GateState) -> T) -> T {
        // A critical section never panics, so a poisoned lock is intact.
        critical(
            &mut self
                .state
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }
}
