//! One run, from its acceptance to its outcome.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::time::{sleep, timeout};
use tower_service::Service;
use tracing::Instrument;

use super::{
    AcceptedRequest, BufferedRequest, RunLimits, RunOutcome, Runtime, Timeout,
    catch_panic::CatchPanic,
    collect::collect,
    failures::{inner_error, unreadable},
    heartbeat, now_or_never,
    outcome::outcome_of,
    persist::{retry_until_certain, retry_until_certain_for},
    record::record,
    run_context::{RunContext, StopCause},
};
use crate::{
    BoxError,
    call::until_ready,
    operation::{BufferedBody, FailureKind, Outcome, RecordedResponse},
    store::{Lease, StoreError, Written},
};

/// The shortest interval between two writes of an operation's progress.
const BETWEEN_REPORTS: Duration = Duration::from_millis(250);

/// The time that the store has to say whether an operation still exists.
const TO_LOOK: Duration = Duration::from_secs(1);

/// Runs `service` with an accepted request and records the outcome.
///
/// However the service ends, an outcome is recorded, unless another client or node ended
/// the operation or the node is abandoned.
pub(crate) fn operate<S, B, R>(
    node: Arc<Runtime<R>>,
    limits: RunLimits,
    mut service: S,
    accepted: AcceptedRequest,
) -> impl Future<Output = Result<RunOutcome, StoreError>>
where
    S: Service<Request<BufferedBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    R: Lease<Output = RecordedResponse>,
{
    let AcceptedRequest {
        work,
        request,
        span,
        admitted,
    } = accepted;
    let admitted = admitted.unwrap_or_else(|| node.in_flight.admit_anyway());
    // Drop order matters: the outcome is tallied before the permit is released.
    let held = (
        node.in_flight.enter(Arc::clone(&work), limits.grace),
        admitted,
    );
    // A block stores its captures once, an `async` function stores its arguments twice.
    let run = async move {
        let (Some(_), _) = &held else {
            // The operation already runs here, and must run only once.
            return Ok(RunOutcome::Refused);
        };
        heartbeat::ensure(&node);
        let stopped_or_done = {
            // Pinned where it is created: passing a future on would copy it each time.
            let run = pin!(run(&node, &limits, &work, &mut service, request));
            CatchPanic::new(stoppable(&node, &limits, &work, run)).await
        };
        // Dropped before the outcome is tallied; the drop may panic as well.
        let dropped = now_or_never(CatchPanic::new(async move { drop(service) }));
        let outcome = match dropped.unwrap_or(Ok(())).and(stopped_or_done) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(nothing)) => {
                leave(&node, &work, nothing).await;
                return Ok(RunOutcome::Refused);
            }
            Err(panicked) => {
                panicked.of_handler(&work.id);
                Outcome::failed(FailureKind::Panicked)
            }
        };
        record(&node, &work, outcome).await
    };
    run.instrument(span)
}

/// The reason why there is no outcome to record.
pub(super) enum NoOutcome {
    /// The operation was ended from outside, or reclaimed by another node.
    Recalled,
    /// The operation is left to another node.
    Released,
}

/// Leaves an operation without an outcome.
pub(super) async fn leave<R: Lease>(node: &Arc<Runtime<R>>, work: &RunContext, nothing: NoOutcome) {
    match nothing {
        NoOutcome::Recalled => {
            let id = &work.id;
            tracing::info!(%id, "lease lost, run dropped");
            if !work.may_be_revoked() {
                // Boxed, since this is rarely needed.
                Box::pin(look_for(node, work)).await;
            }
            work.lease_lost();
        }
        NoOutcome::Released => {
            let held = [work.lease_handle()];
            let released = retry_until_certain_for(node, work, || node.store.release(&held));
            if let Err(error) = released.await {
                let id = &work.id;
                tracing::warn!(%id, error = error.report(), "operation not released, reclaimable after its lease expires");
            }
            work.released();
        }
    }
}

/// Logs if an operation whose lease is lost is missing in the store too, or cannot be read.
async fn look_for<R: Lease>(node: &Runtime<R>, work: &RunContext) {
    let found = CatchPanic::new(node.store.get(&work.id));
    match timeout(TO_LOOK, found).await {
        Ok(Ok(Ok(None))) => work.missing_in_store(),
        Ok(Ok(Err(error))) if !error.is_transient() => unreadable(&work.id, &error),
        Ok(Err(panicked)) => panicked.forget(),
        Ok(Ok(_)) | Err(_) => {}
    }
}

pub(super) type RunEnd = Result<Outcome<RecordedResponse>, NoOutcome>;

