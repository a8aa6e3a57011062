//! The place where changes are made: the tables, in one transaction, and the state in
//! memory.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ::redb::{ReadableTable, StorageError, Table, Value, WriteTransaction};
use bytes::Bytes;
use tower_operations::{
    engine::{KeyCell, KeyState},
    operation::OperationId,
    store::{FencingToken, Owner},
};

use super::{
    cell_cache::{CellCache, TouchedCells, WrittenCell},
    error::RedbFault,
    expiring_map::{ExpiringEntry, ExpiringMap, until},
    rows::{CellRow, KeyRow, ResultPart, RowBinding},
    tables::{
        CELLS, EXPIRY, KEY_EXPIRY, KEYS, LEASED, LISTED, META, NEXT_NUMBER, REQUESTS, RESULTS,
    },
};

type Blobs<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// State that is only in memory.
#[derive(Debug, Default)]
pub(super) struct VolatileState {
    /// The token of each live operation with a present or former holder, and the end of its
    /// lease.
    pub(super) leases: ExpiringMap<OperationId, Holder>,
    pub(super) reservations: ExpiringMap<Arc<str>, ReservedRequest>,
    /// The longest term of a lease so far.
    pub(super) longest: Duration,
    /// A number above the numbers of all operations so far.
    pub(super) next_number: u64,
}

impl VolatileState {
    /// Gives `token` a lease of an operation for `term` from `now` on.
    pub(super) fn lease(
        &mut self,
        id: &OperationId,
        token: FencingToken,
        now: Instant,
        term: Duration,
    ) {
        self.longest = self.longest.max(term);
        let lease = ExpiringEntry {
            until: until(now, term),
            value: Holder {
                token,
                standing: Standing::There,
            },
        };
        self.leases.set(id, Some(lease));
    }

    pub(super) fn keep(&mut self) {
        self.leases.keep();
        self.reservations.keep();
    }

    pub(super) fn undo(&mut self) {
        self.leases.undo();
        self.reservations.undo();
    }
}

/// The present or last holder of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) token: FencingToken,
    pub(super) standing: Standing,
}

/// The standing of a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    There,
    /// The holder belonged to an earlier process. A worker that got the token from a queue
    /// may still renew it.
    Before,
    /// The holder has released the lease for good.
    Released,
}

/// A key whose request is in progress.
#[derive(Debug, Clone)]
pub(super) struct ReservedRequest {
    pub(super) owner: Option<Owner>,
    pub(super) fingerprint: [u8; 32],
    pub(super) token: FencingToken,
}

pub(super) struct Desk<'t> {
    pub(super) cells: Blobs<'t>,
    pub(super) results: Blobs<'t>,
    pub(super) requests: Blobs<'t>,
    pub(super) keys: Blobs<'t>,
    pub(super) expiry: Table<'t, (u64, u64), &'static [u8]>,
    pub(super) key_expiry: Table<'t, (u64, &'static [u8]), ()>,
    pub(super) leased: Table<'t, u64, &'static [u8]>,
    pub(super) listed: Table<'t, (Option<&'static [u8]>, u64), &'static [u8]>,
    pub(super) memory: &'t mut VolatileState,
    /// The time for leases and reservations.
    pub(super) now: Instant,
    /// The time for data in the file, in milliseconds.
    pub(super) wall: u64,
    /// Whether the current change has written anything.
    is_changed: bool,
    /// The number of earlier changes that have written something.
    changed: u64,
    /// The cells as the changes so far leave them.
    touched: TouchedCells,
    /// The cells of the latest commits.
    hot: &'t CellCache,
}

impl<'t> Desk<'t> {
    pub(super) fn new(
        write: &'t WriteTransaction,
        memory: &'t mut VolatileState,
        hot: &'t CellCache,
        (now, wall): (Instant, u64),
    ) -> Result<Self, RedbFault> {
        Ok(Self {
            cells: write.open_table(CELLS)?,
            results: write.open_table(RESULTS)?,
            requests: write.open_table(REQUESTS)?,
            keys: write.open_table(KEYS)?,
            expiry: write.open_table(EXPIRY)?,
            key_expiry: write.open_table(KEY_EXPIRY)?,
            leased: write.open_table(LEASED)?,
            listed: write.open_table(LISTED)?,
            memory,
            now,
            wall,
            is_changed: false,
            changed: 0,
            touched: HashMap::default(),
            hot,
        })
    }

