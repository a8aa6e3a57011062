//! The deletion of expired operations and keys.

use std::time::SystemTime;

use ::redb::ReadableTable;

use super::{
    desk::Desk,
    error::RedbFault,
    file::parse_id,
    rows::{CellRow, millis},
    writer_request::Transaction,
};

/// Removes expired cells and keys.
pub(super) struct PurgeExpired {
    pub(super) limit: usize,
    pub(super) now: SystemTime,
}

impl Transaction for PurgeExpired {
    type Answer = usize;

    fn apply(&self, desk: &mut Desk<'_>) -> Result<usize, RedbFault> {
        let mut expired = Vec::new();
        for entry in desk
            .expiry
            .range(..=(millis(self.now), u64::MAX))?
            .take(self.limit)
        {
            let (at, id) = entry?;
            expired.push((at.value(), id.value().to_vec()));
        }
        for (at, id) in &expired {
            desk.expire(*at)?;
            let Some(bytes) = desk.row(id)? else {
                continue;
            };
            // A damaged cell must not block the others: its rows stay.
            let row = CellRow::decode(&bytes).and_then(|row| Ok((parse_id(id)?, row)));
            let (name, row) = match row {
                Ok(row) => row,
                Err(fault) => {
                    let id = String::from_utf8_lossy(id);
                    tracing::error!(%id, %fault, "expired operation not read");
                    continue;
                }
            };
            desk.remove(&name, &row)?;
            if let Some(name) = row.key {
                desk.unbind_from(name, id)?;
            }
        }
        let mut lapsed = Vec::new();
        let none: &[u8] = &[];
        let end = (desk.wall.saturating_add(1), none);
        for entry in desk.key_expiry.range(..end)?.take(self.limit) {
            let (key, ()) = entry.map(|(key, _)| (key, ()))?;
            let (until, name) = key.value();
            lapsed.push((until, name.to_vec()));
        }
        for (until, name) in &lapsed {
            desk.expire_key(*until, name)?;
            desk.unbind(name)?;
        }
        Ok(expired.len())
    }
}
