//! The upload of an encrypted body.

use bytes::Bytes;

use super::{CHUNK, ChunkContext, DataKey};
use crate::{
    results::{ResultFuture, ResultKey, ResultUpload},
    store::{StoreError, StoreResult},
};

/// An upload, which has one chunk in memory.
pub(super) struct EncryptedUpload<K> {
    inner: Box<dyn ResultUpload>,
    upload: ResultKey,
    key: K,
    /// The begin of the next chunk, plain.
    plain: Vec<u8>,
    /// The index of the next chunk.
    index: u64,
    /// The header or the sealed chunk that is to be written next. It stays until it is written, so that
    /// a call which fails or is dropped can be repeated.
    sealed: Option<Bytes>,
    /// The number of bytes that were taken from a chunk whose write has not succeeded.
    taken: usize,
    /// Whether the last chunk is sealed.
    is_complete: bool,
    /// Whether a chunk could not be sealed, and is lost.
    is_broken: bool,
}

impl<K: DataKey> EncryptedUpload<K> {
    pub(super) fn new(
        inner: Box<dyn ResultUpload>,
        upload: ResultKey,
        key: K,
        header: Bytes,
    ) -> Self {
        Self {
            inner,
            upload,
            key,
            plain: Vec::new(),
            index: 0,
            sealed: Some(header),
            taken: 0,
            is_complete: false,
            is_broken: false,
        }
    }

    /// Seals the next chunk. An error is permanent.
    fn seal(&mut self, is_last: bool) -> StoreResult<()> {
        let context = ChunkContext::new(&self.upload, self.index, is_last);
        let mut chunk = std::mem::take(&mut self.plain);
        let length = chunk.len() + K::OVERHEAD;
        self.is_broken = true;
        let sealed = self.key.seal(&context, &mut chunk);
        sealed.map_err(StoreError::refused)?;
        if chunk.len() != length {
            return Err(StoreError::refused("a sealed chunk has another length"));
        }
        self.is_broken = false;
        self.index += 1;
        self.sealed = Some(chunk.into());
        Ok(())
    }

    /// Writes the sealed chunk, if there is one.
    async fn flush(&mut self) -> StoreResult<()> {
        if self.is_broken {
            return Err(StoreError::refused("a chunk was not sealed"));
        }
        if let Some(sealed) = &self.sealed {
            self.inner.write(sealed.clone()).await?;
            self.sealed = None;
        }
        Ok(())
    }
}

impl<K: DataKey> ResultUpload for EncryptedUpload<K> {
    fn write(&mut self, chunk: Bytes) -> ResultFuture<'_, ()> {
        Box::pin(async move {
            loop {
                self.flush().await?;
                let rest = &chunk[self.taken..];
                if rest.is_empty() {
                    self.taken = 0;
                    return Ok(());
                }
                self.plain
                    .reserve_exact(CHUNK + K::OVERHEAD - self.plain.len());
                let count = rest.len().min(CHUNK - self.plain.len());
                self.plain.extend_from_slice(&rest[..count]);
                self.taken += count;
                if self.plain.len() == CHUNK {
                    self.seal(false)?;
                }
            }
        })
    }

    fn finish(&mut self) -> ResultFuture<'_, ()> {
        Box::pin(async move {
            self.flush().await?;
            if !self.is_complete {
                // Shorter than the others, if need be empty: so a reader knows that it is the last.
                self.seal(true)?;
                self.is_complete = true;
            }
            self.flush().await?;
            self.inner.finish().await
        })
    }

    fn buffered(&self) -> usize {
        let sealed = self.sealed.as_ref().map_or(0, Bytes::len);
        self.plain.len() + sealed + self.inner.buffered()
    }
}
