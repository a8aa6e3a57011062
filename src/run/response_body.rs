//! Collecting a response body.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    failures::inner_error,
    in_flight::{ByteBudget, ResultBytes},
};
use crate::{
    BoxError,
    operation::{BodyCollector, BufferedBody, FailureKind, OperationId, Outcome, RecordedResponse},
};

pin_project! {
    /// The future of [`collect`]. An `async` function would store the response twice, whole and
    /// in parts, while the body is collected.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Collect<'a, B> {
        id: &'a OperationId,
        head: Response<()>,
        #[pin]
        body: B,
        collecting: BodyCollector,
        // The bytes of a result are counted and never refused.
        counted: ResultBytes<'a>,
        limit: u64,
    }
}

/// Collects a response, whose bytes count in `budget`. Returns the outcome if the body is above
/// the limit or breaks off. `id` is the id of the operation.
pub(crate) fn collect<'a, B>(
    id: &'a OperationId,
    response: Response<B>,
    limit: u64,
    budget: &'a ByteBudget,
) -> Collect<'a, B> {
    let (parts, body) = response.into_parts();
    Collect {
        id,
        head: Response::from_parts(parts, ()),
        body,
        collecting: BodyCollector::up_to(limit),
        counted: budget.result_bytes(0),
        limit,
    }
}

impl<B> Future for Collect<'_, B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<BufferedBody>, Outcome<RecordedResponse>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.body.size_hint().lower() > *this.limit {
            return Poll::Ready(Err(too_large(this.id, *this.limit)));
        }
        while let Some(frame) = ready!(this.body.as_mut().poll_frame(context)) {
            let collected = match frame {
                Ok(frame) => {
                    this.counted.add(frame.data_ref().map_or(0, Bytes::len));
                    this.collecting.push(frame)
                }
                Err(error) => return Poll::Ready(Err(inner_error(this.id, &error.into()))),
            };
            if collected.is_err() {
                return Poll::Ready(Err(too_large(this.id, *this.limit)));
            }
        }
        crash_point!("collected");
        let head = std::mem::take(this.head);
        Poll::Ready(Ok(head.map(|()| this.collecting.finish())))
    }
}

fn too_large(id: &OperationId, limit: u64) -> Outcome<RecordedResponse> {
    tracing::error!(%id, limit, "response above the limit, not recorded");
    Outcome::failed(FailureKind::ResultTooLarge)
}
