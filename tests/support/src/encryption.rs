//! A key service with several wrapping keys, which fails on demand.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use chacha20poly1305::{
    ChaCha20Poly1305, Key, XChaCha20Poly1305, XNonce,
    aead::{AeadInOut, Generate, KeyInit},
};
use tower_operations::{
    results::{ChunkContext, DataKey, KeyService, ResultFuture, ResultKey},
    store::{StoreError, StoreResult},
};

/// The number of wrapping keys.
const KEYS: u8 = 2;

/// A data key of ChaCha20-Poly1305.
pub struct ChunkCipher(ChaCha20Poly1305);

impl DataKey for ChunkCipher {
    const OVERHEAD: usize = 16;

    fn seal(&self, context: &ChunkContext<'_>, chunk: &mut Vec<u8>) -> StoreResult<()> {
        let (nonce, data) = (context.nonce().into(), context.associated_data());
        let sealed = self.0.encrypt_in_place(&nonce, &data, chunk);
        sealed.map_err(|_| StoreError::refused("not sealed"))
    }

    fn open(&self, context: &ChunkContext<'_>, chunk: &mut Vec<u8>) -> StoreResult<()> {
        let (nonce, data) = (context.nonce().into(), context.associated_data());
        let opened = self.0.decrypt_in_place(&nonce, &data, chunk);
        opened.map_err(|_| StoreError::refused("not authentic"))
    }
}

/// Clones share everything. The wrapped form of a data key is the number of the wrapping key, a
/// nonce of 24 bytes, and the sealed data key.
#[derive(Clone, Default)]
pub struct TestKeys(Arc<Inside>);

#[derive(Default)]
struct Inside {
    current: AtomicU8,
    failures: AtomicUsize,
    unwrapped: AtomicUsize,
}

impl TestKeys {
    /// Wraps the next data keys by this wrapping key.
    pub fn use_key(&self, number: u8) {
        self.0.current.store(number, SeqCst);
    }

    /// Makes the next calls fail transiently.
    pub fn fail(&self, calls: usize) {
        self.0.failures.store(calls, SeqCst);
    }

    /// Returns the number of keys that were unwrapped since the last call.
    pub fn unwrapped(&self) -> usize {
        self.0.unwrapped.swap(0, SeqCst)
    }

    fn call(&self) -> StoreResult<()> {
        let failed = |calls: usize| calls.checked_sub(1);
        match self.0.failures.fetch_update(SeqCst, SeqCst, failed) {
            Ok(_) => Err(StoreError::unavailable("the key service is away")),
            Err(_) => Ok(()),
        }
    }
}

fn wrapping_key(number: u8) -> StoreResult<XChaCha20Poly1305> {
    match number < KEYS {
        true => Ok(XChaCha20Poly1305::new(&[number; 32].into())),
        false => Err(StoreError::refused(format!("no wrapping key {number}"))),
    }
}

impl KeyService for TestKeys {
    type Key = ChunkCipher;

    fn generate_key<'a>(&'a self, upload: &'a ResultKey) -> ResultFuture<'a, (ChunkCipher, Bytes)> {
        Box::pin(async move {
            self.call()?;
            let (key, nonce) = (Key::generate(), XNonce::generate());
            let (mut sealed, data) = (key.to_vec(), upload.to_string());
            let number = self.0.current.load(SeqCst);
            let wrapped =
                wrapping_key(number)?.encrypt_in_place(&nonce, data.as_bytes(), &mut sealed);
            wrapped.map_err(|_| StoreError::refused("key not wrapped"))?;
            let wrapped = [&[number], &nonce[..], &sealed[..]].concat().into();
            Ok((ChunkCipher(ChaCha20Poly1305::new(&key)), wrapped))
        })
    }

    fn unwrap_key<'a>(
        &'a self,
        upload: &'a ResultKey,
        wrapped: Bytes,
    ) -> ResultFuture<'a, ChunkCipher> {
        Box::pin(async move {
            self.call()?;
            self.0.unwrapped.fetch_add(1, SeqCst);
            let (number, rest) = wrapped.split_first().expect("a number");
            let service = wrapping_key(*number)?;
            let key = || {
                let (nonce, sealed) = rest.split_first_chunk::<24>()?;
                let (mut key, data) = (sealed.to_vec(), upload.to_string());
                let opened =
                    service.decrypt_in_place(&XNonce::from(*nonce), data.as_bytes(), &mut key);
                opened.ok()?;
                ChaCha20Poly1305::new_from_slice(&key).ok()
            };
            let key = key().map(ChunkCipher);
            key.ok_or_else(|| StoreError::refused("key not unwrapped"))
        })
    }
}
