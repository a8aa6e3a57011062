//! Polling an attempt until it ends, is overdue, or has to be stopped.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    RunLimits, Runtime, Timeout,
    catch_panic::{CatchPanic, Panicked},
    failures::unreadable,
    heartbeat,
    in_flight::LiveGuard,
    run_context::RunContext,
    signals::{RaisedSignals, StopCause},
};
use crate::{
    operation::{FailureKind, Outcome, RecordedResponse},
    store::{Lease, StoreError, Written},
};

/// The shortest interval between two writes of an operation's progress.
const BETWEEN_REPORTS: Duration = Duration::from_millis(250);

/// The reason why there is no outcome to record.
pub(super) enum NoOutcome {
    /// The operation was ended from outside, or reclaimed by another node.
    Recalled,
    /// The operation is left to another node.
    Released,
}

/// The end of an attempt.
pub(super) type RunEnd = Result<Outcome<RecordedResponse>, NoOutcome>;

/// The end of an attempt that may have panicked.
pub(super) type CaughtEnd = Result<RunEnd, Panicked>;

/// The phase of an attempt: it waits for its service, or runs it.
#[derive(Debug, Default)]
pub(super) struct RunPhase(AtomicBool);

impl RunPhase {
    /// Returns the phase of an attempt whose service is ready, or not.
    pub(super) fn of_ready(is_ready: bool) -> Self {
        Self(AtomicBool::new(is_ready))
    }

    /// Begins the running phase.
    pub(super) fn run(&self) {
        self.0.store(true, Relaxed);
    }

    fn is_running(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// An attempt under the limits of its phases. The limits may be absent if the attempt has
/// limits of its own.
///
/// A deadline is set only when the attempt first waits in a phase: most attempts never wait.
pub(super) struct Supervised<'a, F> {
    attempt: Pin<&'a mut F>,
    live: &'a LiveGuard,
    limits: Option<(&'a RunLimits, &'a RunPhase)>,
    /// The deadline, and whether it is that of the running phase.
    deadline: Option<(Instant, bool)>,
    /// The signals at the last look.
    raised: RaisedSignals,
}

impl<F: Future<Output = RunEnd>> Future for Supervised<'_, F> {
    type Output = CaughtEnd;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CaughtEnd> {
        // The attempt is polled before the deadline is checked: an end in time counts.
        let polled = catch_unwind(AssertUnwindSafe(|| self.attempt.as_mut().poll(context)));
        match polled {
            Ok(Poll::Ready(end)) => return Poll::Ready(Ok(end)),
            // The panic hook has already printed the message.
            Err(payload) => return Poll::Ready(Err(Panicked(payload))),
            Ok(Poll::Pending) => {}
        }
        // Checked at every poll, so that a run notices also where the sweep is late.
        let was_overdue = self.is_overdue();
        self.set_deadline();
        self.raised = self.live.work.signals.look(context);
        match was_overdue || self.raised.is_overdue && self.is_overdue() {
            true => Poll::Ready(Ok(Ok(Outcome::failed(
                self.live.work.failure_when_overdue(),
            )))),
            false => Poll::Pending,
        }
    }
}

impl<'a, F> Supervised<'a, F> {
    pub(super) fn new(
        attempt: Pin<&'a mut F>,
        live: &'a LiveGuard,
        limits: Option<(&'a RunLimits, &'a RunPhase)>,
    ) -> Self {
        Self {
            attempt,
            live,
            limits,
            deadline: None,
            raised: RaisedSignals::default(),
        }
    }

    /// Sets the deadline of the phase that the attempt waits in.
    fn set_deadline(&mut self) {
        let Some((limits, phase)) = self.limits else {
            return;
        };
        let is_running = phase.is_running();
        if self.deadline.is_none_or(|(_, is_it)| is_it != is_running) {
            let limit = match is_running {
                true => limits.running,
                false => limits.pending,
            };
            self.deadline = Some((self.live.set_deadline(limit), is_running));
        }
    }

