//! The body of a kept request in a result store: its way there, and back for a rerun.

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::{
    Runtime, Timeout, guarded, guarded_next,
    run_context::RunContext,
    stored_request::BodyReference,
    upload::{Retry, Upload},
};
use crate::{
    operation::{BodyDigest, BufferedBody, FailureKind, OperationId, Outcome, RecordedResponse},
    results::{ResultKey, ResultStorage, ResultStore},
    store::{FencingToken, StoreError, StoreResult},
};

/// The length in bytes of the chunks of a request.
const CHUNK: usize = 1 << 20;

/// A request body that goes to a result store before the operation is created.
pub(crate) struct RequestUpload {
    store: Arc<dyn ResultStore>,
    key: ResultKey,
    /// The stored form of the request up to its body.
    head: Bytes,
    body: BufferedBody,
    /// The stored form of the request, once the body is in the result store.
    stored: OnceLock<Bytes>,
}

impl RequestUpload {
    pub(crate) fn new(
        results: &ResultStorage,
        id: OperationId,
        head: Bytes,
        body: BufferedBody,
    ) -> Self {
        Self {
            store: Arc::clone(&results.store),
            key: ResultKey::of_request(id, FencingToken::random()),
            head,
            body,
            stored: OnceLock::new(),
        }
    }

    /// Uploads the body, and returns the stored form of the request. The result store has at most
    /// `patience` for each chunk.
    pub(crate) async fn finish(&self, patience: Duration) -> StoreResult<Bytes> {
        if let Some(stored) = self.stored.get() {
            return Ok(stored.clone());
        }
        let mut rest = self.body.data().clone();
        let mut next_chunk = || rest.split_to(rest.len().min(CHUNK));
        let (store, key) = (Arc::clone(&self.store), self.key.clone());
        let mut upload = Upload::begin(store, key, HeaderMap::new(), next_chunk());
        loop {
            let ready = poll_fn(|context| upload.poll_ready(context));
            match Timeout::new(patience, ready).await {
                Ok(ready) => ready?,
                Err(_) => return Err(StoreError::unavailable("no answer in time")),
            }
            if upload.is_over() {
                break;
            }
            match next_chunk() {
                end if end.is_empty() => upload.finish(),
                chunk => upload.write(chunk),
            }
        }
        let reference = BodyReference {
            token: self.key.token,
            length: upload.length(),
            digest: upload.digest(),
        };
        let stored = reference.store_after(&self.head);
        Ok(self.stored.get_or_init(|| stored).clone())
    }
}

impl fmt::Debug for RequestUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestUpload")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Reads the body of a request, as often as the result store is unavailable.
pub(super) async fn read_body<R>(
    node: &Runtime<R>,
    work: &RunContext,
    reference: BodyReference,
    head: BufferedBody,
) -> Result<BufferedBody, Outcome<RecordedResponse>> {
    let key = ResultKey::of_request(work.id.clone(), reference.token);
    let mut retry = Retry::new(&key, &Arc::default());
    let length = usize::try_from(reference.length).unwrap_or(usize::MAX);
    let counted = node.in_flight.bytes().count_bytes(length);
    loop {
        let error = match try_read(node, &key, reference).await {
            Ok(data) => {
                let (_, trailers) = head.into_parts();
                return Ok(counted.hold_until_read(BufferedBody::new(data, trailers)));
            }
            Err(error) => error,
        };
        if let Err(error) = retry.pause(error).await {
            let (id, error) = (&work.id, error.report());
            tracing::error!(%id, error, "request body not read, operation failed");
            return Err(Outcome::failed(FailureKind::Interrupted));
        }
    }
}

async fn try_read<R>(
    node: &Runtime<R>,
    key: &ResultKey,
    BodyReference { length, digest, .. }: BodyReference,
) -> StoreResult<Bytes> {
    let results = node.results.as_ref();
    let results = results.ok_or_else(|| StoreError::refused("this node has no result store"))?;
    let chunks = guarded(results.store.get(key, 0..length)).await?;
    let missing = || StoreError::refused("the result store does not have it");
    let mut chunks = chunks.ok_or_else(missing)?;
    let mut data = BytesMut::new();
    let mut hasher = Sha256::new();
    while let Some(chunk) = guarded_next(&mut chunks).await? {
        if (data.len() + chunk.len()) as u64 > length {
            break;
        }
        hasher.update(&chunk);
        data.extend_from_slice(&chunk);
    }
    match data.len() as u64 == length && BodyDigest(hasher.finalize().into()) == digest {
        true => Ok(data.freeze()),
        false => Err(StoreError::refused("it is not the body that was stored")),
    }
}
