//! The signals to a run, which are handled beside its handler.
//!
//! One lock guards the signals and the waker of the run's task. A look stores the waker, so
//! every signal after the look wakes the task.

use std::{
    future::poll_fn,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use super::sync::Mutex;

/// The signals to a run whose handler reports progress as `P`.
#[derive(Debug)]
pub(crate) struct RunSignals<P>(Mutex<SignalState<P>>);

#[derive(Debug)]
struct SignalState<P> {
    raised: RaisedSignals,
    /// The progress reports, created by the first report.
    reports: Option<Box<ProgressReports<P>>>,
    /// The waker of the run's task, stored while the task waits.
    waker: Option<Waker>,
}

/// The signals that are raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RaisedSignals {
    /// The cause of the first request to stop.
    pub(crate) stopped: Option<StopCause>,
    /// Whether the heartbeat of the node has ended.
    pub(crate) is_unrenewed: bool,
    /// Whether a deadline of the run is over.
    pub(crate) is_overdue: bool,
    /// Whether a progress report is unwritten.
    pub(crate) has_report: bool,
}

impl RaisedSignals {
    /// Returns whether the run has to do more than to poll its handler.
    pub(crate) fn need_attention(self) -> bool {
        self.stopped.is_some() || self.is_unrenewed || self.has_report
    }
}

/// The reason why a run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// The operation was ended from outside, or reclaimed by another node: there is no
    /// outcome to record.
    Recalled,
    /// The node is drained.
    Interrupted,
}

/// The latest report, and how many reports were made and written.
#[derive(Debug)]
struct ProgressReports<P> {
    latest: P,
    made: u64,
    written: u64,
}

impl<P: Clone> RunSignals<P> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(SignalState {
            raised: RaisedSignals::default(),
            reports: None,
            waker: None,
        }))
    }

    /// Returns the signals that are raised.
    pub(crate) fn raised(&self) -> RaisedSignals {
        self.lock(|state| state.raised)
    }

    /// Returns the signals that are raised. A later signal wakes the task of `context`.
    pub(crate) fn look(&self, context: &mut Context<'_>) -> RaisedSignals {
        let (raised, _replaced) = self.lock(|state| (state.raised, state.wake(context)));
        raised
    }

    /// Waits until `ready` returns a value. The signals that `ready` lowers stay lowered.
    async fn until<T>(&self, mut ready: impl FnMut(&mut SignalState<P>) -> Option<T>) -> T {
        poll_fn(|context| {
            let (output, _replaced) = self.lock(|state| match ready(state) {
                Some(output) => (Poll::Ready(output), None),
                None => (Poll::Pending, state.wake(context)),
            });
            output
        })
        .await
    }

    /// Asks the run to stop. Only the first cause counts.
    pub(crate) fn stop(&self, cause: StopCause) {
        self.raise(|state| {
            state.raised.stopped.get_or_insert(cause);
        });
    }

    /// Waits until the run is asked to stop.
    pub(crate) async fn stopped(&self) -> StopCause {
        self.until(|state| state.raised.stopped).await
    }

    /// Asks the run to restart the heartbeat of its node.
    pub(crate) fn needs_heartbeat(&self) {
        self.raise(|state| state.raised.is_unrenewed = true);
    }

    /// Waits for the loss of the heartbeat. A later call waits for the next loss.
    pub(crate) async fn lost_heartbeat(&self) {
        self.until(|state| state.take_loss().then_some(())).await;
    }

    /// Tells the run that its deadline is over.
    pub(crate) fn overdue(&self) {
        self.raise(|state| state.raised.is_overdue = true);
    }

    /// Stores a progress report.
    pub(crate) fn report(&self, progress: P) {
        // The replaced report is dropped outside of the lock.
        let _replaced = self.raise(|state| {
            state.raised.has_report = true;
            match &mut state.reports {
                Some(reports) => {
                    reports.made += 1;
                    Some(std::mem::replace(&mut reports.latest, progress))
                }
                None => {
                    state.reports = Some(Box::new(ProgressReports {
                        latest: progress,
                        made: 1,
                        written: 0,
                    }));
                    None
                }
            }
        });
    }

    /// Waits for an unwritten report, and returns it with its number. Returns `None` after the
    /// loss of the heartbeat.
    pub(crate) async fn next_report(&self) -> Option<(P, u64)> {
        self.until(|state| match state.take_loss() {
            true => Some(None),
            false => state.unwritten_report().map(Some),
        })
        .await
    }

    /// Returns the latest report with its number, if it is unwritten.
    pub(crate) fn unwritten_report(&self) -> Option<(P, u64)> {
        self.lock(|state| state.unwritten_report())
    }

    /// Notes that the reports up to this number are written.
    pub(crate) fn report_written(&self, number: u64) {
        self.lock(|state| {
            if let Some(reports) = &mut state.reports {
                reports.written = number;
                state.raised.has_report = reports.made > number;
            }
        });
    }

    /// Changes the signals, and wakes the task of the run.
    fn raise<T>(&self, change: impl FnOnce(&mut SignalState<P>) -> T) -> T {
        let (output, waker) = self.lock(|state| (change(state), state.waker.take()));
        // A waker may run anything, so it runs outside of the lock.
        if let Some(waker) = waker {
            waker.wake();
        }
        output
    }

    fn lock<T>(&self, critical: impl FnOnce(&mut SignalState<P>) -> T) -> T {
        // Nothing in a critical section panics, so a poisoned lock is intact.
        critical(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<P: Clone> SignalState<P> {
    /// Stores the waker of the run's task, and returns the waker that it replaces, which has to
    /// be dropped outside of the lock.
    fn wake(&mut self, context: &mut Context<'_>) -> Option<Waker> {
        let waker = context.waker();
        match &self.waker {
            Some(known) if known.will_wake(waker) => None,
            _ => self.waker.replace(waker.clone()),
        }
    }

    /// Lowers the signal of a lost heartbeat. Returns whether it was raised.
    fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.raised.is_unrenewed)
    }

    fn unwritten_report(&self) -> Option<(P, u64)> {
        let reports = self.reports.as_ref()?;
        (reports.made > reports.written).then(|| (reports.latest.clone(), reports.made))
    }
}
