use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Response, StatusCode, header::CONTENT_LENGTH};
use http_body::Body;

use super::PollBody;
use crate::operation::BufferedBody;

/// The future of [`PollService`](super::PollService). It is ready at once, unless the store
/// has to be awaited or the poll is held.
#[must_use = "futures do nothing unless polled"]
pub struct PollFuture {
    state: PollState,
    is_head: bool,
}

enum PollState {
    Ready(Option<Response<BufferedBody>>),
    Waiting(Pin<Box<dyn Future<Output = Response<PollBody>> + Send>>),
}

impl PollFuture {
    // Inlined, so that the response is built at the call site and not moved.
    #[inline]
    pub(super) fn ready(is_head: bool, response: Response<BufferedBody>) -> Self {
        Self {
            state: PollState::Ready(Some(response)),
            is_head,
        }
    }

    pub(super) fn waiting(
        is_head: bool,
        response: impl Future<Output = Response<PollBody>> + Send + 'static,
    ) -> Self {
        Self {
            state: PollState::Waiting(Box::pin(response)),
            is_head,
        }
    }
}

impl Future for PollFuture {
    type Output = Result<Response<PollBody>, Infallible>;

    /// # Panics
    /// Panics when polled after completion.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match &mut self.state {
            PollState::Ready(response) => response
                .take()
                .expect("polled after completion")
                .map(PollBody::from),
            PollState::Waiting(response) => std::task::ready!(response.as_mut().poll(context)),
        };
        Poll::Ready(Ok(match self.is_head {
            true => without_body(response),
            false => response,
        }))
    }
}

/// Returns the answer to `HEAD`: the fields of the `GET`, `Content-Length` included (RFC
/// 9110, section 9.3.2).
fn without_body(mut response: Response<PollBody>) -> Response<PollBody> {
    // Responses with these statuses have no content, and so no length (section 8.6).
    let has_none = matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    let length = response.body().size_hint().exact();
    if let Some(length) = length.filter(|_| !has_none) {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response.map(|_| BufferedBody::default().into())
}

impl fmt::Debug for PollFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollFuture").finish_non_exhaustive()
    }
}
