use std::{fmt, ops::Range};

use http::HeaderMap;

use super::{
    KeyService,
    download::{ByteReader, ChunkSpan, DecryptedChunks},
    header::{self, HEADER},
    upload::EncryptedUpload,
};
use crate::results::{
    ResultChunks, ResultEntries, ResultFuture, ResultKey, ResultStore, ResultUpload,
};

/// Encrypts the results of another store, with keys of the application.
///
/// This is envelope encryption: each upload has a data key of its own, which the [`KeyService`] of the
/// application wraps. This crate brings no cipher: the [`DataKey`](super::DataKey) seals and opens
/// chunks.
///
/// # Semantics
/// * An upload is stored as a header of 4,096 bytes, which has the wrapped key, and sealed chunks. Each
///   chunk has 65,536 plain bytes, but the last one has fewer, and may have none.
/// * Uploads and downloads have one chunk in memory, besides what the other store has.
/// * A read of a range reads the header and the chunks that have the range. From the first chunk on
///   it is one call of the other store, and otherwise two. The last call may reach past the end of the
///   upload, where the other store ends the stream.
/// * A chunk that was altered, cut or moved is a permanent error when it is read, and so is a chunk that
///   is missing. A reader never gets a byte of such a chunk.
/// * Errors of the key service are passed on: transient ones are retried.
/// * The names, the lengths and the times of uploads are not encrypted. The record of an operation
///   has the length and the SHA-256 of the plain bytes, and bodies up to the
///   [`result_threshold`](crate::Operations::result_threshold) themselves.
///
/// # Example
/// Data keys of ChaCha20-Poly1305, wrapped by a key that the process has. A key service on the
/// network wraps them by its own calls instead.
///
/// ```
/// use bytes::Bytes;
/// use chacha20poly1305::{
///     ChaCha20Poly1305, Key, XChaCha20Poly1305, XNonce,
///     aead::{AeadInOut, Generate, KeyInit},
/// };
/// use tower_operations::{
///     results::{
///         ChunkContext, DataKey, EncryptedResults, KeyService, ResultFuture, ResultKey, ResultStore,
///     },
///     store::{StoreError, StoreResult},
/// };
///
/// struct ChunkCipher(ChaCha20Poly1305);
///
/// impl DataKey for ChunkCipher {
///     const OVERHEAD: usize = 16;
///
///     fn seal(&self, context: &ChunkContext<'_>, chunk: &mut Vec<u8>) -> StoreResult<()> {
///         let (nonce, data) = (context.nonce().into(), context.associated_data());
///         let sealed = self.0.encrypt_in_place(&nonce, &data, chunk);
///         sealed.map_err(|_| StoreError::refused("not sealed"))
///     }
///
///     fn open(&self, context: &ChunkContext<'_>, chunk: &mut Vec<u8>) -> StoreResult<()> {
///         let (nonce, data) = (context.nonce().into(), context.associated_data());
///         let opened = self.0.decrypt_in_place(&nonce, &data, chunk);
///         opened.map_err(|_| StoreError::refused("not authentic"))
///     }
/// }
///
/// /// Wraps data keys by one key. The wrapped form is a nonce of 24 bytes and the sealed key.
/// struct OneKey(XChaCha20Poly1305);
///
/// impl KeyService for OneKey {
///     type Key = ChunkCipher;
///
///     fn generate_key<'a>(&'a self, upload: &'a ResultKey) -> ResultFuture<'a, (ChunkCipher, Bytes)> {
///         Box::pin(async move {
///             let (key, nonce) = (Key::generate(), XNonce::generate());
///             let (mut sealed, data) = (key.to_vec(), upload.to_string());
///             let wrapped = self.0.encrypt_in_place(&nonce, data.as_bytes(), &mut sealed);
///             wrapped.map_err(|_| StoreError::refused("key not wrapped"))?;
///             let wrapped = [&nonce[..], &sealed[..]].concat().into();
///             Ok((ChunkCipher(ChaCha20Poly1305::new(&key)), wrapped))
///         })
///     }
///
///     fn unwrap_key<'a>(
///         &'a self,
///         upload: &'a ResultKey,
///         wrapped: Bytes,
///     ) -> ResultFuture<'a, ChunkCipher> {
///         Box::pin(async move {
///             let key = || {
///                 let (nonce, sealed) = wrapped.split_first_chunk::<24>()?;
///                 let (mut key, data) = (sealed.to_vec(), upload.to_string());
///                 let nonce = XNonce::from(*nonce);
///                 self.0.decrypt_in_place(&nonce, data.as_bytes(), &mut key).ok()?;
///                 ChaCha20Poly1305::new_from_slice(&key).ok()
///             };
///             key().map(ChunkCipher).ok_or_else(|| StoreError::refused("key not unwrapped"))
///         })
///     }
/// }
///
/// fn encrypted(results: impl ResultStore, key: [u8; 32]) -> impl ResultStore {
///     EncryptedResults::new(results, OneKey(XChaCha20Poly1305::new(&key.into())))
/// }
/// ```
#[derive(Clone)]
pub struct EncryptedResults<R, S> {
    results: R,
    keys: S,
}

impl<R: ResultStore, S: KeyService> EncryptedResults<R, S> {
    /// Encrypts the results of a store with the keys of a service.
    #[must_use]
    pub fn new(results: R, keys: S) -> Self {
        Self { results, keys }
    }
}

impl<R, S> fmt::Debug for EncryptedResults<R, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedResults").finish_non_exhaustive()
    }
}

impl<R: ResultStore, S: KeyService> ResultStore for EncryptedResults<R, S> {
    fn put<'a>(
        &'a self,
        key: &'a ResultKey,
        header: &'a HeaderMap,
    ) -> ResultFuture<'a, Box<dyn ResultUpload>> {
        Box::pin(async move {
            let (data_key, wrapped) = self.keys.generate_key(key).await?;
            let prefix = header::encode(&wrapped)?;
            let upload = self.results.put(key, header).await?;
            let upload = EncryptedUpload::new(upload, key.clone(), data_key, prefix);
            Ok(Box::new(upload) as Box<dyn ResultUpload>)
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a ResultKey,
        range: Range<u64>,
    ) -> ResultFuture<'a, Option<ResultChunks>> {
        Box::pin(async move {
            let span = ChunkSpan::new(&range);
            let sealed = span.sealed::<S::Key>();
            let end = match span.is_first() {
                true => sealed.end,
                false => HEADER as u64,
            };
            let Some(chunks) = self.results.get(key, 0..end).await? else {
                return Ok(None);
            };
            let mut sealed_bytes = ByteReader::new(chunks);
            let wrapped = header::decode(&sealed_bytes.header().await?)?;
            let data_key = self.keys.unwrap_key(key, wrapped).await?;
            if !span.is_first() && !span.is_empty() {
                let Some(chunks) = self.results.get(key, sealed).await? else {
                    return Ok(None);
                };
                sealed_bytes = ByteReader::new(chunks);
            }
            let opened = DecryptedChunks::new(sealed_bytes, key.clone(), data_key, span);
            Ok(Some(Box::pin(opened) as ResultChunks))
        })
    }

    fn delete<'a>(&'a self, keys: &'a [ResultKey]) -> ResultFuture<'a, ()> {
        self.results.delete(keys)
    }

    fn list(&self) -> ResultEntries<'_> {
        self.results.list()
    }
}
