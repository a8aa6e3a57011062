//! The download of a part of an encrypted body.

use std::{
    future::poll_fn,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_core::Stream;

use super::{CHUNK, ChunkContext, DataKey, header::HEADER};
use crate::{
    results::{ResultChunks, ResultKey},
    store::{StoreError, StoreResult},
};

/// Reads a number of bytes at a time from chunks of any length.
pub(super) struct ByteReader {
    chunks: ResultChunks,
    /// The rest of the last chunk.
    rest: Bytes,
}

impl ByteReader {
    pub(super) fn new(chunks: ResultChunks) -> Self {
        Self {
            chunks,
            rest: Bytes::new(),
        }
    }

    /// Appends bytes to `buffer` until it has `length` or the stream has ended.
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        length: usize,
    ) -> Poll<StoreResult<()>> {
        while buffer.len() < length {
            if self.rest.is_empty() {
                match ready!(self.chunks.as_mut().poll_next(context)) {
                    Some(chunk) => self.rest = chunk?,
                    None => break,
                }
            }
            let count = self.rest.len().min(length - buffer.len());
            buffer.extend_from_slice(&self.rest[..count]);
            self.rest.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a header, or as much as there is.
    pub(super) async fn header(&mut self) -> StoreResult<Vec<u8>> {
        let mut header = Vec::with_capacity(HEADER);
        poll_fn(|context| self.poll_fill(context, &mut header, HEADER)).await?;
        Ok(header)
    }
}

/// The chunks that have a range of the plain bytes.
pub(super) struct ChunkSpan {
    /// The index of the first chunk.
    first: u64,
    /// The index after the last chunk.
    end: u64,
    /// The number of plain bytes of the first chunk before the range.
    skip: usize,
    /// The number of plain bytes of the range.
    length: u64,
}

impl ChunkSpan {
    pub(super) fn new(range: &Range<u64>) -> Self {
        let length = range.end.saturating_sub(range.start);
        Self {
            first: range.start / CHUNK as u64,
            end: range.end.div_ceil(CHUNK as u64),
            skip: (range.start % CHUNK as u64) as usize,
            length,
        }
    }

    /// Returns whether the chunks follow the header.
    pub(super) fn is_first(&self) -> bool {
        self.first == 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the places of the sealed chunks in the upload. The last chunk of an upload is shorter,
    /// so the range may reach past the end.
    pub(super) fn sealed<K: DataKey>(&self) -> Range<u64> {
        let length = (CHUNK + K::OVERHEAD) as u64;
        let place = |index: u64| index.saturating_mul(length).saturating_add(HEADER as u64);
        place(self.first)..place(self.end)
    }
}

/// The plain bytes of a range. One chunk is in memory.
pub(super) struct DecryptedChunks<K> {
    sealed: ByteReader,
    upload: ResultKey,
    key: K,
    /// The begin of the next chunk, sealed.
    chunk: Vec<u8>,
    span: ChunkSpan,
}

impl<K> DecryptedChunks<K> {
    pub(super) fn new(sealed: ByteReader, upload: ResultKey, key: K, span: ChunkSpan) -> Self {
        Self {
            sealed,
            upload,
            key,
            chunk: Vec::new(),
            span,
        }
    }
}

impl<K: DataKey> DecryptedChunks<K> {
    /// Returns the bytes of the range in the next chunk.
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<StoreResult<Bytes>> {
        let full = CHUNK + K::OVERHEAD;
        self.chunk.reserve_exact(full - self.chunk.len());
        ready!(self.sealed.poll_fill(context, &mut self.chunk, full))?;
        let mut chunk = std::mem::take(&mut self.chunk);
        let is_last = chunk.len() < full;
        let Some(length) = chunk.len().checked_sub(K::OVERHEAD) else {
            return Poll::Ready(Err(StoreError::refused("the encrypted result is cut")));
        };
        let place = ChunkContext::new(&self.upload, self.span.first, is_last);
        self.key.open(&place, &mut chunk)?;
        if chunk.len() != length {
            return Poll::Ready(Err(StoreError::refused(
                "an opened chunk has another length",
            )));
        }
        let mut plain = Bytes::from(chunk);
        plain.advance(self.span.skip.min(length));
        plain.truncate(usize::try_from(self.span.length).unwrap_or(usize::MAX));
        self.span.first += 1;
        self.span.skip = 0;
        self.span.length -= plain.len() as u64;
        if is_last {
            // The cipher says so: the range reaches past the end.
            self.span.length = 0;
        }
        Poll::Ready(Ok(plain))
    }
}

// No field is pinned.
impl<K> Unpin for DecryptedChunks<K> {}

impl<K: DataKey> Stream for DecryptedChunks<K> {
    type Item = StoreResult<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<StoreResult<Bytes>>> {
        if self.span.is_empty() {
            return Poll::Ready(None);
        }
        let chunk = ready!(self.poll_chunk(context));
        if chunk.is_err() {
            self.span.length = 0;
        }
        Poll::Ready(Some(chunk))
    }
}
