//! Running a call first, and accepting it later or not at all.

use std::{
    any::Any,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Response, uri::PathAndQuery};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    RunLimits, Runtime, Timeout,
    catch_panic::{CatchPanic, Panicked},
    collect::collect,
    failures::inner_error,
    heartbeat, now_or_never,
    operate::{RunEnd, leave, start, stoppable},
    outcome::outcome_of,
    record::record as record_outcome,
    run_context::RunContext,
    threshold::{CallDecision, HeldStep, Threshold},
};
use crate::{
    BoxError,
    call::until_ready,
    operation::{BufferedBody, FailureKind, Outcome, RecordedResponse},
    store::{Lease, Record},
};

/// The result of a held call, as told to its client.
pub(crate) enum Told<P, E> {
    /// The call returned first.
    Answered(Result<P, E>),
    /// The call returned first, and its answer is stored.
    Settled(Response<BufferedBody>),
    /// The call panicked first.
    Panicked(Box<dyn Any + Send>),
    /// The call failed: it exceeded the running time, for example.
    Failed(FailureKind),
    /// The time of a drain was over first.
    ShutDown,
    /// The call is an operation now.
    Accepted(Arc<Record<RecordedResponse>>),
}

/// A call that is held.
pub(crate) struct CallHold<S, Q, R> {
    pub(crate) node: Arc<Runtime<R>>,
    pub(crate) limits: RunLimits,
    pub(crate) work: Arc<RunContext>,
    pub(crate) service: S,
    pub(crate) request: Box<Q>,
    /// The base of relative references in the response.
    pub(crate) base: PathAndQuery,
    /// The time after which the call becomes an operation.
    pub(crate) deadline: Option<Duration>,
}

/// The result of the call, and the deadline of its response body.
type CallReturn<P, E> = Result<(Result<P, E>, Instant), RunTimeElapsed>;

type CaughtCall<P, E> = Result<CallReturn<P, E>, Panicked>;

/// The call exceeded the pending or the running time.
struct RunTimeElapsed;

impl<S, Q, C, R> CallHold<S, Q, R>
where
    S: Service<Q, Response = Response<C>>,
    S::Error: Into<BoxError>,
    C: Body<Data = Bytes>,
    C::Error: Into<BoxError>,
    R: Lease<Output = RecordedResponse>,
{
    /// Runs the call, and creates the operation on request: as running, or as pending while the
    /// service is not ready. Ends with a direct answer, or with a recorded outcome after
    /// `Accepted` was sent. The call is never started twice.
    pub(crate) async fn run<F, D>(
        self,
        create: impl Fn(bool) -> F,
        accepted: impl FnOnce(Arc<Record<RecordedResponse>>),
    ) -> Option<Told<Response<C>, S::Error>>
    where
        F: Future<Output = Result<Arc<Record<RecordedResponse>>, D>>,
    {
        let Self {
            node,
            limits,
            work,
            mut service,
            request,
            base,
            deadline,
        } = self;
        let begun = Instant::now();
        let (work, limits, base) = (&work, &limits, &base);
        let mut threshold = Threshold {
            gate: work.gate()?,
            work,
            in_flight: &node.in_flight,
            grace: limits.grace,
            create,
            too_late: deadline.and_then(|deadline| begun.checked_add(deadline)),
        };
        let ready = async move {
            match Timeout::new(limits.pending, until_ready(&mut service)).await {
                Ok(Ok(_)) => Ok(service),
                Ok(Err(error)) => Err(Ok((Err(error), Instant::now()))),
                Err(_) => Err(Err(RunTimeElapsed)),
            }
        };
        // Both futures, this one and the call, are boxed: either future moves into the run, and
        // is dropped with the run before the outcome is recorded.
        let mut ready = Box::pin(CatchPanic::new(ready));
        let service = match threshold.hold(false, ready.as_mut()).await {
            HeldStep::Done(Ok(Ok(service))) => service,
            HeldStep::Done(failed) => {
                let called = not_called(failed);
                let record = match threshold.returned(false).await {
                    CallDecision::Answer => return Some(answer(called)),
                    CallDecision::Nobody => return None,
                    CallDecision::Accepted(record) => record,
                };
                accepted(record);
                let outcome = async move { Ok(outcome_of_call(called, work, limits, base).await) };
                run_accepted(&node, limits, work, Box::pin(outcome)).await;
                return None;
            }
            HeldStep::Nobody => return None,
            HeldStep::Over => return Some(Told::ShutDown),
            HeldStep::Accepted(record, done) => {
                accepted(record);
                // From here on the run is like that of a request accepted at once.
                let node = &node;
                let run = async move {
                    let done = match done {
                        Some(done) => done,
                        None => ready.await,
                    };
                    let called = match done {
                        Ok(Ok(service)) => {
                            if let Err(not_started) = start(node, work).await {
                                return not_started.into();
                            }
                            call(service, request, limits.running).await
                        }
                        failed => not_called(failed),
                    };
                    Ok(outcome_of_call(called, work, limits, base).await)
                };
                run_accepted(node, limits, work, Box::pin(run)).await;
                return None;
            }
        };
        let mut call = Box::pin(call(service, request, limits.running));
        let (record, done) = match threshold.hold(true, call.as_mut()).await {
            HeldStep::Done(called) => match threshold.returned(true).await {
                CallDecision::Answer => return Some(answer(called)),
                CallDecision::Nobody => return None,
                CallDecision::Accepted(record) => (record, Some(called)),
            },
            HeldStep::Nobody => return None,
            HeldStep::Over => return Some(Told::ShutDown),
            HeldStep::Accepted(record, done) => (record, done),
        };
        accepted(record);
        let node = &node;
        let outcome = async move {
            let called = match done {
                Some(called) => called,
                None => call.await,
            };
            Ok(outcome_of_call(called, work, limits, base).await)
        };
        let run = async move {
            // The operation was created as running. The start only finds out whether the
            // operation was ended or reclaimed since.
            let is_ours = async { start(node, work).await.map_err(RunEnd::from) };
            match tokio::try_join!(is_ours, outcome) {
                Ok(((), outcome)) => Ok(outcome),
                Err(ended) => ended,
            }
        };
        run_accepted(node, limits, work, Box::pin(run)).await;
        None
    }
}

