use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tower_operations::{OperationId, Owner, engine::*, store::*};

/// An engine of cells in a map under a lock.
#[derive(Debug, Default)]
pub struct MapEngine(Mutex<BTreeMap<OperationId, Row>>);

#[derive(Debug)]
struct Row {
    stamp: Stamp,
    owner: Option<Owner>,
    cell: Cell,
    request: Option<Bytes>,
    lease_until: Option<Instant>,
    is_released: bool,
    expires_at: Option<SystemTime>,
}

impl Row {
    fn has_lapsed(&self) -> bool {
        let is_over = |until| until <= Instant::now();
        self.is_released || self.lease_until.is_some_and(is_over)
    }

    fn has_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    fn is_held_by(&self, held: &LeaseHandle) -> bool {
        self.stamp.token == held.token && self.expires_at.is_none() && !self.is_released
    }
}

impl Engine for MapEngine {
    async fn read(&self, id: &OperationId, reader: CellReader<'_>) -> StoreResult<Option<Cell>> {
        Ok(self.0.lock().unwrap().get(id).map(|row| {
            let wanted = |result: &Bytes| reader.reads(row.owner.as_ref(), result.len());
            let result = row.cell.result.clone().filter(wanted);
            Cell::new(row.cell.head.clone(), result)
        }))
    }

    async fn insert(&self, new: NewCell<'_>) -> StoreResult<Inserted> {
        let mut rows = self.0.lock().unwrap();
        if let Some(row) = rows.get(new.id).filter(|row| !row.has_expired(new.now)) {
            return Ok(Inserted::Id(row.cell.head.clone(), None));
        }
        let row = Row {
            stamp: new.stamp,
            owner: new.owner.cloned(),
            cell: Cell::new(Bytes::copy_from_slice(new.head), None),
            request: new.request.map(Bytes::copy_from_slice),
            lease_until: new.lease.map(|term| Instant::now() + term),
            is_released: false,
            expires_at: None,
        };
        rows.insert(new.id.clone(), row);
        Ok(Inserted::Done)
    }

    async fn replace(
        &self,
        id: &OperationId,
        expected: Stamp,
        next: NextCell<'_>,
    ) -> StoreResult<Replaced> {
        let mut rows = self.0.lock().unwrap();
        let Some(row) = rows.get_mut(id) else {
            return Ok(Replaced::Gone);
        };
        let may_reclaim = !matches!(next.lease, LeaseChange::Reclaim(_)) || row.has_lapsed();
        if row.stamp != expected || !may_reclaim {
            return Ok(Replaced::Found(row.cell.head.clone()));
        }
        (row.stamp, row.expires_at) = (next.stamp, next.expires_at);
        let result = next.result.map(Bytes::copy_from_slice);
        row.cell = Cell::new(Bytes::copy_from_slice(next.head), result);
        if next.expires_at.is_some() {
            (row.lease_until, row.is_released, row.request) = (None, false, None);
        } else if let LeaseChange::Reclaim(term) | LeaseChange::Transfer(term) = next.lease {
            (row.lease_until, row.is_released) = (Some(Instant::now() + term), false);
        }
        Ok(Replaced::Done)
    }

    async fn delete(
        &self,
        id: &OperationId,
        expected: Stamp,
        _: &[u8],
        _: Option<SystemTime>,
    ) -> StoreResult<Replaced> {
        let mut rows = self.0.lock().unwrap();
        Ok(match rows.remove_entry(id) {
            None => Replaced::Gone,
            Some((_, row)) if row.stamp == expected => Replaced::Done,
            Some((id, row)) => Replaced::Found(rows.entry(id).or_insert(row).cell.head.clone()),
        })
    }

    async fn renew(&self, held: &[LeaseHandle], term: Duration) -> StoreResult<Vec<LeaseHandle>> {
        let (mut rows, mut lost) = (self.0.lock().unwrap(), Vec::new());
        for held in held {
            match rows.get_mut(&held.id).filter(|row| row.is_held_by(held)) {
                Some(row) => row.lease_until = Some(Instant::now() + term),
                None => lost.push(held.clone()),
            }
        }
        Ok(lost)
    }

    async fn release(&self, held: &[LeaseHandle]) -> StoreResult<()> {
        for (id, row) in &mut *self.0.lock().unwrap() {
            let mut held = held.iter().filter(|held| held.id == *id);
            row.is_released |= held.any(|held| row.is_held_by(held));
        }
        Ok(())
    }

    async fn reclaimable(
        &self,
        filter: ReclaimFilter,
        limit: usize,
    ) -> StoreResult<Vec<LapsedCell>> {
        let rows = self.0.lock().unwrap();
        let mut lapsed: Vec<_> = rows.iter().filter(|(_, row)| row.has_lapsed()).collect();
        lapsed.retain(|(_, row)| row.is_released || filter == ReclaimFilter::Expired);
        lapsed.sort_by_key(|(_, row)| row.lease_until);
        let cells = lapsed.into_iter().take(limit).map(|(id, row)| {
            let id = id.to_string().into();
            LapsedCell::new(id, Ok(row.cell.head.clone()), row.request.clone())
        });
        Ok(cells.collect())
    }

    async fn purge(&self, limit: usize, now: SystemTime) -> StoreResult<usize> {
        let mut rows = self.0.lock().unwrap();
        let expired = rows.iter().filter(|(_, row)| row.has_expired(now));
        let expired: Vec<_> = expired.map(|(id, _)| id.clone()).take(limit).collect();
        Ok(expired.iter().filter_map(|id| rows.remove(id)).count())
    }
}
