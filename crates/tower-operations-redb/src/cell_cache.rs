//! A cache of the latest written cells, which are read without the file.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use foldhash::quality::RandomState;
use tower_operations::engine::{Cell, CellReader};

use super::{error::RedbFault, rows::CellRow};

/// The maximum size of a cached cell, in bytes.
const LARGEST: usize = 64 * 1024;

/// The memory that a cell takes besides its bytes.
const OVERHEAD: usize = 256;

/// The latest written cells, up to a number of bytes. A cached cell equals its state in the
/// file.
#[derive(Debug)]
pub(super) struct CellCache {
    cells: Mutex<CachedCells>,
    /// The capacity in bytes.
    capacity: usize,
}

#[derive(Debug, Default)]
struct CachedCells {
    by_id: HashMap<Arc<[u8]>, CachedCell, RandomState>,
    /// The ids in the order of their commits; those of one commit are in the order of ids.
    order: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct CachedCell {
    written: WrittenCell,
    place: u64,
    weight: usize,
}

/// A written cell.
#[derive(Debug, Clone)]
pub(super) struct WrittenCell {
    pub(super) row: Bytes,
    pub(super) result: Option<Bytes>,
}

/// The cells as a batch leaves them, by id: `None` if the batch removes the cell.
pub(super) type TouchedCells = HashMap<Arc<[u8]>, Option<WrittenCell>, RandomState>;

impl CellCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            cells: Mutex::default(),
            capacity,
        }
    }

    /// Returns the cell of an operation as the reader may see it, if all of it is cached.
    pub(super) fn read(
        &self,
        id: &[u8],
        reader: CellReader<'_>,
    ) -> Option<Result<Cell, RedbFault>> {
        let written = self.lock().by_id.get(id)?.written.clone();
        let row = match CellRow::decode(&written.row) {
            Ok(row) => row,
            Err(fault) => return Some(Err(fault)),
        };
        let is_wanted = row.parts.result.is_read_by(reader, row.owner);
        if is_wanted && written.result.is_none() {
            return None;
        }
        let head = written.row.slice_ref(row.head);
        Some(Ok(Cell::new(head, written.result.filter(|_| is_wanted))))
    }

    /// Returns the row of a cell, if it is cached.
    pub(super) fn row(&self, id: &[u8]) -> Option<Bytes> {
        Some(self.lock().by_id.get(id)?.written.row.clone())
    }

    /// Removes cells that the next commit changes: during the commit only the file has
    /// them.
    pub(super) fn invalidate(&self, touched: &TouchedCells) {
        let mut cells = self.lock();
        for id in touched.keys() {
            cells.remove(id);
        }
    }

    /// Removes all cells.
    pub(super) fn clear(&self) {
        let mut cells = self.lock();
        cells.by_id.clear();
        cells.order.clear();
        cells.bytes = 0;
    }

    /// Adds the committed cells, which were [invalidated](Self::invalidate) before the commit.
    pub(super) fn keep(&self, touched: TouchedCells) {
        // The order decides which cells are removed, and must not be that of a random hasher.
        let mut touched: Vec<_> = touched.into_iter().collect();
        touched.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut cells = self.lock();
        for (id, written) in touched {
            if let Some(written) = written {
                cells.insert(id, written, self.capacity);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, CachedCells> {
        // Nothing in a critical section panics halfway through a change.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedCells {
    fn insert(&mut self, id: Arc<[u8]>, mut written: WrittenCell, capacity: usize) {
        let of_row = OVERHEAD + id.len() + written.row.len();
        let of_result = written.result.as_ref().map_or(0, Bytes::len);
        let fits = |weight: usize| weight <= LARGEST.min(capacity);
        let weight = match fits(of_row + of_result) {
            true => of_row + of_result,
            false => {
                written.result = None;
                of_row
            }
        };
        if !fits(weight) {
            return;
        }
        let place = self.next;
        self.next += 1;
        self.bytes += weight;
        self.order.insert(place, Arc::clone(&id));
        let kept = CachedCell {
            written,
            place,
            weight,
        };
        self.by_id.insert(id, kept);
        while self.bytes > capacity
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = Arc::clone(oldest);
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, id: &[u8]) {
        if let Some(kept) = self.by_id.remove(id) {
            self.order.remove(&kept.place);
            self.bytes -= kept.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: usize) -> Option<WrittenCell> {
        Some(WrittenCell {
            row: vec![0; bytes].into(),
            result: None,
        })
    }

    fn id(n: usize) -> Arc<[u8]> {
        n.to_string().as_bytes().into()
    }

    #[test]
    fn caches_are_bounded_in_bytes_and_keep_the_latest_writes() {
        let hot = CellCache::new(10 * (1000 + OVERHEAD));
        for n in 0..1000 {
            let touched = TouchedCells::from_iter([(id(n), written(900))]);
            hot.invalidate(&touched);
            hot.keep(touched.clone());
            hot.invalidate(&touched);
            hot.keep(touched);
        }
        let cells = hot.lock();
        assert!(cells.bytes <= hot.capacity);
        assert_eq!(cells.by_id.len(), cells.order.len());
        assert!(cells.by_id.contains_key(&id(999)) && !cells.by_id.contains_key(&id(900)));
        drop(cells);
        let large = TouchedCells::from_iter([(id(1), written(LARGEST + 1))]);
        hot.invalidate(&large);
        hot.keep(large);
        assert!(!hot.lock().by_id.contains_key(&id(1)));
        hot.invalidate(&(0..1000).map(|n| (id(n), None)).collect());
        let cells = hot.lock();
        assert_eq!((cells.bytes, cells.order.len()), (0, 0));
        drop(cells);
        hot.keep(TouchedCells::from_iter([(id(1), written(900))]));
        hot.clear();
        let cells = hot.lock();
        let sizes = (cells.bytes, cells.order.len(), cells.by_id.len());
        assert_eq!(sizes, (0, 0, 0));
    }
}
