//! The migration from the layouts of older releases to this one, in one transaction.

use ::redb::{ReadableTable, WriteTransaction};
use tower_operations::store::{IdempotencyKey, Owner};

use super::{
    desk::copy,
    error::RedbFault,
    rows::{CellRow, KeyRow, RowBinding},
    tables::{BARE_KEYS, CELLS, FORMAT, KEY_EXPIRY, KEYS, KNOWN_FORMAT, META},
};

/// Migrates from this format. Format 1 had keys under their bare names. Format 2 had rows of the
/// first layout alone, which are read as they are.
pub(super) fn migrate(write: &WriteTransaction, from: u64) -> Result<(), RedbFault> {
    if from < 2 {
        scope_keys(write)?;
    }
    write.open_table(META)?.insert(FORMAT, KNOWN_FORMAT)?;
    Ok(())
}

/// Files the keys under their scoped names.
fn scope_keys(write: &WriteTransaction) -> Result<(), RedbFault> {
    {
        let mut bare = write.open_table(BARE_KEYS)?;
        let mut keys = write.open_table(KEYS)?;
        let mut expiry = write.open_table(KEY_EXPIRY)?;
        let mut cells = write.open_table(CELLS)?;
        // One at a time, to bound the memory.
        while let Some((name, row)) = bare.pop_first()? {
            let (name, row) = (name.value(), row.value());
            let Some((scoped, decoded)) = scoped(name, row) else {
                keys.insert(name, row)?; // damaged: reported when it is read
                continue;
            };
            keys.insert(&*scoped, row)?;
            if let Some(until) = decoded.until {
                expiry.remove((until, name))?;
                expiry.insert((until, &*scoped), ())?;
            }
            if let RowBinding::Operation(id) = decoded.bound
                && let Some(bytes) = copy(cells.get(id))?
                && let Ok(cell) = CellRow::decode(&bytes)
                && cell.key == Some(name)
            {
                let key = Some(&*scoped);
                cells.insert(id, &*CellRow { key, ..cell }.encode())?;
            }
        }
    }
    write.delete_table(BARE_KEYS)?;
    Ok(())
}

/// Returns the scoped name and the row of a key.
fn scoped<'a>(name: &[u8], row: &'a [u8]) -> Option<(Vec<u8>, KeyRow<'a>)> {
    let row = KeyRow::decode(row).ok()?;
    let owner = row.owner.map(std::str::from_utf8).transpose().ok()?;
    let name = std::str::from_utf8(name).ok()?;
    let key = IdempotencyKey::new(owner.map(Owner::new), name, row.fingerprint);
    Some((key.scoped_name().as_bytes().to_vec(), row))
}
