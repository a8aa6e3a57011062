//! The rows that are written together.

use sqlx::query;
use tower_operations::{
    engine::{NewCell, NextCell},
    operation::OperationId,
    store::Stamp,
};

use super::{
    asking::SqlQuery,
    statements::Statements,
    values::{micros, moment, stamp},
};

/// A row to write.
pub(super) enum WriteRow {
    Insert(InsertedRow),
    Change(ChangedRow),
    End(EndedRow),
}

impl WriteRow {
    /// Returns the id of the operation.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Insert(row) => &row.id,
            Self::Change(row) => &row.id,
            Self::End(row) => &row.change.id,
        }
    }

    /// Returns the approximate size in bytes.
    pub(super) fn bytes(&self) -> usize {
        let (head, more) = match self {
            Self::Insert(row) => (&row.head, row.request.as_ref()),
            Self::Change(row) => (&row.head, None),
            Self::End(row) => (&row.change.head, row.result.as_ref()),
        };
        head.len() + more.map_or(0, Vec::len)
    }

    /// Returns the statement, which answers the id of each row that was written.
    pub(super) fn query<'q>(statements: &Statements, rows: &[&'q Self]) -> SqlQuery<'q> {
        let (mut inserts, mut changes, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            match row {
                Self::Insert(row) => inserts.push(row),
                Self::Change(row) => changes.push(row),
                Self::End(row) => ends.push(row),
            }
        }
        let query = InsertedRow::bind(query(&statements.write), &inserts);
        let query = ChangedRow::bind(query, &changes);
        EndedRow::bind(query, &ends)
    }
}

/// A new operation without a key.
pub(super) struct InsertedRow {
    id: String,
    version: i64,
    token: i64,
    state: &'static str,
    owner: Option<Vec<u8>>,
    head: Vec<u8>,
    term: Option<i64>,
    request: Option<Vec<u8>>,
}

impl InsertedRow {
    pub(super) fn new(new: &NewCell<'_>) -> Self {
        let (version, token) = stamp(new.stamp);
        Self {
            id: new.id.to_string(),
            version,
            token,
            state: new.state.as_str(),
            owner: new.owner.map(|owner| owner.as_str().as_bytes().to_vec()),
            head: new.head.to_vec(),
            term: new.lease.map(micros),
            request: new.request.map(<[u8]>::to_vec),
        }
    }

    fn bind<'q>(query: SqlQuery<'q>, rows: &[&'q Self]) -> SqlQuery<'q> {
        query
            .bind(column(rows, |row| &*row.id))
            .bind(column(rows, |row| row.version))
            .bind(column(rows, |row| row.token))
            .bind(column(rows, |row| row.state))
            .bind(column(rows, |row| row.owner.as_deref()))
            .bind(column(rows, |row| &*row.head))
            .bind(column(rows, |row| row.term))
            .bind(column(rows, |row| row.request.as_deref()))
    }
}

/// A change of a live operation.
pub(super) struct ChangedRow {
    id: String,
    was: (i64, i64),
    next: (i64, i64),
    state: &'static str,
    head: Vec<u8>,
}

impl ChangedRow {
    pub(super) fn new(id: &OperationId, expected: Stamp, next: &NextCell<'_>) -> Self {
        Self {
            id: id.to_string(),
            was: stamp(expected),
            next: stamp(next.stamp),
            state: next.state.as_str(),
            head: next.head.to_vec(),
        }
    }

    fn bind<'q>(query: SqlQuery<'q>, rows: &[&'q Self]) -> SqlQuery<'q> {
        query
            .bind(column(rows, |row| &*row.id))
            .bind(column(rows, |row| row.was.0))
            .bind(column(rows, |row| row.was.1))
            .bind(column(rows, |row| row.next.0))
            .bind(column(rows, |row| row.next.1))
            .bind(column(rows, |row| row.state))
            .bind(column(rows, |row| &*row.head))
    }
}

/// The end of an operation.
pub(super) struct EndedRow {
    change: ChangedRow,
    result: Option<Vec<u8>>,
    expires_at: Option<i64>,
}

impl EndedRow {
    pub(super) fn new(id: &OperationId, expected: Stamp, next: &NextCell<'_>) -> Self {
        Self {
            change: ChangedRow::new(id, expected, next),
            result: next.result.map(<[u8]>::to_vec),
            expires_at: next.expires_at.map(|at| moment(at).rounded),
        }
    }

    fn bind<'q>(query: SqlQuery<'q>, rows: &[&'q Self]) -> SqlQuery<'q> {
        let changes = column(rows, |row| &row.change);
        ChangedRow::bind(query, &changes)
            .bind(column(rows, |row| row.result.as_deref()))
            .bind(column(rows, |row| row.expires_at))
    }
}

/// Returns one column of the rows.
fn column<'q, R, V>(rows: &[&'q R], value: impl Fn(&'q R) -> V) -> Vec<V> {
    rows.iter().map(|row| value(row)).collect()
}
