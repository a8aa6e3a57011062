//! Uploads the body of a stored request to a result store, and reads it for a rerun.

use std::{fmt, future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::{
    Runtime, Timeout, guarded, guarded_next,
    in_flight::ByteBudget,
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
    id: OperationId,
    /// The stored form of the request up to its body.
    head: Bytes,
    body: BufferedBody,
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
            id,
            head,
            body,
        }
    }

    /// Uploads the body within this time, and returns the stored form of the request.
    ///
    /// Each try to create the operation has an upload of its own: that of an earlier try may be old
    /// enough to be deleted. What an upload has in memory counts in the budget, beside the body.
    pub(crate) async fn finish(&self, limit: Duration, budget: &ByteBudget) -> StoreResult<Bytes> {
        match Timeout::new(limit, self.upload(budget)).await {
            Ok(stored) => stored,
            Err(_) => Err(StoreError::unavailable("no answer in time")),
        }
    }

    async fn upload(&self, budget: &ByteBudget) -> StoreResult<Bytes> {
        let token = FencingToken::random();
        let key = ResultKey::of_request(self.id.clone(), token);
        let mut rest = self.body.data().clone();
        let mut next_chunk = || rest.split_to(rest.len().min(CHUNK));
        let store = Arc::clone(&self.store);
        let mut upload = Upload::begin(store, key, HeaderMap::new(), next_chunk());
        let mut counted = budget.result_bytes(0);
        loop {
            poll_fn(|context| upload.poll_ready(context)).await?;
            if upload.is_over() {
                break;
            }
            counted.set(upload.buffered());
            match next_chunk() {
                end if end.is_empty() => upload.finish(),
                chunk => upload.write(chunk),
            }
        }
        crash_point!("request-stored");
        let reference = BodyReference {
            token,
            length: upload.length(),
            digest: upload.digest(),
        };
        Ok(reference.store_after(&self.head))
    }
}

impl fmt::Debug for RequestUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestUpload")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Reads the body of a request, as often as the result store is unavailable. `head` has the
/// trailers, and counts the bytes.
pub(super) async fn read_body<R>(
    node: &Runtime<R>,
    work: &RunContext,
    reference: BodyReference,
    head: BufferedBody,
) -> Result<BufferedBody, Outcome<RecordedResponse>> {
    crash_point!("request-reading");
    let key = ResultKey::of_request(work.id.clone(), reference.token);
    let mut retry = Retry::new(&key, &Arc::default());
    loop {
        let error = match try_read(node, &key, reference).await {
            Ok(data) => return Ok(head.with_data(data)),
            Err(error) => error,
        };
        if let Err(error) = retry.pause(error).await {
            let (id, error) = (&work.id, error.report());
            tracing::error!(%id, error, "request body not read, operation failed");
            return Err(Outcome::failed(FailureKind::RequestUnreadable));
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
    let chunks = guarded(async { results.store.get(key, 0..length).await }).await?;
    let missing = || StoreError::refused("the result store does not have the body");
    let mut chunks = chunks.ok_or_else(missing)?;
    let mut data = Vec::new();
    let mut hasher = Sha256::new();
    while let Some(chunk) = guarded_next(&mut chunks).await? {
        let missing = length.saturating_sub(data.len() as u64);
        if chunk.len() as u64 > missing {
            break;
        }
        // A damaged message may have any length.
        let missing = usize::try_from(missing).unwrap_or(usize::MAX);
        data.try_reserve_exact(missing)
            .map_err(StoreError::refused)?;
        hasher.update(&chunk);
        data.extend_from_slice(&chunk);
    }
    match data.len() as u64 == length && BodyDigest(hasher.finalize().into()) == digest {
        true => Ok(data.into()),
        false => Err(StoreError::refused("the body is not the stored one")),
    }
}
