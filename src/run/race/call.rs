//! The call of a race, under the time limits of a run.

use std::pin::pin;

use bytes::Bytes;
use http::{Response, uri::PathAndQuery};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::RaceEnd;
use crate::{
    BoxError,
    operation::{FailureKind, Outcome, RecordedResponse},
    run::{
        RunContext, RunLimits, Runtime, Timeout,
        catch_panic::{CatchPanic, Panicked},
        failures::inner_error,
        outcome::outcome_of,
        response_body::collect,
    },
    tower_util::until_ready,
};

/// The result of the call, and the deadline of its response body.
type CallReturn<P, E> = Result<(Result<P, E>, Instant), RunTimeElapsed>;

pub(super) type CaughtCall<P, E> = Result<CallReturn<P, E>, Panicked>;

/// A service that is ready, or the result of a call that cannot be made.
pub(super) type CaughtReady<S, P, E> = Result<Result<S, CallReturn<P, E>>, Panicked>;

/// The call exceeded the pending or the running time.
pub(super) struct RunTimeElapsed;

/// Waits until the service is ready.
pub(super) async fn ready<S, Q>(
    mut service: S,
    limits: &RunLimits,
) -> CaughtReady<S, S::Response, S::Error>
where
    S: Service<Q>,
{
    let ready = async move {
        match Timeout::new(limits.pending, until_ready(&mut service)).await {
            Ok(Ok(_)) => Ok(service),
            Ok(Err(error)) => Err(Ok((Err(error), Instant::now()))),
            Err(_) => Err(Err(RunTimeElapsed)),
        }
    };
    CatchPanic::new(ready).await
}

/// Calls a ready service.
pub(super) async fn call<S, Q>(
    mut service: S,
    request: Box<Q>,
    limits: &RunLimits,
) -> CaughtCall<S::Response, S::Error>
where
    S: Service<Q>,
{
    let latest = Instant::now() + limits.running;
    let call = pin!(async {
        match Timeout::new(limits.running, service.call(*request)).await {
            Ok(called) => Ok((called, latest)),
            Err(_) => Err(RunTimeElapsed),
        }
    });
    CatchPanic::new(call).await
}

/// Returns the result of a call whose service did not become ready.
pub(super) fn not_called<S, P, E>(ready: CaughtReady<S, P, E>) -> CaughtCall<P, E> {
    match ready {
        Ok(Ok(_)) => Ok(Err(RunTimeElapsed)),
        Ok(Err(call)) => Ok(call),
        Err(panicked) => Err(panicked),
    }
}

/// Returns the direct answer of a call.
pub(super) fn answer<P, E>(called: CaughtCall<P, E>) -> RaceEnd<P, E> {
    match called {
        Ok(Ok((answer, _))) => RaceEnd::Answered(answer),
        Ok(Err(RunTimeElapsed)) => RaceEnd::Failed(FailureKind::TimedOut),
        Err(Panicked(payload)) => RaceEnd::Panicked(payload),
    }
}

/// Returns the outcome of a call that is an operation. Collects its response.
pub(super) async fn outcome_of_call<C, E, R>(
    called: CaughtCall<Response<C>, E>,
    node: &Runtime<R>,
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
    let collected = pin!(collect(response, node.recording(work, limits, base)));
    match CatchPanic::new(Timeout::until(latest, collected)).await {
        Ok(Ok(Ok(response))) => outcome_of(&work.id, response),
        Ok(Ok(Err(outcome))) => outcome,
        Ok(Err(_)) => Outcome::failed(work.failure_when_overdue()),
        Err(panicked) => {
            panicked.of_handler(&work.id);
            Outcome::failed(FailureKind::Panicked)
        }
    }
}