/// Polls `run` until it is done or asked to stop, and writes its progress meanwhile.
pub(super) async fn stoppable<R: Lease<Output = RecordedResponse>>(
    node: &Arc<Runtime<R>>,
    limits: &RunLimits,
    work: &RunContext,
    mut run: Pin<&mut impl Future<Output = RunEnd>>,
) -> RunEnd {
    tokio::select! {
        biased;
        outcome = run.as_mut() => return outcome,
        () = work.signaled() => {}
    }
    // Boxed, since most handlers report nothing and are not stopped.
    Box::pin(look_after(node, limits, work, run)).await
}

/// Continues [`stoppable`] once a report, a stop or a lost heartbeat has to be handled.
async fn look_after<R: Lease<Output = RecordedResponse>>(
    node: &Arc<Runtime<R>>,
    limits: &RunLimits,
    work: &RunContext,
    mut run: Pin<&mut impl Future<Output = RunEnd>>,
) -> RunEnd {
    tokio::select! {
        biased;
        outcome = run.as_mut() => outcome,
        cause = work.stopped() => match cause {
            StopCause::Interrupted => until_over(node, work, run).await,
            StopCause::Recalled => {
                // The handler has seen its canceled token and may end by itself.
                let _ = Timeout::new(limits.grace, run).await;
                Err(NoOutcome::Recalled)
            }
        },
        () = write_reports(node, work) => Err(NoOutcome::Recalled),
    }
}

/// Lets a run that was told of the end of a drain continue to the deadline. An outcome that the
/// run has by then is kept.
async fn until_over<R: Lease>(
    node: &Arc<Runtime<R>>,
    work: &RunContext,
    run: Pin<&mut impl Future<Output = RunEnd>>,
) -> RunEnd {
    tokio::select! {
        biased;
        outcome = heartbeat::beating_while(node, work, run) => outcome,
        () = node.in_flight.over().cancelled() => match work.kept && node.reruns_after(work.starts()) {
            true => Err(NoOutcome::Released),
            false => Ok(Outcome::failed(FailureKind::Interrupted)),
        },
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
        let Some((progress, number)) = work.next_report().await else {
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
                work.report_written(number);
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

async fn run<S, B, R>(
    node: &Runtime<R>,
    limits: &RunLimits,
    work: &RunContext,
    service: &mut S,
    request: Box<BufferedRequest>,
) -> RunEnd
where
    S: Service<Request<BufferedBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    R: Lease<Output = RecordedResponse>,
{
    let base = request.base();
    let started = {
        let pending = pin!(async {
            until_ready(&mut *service)
                .await
                .map_err(|error| inner_error(&work.id, &error.into()))?;
            crash_point!("ready");
            start(node, work).await
        });
        Timeout::new(limits.pending, pending).await
    };
    match started {
        Ok(Ok(())) => {}
        Ok(Err(NotStarted::Failed(outcome))) => return Ok(outcome),
        Ok(Err(NotStarted::Lost)) => return Err(NoOutcome::Recalled),
        Err(_) => return Ok(Outcome::failed(FailureKind::TimedOut)),
    }
    let running = pin!(async {
        crash_point!("calling");
        let response = service
            .call(request.into_request())
            .await
            .map_err(|error| inner_error(&work.id, &error.into()))?;
        crash_point!("called");
        collect(&work.id, response, limits.result).await
    });
    Ok(match Timeout::new(limits.running, running).await {
        Ok(Ok(response)) => outcome_of(&work.id, response, &base),
        Ok(Err(outcome)) => outcome,
        Err(_) => Outcome::failed(FailureKind::TimedOut),
    })
}

pub(super) enum NotStarted {
    Failed(Outcome<RecordedResponse>),
    Lost,
}

impl From<Outcome<RecordedResponse>> for NotStarted {
    fn from(outcome: Outcome<RecordedResponse>) -> Self {
        Self::Failed(outcome)
    }
}

impl From<NotStarted> for RunEnd {
    fn from(not_started: NotStarted) -> Self {
        match not_started {
            NotStarted::Failed(outcome) => Ok(outcome),
            NotStarted::Lost => Err(NoOutcome::Recalled),
        }
    }
}

/// Moves `pending` → `running`. The store counts attempts in this step, so the service is called
/// only once the step is certain.
pub(super) async fn start<R>(node: &Runtime<R>, work: &RunContext) -> Result<(), NotStarted>
where
    R: Lease<Output = RecordedResponse>,
{
    crash_point!("starting");
    work.note_start();
    let started = retry_until_certain(node, Some(&work.id), || {
        node.store.start(&work.id, work.token())
    });
    match started.await {
        Ok(Written::Done(_)) => {
            crash_point!("started");
            Ok(())
        }
        Ok(Written::Lost(_) | Written::Gone) => Err(NotStarted::Lost),
        Err(error) => {
            let id = &work.id;
            tracing::error!(%id, error = error.report(), "start not recorded");
            Err(NotStarted::Failed(Outcome::failed(
                FailureKind::Interrupted,
            )))
        }
    }
}
