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
use tokio::time::Instant;
use tower_service::Service;

use super::{
    RequestBody, ResponseBody,
    collect::{CollectBody, CollectError},
    drain_over::DrainOver,
    going::{AcceptResponse, Going, Gone},
    hand_over::Arriving,
    inner::Inner,
    mode::{AppliedPreferences, ReplyKind},
    refuse::{DrainRefusal, discard_after},
};
use crate::{
    BoxError,
    call::Oneshot,
    operation::{BufferedBody, RecordedResponse},
    run::PassThrough,
    store::Lease,
};

pin_project! {
    /// The future of [`AsyncAccept`](super::AsyncAccept).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, R, B>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        #[pin]
        state: AcceptState<S, R, B>,
        preferred: AppliedPreferences,
        // The arrival of the request; `None` if the response does not depend on the time.
        begun: Option<Instant>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum AcceptState<S, R, B>
    where
        S: Service<Request<RequestBody<B>>>,
        {
        Passing {
            #[pin]
            response: Oneshot<S, Request<RequestBody<B>>>,
            passing: Option<PassThrough>,
            refusing: Option<DrainRefusal>,
            over: DrainOver,
        },
        Collecting { collecting: Option<(CollectBody<B>, Arriving<S, R>)>, over: DrainOver },
        Going { going: Option<Going<S::Response, S::Error>> },
    }
}

impl<S, R, B> ResponseFuture<S, R, B>
where
    S: Service<Request<RequestBody<B>>>,
{
    /// Passes a request on. With `refusing` the request is refused once the time of a drain
    /// is over.
    pub(super) fn passing(
        response: Oneshot<S, Request<RequestBody<B>>>,
        passing: Option<PassThrough>,
        refusing: Option<DrainRefusal>,
    ) -> Self {
        AcceptState::Passing {
            response,
            passing,
            refusing,
            over: DrainOver::default(),
        }
        .into()
    }

    /// Collects the body first.
    pub(super) fn collecting(body: CollectBody<B>, arriving: Arriving<S, R>) -> Self {
        AcceptState::Collecting {
            collecting: Some((body, arriving)),
            over: DrainOver::default(),
        }
        .into()
    }

    pub(super) fn going(going: Going<S::Response, S::Error>) -> Self {
        AcceptState::Going { going: Some(going) }.into()
    }

    pub(super) fn refused(response: Response<BufferedBody>) -> Self {
        Self::going(Going::Answer {
            response,
            reply: ReplyKind::Refused,
        })
    }

    /// Sets the preferences that the response reports as applied.
    pub(super) fn set_preferred(&mut self, preferred: AppliedPreferences) {
        self.preferred = preferred;
        self.begun = preferred.has_wait().then(Instant::now);
    }
}

impl<S, R, B> From<AcceptState<S, R, B>> for ResponseFuture<S, R, B>
where
    S: Service<Request<RequestBody<B>>>,
{
    fn from(state: AcceptState<S, R, B>) -> Self {
        Self {
            state,
            preferred: AppliedPreferences::default(),
            begun: None,
        }
    }
}

impl<S, R, B, C> Future for ResponseFuture<S, R, B>
where
    S: Service<Request<RequestBody<B>>, Response = Response<C>> + Send + 'static,
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
        let (answer, reply) = ready!(this.state.poll_answer(context));
        Poll::Ready(answer.map(|mut response| {
            let ago = this.begun.map(|begun| begun.elapsed()).unwrap_or_default();
            this.preferred.mark(response.headers_mut(), reply, ago);
            response
        }))
    }
}

impl<S, R, B> AcceptState<S, R, B>
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
                StateProjection::Passing {
                    response,
                    passing,
                    refusing,
                    over,
                } => {
                    let Poll::Ready(response) = response.poll(context) else {
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
                        self.set(Self::Going { going: None });
                        let answer = Ok(refusing.response().map(ResponseBody::whole));
                        return Poll::Ready((answer, ReplyKind::Refused));
                    };
                    let passing = passing.take();
                    if let Some(passing) = &passing {
                        passing.in_flight().answered();
                    }
                    let is_acceptable = refusing.take().is_some_and(|it| it.is_acceptable);
                    let ends = |it: &Response<C>| is_acceptable || has_known_length(it);
                    let passing = passing.filter(|_| response.as_ref().is_ok_and(ends));
                    let answer =
                        response.map(|it| it.map(|body| ResponseBody::passing_as(body, passing)));
                    return Poll::Ready((answer, ReplyKind::Direct));
                }
                StateProjection::Collecting { collecting, over } => {
                    let (body, arriving) = collecting.as_mut().expect("polled after completion");
                    let collected = match body.poll(context) {
                        Poll::Ready(collected) => collected,
                        Poll::Pending => {
                            let in_flight = &arriving.node.in_flight;
                            ready!(over.poll(in_flight, context));
                            in_flight.refused();
                            Err(CollectError::SHUT_DOWN)
                        }
                    };
                    let (rest, arriving) = collecting.take().expect("the body was checked above");
                    match collected {
                        Ok(body) => arriving.go_on(body),
                        Err(CollectError { refusal, unread }) => {
                            let version = arriving.request.parts.version;
                            let mut response = refusal.response(&arriving.policy, version, unread);
                            if unread {
                                discard_after(version, &mut response, rest.into_rest());
                            }
                            Going::Answer {
                                response,
                                reply: ReplyKind::Refused,
                            }
                        }
                    }
                }
                StateProjection::Going { going } => {
                    let now = going.as_mut().expect("polled after completion");
                    match ready!(now.poll(context)) {
                        Gone::On(next) => {
                            *going = None;
                            next
                        }
                        Gone::Answered(answer, reply) => {
                            *going = None;
                            return Poll::Ready((answer, reply));
                        }
                    }
                }
            };
            // An answer that is already complete is returned without becoming a state of the
            // future.
            if let Going::Answer { response, reply } = next {
                return Poll::Ready((Ok(response.map(ResponseBody::whole)), reply));
            }
            self.set(Self::Going { going: Some(next) });
        }
    }
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
