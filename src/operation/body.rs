use std::{
    convert::Infallible,
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// A complete body in memory: bytes, and trailers if there are any.
#[derive(Debug, Clone, Default)]
pub struct BufferedBody {
    data: Bytes,
    /// The parts that few bodies have.
    rare: Option<Box<RareBody>>,
}

#[derive(Debug, Clone, Default)]
struct RareBody {
    trailers: Option<HeaderMap>,
    /// A value that is dropped once the bytes were read.
    guard: Option<Arc<dyn BodyGuard>>,
}

/// A value that a body keeps until its bytes were read.
pub(crate) trait BodyGuard:
    fmt::Debug + Send + Sync + UnwindSafe + RefUnwindSafe + 'static
{
}

impl BufferedBody {
    /// Creates a body of `data`, followed by `trailers` (RFC 9110, section 6.5).
    #[must_use]
    pub fn new(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        let trailers = trailers.filter(|map| !map.is_empty());
        let with_trailers = |trailers| {
            Box::new(RareBody {
                trailers: Some(trailers),
                guard: None,
            })
        };
        Self {
            data,
            rare: trailers.map(with_trailers),
        }
    }

    /// Keeps a value until the bytes were read, here and in each clone.
    pub(crate) fn with_guard(mut self, guard: Arc<dyn BodyGuard>) -> Self {
        self.rare.get_or_insert_default().guard = Some(guard);
        self
    }

    /// Returns the body with other bytes, and the same trailers and guard.
    pub(crate) fn with_data(self, data: Bytes) -> Self {
        Self { data, ..self }
    }

    /// Returns the bytes that have not been read yet.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Returns the trailers that have not been read yet.
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.rare.as_ref()?.trailers.as_ref()
    }

    /// Returns the bytes and the trailers.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, Option<HeaderMap>) {
        (self.data, self.rare.and_then(|rare| rare.trailers))
    }

    /// Returns the next frame like [`Body::poll_frame`], without a waker, since no frame has to
    /// be awaited.
    pub(crate) fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        if self.data.is_empty() {
            self.rare.take()?.trailers.map(Frame::trailers)
        } else {
            if let Some(rare) = &mut self.rare {
                rare.guard = None;
            }
            Some(Frame::data(std::mem::take(&mut self.data)))
        }
    }
}

impl<D: Into<Bytes>> From<D> for BufferedBody {
    fn from(data: D) -> Self {
        Self {
            data: data.into(),
            rare: None,
        }
    }
}

impl Body for BufferedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next_frame().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.data.len() as u64;
        if self.trailers().is_none() {
            return SizeHint::with_exact(length);
        }
        // An exact size makes HTTP/1.1 servers send a Content-Length, which excludes
        // trailers (RFC 9112, section 7.1.2).
        let mut hint = SizeHint::new();
        hint.set_lower(length);
        hint
    }
}
