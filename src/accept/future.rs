use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, header::CONTENT_LENGTH};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::{sync::oneshot, time::Instant};
use tower_service::Service;

use super::{
    RequestBody, ResponseBody,
    arrival::Arrival,
    drain_over::DrainOver,
    inner::Inner,
    mode::{AppliedPreferences, ReplyKind},
    race::RacedCall,
    refuse::{DrainRefusal, Refusal},
    request_body::{CollectBody, CollectError},
    responder::AcceptResponder,
    submission::AcceptResult,
};
use crate::{
    BoxError,
    operation::{BufferedBody, RecordedResponse},
    run::PassThrough,
    store::Lease,
    tower_util::Oneshot,
};

pin_project! {
    /// The future of [`AsyncAccept`](super::AsyncAccept).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, R, B>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        #[pin]
        step: AcceptStep<S, R, B>,
        preferred: AppliedPreferences,
        // The arrival of the request; `None` if the response does not depend on the time.
        begun: Option<Instant>,
    }
}

pin_project! {
    /// The step that a request has reached.
    #[project = StepProjection]
    pub(super) enum AcceptStep<S, R, B>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        // The request passes through. With `refusing` it is refused once the time of a drain is
        // over.
        Passing {
            #[pin]
            response: Oneshot<S, Request<RequestBody<B>>>,
            passing: Option<PassThrough>,
            refusing: Option<DrainRefusal>,
            over: DrainOver,
        },
        // The body is collected.
        Collecting { collecting: Option<(CollectBody<B>, Arrival<S, R>)>, over: DrainOver },
        // The key is looked up.
        Reserving { reserving: Pin<Box<dyn Future<Output = AcceptStep<S, R, B>> + Send>> },
        // The operation is created in a task, even if the client disconnects.
        Creating { created: oneshot::Receiver<AcceptResult>, responder: AcceptResponder },
        // The call races with its acceptance.
        Racing { race: RacedCall<S::Response, S::Error> },
        // The response is complete; `None` once it was returned.
        Ready { response: Option<Response<BufferedBody>>, reply: ReplyKind },
    }
}

/// The response to a client, or the error of a request that passed through.
pub(super) type AcceptResponse<C, E> = Result<Response<ResponseBody<C>>, E>;

impl<S, R, B> AcceptStep<S, R, B>
where
    S: Service<Request<RequestBody<B>>>,
{
    pub(super) fn refused(response: Response<BufferedBody>) -> Self {
        (response, ReplyKind::Refused).into()
    }
}

impl<S, R, B> From<(Response<BufferedBody>, ReplyKind)> for AcceptStep<S, R, B>
where
    S: Service<Request<RequestBody<B>>>,
{
    fn from((response, reply): (Response<BufferedBody>, ReplyKind)) -> Self {
        let response = Some(response);
        Self::Ready { response, reply }
    }
}

impl<S, R, B> ResponseFuture<S, R, B>
where
    S: Service<Request<RequestBody<B>>>,
{
    /// Returns a future at this step, whose response reports the preferences as applied.
    pub(super) fn new(step: AcceptStep<S, R, B>, preferred: AppliedPreferences) -> Self {
        Self {
            step,
            preferred,
            begun: preferred.has_wait().then(Instant::now),
        }
    }
}

impl<S, R, B, C> Future for ResponseFuture<S, R, B>
where
    S: Service<Request<RequestBody<B>>, Response = Response<C>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    C: Body<Data = Bytes> + Send + 'static,
    C::Error: Into<BoxError> + Send,
    R: Lease<Output = RecordedResponse>,
{
    type Output = Result<Response<ResponseBody<C>>, S::Error>;

    /// # Panics
    /// Panics when polled after completion. A panic of the inner service is propagated if it
    /// occurs before the request was accepted.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (answer, reply) = ready!(this.step.poll_answer(context));
        Poll::Ready(answer.map(|mut response| {
            let ago = this.begun.map(|begun| begun.elapsed()).unwrap_or_default();
            this.preferred.mark(response.headers_mut(), reply, ago);
            response
        }))
    }
}