/// Calls a ready service.
async fn call<S, Q>(
    mut service: S,
    request: Box<Q>,
    at_most: Duration,
) -> CaughtCall<S::Response, S::Error>
where
    S: Service<Q>,
{
    let latest = Instant::now() + at_most;
    let call = pin!(async {
        match Timeout::new(at_most, service.call(*request)).await {
            Ok(called) => Ok((called, latest)),
            Err(_) => Err(RunTimeElapsed),
        }
    });
    CatchPanic::new(call).await
}

/// Returns the result of a call whose service did not become ready.
fn not_called<S, P, E>(ready: Result<Result<S, CallReturn<P, E>>, Panicked>) -> CaughtCall<P, E> {
    match ready {
        Ok(Ok(_)) => Ok(Err(RunTimeElapsed)),
        Ok(Err(call)) => Ok(call),
        Err(panicked) => Err(panicked),
    }
}

/// Runs the accepted operation to its end.
async fn run_accepted<R: Lease<Output = RecordedResponse>>(
    node: &Arc<Runtime<R>>,
    limits: &RunLimits,
    work: &Arc<RunContext>,
    mut run: Pin<Box<impl Future<Output = RunEnd>>>,
) {
    crash_point!("accepted");
    let Some(_entered) = node.in_flight.enter(Arc::clone(work), limits.grace) else {
        tracing::error!(id = %work.id, "operation not run, already running on this node");
        return;
    };
    heartbeat::ensure(node);
    let ended = CatchPanic::new(stoppable(node, limits, work, run.as_mut())).await;
    // Dropped before the outcome is recorded; the drop may panic as well.
    let dropped = now_or_never(CatchPanic::new(async move { drop(run) }));
    let ended = dropped.unwrap_or(Ok(())).and(ended);
    let outcome: RunEnd = ended.unwrap_or_else(|panicked| {
        panicked.of_handler(&work.id);
        Ok(Outcome::failed(FailureKind::Panicked))
    });
    match outcome {
        // The error was logged where it occurred.
        Ok(outcome) => drop(record_outcome(node, work, outcome).await),
        Err(nothing) => leave(node, work, nothing).await,
    }
}

fn answer<P, E>(called: CaughtCall<P, E>) -> Told<P, E> {
    match called {
        Ok(Ok((answer, _))) => Told::Answered(answer),
        Ok(Err(RunTimeElapsed)) => Told::Failed(FailureKind::TimedOut),
        Err(Panicked(payload)) => Told::Panicked(payload),
    }
}

async fn outcome_of_call<C, E>(
    called: CaughtCall<Response<C>, E>,
    work: &RunContext,
    limits: &RunLimits,
    base: &PathAndQuery,
) -> Outcome<RecordedResponse>
where
    C: Body<Data = Bytes>,
    C::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    let (response, latest) = match called {
        Ok(Ok((Ok(response), latest))) => (response, latest),
        Ok(Ok((Err(error), _))) => return inner_error(&work.id, &error.into()),
        Ok(Err(RunTimeElapsed)) => return Outcome::failed(FailureKind::TimedOut),
        Err(panicked) => {
            panicked.of_handler(&work.id);
            return Outcome::failed(FailureKind::Panicked);
        }
    };
    let collected = pin!(collect(&work.id, response, limits.result));
    match CatchPanic::new(Timeout::until(latest, collected)).await {
        Ok(Ok(Ok(response))) => outcome_of(&work.id, response, base),
        Ok(Ok(Err(outcome))) => outcome,
        Ok(Err(_)) => Outcome::failed(FailureKind::TimedOut),
        Err(panicked) => {
            panicked.of_handler(&work.id);
            Outcome::failed(FailureKind::Panicked)
        }
    }
}
