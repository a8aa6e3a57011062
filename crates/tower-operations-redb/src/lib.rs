#![doc = include_str!("../README.md")]

mod answers;
mod cell_cache;
mod changes;
mod desk;
mod engine;
mod error;
mod expiring_map;
mod file;
mod file_lock;
mod key_changes;
mod leases;
mod medium_handle;
mod migration;
mod named_file;
mod purging;
mod reading;
mod rows;
mod tables;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;
mod unfinished_file;
mod writer;
mod writer_request;

use std::{path::Path, sync::Arc};

use tower_operations::engine::EngineStore;

use self::{engine::Driver, file::Medium, writer_request::WriterRequest};
pub use self::{engine::RedbEngine, error::RedbError};

/// Private decoders, for the fuzz targets in `fuzz/`. They are not part of the API.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::rows::{cell_again as cell_row, key_again as key_row};
}

/// The default memory of a store for pages of its file, in bytes.
const CACHE: usize = 64 * 1024 * 1024;

tower_operations::engine_store! {
/// Operations in a file, for one process: without an installation, without a server.
///
/// The store has every capability, and clones are handles to the same file. A process that opens
/// the file has it exclusively until the last handle is dropped; several nodes need a store that
/// they can share.
///
/// ```
/// use std::time::Duration;
/// use tower_operations::Operations;
/// use tower_operations_redb::RedbStore;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("doc-{}", std::process::id()));
/// # std::fs::create_dir(&folder)?;
/// # let path = folder.join("operations.redb");
/// let store = RedbStore::open(path)?.ttl(Duration::from_secs(3600));
/// let operations = Operations::new(store);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok(())
/// # }
/// ```
///
/// Every change is synced to the disk before it is answered, so a 202 survives a kill and a
/// power failure. One thread writes: changes that arrive while one commit runs share the next
/// commit, so the cost of each change falls under load. Leases and reservations of keys are in
/// memory only. The process that opens the file is its only user, so no earlier holder exists
/// any more, and earlier leases count as expired at once.
///
/// If the disk fails or is full, waiting callers get a transient error, reads continue where
/// possible, and the file is opened again for the next request. Everything that was answered is
/// kept, and the store recovers as soon as the disk does, without a restart.
///
/// # Sizing
/// The file grows with its contents and does not shrink by itself. The
/// [recovery](tower_operations::Recovery), or [`purge`](tower_operations::store::Purge::purge),
/// deletes expired operations, and their space is used again. [`compact`](Self::compact) returns
/// the space to the file system. An eighth of the memory for pages (64 MiB, or the [size you
/// set](Self::open_with_cache)) caches the latest writes, which are read on the calling thread.
/// Other reads take place on tokio's threads for blocking work, from pages in the rest of that
/// memory or from the disk.
///
/// # Permissions
/// Only the owner of a new file can read and write it (on Unix). The process needs
/// permission to write the file, and to create it in its folder. Do not put the file on a
/// network share: its lock and its syncs have to be real.
///
/// # Monitoring
/// Watch [`stats`](Self::stats), the space on the disk, and the warnings of this crate in
/// [`tracing`]: each failure of the file is one.
///
/// The [page of this crate](crate) has the tables, and figures.
pub struct RedbStore(RedbEngine);
}

impl RedbStore {
    /// Opens the file at `path`, or creates it; 64 MiB of memory hold its pages.
    ///
    /// A new file has the suffix `.unfinished` until its database is complete. An empty file that
    /// exists is filled in place, and has to be deleted if the power fails before the database is
    /// complete.
    ///
    /// This call reads and writes the file before it returns, so in a running program it
    /// belongs in [`tokio::task::spawn_blocking`]. It takes longer after a crash: about a
    /// second for a file of 4 GiB.
    ///
    /// # Errors
    /// Returns a [`RedbError`], whose variants are the reasons. A file that cannot be opened is
    /// left unchanged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RedbError> {
        Self::open_with_cache(path, CACHE)
    }
}

impl<T> RedbStore<T> {
    /// Creates a store in the memory of the process, for tests: it does all that a file does, and
    /// its operations are lost with the last handle.
    ///
    /// # Errors
    /// The errors of [`open`](RedbStore::open).
    pub fn in_memory() -> Result<Self, RedbError> {
        let backend = Arc::new(::redb::backends::InMemoryBackend::new());
        let engine = RedbEngine::on(Medium::on(backend, CACHE), Driver::Threads)?;
        Ok(Self(EngineStore::new(engine)))
    }

    /// Opens the file with `bytes` of memory for pages, for results of any type.
    ///
    /// # Errors
    /// The errors of [`open`](RedbStore::open).
    pub fn open_with_cache(path: impl AsRef<Path>, bytes: usize) -> Result<Self, RedbError> {
        let engine = RedbEngine::on(Medium::file(path.as_ref(), bytes)?, Driver::Threads)?;
        Ok(Self(EngineStore::new(engine)))
    }

    /// Makes the file as small as possible. Returns false if the file already was that small.
    ///
    /// All requests wait meanwhile, reads included.
    ///
    /// # Errors
    /// Returns a [`RedbError`] if the file failed or is closed. The operations stay intact.
    pub async fn compact(&self) -> Result<bool, RedbError> {
        let compacted = self.0.engine().ask(WriterRequest::Compact).await;
        compacted.unwrap_or(Err(RedbError::Closed))
    }

    /// Closes the file after all earlier requests. After that every call through any handle
    /// returns an error.
    ///
    /// Without this call the file is closed in the background, soon after the last handle is
    /// dropped.
    ///
    /// # Errors
    /// Returns a [`RedbError`] if the file failed or is closed already. Nothing that was
    /// answered is lost.
    pub async fn close(&self) -> Result<(), RedbError> {
        let closed = self.0.engine().ask(WriterRequest::Close).await;
        closed.unwrap_or(Err(RedbError::Closed))
    }

    /// Returns the counts of this store since it was opened, and the length of its queue.
    #[must_use]
    pub fn stats(&self) -> RedbStats {
        self.0.engine().stats()
    }
}

/// The counts of a [`RedbStore`] since it was opened, and the length of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedbStats {
    /// The number of commits.
    pub commits: u64,
    /// The number of changes in these commits.
    pub changes: u64,
    /// The number of failures after which the file had to be opened again.
    pub failures: u64,
    /// The number of requests that wait for the writer, at most 1024: further requests wait
    /// for room.
    pub queued: usize,
}
