//! A file on the disk that counts the bytes read.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use ::redb::{StorageBackend, backends::FileBackend};
use test_support::private::Folder;
use tower_operations::engine::EngineStore;

use super::{Driver, NO_CACHE, RedbStore};
use crate::{RedbEngine, file::Medium};

/// A database in a temporary folder, without a cache. It may have more bytes than the memory has
/// room for.
pub(super) struct CountedFile {
    // Fields are dropped in order, so the store ends before its folder is removed.
    pub(super) store: RedbStore,
    read: Arc<AtomicUsize>,
    _folder: Folder,
}

#[derive(Debug)]
struct CountingBackend {
    file: FileBackend,
    read: Arc<AtomicUsize>,
}

impl CountedFile {
    pub(super) fn open() -> Self {
        let folder = Folder::new("redb-counted");
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true);
        let file = options.open(folder.join("operations")).unwrap();
        let read = Arc::<AtomicUsize>::default();
        let backend = CountingBackend {
            file: FileBackend::new(file).unwrap(),
            read: Arc::clone(&read),
        };
        let medium = Medium::on(Arc::new(backend), NO_CACHE);
        let engine = RedbEngine::on(medium, Driver::Threads).unwrap();
        Self {
            store: RedbStore(EngineStore::new(engine)),
            read,
            _folder: folder,
        }
    }

    /// Returns the number of bytes that were read since the last call of this method.
    pub(super) fn read(&self) -> usize {
        self.read.swap(0, SeqCst)
    }
}

impl StorageBackend for CountingBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(out.len(), SeqCst);
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}
