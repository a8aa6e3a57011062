//! A store on a simulated disk, for the tests and the simulation of this crate. Not part of the
//! API.

mod disk;

use std::sync::Arc;

use tower_operations::engine::EngineStore;

pub use self::disk::{Disk, Trap};
use crate::{RedbEngine, RedbError, RedbStore, engine::Driver, file::Medium};

/// Opens a store on a disk, whose writer is a task of the current environment: everything takes
/// place on the thread of the runtime, which must have no other one. `cache` is the memory for
/// pages, in bytes.
///
/// # Errors
/// The errors of [`RedbStore::open`].
pub fn open_in_task(disk: &Disk, cache: usize) -> Result<RedbStore, RedbError> {
    if disk.is_empty() {
        // A file gets its name once its database is complete.
        let new = Disk::default();
        drop(Medium::on(Arc::new(new.clone()), cache).open()?);
        disk.put_in_place(&new);
    }
    open(disk, cache, Driver::Task)
}

/// Opens a store on a disk.
pub(crate) fn open(disk: &Disk, cache: usize, driver: Driver) -> Result<RedbStore, RedbError> {
    let medium = Medium::on(Arc::new(disk.clone()), cache);
    let engine = RedbEngine::on(medium, driver)?;
    Ok(RedbStore(EngineStore::new(engine)))
}
