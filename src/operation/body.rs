use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// A complete body in memory: bytes, and trailers if there are any.
#[derive(Debug, Clone, Default)]
pub struct BufferedBody {
    data: Bytes,
    trailers: Option<Box<HeaderMap>>,
}

impl BufferedBody {
    /// Creates a body of `data`, followed by `trailers` (RFC 9110, section 6.5).
    #[must_use]
    pub fn new(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self {
            data,
            trailers: trailers.filter(|map| !map.is_empty()).map(Box::new),
        }
    }

    /// Returns the bytes that have not been read yet.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Returns the trailers that have not been read yet.
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }

    /// Returns the bytes and the trailers.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, Option<HeaderMap>) {
        (self.data, self.trailers.map(|map| *map))
    }

    /// Returns the next frame like [`Body::poll_frame`], without a waker, since no frame has to
    /// be awaited.
    pub(crate) fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        if self.data.is_empty() {
            self.trailers.take().map(|map| Frame::trailers(*map))
        } else {
            Some(Frame::data(std::mem::take(&mut self.data)))
        }
    }
}

impl<D: Into<Bytes>> From<D> for BufferedBody {
    fn from(data: D) -> Self {
        Self {
            data: data.into(),
            trailers: None,
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
        self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.data.len() as u64;
        if self.trailers.is_none() {
            return SizeHint::with_exact(length);
        }
        // An exact size makes HTTP/1.1 servers send a Content-Length, which excludes
        // trailers (RFC 9112, section 7.1.2).
        let mut hint = SizeHint::new();
        hint.set_lower(length);
        hint
    }
}