    /// Begins the next change.
    pub(super) fn next(&mut self) {
        self.changed += u64::from(std::mem::take(&mut self.is_changed));
    }

    /// Returns the number of changes that have written something and need a commit, and the
    /// cells that they changed.
    pub(super) fn close(
        mut self,
        write: &WriteTransaction,
    ) -> Result<(u64, TouchedCells), RedbFault> {
        self.next();
        if self.changed > 0 {
            let mut meta = write.open_table(META)?;
            meta.insert(NEXT_NUMBER, self.memory.next_number)?;
        }
        Ok((self.changed, self.touched))
    }

    /// Returns the row of a cell.
    pub(super) fn row(&self, id: &[u8]) -> Result<Option<Bytes>, RedbFault> {
        if let Some(touched) = self.touched.get(id) {
            return Ok(touched.as_ref().map(|written| written.row.clone()));
        }
        match self.hot.row(id) {
            Some(row) => Ok(Some(row)),
            None => Ok(copy(self.cells.get(id))?.map(Bytes::from)),
        }
    }

    /// Inserts a new cell, which has no result. Returns the row of the cell with this id, if there
    /// is one, and changes nothing then.
    pub(super) fn insert(
        &mut self,
        id: &[u8],
        row: &CellRow<'_>,
    ) -> Result<Option<Vec<u8>>, RedbFault> {
        let row = row.encode();
        // Most ids are new, so the tree is searched once, and a second time for the others.
        if let Some(found) = copy(self.cells.insert(id, &*row))? {
            self.cells.insert(id, &*found)?;
            return Ok(Some(found));
        }
        self.touch(id, row, None);
        Ok(None)
    }

    /// Replaces a cell, whose result is already in its table.
    pub(super) fn replace(
        &mut self,
        id: &[u8],
        row: &CellRow<'_>,
        result: Option<&Bytes>,
    ) -> Result<(), RedbFault> {
        let row = row.encode();
        self.cells.insert(id, &*row)?;
        self.touch(id, row, result);
        Ok(())
    }

    fn touch(&mut self, id: &[u8], row: Vec<u8>, result: Option<&Bytes>) {
        self.is_changed = true;
        let written = WrittenCell {
            row: row.into(),
            result: result.cloned(),
        };
        self.touched.insert(id.into(), Some(written));
    }

    /// Removes a cell and everything that belongs to it, except its key.
    pub(super) fn remove(&mut self, id: &OperationId, row: &CellRow<'_>) -> Result<(), RedbFault> {
        self.is_changed = true;
        let text = text(id);
        if row.parts.result != ResultPart::None {
            self.results.remove(&*text)?;
        }
        self.end_lease(id, &text, row)?;
        if let Some(at) = row.expires_at {
            self.expiry.remove((at, row.number))?;
        }
        self.listed.remove((row.owner, row.number))?;
        self.cells.remove(&*text)?;
        self.touched.insert((*text).into(), None);
        Ok(())
    }

    /// Removes the parts that only a live cell has.
    pub(super) fn end_lease(
        &mut self,
        id: &OperationId,
        text: &[u8],
        row: &CellRow<'_>,
    ) -> Result<(), RedbFault> {
        if row.parts.request {
            self.requests.remove(text)?;
        }
        if row.parts.lease {
            self.leased.remove(row.number)?;
            self.memory.leases.set(id, None);
        }
        Ok(())
    }

    /// Returns the reservation of a key, unless the reservation has expired.
    pub(super) fn reservation(&self, name: &Arc<str>) -> Option<&ReservedRequest> {
        let reserved = self.memory.reservations.get(name)?;
        (!reserved.is_over(self.now)).then_some(&reserved.value)
    }

