//! The handle by which the database reads and writes its file.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use ::redb::StorageBackend;

/// The access of a database to the storage, until it is cut off.
#[derive(Debug)]
pub(super) struct MediumHandle {
    pub(super) backend: Arc<dyn StorageBackend>,
    pub(super) cut: Arc<AtomicBool>,
}

impl MediumHandle {
    fn backend(&self) -> io::Result<&dyn StorageBackend> {
        match self.cut.load(SeqCst) {
            false => Ok(&*self.backend),
            true => Err(io::Error::other("the database was opened again")),
        }
    }
}

impl StorageBackend for MediumHandle {
    fn len(&self) -> io::Result<u64> {
        self.backend()?.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend()?.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend()?.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend()?.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend()?.write(offset, data)
    }
}
