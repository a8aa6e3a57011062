//! Who decides about a call that may still be answered directly: accept it, or
//! let its answer go out?
//!
//! Four parties race: the handler that signals, the timer that ends the wait,
//! the call that returns, and the client that hangs up. One lock decides:
//!
//! ```text
//!          ┌──────── creating failed ────────┐
//!          ▼                                 │
//! LeaseHandle ──▶ Creating ──▶ Accepted             │
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
    /// Whether the client hung up while it was creating.
    left: bool,
    /// How often creating failed.
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

/// What a call that has returned is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterReturn {
    /// Its answer goes to the client.
    Answer,
    /// The operation is being created: that has to be seen to first.
    Create,
    /// There is nobody to answer.
    Nobody,
}

/// The operation could not be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptDenied {
    /// Creating it failed; the handler is to answer.
    Failed,
    /// The request has been answered, or its client is gone.
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

    /// `LeaseHandle` → `Creating`, unless that is decided already. Does not wait; says
    /// how often creating had failed by then.
    pub(crate) fn ask(&self) -> u32 {
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

    /// Asks, and waits for what becomes of it.
    pub(crate) async fn accept(&self) -> Result<(), AcceptDenied> {
        // Counted when it asks: an earlier failure is not that of its own.
        let failures = self.ask();
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

    /// Waits until it is `Creating`.
    pub(crate) async fn asked(&self) {
        loop {
            let waiter = Waiter::new(&self.changed);
            if self.lock(|state| state.position == GatePosition::Creating) {
                return;
            }
            waiter.await;
        }
    }

    /// `Creating` → `Accepted`, or back to `LeaseHandle`; false if the client has left
    /// meanwhile, so that there is nothing to go on for.
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

    /// `LeaseHandle` → `Answered`: the call has returned.
    pub(crate) fn returned(&self) -> AfterReturn {
        let returned = self.lock(|state| match state.position {
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
        returned
    }

    /// `LeaseHandle` → `Dropped`: the client has hung up. True if the call is to be
    /// dropped for it.
    pub(crate) fn leave(&self) -> bool {
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
        // Nothing in a critical section panics, so a poisoned lock is intact.
        critical(
            &mut self
                .state
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }
}
