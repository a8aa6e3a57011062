//! The lock of a file.
//!
//! A database on a [`MediumHandle`](super::medium_handle::MediumHandle) takes no lock, so that the
//! file stays locked while the database is opened again. The locks here conflict with those of every
//! program that opens the file by redb, whatever its release: since 4.3 redb locks ranges of bytes,
//! and before it locked the whole file, which on Linux is another kind of lock.

use std::{
    fs::{File, TryLockError},
    io,
    ops::Bound,
};

use ::redb::{BackendError, DatabaseError, StorageBackend, backends::FileBackend};

use super::error::RedbError;

/// The lock of a whole file, until it is dropped.
#[derive(Debug)]
pub(super) struct FileLock(Option<File>);

impl FileLock {
    /// Locks a file on Linux. On other systems a whole file is a range of bytes.
    pub(super) fn new(file: &File) -> Result<Self, RedbError> {
        if !cfg!(target_os = "linux") {
            return Ok(Self(None));
        }
        let file = file.try_clone()?;
        match file.try_lock() {
            Ok(()) => Ok(Self(Some(file))),
            Err(TryLockError::WouldBlock) => Err(DatabaseError::DatabaseAlreadyOpen.into()),
            // The file system has no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(Self(None))
            }
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Locks all bytes of the file too, until the file is closed. On some network shares the two
    /// locks would conflict. There the lock of the whole file is released first.
    pub(super) fn with_range(self, file: &FileBackend) -> Result<Self, RedbError> {
        let byte = Bound::Included(0);
        let lock = match file.query_lock_range(byte, byte) {
            Ok(true) => {
                self.release()?;
                Self(None)
            }
            Ok(false) | Err(_) => self,
        };
        match file.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
            // Without locks of ranges there are none of other programs.
            Ok(true) | Err(BackendError::Unsupported) => Ok(lock),
            Ok(false) => Err(DatabaseError::DatabaseAlreadyOpen.into()),
            Err(BackendError::Io(error)) => Err(error.into()),
            Err(error) => Err(RedbError::Engine(error.into())),
        }
    }

    /// Unlocks the file.
    pub(super) fn release(self) -> io::Result<()> {
        self.0.map_or(Ok(()), |file| file.unlock())
    }
}
