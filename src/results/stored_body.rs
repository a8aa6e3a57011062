//! The body of a result that a result store has, as a client reads it.

use std::{
    fmt,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream as _;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use sha2::{Digest, Sha256};

use super::{ResultChunks, ResultKey};
use crate::{BoxError, operation::BodyDigest};

/// A body that is read chunk by chunk, as fast as the client takes it. Dropping it ends the read.
///
/// The last chunk is held back until the length, and the digest of a whole body, have proved to be
/// right: a client never takes a damaged body for a complete one.
pub(crate) struct StoredBody {
    key: ResultKey,
    chunks: Option<ResultChunks>,
    /// The last chunk that was read.
    held_back: Bytes,
    /// The number of bytes that are still to be read.
    left: u64,
    /// The digest so far and the expected one; `None` for a part of a body.
    digest: Option<(Sha256, BodyDigest)>,
    trailers: Option<HeaderMap>,
}

impl StoredBody {
    /// Returns the whole body of this length and digest, with its trailers.
    pub(crate) fn whole(
        key: ResultKey,
        chunks: Option<ResultChunks>,
        length: u64,
        digest: BodyDigest,
        trailers: Option<HeaderMap>,
    ) -> Self {
        Self {
            key,
            chunks,
            held_back: Bytes::new(),
            left: length,
            digest: Some((Sha256::new(), digest)),
            trailers,
        }
    }

    /// Returns a part of a body.
    pub(crate) fn part(key: ResultKey, chunks: Option<ResultChunks>, range: Range<u64>) -> Self {
        Self {
            key,
            chunks,
            held_back: Bytes::new(),
            left: range.end - range.start,
            digest: None,
            trailers: None,
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(chunks) = &mut self.chunks else {
            return Poll::Ready(self.trailers.take().map(|it| Ok(Frame::trailers(it))));
        };
        loop {
            match ready!(Pin::new(&mut *chunks).poll_next(context)) {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => {
                    let Some(left) = self.left.checked_sub(chunk.len() as u64) else {
                        return self.fail("stored result longer than recorded".into());
                    };
                    self.left = left;
                    if let Some((digest, _)) = &mut self.digest {
                        digest.update(&chunk);
                    }
                    let before = std::mem::replace(&mut self.held_back, chunk);
                    if !before.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(before))));
                    }
                }
                Some(Err(error)) => return self.fail(error.into()),
                None => break,
            }
        }
        if self.left > 0 {
            return self.fail("stored result shorter than recorded".into());
        }
        if let Some((digest, expected)) = self.digest.take()
            && BodyDigest(digest.finalize().into()) != expected
        {
            return self.fail("stored result with another digest than recorded".into());
        }
        self.chunks = None;
        let last = std::mem::take(&mut self.held_back);
        match last.is_empty() {
            true => Poll::Ready(self.trailers.take().map(|it| Ok(Frame::trailers(it)))),
            false => Poll::Ready(Some(Ok(Frame::data(last)))),
        }
    }

    /// Ends the body with an error, which breaks the connection off.
    fn fail(&mut self, error: BoxError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let id = &self.key.id;
        tracing::error!(%id, error = &*error as &dyn std::error::Error, "result not read to its end");
        (self.chunks, self.trailers, self.left) = (None, None, 0);
        self.held_back = Bytes::new();
        Poll::Ready(Some(Err(error)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.chunks.is_none() && self.trailers.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.trailers {
            // With a length there would be no trailers in HTTP/1.1.
            Some(_) => SizeHint::new(),
            None => SizeHint::with_exact(self.left + self.held_back.len() as u64),
        }
    }
}

impl fmt::Debug for StoredBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredBody")
            .field("key", &self.key)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
