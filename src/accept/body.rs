use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::lent_body::{LentBody, RemainingBody};
use crate::{operation::BufferedBody, run::PassThrough};

pin_project! {
    /// A body that passes through unchanged, or a buffered body.
    ///
    /// The inner service gets its request bodies in this type. Bodies of requests that pass
    /// through are streamed, bodies of accepted requests are buffered.
    #[derive(Debug)]
    pub struct MaybeBuffered<B> {
        #[pin]
        kind: BodyKind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    #[derive(Debug)]
    enum BodyKind<B> {
        Passing { #[pin] body: B, until_its_end: Option<PassThrough> },
        Lent { body: LentBody<B> },
        Whole { body: BufferedBody },
    }
}

/// The body of a request behind the layer.
pub type RequestBody<B> = MaybeBuffered<B>;

/// The body of a response of the layer.
pub type ResponseBody<B> = MaybeBuffered<B>;

impl<B> MaybeBuffered<B> {
    /// Wraps a body that passes through.
    #[must_use]
    pub fn passing(body: B) -> Self {
        Self {
            kind: BodyKind::Passing {
                body,
                until_its_end: None,
            },
        }
    }

    /// Wraps the body of a response that a drain waits for.
    pub(super) fn passing_as(body: B, passing: Option<PassThrough>) -> Self {
        Self {
            kind: BodyKind::Passing {
                body,
                until_its_end: passing,
            },
        }
    }

    /// Wraps a request body that passes through. Over HTTP/1 the connection cannot continue
    /// before the end of the body, so the unread rest is returned to `RemainingBody`.
    pub(super) fn lent(body: B, version: Version) -> (Self, RemainingBody)
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        if version > Version::HTTP_11 || body.is_end_stream() {
            return (Self::passing(body), RemainingBody::default());
        }
        let (body, rest) = RemainingBody::split(body);
        let kind = BodyKind::Lent { body };
        (Self { kind }, rest)
    }

    /// Wraps a buffered body.
    #[must_use]
    pub fn whole(body: BufferedBody) -> Self {
        Self {
            kind: BodyKind::Whole { body },
        }
    }
}

impl<B: Body<Data = Bytes>> Body for MaybeBuffered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProjection::Passing {
                body,
                until_its_end,
            } => {
                let frame = body.poll_frame(context);
                if let Poll::Ready(None) = &frame {
                    *until_its_end = None;
                }
                frame
            }
            KindProjection::Lent { body } => body.poll_frame(context),
            KindProjection::Whole { body } => Poll::Ready(body.next_frame().map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Passing { body, .. } => body.is_end_stream(),
            BodyKind::Lent { body } => body.is_end_stream(),
            BodyKind::Whole { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Passing { body, .. } => body.size_hint(),
            BodyKind::Lent { body } => body.size_hint(),
            BodyKind::Whole { body } => body.size_hint(),
        }
    }
}