    /// Returns whether the deadline of the current phase is over. A signal may be that of an
    /// earlier phase.
    fn is_overdue(&self) -> bool {
        let phase = self.limits.map(|(_, phase)| phase.is_running());
        let is_over = |(at, is_running)| phase == Some(is_running) && at <= Instant::now();
        self.deadline.is_some_and(is_over)
    }
}

impl<F: Future<Output = RunEnd>> Supervised<'_, F> {
    /// Polls the attempt until it ends, and catches its panics. Returns `None` once a report, a
    /// stop or a lost heartbeat has to be [looked after](look_after).
    pub(super) fn poll_undisturbed(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<CaughtEnd>> {
        match Pin::new(&mut *self).poll(context) {
            Poll::Ready(end) => Poll::Ready(Some(end)),
            Poll::Pending if self.raised.need_attention() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Polls the attempt until it ends. Meanwhile writes its progress, keeps the heartbeat running,
/// and stops the attempt on request.
pub(super) async fn look_after<R: Lease<Output = RecordedResponse>>(
    node: &Arc<Runtime<R>>,
    grace: Duration,
    mut attempt: Supervised<'_, impl Future<Output = RunEnd>>,
) -> CaughtEnd {
    let work = &*attempt.live.work;
    tokio::select! {
        biased;
        end = &mut attempt => end,
        cause = work.signals.stopped() => match cause {
            StopCause::Interrupted => until_over(node, work, attempt).await,
            StopCause::Recalled => {
                // The handler has seen its canceled token and may end by itself.
                match Timeout::new(grace, attempt).await {
                    Ok(Err(panicked)) => Err(panicked),
                    Ok(Ok(_)) | Err(_) => Ok(Err(NoOutcome::Recalled)),
                }
            }
        },
        () = write_reports(node, work) => Ok(Err(NoOutcome::Recalled)),
    }
}

/// Lets an attempt that was told of the end of a drain continue to the deadline. An outcome that
/// the attempt has by then is kept.
async fn until_over<R: Lease>(
    node: &Arc<Runtime<R>>,
    work: &RunContext,
    attempt: impl Future<Output = CaughtEnd>,
) -> CaughtEnd {
    tokio::select! {
        biased;
        end = heartbeat::beating_while(node, work, attempt) => end,
        () = node.in_flight.over().cancelled() => Ok(match work.kept && node.reruns_after(work.starts()) {
            true => Err(NoOutcome::Released),
            false => Ok(Outcome::failed(FailureKind::Interrupted)),
        }),
    }
}

/// Writes the progress that the handler reports, at most a few times a second, and keeps the
/// heartbeat running. Returns only when the operation was ended or reclaimed from outside.
async fn write_reports<R: Lease<Output = RecordedResponse>>(
    node: &Arc<Runtime<R>>,
    work: &RunContext,
) {
    // The kind of the last failure, so that it is logged once, however many reports fail.
    let mut known_transient = None;
    loop {
        let Some((progress, number)) = work.signals.next_report().await else {
            heartbeat::begin_again(node).await;
            continue;
        };
        crash_point!("reporting");
        // A store that panics does not affect how the operation ends.
        let report = CatchPanic::new(node.store.report(&work.id, work.token(), progress));
        let report = heartbeat::beating_while(node, work, report);
        let reported = report.await.unwrap_or_else(|panicked| {
            panicked.forget();
            Err(StoreError::unavailable("the store panicked"))
        });
        match reported {
            Ok(Written::Done(_)) => {
                crash_point!("reported");
                work.signals.report_written(number);
                known_transient = None;
            }
            Ok(Written::Lost(_) | Written::Gone) => {
                work.stop(StopCause::Recalled);
                std::future::pending::<()>().await;
            }
            // The progress is written with the next report, or with the outcome.
            Err(error) => {
                let id = &work.id;
                let is_transient = error.is_transient();
                if known_transient.replace(is_transient) == Some(is_transient) {
                    tracing::debug!(%id, error = error.report(), "progress not written");
                } else if is_transient {
                    tracing::warn!(%id, error = error.report(), "progress not written");
                } else {
                    unreadable(id, &error);
                }
            }
        }
        sleep(BETWEEN_REPORTS).await;
    }
}
