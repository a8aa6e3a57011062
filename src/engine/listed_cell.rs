//! Lists of cells.

use std::time::SystemTime;

use bytes::Bytes;

use super::Cell;
use crate::{
    operation::StateSet,
    store::{Owner, StoreResult},
};

/// A query for cells.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CellQuery<'a> {
    /// The owner; `None` lists cells without an owner.
    pub owner: Option<&'a Owner>,
    /// The states of the cells to list.
    pub states: StateSet,
    /// The maximum number of cells.
    pub limit: usize,
    /// The length in bytes up to which a result is read.
    pub max_result: usize,
    /// The maximum number of bytes of results. Once this number is reached, no more cells are
    /// read.
    pub max_bytes: usize,
    /// The number that all listed cells are below; `None` begins with the newest cells.
    pub before: Option<u64>,
    /// Cells that expired by this time are absent.
    pub now: SystemTime,
}

impl<'a> CellQuery<'a> {
    /// Returns a query for all cells of an owner, at most `limit` of them.
    #[must_use]
    pub fn new(owner: Option<&'a Owner>, limit: usize, now: SystemTime) -> Self {
        Self {
            owner,
            states: StateSet::ALL,
            limit,
            max_result: usize::MAX,
            max_bytes: usize::MAX,
            before: None,
            now,
        }
    }
}

/// A cell in a list.
#[derive(Debug)]
#[non_exhaustive]
pub struct ListedCell {
    /// The number in the order of creation, at least 1; newer cells have higher numbers.
    pub number: u64,
    /// The operation, as the engine names it.
    pub id: Bytes,
    /// The cell, if it was read; an error if the stored data is damaged.
    pub cell: Option<StoreResult<Cell>>,
}

impl ListedCell {
    /// Returns the cell of this number.
    #[must_use]
    pub fn new(number: u64, id: Bytes, cell: Option<StoreResult<Cell>>) -> Self {
        Self { number, id, cell }
    }

    /// Returns the number of bytes that were read of the result.
    #[must_use]
    pub fn result_bytes(&self) -> usize {
        match &self.cell {
            Some(Ok(cell)) => cell.result.as_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        }
    }
}
