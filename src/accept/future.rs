use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{BoxError, Service, util::Oneshot};

use super::{
    RequestBody, ResponseBody,
    collect::CollectBody,
    hand_over::{Arriving, Creating},
    refuse::{Refusal, discard_after},
};
use crate::{
    dialect::{Context as DialectContext, whole_seconds},
    operation::{RecordedResponse, WholeBody},
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
        state: State<S, R, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, R, B>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        Passing { #[pin] response: Oneshot<S, Request<RequestBody<B>>> },
        Collecting { collecting: Option<(CollectBody<B>, Arriving<S, R>)> },
        Creating { creating: Creating },
        Ready { response: Option<Response<WholeBody>> },
    }
}

impl<S, R, B> ResponseFuture<S, R, B>
where
    S: Service<Request<RequestBody<B>>>,
{
    pub(super) fn passing(response: Oneshot<S, Request<RequestBody<B>>>) -> Self {
        Self {
            state: State::Passing { response },
        }
    }

    pub(super) fn collecting(body: CollectBody<B>, arriving: Arriving<S, R>) -> Self {
        Self {
            state: State::Collecting {
                collecting: Some((body, arriving)),
            },
        }
    }

    pub(super) fn ready(response: Response<WholeBody>) -> Self {
        Self {
            state: State::Ready {
                response: Some(response),
            },
        }
    }
}

impl<S, R, B, C> Future for ResponseFuture<S, R, B>
where
    S: Service<Request<RequestBody<B>>, Response = Response<C>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    C: Body<Data = Bytes> + Send,
    C::Error: Into<BoxError> + Send,
    R: Lease<Output = RecordedResponse>,
{
    type Output = Result<Response<ResponseBody<C>>, S::Error>;

    /// # Panics
    /// When polled after it was ready, as futures may.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Passing { response } => {
                    return response
                        .poll(context)
                        .map_ok(|response| response.map(ResponseBody::passing));
                }
                StateProjection::Collecting { collecting } => {
                    let (body, _) = collecting.as_mut().expect("polled after it was ready");
                    let collected = ready!(body.poll(context));
                    let (rest, arriving) = collecting.take().expect("it was there a line ago");
                    match collected {
                        Ok(body) => State::Creating {
                            creating: arriving.hand_over(body),
                        },
                        Err(refused) => {
                            let version = arriving.parts.version;
                            let mut response =
                                refused
                                    .refusal
                                    .response(&arriving.policy, version, refused.unread);
                            if refused.unread {
                                discard_after(version, &mut response, rest.into_rest());
                            }
                            State::Ready {
                                response: Some(response),
                            }
                        }
                    }
                }
                StateProjection::Creating { creating } => {
                    let created = ready!(Pin::new(&mut creating.created).poll(context));
                    let response = creating.answer(created.unwrap_or(Err(Refusal::Unavailable)));
                    State::Ready {
                        response: Some(response),
                    }
                }
                StateProjection::Ready { response } => {
                    let response = response.take().expect("polled after it was ready");
                    return Poll::Ready(Ok(response.map(ResponseBody::whole)));
                }
            };
            state.set(next);
        }
    }
}

impl Creating {
    fn answer(
        &self,
        created: Result<std::sync::Arc<crate::store::Record<RecordedResponse>>, Refusal>,
    ) -> Response<WholeBody> {
        let policy = &self.policy;
        match created {
            Ok(record) => {
                let mut context = DialectContext::new(&self.urls, &policy.replay);
                context.retry_after = Some(whole_seconds(
                    policy.retry_after.retry_after(Duration::ZERO),
                ));
                policy
                    .dialect
                    .accepted(&record.operation().view(), &context)
            }
            Err(refusal) => refusal.response(policy, self.version, false),
        }
    }
}

impl<S, R, B> fmt::Debug for ResponseFuture<S, R, B>
where
    S: Service<Request<RequestBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
