//! The file, and opening it again after an error of the disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use ::redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend,
    TableHandle, UntypedTableHandle, WriteTransaction, backends::FileBackend,
};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tower_operations::{
    engine::new_secret,
    operation::OperationId,
    store::{FencingToken, StoreError},
};

use super::{
    error::{RedbError, RedbFault, SharedRedbFault},
    file_lock::FileLock,
    medium_handle::MediumHandle,
    migration::migrate,
    named_file::NamedFile,
    rows::CellRow,
    tables::{
        CELLS, CURSORS, EXPIRY, FORMAT, KEY_EXPIRY, KEYS, KNOWN_FORMAT, LEASED, LISTED, META,
        NEXT_NUMBER, REQUESTS, RESULTS, SECRETS,
    },
    unfinished_file::{UnfinishedFile, sync_folder},
};

/// The database, shared by the readers and the writer. Users of the database hold the lock
/// for reading, so that the writer can take it exclusively.
#[derive(Clone)]
pub(super) struct DatabaseSlot(Arc<RwLock<Access>>);

impl DatabaseSlot {
    pub(super) fn new(access: Access) -> Self {
        Self(Arc::new(access.into()))
    }

    pub(super) async fn read(&self) -> OwnedRwLockReadGuard<Access> {
        Arc::clone(&self.0).read_owned().await
    }

    /// Returns the database, unless it is being replaced.
    pub(super) fn read_now(&self) -> Option<RwLockReadGuard<'_, Access>> {
        self.0.try_read().ok()
    }

    /// Returns the database, for the writer. No reader waits while it holds the lock, so a writer
    /// that shares the thread of all readers never finds the lock taken.
    pub(super) fn read_as_writer(&self) -> RwLockReadGuard<'_, Access> {
        self.read_now().unwrap_or_else(|| self.0.blocking_read())
    }

    /// Returns exclusive access to the database, for the writer.
    pub(super) fn write_as_writer(&self) -> RwLockWriteGuard<'_, Access> {
        let now = self.0.try_write();
        now.unwrap_or_else(|_| self.0.blocking_write())
    }
}

pub(super) enum Access {
    /// The database is open.
    Open(Database),
    /// The database failed, and could not be opened again so far.
    Failed(SharedRedbFault),
    /// The database was closed for good.
    Closed,
}

impl Access {
    pub(super) fn database(&self) -> Result<&Database, StoreError> {
        match self {
            Self::Open(database) => Ok(database),
            Self::Failed(fault) => Err(StoreError::unavailable(fault.clone())),
            Self::Closed => Err(closed()),
        }
    }

    /// Reads one state of the database.
    pub(super) fn read<A>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<A, RedbFault>,
    ) -> Result<A, ReadError> {
        let database = self.database().map_err(ReadError::Closed)?;
        let transaction = database.begin_read().map_err(RedbFault::from)?;
        Ok(read(&transaction)?)
    }
}

/// The reason why nothing could be read.
pub(super) enum ReadError {
    /// There is no open database.
    Closed(StoreError),
    /// The read failed.
    Fault(RedbFault),
}

impl ReadError {
    /// Returns whether opening the database again may help.
    pub(super) fn is_of_the_disk(&self) -> bool {
        match self {
            Self::Closed(error) => error.is_transient(),
            Self::Fault(fault) => fault.is_of_the_disk(),
        }
    }
}

impl From<RedbFault> for ReadError {
    fn from(fault: RedbFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed(error) => error,
            ReadError::Fault(fault) => fault.into(),
        }
    }
}

pub(super) fn closed() -> StoreError {
    StoreError::refused(RedbError::Closed)
}

/// The storage of the database. It is locked once and stays locked while the database on it
/// is opened again, so that no other process can open it in between.
pub(super) struct Medium {
    backend: Arc<dyn StorageBackend>,
    /// The memory for pages, in bytes.
    cache: usize,
    /// The memory for the latest written cells, in bytes.
    pub(super) hot: usize,
    /// The switch that cuts the open database off from the storage.
    cut: Arc<AtomicBool>,
    origin: Option<NamedFile>,
    /// The lock of the storage, if it is a file.
    lock: Option<FileLock>,
    /// The file, until its database is complete.
    unfinished: Option<UnfinishedFile>,
}

