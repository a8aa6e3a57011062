//! One run, from its acceptance to its outcome.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use http::Request;
use tokio::time::timeout;
use tower_service::Service;
use tracing::Instrument;

use super::{
    AcceptedRequest, BufferedRequest, Handler, RunLimits, RunOutcome, Runtime,
    catch_panic::{CatchPanic, catch},
    failures::{inner_error, unreadable},
    heartbeat,
    outcome::outcome_of,
    persist::{retry_until_certain, retry_until_certain_for},
    readiness::{Readiness, RunBegin},
    record::record,
    request_upload::read_body,
    response_body::collect,
    run_context::RunContext,
    supervise::{NoOutcome, RunEnd, RunPhase, Supervised, look_after},
};
use crate::{
    BoxError,
    operation::{BufferedBody, FailureKind, Outcome, RecordedResponse},
    store::{Lease, Reader, StoreError, Written},
    tower_util::until_ready,
};

/// The time that the store has to say whether an operation still exists.
const TO_LOOK: Duration = Duration::from_secs(1);

/// Runs `service` with an accepted request and records the outcome.
///
/// However the service ends, an outcome is recorded, unless another client or node ended
/// the operation or the node is abandoned.
///
/// The future is boxed, since it is moved many times on its way into a task.
pub(crate) fn operate<S, R>(
    node: Arc<Runtime<R>>,
    limits: RunLimits,
    mut service: S,
    readiness: Readiness,
    accepted: AcceptedRequest,
) -> Run
where
    S: Handler<Body: 'static> + 'static,
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
    let held = (node.in_flight.enter(work, limits.grace), admitted);
    // A block stores its captures once, an `async` function stores its arguments twice.
    let run = async move {
        let (Some(live), _) = &held else {
            // The operation already runs here, and must run only once.
            return Ok(RunOutcome::Refused);
        };
        heartbeat::ensure(&node);
        let work = &*live.work;
        let ended = match readiness.begin(&work.id) {
            RunBegin::Ended(ended) => ended,
            RunBegin::Attempt { is_ready } => {
                let phase = RunPhase::of_ready(is_ready);
                // Pinned where it is created: passing a future on would copy it each time.
                let mut attempt = pin!(Some(async {
                    if !is_ready {
                        if let Err(stop) = begin(&node, work, &mut service).await {
                            return stop.into();
                        }
                        phase.run();
                    }
                    call_to_outcome(&node, work, &limits, &mut service, request).await
                }));
                let running = attempt.as_mut().as_pin_mut();
                let running = running.expect("the attempt was just created");
                let mut running = Supervised::new(running, live, Some((&limits, &phase)));
                let ended = match poll_fn(|context| running.poll_undisturbed(context)).await {
                    Some(ended) => ended,
                    // Boxed, since most handlers report nothing and are not stopped.
                    None => Box::pin(look_after(&node, limits.grace, running)).await,
                };
                // The handler's future may still be there; its drop may panic.
                catch(|| attempt.set(None)).and(ended)
            }
        };
        // Dropped before the outcome is tallied; the drop may panic as well.
        let outcome = match catch(|| drop(service)).and(ended) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(nothing)) => {
                give_up(&node, work, nothing).await;
                return Ok(RunOutcome::Refused);
            }
            Err(panicked) => {
                panicked.of_handler(&work.id);
                Outcome::failed(FailureKind::Panicked)
            }
        };
        record(&node, work, outcome).await
    };
    // Without a subscriber the span is not entered.
    match span.is_disabled() {
        true => Box::pin(run),
        false => Box::pin(run.instrument(span)),
    }
}

/// The future of [`operate`].
pub(crate) type Run = Pin<Box<dyn Future<Output = Result<RunOutcome, StoreError>> + Send>>;

/// Waits until the service is ready, and starts the operation.
async fn begin<S, R>(node: &Runtime<R>, work: &RunContext, service: &mut S) -> Result<(), RunStop>
where
    S: Service<Request<BufferedBody>>,
    S::Error: Into<BoxError>,
    R: Lease<Output = RecordedResponse>,
{
    until_ready(service)
        .await
        .map_err(|error| RunStop(Ok(inner_error(&work.id, &error.into()))))?;
    crash_point!("ready");
    start(node, work).await
}

/// Calls the service, collects its response, and returns the outcome.
async fn call_to_outcome<S: Handler, R>(
    node: &Runtime<R>,
    work: &RunContext,
    limits: &RunLimits,
    service: &mut S,
    mut request: Box<BufferedRequest>,
) -> RunEnd {
    if let Some(reference) = request.reference.take() {
        let head = std::mem::take(&mut request.body);
        // Boxed, since this is rarely needed.
        match Box::pin(read_body(node, work, *reference, head)).await {
            Ok(body) => request.body = body,
            Err(outcome) => return Ok(outcome),
        }
    }
    let base = request.base();
    crash_point!("calling");
    let response = match service.call(request.into_request()).await {
        Ok(response) => response,
        Err(error) => return Ok(inner_error(&work.id, &error.into())),
    };
    crash_point!("called");
    Ok(
        match collect(response, node.recording(work, limits, &base)).await {
            Ok(response) => outcome_of(&work.id, response),
            Err(outcome) => outcome,
        },
    )
}

/// The end of an attempt whose service is not called.
pub(super) struct RunStop(pub(super) RunEnd);

impl From<RunStop> for RunEnd {
    fn from(RunStop(end): RunStop) -> Self {
        end
    }
}

/// Moves `pending` → `running`. The store counts attempts in this step, so the service is called
/// only once the step is certain.
pub(super) async fn start<R>(node: &Runtime<R>, work: &RunContext) -> Result<(), RunStop>
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
        Ok(Written::Lost(_) | Written::Gone) => Err(RunStop(Err(NoOutcome::Recalled))),
        Err(error) => {
            let id = &work.id;
            tracing::error!(%id, error = error.report(), "start not recorded");
            Err(RunStop(Ok(Outcome::failed(FailureKind::Interrupted))))
        }
    }
}

/// Gives an operation up, which ends without an outcome of this run.
pub(super) async fn give_up<R: Lease>(
    node: &Arc<Runtime<R>>,
    work: &RunContext,
    nothing: NoOutcome,
) {
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
    let reader = Reader::new(None).with_max_body(0);
    let found = CatchPanic::new(node.store.get_for(&work.id, reader));
    match timeout(TO_LOOK, found).await {
        Ok(Ok(Ok(None))) => work.missing_in_store(),
        Ok(Ok(Err(error))) if !error.is_transient() => unreadable(&work.id, &error),
        Ok(Err(panicked)) => panicked.forget(),
        Ok(Ok(_)) | Err(_) => {}
    }
}
