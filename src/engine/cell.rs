//! The data that an engine stores, and the queries that it answers.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{KeyCell, record_head};
use crate::{
    operation::{OperationId, State, Stored},
    store::{FencingToken, IdempotencyKey, NodeId, Owner, Record, Stamp, StoreResult},
};

/// The reader on whose behalf a cell is read, which decides whether its result is read too.
#[derive(Debug, Clone, Copy)]
pub enum CellReader<'a> {
    /// A reader of heads alone.
    Head,
    /// A reader of whole cells, for any owner.
    Store,
    /// A reader that acts for an owner.
    Owner {
        /// The owner, who may read only the results of its own cells.
        owner: Option<&'a Owner>,
        /// The length in bytes up to which a result is read.
        max_result: usize,
    },
}

impl<'a> CellReader<'a> {
    /// Returns whether the result of a cell is read. `owner` is the owner of the cell, and
    /// `length` the length of its result in bytes.
    #[must_use]
    pub fn reads(self, owner: Option<&(impl AsRef<[u8]> + ?Sized)>, length: usize) -> bool {
        match self {
            Self::Head => false,
            Self::Store => true,
            Self::Owner {
                owner: reader,
                max_result,
            } => {
                let owner = owner.map(AsRef::as_ref);
                length <= max_result && reader.map(|reader| reader.as_str().as_bytes()) == owner
            }
        }
    }

    /// Returns the length in bytes up to which results are read.
    pub(super) fn max_result(self) -> usize {
        match self {
            Self::Head => 0,
            Self::Store => usize::MAX,
            Self::Owner { max_result, .. } => max_result,
        }
    }

    /// Returns the reader of results of any length on behalf of the same owner.
    pub(super) fn of_all_results(self) -> Self {
        match self {
            Self::Owner { owner, .. } => Self::Owner {
                owner,
                max_result: usize::MAX,
            },
            Self::Head | Self::Store => Self::Store,
        }
    }
}

/// The stored data of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cell {
    /// The record without its result, or without the body of its result.
    pub head: Bytes,
    /// The result, or its body, if there is one and it was read.
    pub result: Option<Bytes>,
}

impl Cell {
    /// Returns a cell of these bytes.
    #[must_use]
    pub fn new(head: Bytes, result: Option<Bytes>) -> Self {
        Self { head, result }
    }

    /// Returns the bytes of a record. Later releases read these bytes (law 10).
    ///
    /// # Errors
    /// [`StoreError::Refused`](crate::store::StoreError::Refused) if the result, or a problem
    /// that the application set, could not be read back.
    pub fn encode<T: Stored>(record: &Record<T>) -> StoreResult<Self> {
        let head = record_head::encode(record)?.into();
        let result = record_head::result(record)?;
        Ok(Self { head, result })
    }

    /// Returns the record with these bytes.
    ///
    /// # Errors
    /// [`StoreError::Refused`](crate::store::StoreError::Refused) if the bytes are not a record,
    /// or are a record of a later release.
    pub fn decode<T: Stored>(self) -> StoreResult<Record<T>> {
        record_head::decode(self)
    }
}

/// A cell to insert.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct NewCell<'a> {
    /// The operation.
    pub id: &'a OperationId,
    /// The stamp of the cell.
    pub stamp: Stamp,
    /// The state, which lists are filtered by.
    pub state: State,
    /// The owner.
    pub owner: Option<&'a Owner>,
    /// The record.
    pub head: &'a [u8],
    /// The term of the lease; `None` creates the cell without a lease.
    pub lease: Option<Duration>,
    /// The data to rerun the operation, kept as long as the operation is live.
    pub request: Option<&'a [u8]>,
    /// The key that creates the cell.
    pub key: Option<&'a IdempotencyKey>,
    /// The token by which the key is reserved; `None` without a reservation.
    pub reservation: Option<FencingToken>,
    /// Cells that expired by this time are absent.
    pub now: SystemTime,
}

impl<'a> NewCell<'a> {
    /// Returns a pending cell without owner, lease, request and key.
    #[must_use]
    pub fn new(id: &'a OperationId, stamp: Stamp, head: &'a [u8], now: SystemTime) -> Self {
        Self {
            id,
            stamp,
            state: State::Pending,
            owner: None,
            head,
            lease: None,
            request: None,
            key: None,
            reservation: None,
            now,
        }
    }
}

/// A cell that replaces another.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct NextCell<'a> {
    /// The stamp of the cell.
    pub stamp: Stamp,
    /// The state, which lists are filtered by.
    pub state: State,
    /// The record.
    pub head: &'a [u8],
    /// The result, or its body.
    pub result: Option<&'a [u8]>,
    /// The time at which the cell expires; set if and only if the operation has ended.
    pub expires_at: Option<SystemTime>,
    /// The change of the lease.
    pub lease: LeaseChange,
}

impl<'a> NextCell<'a> {
    /// Returns a live cell that keeps its lease.
    #[must_use]
    pub fn new(stamp: Stamp, state: State, head: &'a [u8]) -> Self {
        Self {
            stamp,
            state,
            head,
            result: None,
            expires_at: None,
            lease: LeaseChange::Keep,
        }
    }
}

/// The change of the lease on a cell that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseChange {
    /// The lease stays as it is.
    Keep,
    /// The lease is reclaimed for this term, only if it has expired.
    Reclaim(Duration),
    /// The lease is transferred for this term, whether or not it has expired.
    Transfer(Duration),
}

/// The result of [`Engine::insert`](super::Engine::insert).
#[derive(Debug)]
#[non_exhaustive]
pub enum Inserted {
    /// The cell was inserted.
    Done,
    /// The key is in use.
    Key(KeyCell),
    /// The id has a cell that has not expired, with this head, created by the key with this
    /// [scoped name](IdempotencyKey::scoped_name), if any. The result of that cell is not read.
    Id(Bytes, Option<Box<str>>),
}

/// The result of a conditional write.
#[derive(Debug)]
#[non_exhaustive]
pub enum Replaced {
    /// The write happened.
    Done,
    /// The cell has another stamp, or a lease that has not expired. This is the head of the cell.
    /// It may be slightly older, with the expected stamp; the write is retried then.
    Found(Bytes),
    /// The cell does not exist.
    Gone,
}

/// Selects the live cells that may be reclaimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReclaimFilter {
    /// Cells that certainly have no holder: their lease was released, or their holder is known
    /// to have died.
    Released,
    /// Cells with a lease that was released or has expired.
    Expired,
}

/// A live cell without a valid lease.
#[derive(Debug)]
#[non_exhaustive]
pub struct LapsedCell {
    /// The operation, as the engine names it.
    pub id: Bytes,
    /// The head of the cell, or an error if the stored data is damaged. A live cell has no
    /// result.
    pub head: StoreResult<Bytes>,
    /// The stored data to rerun the operation.
    pub request: Option<Bytes>,
}

impl LapsedCell {
    /// Returns a cell of this operation.
    #[must_use]
    pub fn new(id: Bytes, head: StoreResult<Bytes>, request: Option<Bytes>) -> Self {
        Self { id, head, request }
    }
}

/// A message to other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The operation has changed, or no longer exists.
    Changed {
        /// The id of the operation.
        id: OperationId,
        /// The node that lost the operation by the change.
        revoked_from: Option<NodeId>,
    },
    /// Leases were released.
    Released,
}
