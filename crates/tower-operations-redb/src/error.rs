use std::{error::Error, fmt, io, sync::Arc};

use ::redb::{CompactionError, DatabaseError, StorageError};
use tower_operations::store::StoreError;

/// The reason why the file of a [`RedbStore`](super::RedbStore) could not be opened or
/// compacted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedbError {
    /// The file is open already, in this process or in another one.
    #[error("the file is open already: {0}")]
    AlreadyOpen(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The file cannot be read, written or created, for example because of its permissions
    /// or because the disk is full.
    #[error("the file cannot be used: {0}")]
    Io(#[source] io::Error),
    /// The file is damaged, or is not a redb file.
    #[error("the file is damaged, or is no database: {0}")]
    Corrupt(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The file is a redb file, but was not created by this crate.
    #[error("the database was not created by this crate")]
    Foreign,
    /// The file was written by a later release of this crate.
    #[error("the file has format {found}, and this release reads formats up to {known}")]
    NewerFormat {
        /// The format of the file.
        found: u64,
        /// The newest format that this release can read.
        known: u64,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// The engine failed.
    #[error("the engine failed: {0}")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<io::Error> for RedbError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Corrupt(error.into())
            }
            _ => Self::Io(error),
        }
    }
}

impl From<DatabaseError> for RedbError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::AlreadyOpen(error.into()),
            DatabaseError::Storage(error) => error.into(),
            error => Self::Engine(error.into()),
        }
    }
}

impl From<StorageError> for RedbError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => error.into(),
            StorageError::Corrupted(_) => Self::Corrupt(error.into()),
            error => Self::Engine(error.into()),
        }
    }
}

impl From<CompactionError> for RedbError {
    fn from(error: CompactionError) -> Self {
        match error {
            CompactionError::Storage(error) => error.into(),
            error => Self::Engine(error.into()),
        }
    }
}

impl From<RedbFault> for RedbError {
    fn from(fault: RedbFault) -> Self {
        match fault {
            RedbFault::Disk(error) => error.into(),
            RedbFault::Engine(error) => match *error {
                ::redb::Error::Corrupted(_) => Self::Corrupt(error),
                _ => Self::Engine(error),
            },
            fault => Self::Corrupt(fault.into()),
        }
    }
}

/// An internal error.
#[derive(Debug, thiserror::Error)]
pub(super) enum RedbFault {
    /// An error of the disk.
    #[error("the disk failed")]
    Disk(#[source] io::Error),
    /// An error of the engine.
    #[error("the engine failed")]
    Engine(#[source] Box<::redb::Error>),
    /// A row is damaged.
    #[error("a row is damaged or of a later release: {0}")]
    Row(&'static str),
    /// The engine panicked.
    #[error("the engine panicked")]
    Panicked,
}

macro_rules! of_the_engine {
    ($($error:ident)*) => {
        $(impl From<::redb::$error> for RedbFault {
            fn from(error: ::redb::$error) -> Self {
                match error.into() {
                    // redb's wrapper would hide the source of the error.
                    ::redb::Error::Io(error) => Self::Disk(error),
                    error => Self::Engine(Box::new(error)),
                }
            }
        })*
    };
}

of_the_engine!(StorageError TableError TransactionError CommitError);

impl RedbFault {
    /// Returns whether the file has to be opened again: after an error of the disk the
    /// engine refuses all further work.
    pub(super) fn is_of_the_disk(&self) -> bool {
        use ::redb::Error::{DatabaseClosed, LockPoisoned, PreviousIo};
        match self {
            Self::Engine(error) => {
                matches!(**error, PreviousIo | DatabaseClosed | LockPoisoned(_))
            }
            Self::Row(_) => false,
            Self::Disk(_) | Self::Panicked => true,
        }
    }

    /// Returns whether the error only reports that an earlier error blocks the engine.
    pub(super) fn is_of_before(&self) -> bool {
        matches!(self, Self::Engine(error) if matches!(**error, ::redb::Error::PreviousIo))
    }
}

/// A fault that is reported to several callers.
#[derive(Debug, Clone)]
pub(super) struct SharedRedbFault(Arc<RedbFault>);

impl From<RedbFault> for SharedRedbFault {
    fn from(fault: RedbFault) -> Self {
        Self(Arc::new(fault))
    }
}

impl From<SharedRedbFault> for StoreError {
    fn from(fault: SharedRedbFault) -> Self {
        match fault.0.is_of_the_disk() {
            true => Self::unavailable(fault),
            false => Self::refused(fault),
        }
    }
}

impl From<RedbFault> for StoreError {
    fn from(fault: RedbFault) -> Self {
        SharedRedbFault::from(fault).into()
    }
}

impl fmt::Display for SharedRedbFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for SharedRedbFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
