//! The upload of a body, which takes its chunks as they come.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::{catch_panic::catch_panic, guarded::guarded};
use crate::{
    operation::BodyDigest,
    pauses::Pauses,
    results::{ResultKey, ResultStore, ResultUpload},
    store::{StoreError, StoreResult},
};

/// The upload of one body. It takes a chunk once the store has taken the last one.
pub(crate) struct Upload {
    key: ResultKey,
    state: UploadState,
    digest: Sha256,
    length: u64,
    /// Whether the last call of the store failed, and is being repeated.
    is_failing: Arc<AtomicBool>,
}

enum UploadState {
    Ready(Box<dyn ResultUpload>),
    /// A call of the store. The upload comes back unless the call was the last one.
    Busy(Call),
    Over,
}

type Call = Pin<Box<dyn Future<Output = StoreResult<Option<Box<dyn ResultUpload>>>> + Send>>;

impl Upload {
    /// Begins the upload of a body, with its first chunk.
    pub(crate) fn begin(
        store: Arc<dyn ResultStore>,
        key: ResultKey,
        header: HeaderMap,
        first: Bytes,
    ) -> Self {
        let is_failing = Arc::<AtomicBool>::default();
        let mut retry = Retry::new(&key, &is_failing);
        let (digest, length) = (Sha256::new_with_prefix(&first), first.len() as u64);
        let begin = async move {
            let upload = loop {
                match guarded(async { store.put(&retry.key, &header).await }).await {
                    Ok(upload) => break retry.succeeded(upload),
                    Err(error) => retry.pause(error).await?,
                }
            };
            write(upload, first, retry).await
        };
        Self {
            key,
            state: UploadState::Busy(Box::pin(begin)),
            digest,
            length,
            is_failing,
        }
    }

    /// Waits until the store has taken the last chunk, or has ended the upload.
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<StoreResult<()>> {
        let UploadState::Busy(call) = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        let called = ready!(call.as_mut().poll(context));
        self.state = UploadState::Over;
        if let Some(upload) = called? {
            self.state = UploadState::Ready(upload);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes a chunk, once the last one is taken.
    pub(crate) fn write(&mut self, chunk: Bytes) {
        self.digest.update(&chunk);
        self.length += chunk.len() as u64;
        let retry = Retry::new(&self.key, &self.is_failing);
        self.call(|upload| Box::pin(write(upload, chunk, retry)));
    }

    /// Ends the upload, once the last chunk is taken.
    pub(crate) fn finish(&mut self) {
        let mut retry = Retry::new(&self.key, &self.is_failing);
        self.call(|mut upload| {
            Box::pin(async move {
                loop {
                    match guarded(async { upload.finish().await }).await {
                        Ok(()) => return Ok(retry.succeeded(None)),
                        Err(error) => retry.pause(error).await?,
                    }
                }
            })
        });
    }

    fn call(&mut self, call: impl FnOnce(Box<dyn ResultUpload>) -> Call) {
        if let UploadState::Ready(upload) = std::mem::replace(&mut self.state, UploadState::Over) {
            self.state = UploadState::Busy(call(upload));
        }
    }

    /// Returns the number of bytes that the store has in memory between two of its calls, and 0 during a
    /// call.
    pub(crate) fn buffered(&self) -> usize {
        match &self.state {
            // A panic of the store must not end the run.
            UploadState::Ready(upload) => catch_panic(|| upload.buffered()).unwrap_or(0),
            UploadState::Busy(_) | UploadState::Over => 0,
        }
    }

    /// Returns whether the upload has ended.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, UploadState::Over)
    }

    /// Returns whether the store fails, and its last call is being repeated.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing.load(Relaxed)
    }

    /// Returns the length in bytes of all chunks so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns the digest of all chunks so far.
    pub(crate) fn digest(&self) -> BodyDigest {
        BodyDigest(self.digest.clone().finalize().into())
    }
}

/// Writes a chunk, and returns the upload.
async fn write(
    mut upload: Box<dyn ResultUpload>,
    chunk: Bytes,
    mut retry: Retry,
) -> StoreResult<Option<Box<dyn ResultUpload>>> {
    loop {
        match guarded(async { upload.write(chunk.clone()).await }).await {
            Ok(()) => return Ok(retry.succeeded(Some(upload))),
            Err(error) => retry.pause(error).await?,
        }
    }
}

/// The repetition of a call that fails.
pub(super) struct Retry {
    key: ResultKey,
    is_failing: Arc<AtomicBool>,
    pauses: Pauses,
}

impl Retry {
    pub(super) fn new(key: &ResultKey, is_failing: &Arc<AtomicBool>) -> Self {
        Self {
            key: key.clone(),
            is_failing: Arc::clone(is_failing),
            pauses: Pauses::default(),
        }
    }

    /// Waits before the call is repeated. Returns an error that no repetition can mend.
    pub(super) async fn pause(&mut self, error: StoreError) -> StoreResult<()> {
        if !error.is_transient() {
            return Err(error);
        }
        let (id, error) = (&self.key.id, error.report());
        if !self.is_failing.swap(true, Relaxed) {
            tracing::warn!(%id, error, "result store unavailable, retrying");
        }
        sleep(self.pauses.next()).await;
        Ok(())
    }

    fn succeeded<T>(&self, value: T) -> T {
        self.is_failing.store(false, Relaxed);
        value
    }
}
