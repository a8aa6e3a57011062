//! Operations in a file, for one process.

mod cell_cache;
mod changes;
mod desk;
mod engine;
mod error;
mod expiring_map;
mod file;
mod key_changes;
mod leases;
mod migration;
mod named_file;
mod reading;
mod rows;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::{path::Path, sync::Arc};

use self::{file::Medium, writer::WriterRequest};
use super::durable::{EngineStore, Hub};
use crate::operation::RecordedResponse;

pub use self::{engine::RedbEngine, error::RedbError};

#[cfg(any(fuzzing, test))]
pub(crate) use self::rows::{cell_again, key_again};

/// The memory that a store takes for pages of its file, unless said.
const CACHE: usize = 64 * 1024 * 1024;

/// Operations in a file, for one process: nothing to install, nothing to
/// connect to.
///
/// It has every power, and clones are handles to the same file. A process that
/// opens the file has it for itself until the last handle is gone; several
/// nodes need a store that they can share.
///
/// ```
/// use std::time::Duration;
/// use tower_operations::{AsyncAcceptLayer, store::RedbStore};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("doc-{}", std::process::id()));
/// # std::fs::create_dir(&folder)?;
/// # let path = folder.join("operations.redb");
/// let store = RedbStore::open(path)?.ttl(Duration::from_secs(3600));
/// let layer = AsyncAcceptLayer::new(store.clone());
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok(())
/// # }
/// ```
///
/// # Durability
/// Every change is synced to the disk before it is answered, so a 202 outlives
/// a kill and a power cut. One thread writes: what arrives while one commit runs
/// shares the next one, so the more there is to do, the less each costs. Leases
/// and reservations of keys are in memory only: whoever opens the file is its
/// only user, all earlier holders are gone, and their leases count as expired
/// at once.
///
/// If the disk fails or is full, whoever waits gets a transient error, reads go
/// on if they can, and the file is opened again for what comes next: what was
/// answered is there, and it goes on once the disk does. Nobody has to start
/// anything again.
///
/// # Sizing
/// The file grows with what is kept and does not shrink by itself; expired
/// operations are deleted by the [recovery](crate::Recovery), or by
/// [`purge`](super::Purge::purge), and their room is used
/// again. [`compact`](Self::compact) gives it back. What was written last is read from
/// memory, on the thread that asks for it: an eighth of 64 MiB, or of
/// [what you say](Self::open_with_cache). Other reads take place on tokio's threads for
/// blocking work, from pages in the rest of that memory or from the disk.
///
/// # Permissions
/// A new file can be read and written by its owner only (on Unix). The process
/// needs to write the file, and the folder to make it. Do not put it on a
/// network share: its lock and its syncs have to be real.
///
/// # What to monitor
/// [`stats`](Self::stats), the room on the disk, and warnings of this crate in
/// [`tracing`]: each failure of the file is one.
///
/// The page [`guide::redb`](crate::guide::redb) has the tables, and figures.
pub type RedbStore<T = RecordedResponse> = EngineStore<RedbEngine, T>;

impl EngineStore<RedbEngine> {
    /// Opens the file at `path`, or makes it; 64 MiB of memory hold its pages.
    ///
    /// This reads and writes the file before it returns, so in a program that
    /// runs already it belongs into [`tokio::task::spawn_blocking`]. It takes
    /// longer after a crash: about a second for a file of 4 GiB.
    ///
    /// # Errors
    /// See [`RedbError`]. A file that cannot be opened is left as it is.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RedbError> {
        Self::open_with_cache(path, CACHE)
    }
}

impl<T> EngineStore<RedbEngine, T> {
    /// The same, with so many bytes of memory for pages, and for results of any
    /// type.
    ///
    /// # Errors
    /// Those of [`open`](RedbStore::open).
    pub fn open_with_cache(path: impl AsRef<Path>, bytes: usize) -> Result<Self, RedbError> {
        let engine = RedbEngine::on(Medium::file(path.as_ref(), bytes)?)?;
        Ok(Self::on(engine, Arc::new(Hub::default())))
    }

    /// Makes the file as small as it can be; false if it was already.
    ///
    /// Everything waits meanwhile, reads too.
    ///
    /// # Errors
    /// See [`RedbError`]. The operations are whole all the same.
    pub async fn compact(&self) -> Result<bool, RedbError> {
        let compacted = self.engine().ask(WriterRequest::Compact).await;
        compacted.unwrap_or(Err(RedbError::Closed))
    }

    /// Closes the file, after all that was asked before. Every handle is refused
    /// from then on.
    ///
    /// Without it the file is closed soon after the last handle is gone, in the
    /// background.
    ///
    /// # Errors
    /// See [`RedbError`]. Nothing that was answered is lost.
    pub async fn close(&self) -> Result<(), RedbError> {
        let closed = self.engine().ask(WriterRequest::Close).await;
        closed.unwrap_or(Err(RedbError::Closed))
    }

    /// What the store has done since it was opened, and what waits.
    #[must_use]
    pub fn stats(&self) -> RedbStats {
        self.engine().stats()
    }
}

/// What a [`RedbStore`] has done since it was opened, and what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedbStats {
    /// How often it committed.
    pub commits: u64,
    /// How many changes were in these commits.
    pub changes: u64,
    /// How often the file failed, and had to be opened again.
    pub failures: u64,
    /// How many requests wait for the writer, of 1024 at most: more wait until
    /// there is room.
    pub queued: usize,
}
