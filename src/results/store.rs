use std::{fmt, future::Future, ops::Range, pin::Pin, sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, Uri};

use super::ResultKey;
use crate::store::StoreResult;

/// The future of a call of a [`ResultStore`].
pub type ResultFuture<'a, T> = Pin<Box<dyn Future<Output = StoreResult<T>> + Send + 'a>>;

/// A stored body in chunks of any length, in their order.
pub type ResultChunks = Pin<Box<dyn Stream<Item = StoreResult<Bytes>> + Send>>;

/// The uploads of a store, in any order.
pub type ResultEntries<'a> = Pin<Box<dyn Stream<Item = StoreResult<StoredResult>> + Send + 'a>>;

/// Stores the bodies of long results, and those of long requests that are stored for a rerun.
///
/// # Semantics
/// * An upload is visible once it is [finished](ResultUpload::finish), as a whole, and durable from
///   then on. Nothing is visible of one that was dropped, or whose process died.
/// * A key is uploaded at most once. A store may keep either of two uploads with one key, as a
///   whole.
/// * A [transient](crate::store::StoreError::is_transient) error says that the same call may
///   succeed later. The caller repeats it within the limits of the run. Any other error of an upload
///   fails the operation as `result-not-stored`. A request whose body cannot be uploaded within the
///   [`create_timeout`](crate::AsyncAcceptLayer::create_timeout) is refused (503), and an operation
///   whose request cannot be read fails as `request-unreadable`.
/// * A store, or its prefix, belongs to the operations of one [store](crate::store). The
///   [`Recovery`](crate::Recovery) deletes what no operation of that store names.
pub trait ResultStore: Send + Sync + 'static {
    /// Begins an upload.
    ///
    /// `header` is that of the response, and empty for a request. The record has it too: only a
    /// store with [signed URLs](Self::signed_url) needs `Content-Type`, for example.
    fn put<'a>(
        &'a self,
        key: &'a ResultKey,
        header: &'a HeaderMap,
    ) -> ResultFuture<'a, Box<dyn ResultUpload>>;

    /// Returns a part of a finished upload, from `range.start` to before `range.end` in bytes;
    /// `None` if there is no such upload. A range that begins in the upload may reach past its end:
    /// the stream then ends short. The stream ends with an error, or short, if bytes are lost.
    /// Dropping the stream ends the read.
    fn get<'a>(
        &'a self,
        key: &'a ResultKey,
        range: Range<u64>,
    ) -> ResultFuture<'a, Option<ResultChunks>>;

    /// Returns a URL by which a client downloads a finished upload from the storage itself, with
    /// `GET` and for a few minutes; `None`, as by default, if clients download through this node.
    ///
    /// The URL is the answer to a request that may see the operation, a 303 (RFC 9110, section
    /// 15.4.4). Everyone who has the URL can use it. After an error, which is logged, and after 5
    /// seconds without an answer, the client downloads through this node.
    fn signed_url<'a>(&'a self, key: &'a ResultKey) -> ResultFuture<'a, Option<Uri>> {
        let _ = key;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Deletes uploads, also those that do not exist.
    fn delete<'a>(&'a self, keys: &'a [ResultKey]) -> ResultFuture<'a, ()>;

    /// Lists the finished uploads. Those of the last hour may be missing.
    fn list(&self) -> ResultEntries<'_>;
}

/// An upload in progress. Dropping it aborts the upload.
pub trait ResultUpload: Send {
    /// Adds a chunk. The future waits while the store has no room for another chunk, so that a
    /// body is never in memory as a whole. After a transient error the same chunk is written
    /// again.
    fn write(&mut self, chunk: Bytes) -> ResultFuture<'_, ()>;

    /// Ends the upload. It is durable and visible when the future returns. After a transient error
    /// the call is repeated.
    fn finish(&mut self) -> ResultFuture<'_, ()>;

    /// Returns the number of bytes that the upload has in memory between two calls, 0 by default.
    ///
    /// They count in [`max_bytes_in_flight`](crate::Operations::max_bytes_in_flight), beside the
    /// chunk that is being written. The number is asked for after each write.
    fn buffered(&self) -> usize {
        0
    }
}

/// A finished upload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredResult {
    /// The key.
    pub key: ResultKey,
    /// The time at which the upload was finished, by the clock of the store. It may differ from
    /// the clocks of the nodes by less than an hour.
    pub finished_at: SystemTime,
}

impl StoredResult {
    /// Returns an upload that was finished at this time.
    #[must_use]
    pub fn new(key: ResultKey, finished_at: SystemTime) -> Self {
        Self { key, finished_at }
    }
}

/// The result store of a node, and the length of a body above which it is used.
#[derive(Clone)]
pub(crate) struct ResultStorage {
    pub(crate) store: Arc<dyn ResultStore>,
    /// The greatest length in bytes of a body that is kept in the record.
    pub(crate) threshold: u64,
}

/// The default of [`ResultStorage::threshold`].
const THRESHOLD: u64 = 256 * 1024;

impl ResultStorage {
    pub(crate) fn new(store: impl ResultStore) -> Self {
        Self {
            store: Arc::new(store),
            threshold: THRESHOLD,
        }
    }
}

impl fmt::Debug for ResultStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultStorage")
            .field("threshold", &self.threshold)
            .finish_non_exhaustive()
    }
}
