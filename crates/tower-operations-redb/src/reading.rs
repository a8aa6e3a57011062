//! Reads without the writer.

use std::ops::Bound::{Excluded, Included};

use ::redb::ReadTransaction;
use bytes::Bytes;
use tower_operations::engine::{Cell, CellQuery, CellReader, ListedCell};

use super::{
    error::RedbFault,
    rows::{CellRow, millis},
    tables::{CELLS, CURSORS, LISTED, RESULTS, SECRETS},
};

/// The number of entries read before other tasks may run.
const LOOKED_AT: usize = 256;

/// Returns the cell of an operation, with its result if the reader reads it.
pub(super) fn cell(
    read: &ReadTransaction,
    id: &[u8],
    reader: CellReader<'_>,
) -> Result<Option<Cell>, RedbFault> {
    let cells = read.open_table(CELLS)?;
    let Some(row) = cells.get(id)? else {
        return Ok(None);
    };
    let row = CellRow::decode(row.value())?;
    Ok(Some(cell_of(read, id, &row, reader)?))
}

/// Returns the secret of list cursors.
pub(super) fn secret(read: &ReadTransaction) -> Result<[u8; 32], RedbFault> {
    let secret = read.open_table(SECRETS)?.get(CURSORS)?;
    let secret = secret.and_then(|secret| secret.value().try_into().ok());
    secret.ok_or(RedbFault::Row("secret"))
}

fn cell_of(
    read: &ReadTransaction,
    id: &[u8],
    row: &CellRow<'_>,
    reader: CellReader<'_>,
) -> Result<Cell, RedbFault> {
    let result = match row.parts.result.is_read_by(reader, row.owner) {
        true => read.open_table(RESULTS)?.get(id)?,
        false => None,
    };
    let result = result.map(|result| Bytes::copy_from_slice(result.value()));
    Ok(Cell::new(Bytes::copy_from_slice(row.head), result))
}

/// Returns a part of a list, and the number before which the list continues; no number if this
/// was the last part. `bytes` of results were read before.
pub(super) fn list(
    read: &ReadTransaction,
    ask: CellQuery<'_>,
    mut bytes: usize,
) -> Result<(Vec<ListedCell>, Option<u64>), RedbFault> {
    let owner = ask.owner.map(|owner| owner.as_str().as_bytes());
    let end = match ask.before {
        Some(before) => Excluded((owner, before)),
        None => Included((owner, u64::MAX)),
    };
    let (listed, cells) = (read.open_table(LISTED)?, read.open_table(CELLS)?);
    let reader = CellReader::Owner {
        owner: ask.owner,
        max_result: ask.max_result,
    };
    let (mut page, mut last) = (Vec::new(), None);
    let mut entries = listed.range((Included((owner, 0)), end))?.rev();
    for entry in entries.by_ref().take(LOOKED_AT) {
        let (key, id) = entry?;
        let (number, id) = (key.value().1, id.value());
        last = Some(number);
        let row = cells.get(id)?;
        let cell = match row.as_ref().map(|row| CellRow::decode(row.value())) {
            Some(Ok(row)) => {
                if row.has_expired(millis(ask.now)) || !ask.states.contains(row.state) {
                    continue;
                }
                match bytes < ask.max_bytes {
                    true => Some(Ok(cell_of(read, id, &row, reader)?)),
                    false => None,
                }
            }
            // A damaged cell must not block the others.
            Some(Err(fault)) => Some(Err(fault.into())),
            None => Some(Err(RedbFault::Row("list without a cell").into())),
        };
        let listed = ListedCell::new(number, Bytes::copy_from_slice(id), cell);
        bytes = bytes.saturating_add(listed.result_bytes());
        // An entry without a cell means that the list continues.
        let is_last = listed.cell.is_none();
        page.push(listed);
        if is_last || page.len() == ask.limit {
            return Ok((page, None));
        }
    }
    Ok((page, last))
}
