//! The leases of operations.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tower_operations::{
    OperationId,
    engine::{LapsedCell, ReclaimFilter},
    store::LeaseHandle,
};

use super::database::{Row, Rows, now};
use crate::Mutant;

/// The lease of an operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeaseRow {
    pub(super) until: Instant,
    pub(super) is_released: bool,
}

impl Row {
    /// Returns whether the lease is over at a moment.
    pub(super) fn has_lapsed(&self, at: Instant) -> bool {
        let has_lapsed = |lease: &LeaseRow| lease.is_released || lease.until <= at;
        self.lease.as_ref().is_some_and(has_lapsed)
    }

    fn is_held_by(&self, held: &LeaseHandle) -> bool {
        let is_released = self.lease.is_some_and(|lease| lease.is_released);
        self.stamp.token == held.token && self.expires_at.is_none() && !is_released
    }
}

impl Rows {
    /// Returns the moment by which a lease has to be over.
    pub(super) fn lapsed_by(&self) -> Instant {
        match self.bug.is(Mutant::ReclaimedEarly) {
            true => now() + Duration::from_millis(1_500),
            false => now(),
        }
    }

    pub(super) fn renew(&mut self, held: &[LeaseHandle], term: Duration) -> Vec<LeaseHandle> {
        let mut lost = Vec::new();
        if self.bug.is(Mutant::CancelNotTold) {
            return lost;
        }
        for held in held {
            match self
                .rows
                .get_mut(&held.id)
                .filter(|row| row.is_held_by(held))
            {
                Some(Row {
                    lease: Some(lease), ..
                }) => lease.until = now() + term,
                Some(_) => {}
                None => lost.push(held.clone()),
            }
        }
        lost
    }

    pub(super) fn release(&mut self, held: &[LeaseHandle]) {
        for held in held {
            let row = self
                .rows
                .get_mut(&held.id)
                .filter(|row| row.is_held_by(held));
            if let Some(lease) = row.and_then(|row| row.lease.as_mut()) {
                lease.is_released = true;
            }
        }
    }

    pub(super) fn reclaimable(&self, filter: ReclaimFilter, limit: usize) -> Vec<LapsedCell> {
        let rows = self.live.iter().map(|id| (id, &self.rows[id]));
        let is_wanted = |row: &Row| {
            let is_released = row.lease.is_some_and(|lease| lease.is_released);
            row.has_lapsed(self.lapsed_by()) && (is_released || filter == ReclaimFilter::Expired)
        };
        let mut lapsed: Vec<_> = rows.filter(|(_, row)| is_wanted(row)).collect();
        lapsed.sort_by_key(|(_, row)| row.lease.map(|lease| lease.until));
        let cells = lapsed.into_iter().take(limit).map(|(id, row)| {
            let id = id.to_string().into();
            LapsedCell::new(id, Ok(row.cell.head.clone()), row.request.clone())
        });
        cells.collect()
    }

    pub(super) fn defer(&mut self, ids: &[Bytes], until: Instant) {
        let ids = ids.iter().filter_map(|id| std::str::from_utf8(id).ok());
        for id in ids.filter_map(|id| id.parse::<OperationId>().ok()) {
            let row = self.rows.get_mut(&id).filter(|row| row.has_lapsed(now()));
            if let Some(lease) = row.and_then(|row| row.lease.as_mut()) {
                (lease.until, lease.is_released) = (until, false);
            }
        }
    }
}