impl<S, R, B> AcceptStep<S, R, B>
where
    S: Service<Request<RequestBody<B>>>,
{
    fn poll_answer<C>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<(AcceptResponse<C, S::Error>, ReplyKind)>
    where
        S: Inner<B, Body = C>,
        C: Body,
        B: Body<Data = Bytes> + Send + 'static,
        R: Lease<Output = RecordedResponse>,
    {
        loop {
            let next = match self.as_mut().project() {
                StepProjection::Passing {
                    response,
                    passing,
                    refusing,
                    over,
                } => match response.poll(context) {
                    Poll::Ready(response) => {
                        let is_acceptable = refusing.take().is_some_and(|it| it.is_acceptable);
                        let answer = passed(response, passing.take(), is_acceptable);
                        return Poll::Ready((answer, ReplyKind::Direct));
                    }
                    Poll::Pending => {
                        if let Some(refusing) = refusing {
                            ready!(over.poll(&refusing.in_flight, context));
                        }
                        let Some(refusing) = refusing.take() else {
                            return Poll::Pending;
                        };
                        // Until the request is refused.
                        let passing = passing.take();
                        if let Some(passing) = &passing {
                            passing.in_flight().refused();
                        }
                        // Drops the call, which returns the unread rest of its body.
                        self.set(Self::Ready {
                            response: None,
                            reply: ReplyKind::Refused,
                        });
                        let answer = Ok(refusing.response().map(ResponseBody::whole));
                        return Poll::Ready((answer, ReplyKind::Refused));
                    }
                },
                StepProjection::Collecting { collecting, over } => {
                    let (body, arrival) = collecting.as_mut().expect("polled after completion");
                    let collected = match body.poll(context, || arrival.no_body_bytes()) {
                        Poll::Ready(collected) => collected,
                        Poll::Pending => {
                            let in_flight = &arrival.node.in_flight;
                            ready!(over.poll(in_flight, context));
                            in_flight.refused();
                            Err(CollectError::SHUT_DOWN)
                        }
                    };
                    let (rest, arrival) = collecting.take().expect("the body was checked above");
                    match collected {
                        Ok(body) => arrival.proceed(body),
                        Err(error) => Self::refused(arrival.refuse_body(error, rest)),
                    }
                }
                StepProjection::Reserving { reserving } => ready!(reserving.as_mut().poll(context)),
                StepProjection::Creating { created, responder } => {
                    let result = ready!(Pin::new(created).poll(context));
                    // Without a result the task is gone: the runtime is shutting down.
                    let result = result.unwrap_or(Err(Refusal::Unavailable));
                    responder.answer(&result).into()
                }
                StepProjection::Racing { race } => {
                    return race.poll(context);
                }
                StepProjection::Ready { response, reply } => {
                    let response = response.take().expect("polled after completion");
                    return Poll::Ready((Ok(response.map(ResponseBody::whole)), *reply));
                }
            };
            // A response that is already complete is returned without becoming a step.
            if let Self::Ready {
                response: Some(response),
                reply,
            } = next
            {
                return Poll::Ready((Ok(response.map(ResponseBody::whole)), reply));
            }
            self.set(next);
        }
    }
}

/// Returns the answer of a request that passed through, which a drain waits for.
fn passed<C: Body, E>(
    response: Result<Response<C>, E>,
    passing: Option<PassThrough>,
    is_acceptable: bool,
) -> AcceptResponse<C, E> {
    if let Some(passing) = &passing {
        passing.in_flight().answered();
    }
    let ends = |it: &Response<C>| is_acceptable || has_known_length(it);
    let passing = passing.filter(|_| response.as_ref().is_ok_and(ends));
    response.map(|it| it.map(|body| ResponseBody::passing_as(body, passing)))
}

/// Returns whether the length of a response is known. Without a known length the response
/// may be a stream of events, for example, that ends when its client disconnects.
fn has_known_length<C: Body>(response: &Response<C>) -> bool {
    response.body().size_hint().exact().is_some() || response.headers().contains_key(CONTENT_LENGTH)
}

impl<S, R, B> fmt::Debug for ResponseFuture<S, R, B>
where
    S: Service<Request<RequestBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