impl Medium {
    /// Opens the file at `path`. A new file gets this name once its database is complete.
    pub(super) fn file(path: &Path, cache: usize) -> Result<Self, RedbError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = match options.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // A link to a file that does not exist stays a link.
                if let Ok(target) = fs::read_link(path) {
                    let folder = path.parent().unwrap_or(Path::new(""));
                    return Self::file(&folder.join(target), cache);
                }
                let (unfinished, file) = UnfinishedFile::open(path, options)?;
                let medium = Self::locked(path, file.try_clone()?, cache)?;
                let Some(unfinished) = unfinished.begin(&file)? else {
                    // Another process has completed the file. This lock would conflict with the
                    // next one.
                    drop((medium, file));
                    return Self::file(path, cache);
                };
                return Ok(Self {
                    unfinished: Some(unfinished),
                    ..medium
                });
            }
            file => file?,
        };
        // The process that gave the file its name may have ended right after that.
        sync_folder(&fs::canonicalize(path)?)?;
        Self::locked(path, file, cache)
    }

    /// Locks a file.
    fn locked(path: &Path, file: File, cache: usize) -> Result<Self, RedbError> {
        let origin = NamedFile::of(path, &file)?;
        let lock = FileLock::new(&file)?;
        let backend = FileBackend::new(file)?;
        let lock = lock.with_range(&backend)?;
        let medium = Self::on(Arc::new(backend), cache);
        Ok(Self {
            origin: Some(origin),
            lock: Some(lock),
            ..medium
        })
    }

    /// Returns the name and identity of the file, if the storage is a file.
    pub(super) fn origin(&self) -> Option<NamedFile> {
        self.origin.clone()
    }

    pub(super) fn on(backend: Arc<dyn StorageBackend>, cache: usize) -> Self {
        Self {
            backend,
            cache: cache - cache / 8,
            hot: cache / 8,
            cut: Arc::default(),
            origin: None,
            lock: None,
            unfinished: None,
        }
    }

    /// Opens the database on this storage. A database that was opened before no longer reaches
    /// the storage.
    pub(super) fn open(&mut self) -> Result<Opened, RedbError> {
        self.cut_off();
        self.cut = Arc::default();
        let handle = MediumHandle {
            backend: Arc::clone(&self.backend),
            cut: Arc::clone(&self.cut),
        };
        let database = Builder::new()
            .set_cache_size(self.cache)
            .create_with_backend(handle)?;
        prepare(&database)?;
        if let Some(unfinished) = self.unfinished.take() {
            unfinished.complete()?;
        }
        let read = database.begin_read().map_err(RedbFault::from)?;
        let next_number = read
            .open_table(META)
            .map_err(RedbFault::from)?
            .get(NEXT_NUMBER)
            .map_err(RedbFault::from)?
            .map_or(1, |number| number.value());
        let held = live_leases(&read)?;
        drop(read);
        Ok(Opened {
            database,
            next_number,
            held,
        })
    }

    /// Makes all further access by the open database fail.
    pub(super) fn cut_off(&self) {
        self.cut.store(true, SeqCst);
    }

    /// Closes the storage, and unlocks it.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.cut_off();
        let closed = self.backend.close();
        let unlocked = self.lock.take().map_or(Ok(()), FileLock::release);
        closed.and(unlocked)
    }
}

/// An opened database.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) next_number: u64,
    /// The live operations with a present or former holder.
    pub(super) held: Vec<(OperationId, FencingToken)>,
}

/// Creates the tables, or checks the existing ones.
fn prepare(database: &Database) -> Result<(), RedbError> {
    let write = database.begin_write().map_err(RedbFault::from)?;
    let tables: Vec<_> = write.list_tables().map_err(RedbFault::from)?.collect();
    if tables.is_empty() {
        make_tables(&write)?;
        return Ok(finish(write)?);
    }
    if !tables.iter().any(is_meta) {
        return Err(RedbError::Foreign);
    }
    let format = {
        let meta = write.open_table(META).map_err(|_| RedbError::Foreign)?;
        let format = meta.get(FORMAT).map_err(RedbFault::from)?;
        format.ok_or(RedbError::Foreign)?.value()
    };
    if format > KNOWN_FORMAT {
        return Err(RedbError::NewerFormat {
            found: format,
            known: KNOWN_FORMAT,
        });
    }
    if format < KNOWN_FORMAT {
        migrate(&write, format)?;
        tracing::info!(from = format, to = KNOWN_FORMAT, "file migrated");
    }
    let has_secret = tables.iter().any(|table| table.name() == SECRETS.name());
    if !has_secret {
        make_secret(&write)?;
    }
    match format < KNOWN_FORMAT || !has_secret {
        true => Ok(finish(write)?),
        false => Ok(write.abort()?),
    }
}

fn is_meta(table: &UntypedTableHandle) -> bool {
    table.name() == META.name()
}

/// Commits so that opening the file again needs no repair, however large the file: the
/// commit includes the state of all pages. It also syncs the data before it switches to the
/// new state, so no half of a commit can ever count as a whole one.
pub(super) fn finish(mut write: WriteTransaction) -> Result<(), RedbFault> {
    write.set_quick_repair(true);
    Ok(write.commit()?)
}

fn make_tables(write: &WriteTransaction) -> Result<(), RedbFault> {
    write.open_table(META)?.insert(FORMAT, KNOWN_FORMAT)?;
    for table in [CELLS, RESULTS, REQUESTS, KEYS] {
        write.open_table(table)?;
    }
    write.open_table(EXPIRY)?;
    write.open_table(KEY_EXPIRY)?;
    write.open_table(LEASED)?;
    write.open_table(LISTED)?;
    make_secret(write)
}

fn make_secret(write: &WriteTransaction) -> Result<(), RedbFault> {
    let mut secrets = write.open_table(SECRETS)?;
    secrets.insert(CURSORS, new_secret().as_slice())?;
    Ok(())
}

fn live_leases(read: &ReadTransaction) -> Result<Vec<(OperationId, FencingToken)>, RedbFault> {
    let (leased, cells) = (read.open_table(LEASED)?, read.open_table(CELLS)?);
    let mut held = Vec::new();
    for entry in leased.range::<u64>(..)? {
        let (_, id) = entry?;
        let Some(row) = cells.get(id.value())? else {
            continue;
        };
        let row = CellRow::decode(row.value());
        match row.and_then(|row| Ok((parse_id(id.value())?, row.stamp.token))) {
            Ok(holder) => held.push(holder),
            // A damaged operation must not block the others: the file can be opened.
            Err(fault) => {
                let id = String::from_utf8_lossy(id.value());
                tracing::error!(%id, %fault, "live operation not read");
            }
        }
    }
    Ok(held)
}

pub(super) fn parse_id(id: &[u8]) -> Result<OperationId, RedbFault> {
    std::str::from_utf8(id)
        .ok()
        .and_then(|text| OperationId::from_stored(text).ok())
        .ok_or(RedbFault::Row("id"))
}
