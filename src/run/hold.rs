//! A call that may still be answered directly: run first, accepted later, or
//! not at all.

use std::{any::Any, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tower::{BoxError, Service, ServiceExt};

use super::{
    Node, RunLimits,
    catch_panic::{CatchPanic, Panicked},
    gate::Returned,
    heartbeat,
    operate::{RunOutcome, collect, inner_error, leave, stoppable},
    record::record as record_outcome,
    work::Work,
};
use crate::{
    operation::{FailureKind, Outcome, RecordedResponse, WholeBody},
    store::{Lease, Record},
};

/// What a held call comes to, as far as its client is concerned.
pub(crate) enum Told<P, E> {
    /// It returned first.
    Answered(Result<P, E>),
    /// It returned first, and its answer is kept.
    Settled(Response<WholeBody>),
    /// It panicked first.
    Panicked(Box<dyn Any + Send>),
    /// It took longer than any run may.
    TimedOut,
    /// It is an operation now.
    Accepted(Arc<Record<RecordedResponse>>),
}

/// A call that is held.
pub(crate) struct Holding<S, Q, R> {
    pub(crate) node: Arc<Node<R>>,
    pub(crate) limits: RunLimits,
    pub(crate) work: Arc<Work>,
    pub(crate) service: S,
    pub(crate) request: Q,
    /// When the answer is too late to be one.
    pub(crate) deadline: Option<Duration>,
}

/// What the call came to, and until when its body may take.
type Call<P, E> = Result<(Result<P, E>, Instant), Late>;

type Called<P, E> = Result<Call<P, E>, Panicked>;

/// The call took longer than any run may.
struct Late;

impl<S, Q, C, R> Holding<S, Q, R>
where
    S: Service<Q, Response = Response<C>>,
    S::Error: Into<BoxError>,
    C: Body<Data = Bytes>,
    C::Error: Into<BoxError>,
    R: Lease<Output = RecordedResponse>,
{
    /// Runs the call, and creates the operation when that is asked for. Ends
    /// with an early answer, or with a recorded outcome after it has said that
    /// it was `accepted`. One and the same call all along.
    pub(crate) async fn run<F, D>(
        self,
        create: impl Fn() -> F,
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
            deadline,
        } = self;
        let gate = work.gate()?;
        let begun = Instant::now();
        let call = async {
            let service = match timeout(limits.pending, service.ready()).await {
                Ok(Ok(service)) => service,
                Ok(Err(error)) => return Ok((Err(error), Instant::now())),
                Err(_) => return Err(Late),
            };
            let latest = Instant::now() + limits.running;
            match timeout_at(latest, service.call(request)).await {
                Ok(called) => Ok((called, latest)),
                Err(_) => Err(Late),
            }
        };
        let mut call = std::pin::pin!(CatchPanic::new(call));
        let mut done: Option<Called<Response<C>, S::Error>> = None;
        let too_late = deadline.and_then(|deadline| begun.checked_add(deadline));
        let mut timer = std::pin::pin!(async {
            match too_late {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        });
        let mut timed = false;

        let record = loop {
            if done.is_some() {
                match gate.returned() {
                    Returned::Answer => return Some(answer(done.take())),
                    Returned::Nobody => return None,
                    Returned::Create => {}
                }
            } else {
                tokio::select! {
                    biased;
                    called = &mut call => {
                        done = Some(called);
                        continue;
                    }
                    () = gate.asked() => {}
                    () = &mut timer, if !timed => {
                        timed = true;
                        gate.ask();
                        continue;
                    }
                }
            }
            // The call goes on while its operation is created.
            let mut creating = std::pin::pin!(create());
            let created = loop {
                tokio::select! {
                    biased;
                    called = &mut call, if done.is_none() => done = Some(called),
                    created = &mut creating => break created,
                }
            };
            match created {
                Ok(record) => {
                    work.set_token(record.token());
                    gate.created(true);
                    break record;
                }
                Err(_) if gate.created(false) => {}
                Err(_) => return None,
            }
        };
        accepted(record);
        crash_point!("accepted");

        let Some(_entered) = node.in_flight.enter(Arc::clone(&work)) else {
            tracing::error!(id = %work.id, "it is running here already");
            return None;
        };
        heartbeat::ensure(&node);
        let run = async {
            let called = match done {
                Some(called) => called,
                None => call.await,
            };
            Ok(outcome_of(called, &limits).await)
        };
        let run = CatchPanic::new(stoppable(&node, &limits, &work, run));
        let outcome: RunOutcome = run.await.unwrap_or_else(|panicked| {
            panicked.forget();
            Ok(Outcome::failed(FailureKind::Panicked))
        });
        match outcome {
            // An error was logged where it happened.
            Ok(outcome) => drop(record_outcome(&node, &work, outcome).await),
            Err(nothing) => leave(&node, &work, nothing).await,
        }
        None
    }
}

fn answer<P, E>(done: Option<Called<P, E>>) -> Told<P, E> {
    match done {
        Some(Ok(Ok((answer, _)))) => Told::Answered(answer),
        Some(Err(Panicked(payload))) => Told::Panicked(payload),
        Some(Ok(Err(Late))) | None => Told::TimedOut,
    }
}

async fn outcome_of<C, E>(
    called: Called<Response<C>, E>,
    limits: &RunLimits,
) -> Outcome<RecordedResponse>
where
    C: Body<Data = Bytes>,
    C::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    let (response, latest) = match called {
        Ok(Ok((Ok(response), latest))) => (response, latest),
        Ok(Ok((Err(error), _))) => return inner_error(&error.into()),
        Ok(Err(Late)) => return Outcome::failed(FailureKind::TimedOut),
        Err(panicked) => {
            panicked.forget();
            return Outcome::failed(FailureKind::Panicked);
        }
    };
    let collected = timeout_at(latest, collect(response, limits.result));
    match CatchPanic::new(collected).await {
        Ok(Ok(Ok(response))) => RecordedResponse::new(response).into_outcome(),
        Ok(Ok(Err(outcome))) => outcome,
        Ok(Err(_)) => Outcome::failed(FailureKind::TimedOut),
        Err(panicked) => {
            panicked.forget();
            Outcome::failed(FailureKind::Panicked)
        }
    }
}
