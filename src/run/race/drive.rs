//! Running a call first, and accepting it later or not at all.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Response, uri::PathAndQuery};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    Creator, RaceEnd,
    call::{answer, call, not_called, outcome_of_call, ready},
    contest::{CallDecision, Contest, RaceStep},
};
use crate::{
    BoxError,
    operation::{FailureKind, Outcome, RecordedResponse},
    run::{
        RunContext, RunLimits, Runtime,
        catch_panic::catch,
        heartbeat,
        operate::{give_up, start},
        record::{bytes_in_memory, record},
        supervise::{RunEnd, Supervised, look_after},
    },
    store::Lease,
};

/// A call that races with its acceptance.
pub(crate) struct Race<S, Q, R> {
    pub(crate) node: Arc<Runtime<R>>,
    pub(crate) limits: RunLimits,
    pub(crate) work: Arc<RunContext>,
    pub(crate) service: S,
    pub(crate) request: Box<Q>,
    /// The base of relative references in the response.
    pub(crate) base: PathAndQuery,
    /// The time at which the call becomes an operation.
    pub(crate) accept_at: Option<Instant>,
}

impl<S, Q, C, R> Race<S, Q, R>
where
    S: Service<Q, Response = Response<C>>,
    S::Error: Into<BoxError>,
    C: Body<Data = Bytes>,
    C::Error: Into<BoxError>,
    R: Lease<Output = RecordedResponse>,
{
    /// Runs the call, and creates the operation on request: as running, or as pending while the
    /// service is not ready. Ends with a direct answer, or with a recorded outcome after the
    /// client was told of the operation. The call is never started twice.
    pub(crate) async fn run(
        self,
        creator: &mut impl Creator,
    ) -> Option<RaceEnd<Response<C>, S::Error>> {
        let Self {
            node,
            limits,
            work,
            service,
            request,
            base,
            accept_at,
        } = self;
        let (node, work, limits, base) = (&node, &work, &limits, &base);
        let mut contest = Contest {
            gate: work.gate()?,
            work,
            in_flight: &node.in_flight,
            grace: limits.grace,
            creator,
            accept_at,
        };
        // Both futures, this one and the call, are boxed: either future moves into the run, and
        // is dropped with the run before the outcome is recorded.
        let mut ready = Box::pin(ready(service, limits));
        let service = match contest.hold(false, ready.as_mut()).await {
            RaceStep::Done(Ok(Ok(service))) => service,
            RaceStep::Done(failed) => {
                let called = not_called(failed);
                match contest.returned(false).await {
                    CallDecision::Answer => return Some(answer(called)),
                    CallDecision::Nobody => return None,
                    CallDecision::Accepted => {}
                }
                let outcome =
                    async move { Ok(outcome_of_call(called, node, work, limits, base).await) };
                run_accepted(node, limits, work, Box::pin(outcome)).await;
                return None;
            }
            RaceStep::Nobody => return None,
            RaceStep::Over => return Some(RaceEnd::ShutDown),
            RaceStep::Accepted(done) => {
                // From here on the run is like that of a request accepted at once.
                let run = async move {
                    let done = match done {
                        Some(done) => done,
                        None => ready.await,
                    };
                    let called = match done {
                        Ok(Ok(service)) => {
                            if let Err(stop) = start(node, work).await {
                                return stop.into();
                            }
                            call(service, request, limits).await
                        }
                        failed => not_called(failed),
                    };
                    Ok(outcome_of_call(called, node, work, limits, base).await)
                };
                run_accepted(node, limits, work, Box::pin(run)).await;
                return None;
            }
        };
        let mut call = Box::pin(call(service, request, limits));
        let done = match contest.hold(true, call.as_mut()).await {
            RaceStep::Done(called) => match contest.returned(true).await {
                CallDecision::Answer => return Some(answer(called)),
                CallDecision::Nobody => return None,
                CallDecision::Accepted => Some(called),
            },
            RaceStep::Nobody => return None,
            RaceStep::Over => return Some(RaceEnd::ShutDown),
            RaceStep::Accepted(done) => done,
        };
        let outcome = async move {
            let called = match done {
                Some(called) => called,
                None => call.await,
            };
            let outcome = outcome_of_call(called, node, work, limits, base).await;
            // The outcome may have to wait for the store.
            let counted = node
                .in_flight
                .bytes()
                .result_bytes(bytes_in_memory(&outcome));
            Ok((outcome, counted))
        };
        let run = async move {
            // The operation was created as running. The start only finds out whether the
            // operation was ended or reclaimed since.
            let is_ours = async { start(node, work).await.map_err(RunEnd::from) };
            match tokio::try_join!(is_ours, outcome) {
                Ok(((), (outcome, _counted))) => Ok(outcome),
                Err(ended) => ended,
            }
        };
        run_accepted(node, limits, work, Box::pin(run)).await;
        None
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
    let Some(live) = node.in_flight.enter(Arc::clone(work), limits.grace) else {
        tracing::error!(id = %work.id, "operation not run, already running on this node");
        return;
    };
    heartbeat::ensure(node);
    // The time limits began before the acceptance, with the call.
    let run_of_call = Supervised::new(run.as_mut(), &live, None);
    let ended = look_after(node, limits.grace, run_of_call).await;
    // Dropped before the outcome is recorded; the drop may panic as well.
    let ended = catch(|| drop(run)).and(ended);
    let outcome: RunEnd = ended.unwrap_or_else(|panicked| {
        panicked.of_handler(&work.id);
        Ok(Outcome::failed(FailureKind::Panicked))
    });
    match outcome {
        // The error was logged where it occurred.
        Ok(outcome) => drop(record(node, work, outcome).await),
        Err(nothing) => give_up(node, work, nothing).await,
    }
}