    pub(super) fn reserve(
        &mut self,
        name: &Arc<str>,
        entry: Option<ExpiringEntry<ReservedRequest>>,
    ) {
        self.memory.reservations.set(name, entry);
    }

    /// Returns the meaning of a key without a reservation; `None` if the key is free.
    pub(super) fn key(&self, name: &str, now: u64) -> Result<Option<KeyCell>, RedbFault> {
        let Some(row) = self.keys.get(name.as_bytes())? else {
            return Ok(None);
        };
        let row = KeyRow::decode(row.value())?;
        if row.has_expired(self.wall) {
            return Ok(None);
        }
        let state = match row.bound {
            RowBinding::Remains(head) => KeyState::Deleted(Bytes::copy_from_slice(head)),
            RowBinding::Answer(answer) => KeyState::Answer(Bytes::copy_from_slice(answer)),
            RowBinding::Operation(id) => {
                let Some(bytes) = self.row(id)? else {
                    return Ok(None);
                };
                let cell = CellRow::decode(&bytes)?;
                if cell.has_expired(now) || cell.key != Some(name.as_bytes()) {
                    return Ok(None);
                }
                KeyState::Operation(Bytes::copy_from_slice(cell.head))
            }
        };
        Ok(Some(KeyCell::new(row.fingerprint, state)))
    }

    /// Replaces the binding of a key.
    pub(super) fn bind(&mut self, name: &[u8], next: &KeyRow<'_>) -> Result<(), RedbFault> {
        self.is_changed = true;
        let before = copy(self.keys.insert(name, &*next.encode()))?;
        self.remove_expiry(name, before)?;
        if let Some(until) = next.until {
            self.key_expiry.insert((until, name), ())?;
        }
        Ok(())
    }

    /// Removes the binding of a key.
    pub(super) fn unbind(&mut self, name: &[u8]) -> Result<(), RedbFault> {
        self.is_changed = true;
        let before = copy(self.keys.remove(name))?;
        self.remove_expiry(name, before)
    }

    /// Removes the binding of a key, if the key is bound to this operation.
    pub(super) fn unbind_from(&mut self, name: &[u8], id: &[u8]) -> Result<(), RedbFault> {
        match self.bound_to(name, id)? {
            true => self.unbind(name),
            false => Ok(()),
        }
    }

    /// Returns whether a key is bound to this operation.
    pub(super) fn bound_to(&self, name: &[u8], id: &[u8]) -> Result<bool, RedbFault> {
        match self.keys.get(name)? {
            Some(row) => Ok(KeyRow::decode(row.value()).is_ok_and(|row| row.is_of(id))),
            None => Ok(false),
        }
    }

    /// Removes the expiry entry of a former row of a key. A damaged row has no readable expiry.
    fn remove_expiry(&mut self, name: &[u8], before: Option<Vec<u8>>) -> Result<(), RedbFault> {
        let until = before.and_then(|before| KeyRow::decode(&before).ok()?.until);
        if let Some(until) = until {
            self.key_expiry.remove((until, name))?;
        }
        Ok(())
    }

    /// Removes the expiry entry of a cell that is removed or cannot be removed.
    pub(super) fn expire(&mut self, at: (u64, u64)) -> Result<(), RedbFault> {
        self.is_changed = true;
        self.expiry.remove(at)?;
        Ok(())
    }

    /// Removes the expiry entry of a key.
    pub(super) fn expire_key(&mut self, until: u64, name: &[u8]) -> Result<(), RedbFault> {
        self.is_changed = true;
        self.key_expiry.remove((until, name))?;
        Ok(())
    }
}

type Got<'g, V> = Result<Option<::redb::AccessGuard<'g, V>>, StorageError>;

/// Copies a value, so that its table can change.
pub(super) fn copy<V>(value: Got<'_, V>) -> Result<Option<Vec<u8>>, StorageError>
where
    V: for<'a> Value<SelfType<'a> = &'a [u8]> + 'static,
{
    Ok(value?.map(|value| value.value().to_vec()))
}

/// Returns the id as the file stores it.
pub(super) fn text(id: &OperationId) -> Vec<u8> {
    id.to_string().into_bytes()
}
