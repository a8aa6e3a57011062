//! The rows that are written together.

use sqlx::query;
use tower_operations::{
    engine::{NewCell, NextCell, Stamp},
    operation::OperationId,
};

use super::{
    asking::SqlQuery,
    batches::BatchRow,
    statements::Statements,
    values::{micros, moment, stamp},
};

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
}

impl BatchRow for InsertedRow {
    fn id(&self) -> &str {
        &self.id
    }

    fn bytes(&self) -> usize {
        self.head.len() + self.request.as_ref().map_or(0, Vec::len)
    }

    fn query<'q>(statements: &Statements, rows: &'q [Self]) -> SqlQuery<'q> {
        query(&statements.insert_many)
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

    /// Binds the columns that every change has.
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

impl BatchRow for ChangedRow {
    fn id(&self) -> &str {
        &self.id
    }

    fn bytes(&self) -> usize {
        self.head.len()
    }

    fn query<'q>(statements: &Statements, rows: &'q [Self]) -> SqlQuery<'q> {
        Self::bind(query(&statements.change_many), &column(rows, |row| row))
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
}

impl BatchRow for EndedRow {
    fn id(&self) -> &str {
        &self.change.id
    }

    fn bytes(&self) -> usize {
        self.change.bytes() + self.result.as_ref().map_or(0, Vec::len)
    }

    fn query<'q>(statements: &Statements, rows: &'q [Self]) -> SqlQuery<'q> {
        let changes = column(rows, |row| &row.change);
        ChangedRow::bind(query(&statements.end_many), &changes)
            .bind(column(rows, |row| row.result.as_deref()))
            .bind(column(rows, |row| row.expires_at))
    }
}

/// Returns one column of the rows.
fn column<'a, R, V>(rows: &'a [R], value: impl Fn(&'a R) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}
