use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{BoxError, operation::BufferedBody, results::StoredBody};

/// The body of an answer: buffered, an event stream, or a long result that is streamed from its
/// store.
///
/// A stream ends with an error if the result store fails, or has another result than was
/// recorded. The connection is then broken off.
#[derive(Debug)]
pub struct PollBody(PollBodyKind);

enum PollBodyKind {
    Whole(BufferedBody),
    Events(NextEvent),
    Stored(Box<StoredBody>),
}

/// The next chunk of an event stream, with the rest of the stream.
pub(super) type NextEvent = Pin<Box<dyn Future<Output = Option<(Bytes, EventStreamState)>> + Send>>;

/// The rest of an event stream.
pub(super) struct EventStreamState(pub(super) Box<dyn FnOnce() -> NextEvent + Send>);

impl PollBody {
    pub(super) fn events(next: NextEvent) -> Self {
        Self(PollBodyKind::Events(next))
    }

    pub(super) fn stored(body: StoredBody) -> Self {
        Self(PollBodyKind::Stored(Box::new(body)))
    }

    /// Returns the whole body; `None` for a stream.
    #[must_use]
    pub fn as_whole(&self) -> Option<&BufferedBody> {
        match &self.0 {
            PollBodyKind::Whole(body) => Some(body),
            PollBodyKind::Events(_) | PollBodyKind::Stored(_) => None,
        }
    }
}

impl From<BufferedBody> for PollBody {
    fn from(body: BufferedBody) -> Self {
        Self(PollBodyKind::Whole(body))
    }
}

impl Body for PollBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            PollBodyKind::Whole(body) => Poll::Ready(body.next_frame().map(Ok)),
            PollBodyKind::Stored(body) => body.poll_frame(context),
            PollBodyKind::Events(next) => match ready!(next.as_mut().poll(context)) {
                Some((event, EventStreamState(rest))) => {
                    *next = rest();
                    Poll::Ready(Some(Ok(Frame::data(event))))
                }
                None => {
                    self.0 = PollBodyKind::Whole(BufferedBody::default());
                    Poll::Ready(None)
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            PollBodyKind::Whole(body) => body.is_end_stream(),
            PollBodyKind::Events(_) => false,
            PollBodyKind::Stored(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            PollBodyKind::Whole(body) => body.size_hint(),
            PollBodyKind::Events(_) => SizeHint::new(),
            PollBodyKind::Stored(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for PollBodyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(body) => body.fmt(f),
            Self::Events(_) => f.write_str("Events"),
            Self::Stored(body) => body.fmt(f),
        }
    }
}
