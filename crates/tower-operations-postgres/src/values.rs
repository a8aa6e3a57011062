//! Conversions of values to and from the tables.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sqlx::{Row, postgres::PgRow};
use tower_operations::{
    engine::{Cell, KeyCell, KeyState, LapsedCell, ListedCell},
    operation::{State, StateSet},
    store::{FencingToken, Stamp, StoreResult},
};

use super::error::{Unexpected, store_error};

/// The latest time. Times are in microseconds, of which a `timestamptz` has room for the
/// next millennia.
const LATEST: i64 = 250_000_000_000_000_000; // in the year 9892

/// The longest term: two hundred years.
const LONGEST: i64 = 6_311_520_000_000_000;

/// A time, in microseconds since 1970.
pub(super) struct Moment {
    pub(super) exact: i64,
    /// The time as in a head: in whole milliseconds.
    pub(super) rounded: i64,
}

pub(super) fn moment(at: SystemTime) -> Moment {
    let age = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let exact = i64::try_from(age.as_micros()).map_or(LATEST, |micros| micros.min(LATEST));
    Moment {
        exact,
        rounded: exact - exact % 1000,
    }
}

/// Returns the names of states; `None` for all states, which need no comparison.
pub(super) fn words(states: StateSet) -> Option<Vec<&'static str>> {
    (!states.is_all()).then(|| states.iter().map(State::as_str).collect())
}

pub(super) fn micros(term: Duration) -> i64 {
    i64::try_from(term.as_micros()).map_or(LONGEST, |micros| micros.min(LONGEST))
}

/// Returns the same bits as a signed number: tokens are only compared for equality.
pub(super) fn digits(token: FencingToken) -> i64 {
    token.get().cast_signed()
}

pub(super) fn stamp(stamp: Stamp) -> (i64, i64) {
    (stamp.version.get().cast_signed(), digits(stamp.token))
}

pub(super) fn bytes(row: &PgRow, column: &'static str) -> StoreResult<Bytes> {
    Ok(optional_bytes(row, column)?.ok_or(Unexpected::Missing(column))?)
}

pub(super) fn optional_bytes(row: &PgRow, column: &'static str) -> StoreResult<Option<Bytes>> {
    let value: Option<&[u8]> = row.try_get(column).map_err(store_error)?;
    Ok(value.map(Bytes::copy_from_slice))
}

/// Returns the id of the operation of a row.
pub(super) fn name(row: &PgRow) -> StoreResult<Bytes> {
    let id: &str = row.try_get("id").map_err(store_error)?;
    Ok(Bytes::copy_from_slice(id.as_bytes()))
}

pub(super) fn cell(row: &PgRow) -> StoreResult<Cell> {
    Ok(Cell::new(
        bytes(row, "head")?,
        optional_bytes(row, "result")?,
    ))
}

/// Reads a live operation whose lease has expired. Its head may be damaged.
pub(super) fn abandoned(row: &PgRow) -> StoreResult<LapsedCell> {
    let head = bytes(row, "head");
    let request = optional_bytes(row, "request")?;
    Ok(LapsedCell::new(name(row)?, head, request))
}

/// Reads a row of a list; an empty list has a row without a number.
pub(super) fn listed(row: &PgRow) -> StoreResult<Option<ListedCell>> {
    let number: Option<i64> = row.try_get("number").map_err(store_error)?;
    let Some(number) = number else {
        return Ok(None);
    };
    let is_read: bool = row.try_get("is_read").map_err(store_error)?;
    let cell = is_read.then(|| cell(row));
    Ok(Some(ListedCell::new(
        number.cast_unsigned(),
        name(row)?,
        cell,
    )))
}

pub(super) fn text(bytes: Vec<u8>) -> StoreResult<String> {
    Ok(String::from_utf8(bytes).map_err(Unexpected::Text)?)
}

pub(super) fn key_cell(row: &PgRow, stands_for: &str) -> StoreResult<KeyCell> {
    let fingerprint: &[u8] = row.try_get("fingerprint").map_err(store_error)?;
    let fingerprint = fingerprint.try_into();
    let fingerprint = fingerprint.map_err(|_| Unexpected::Fingerprint)?;
    let state = match stands_for {
        "request" => KeyState::Reserved,
        "operation" => KeyState::Operation(bytes(row, "head")?),
        "remains" => KeyState::Deleted(bytes(row, "head")?),
        "answer" => KeyState::Answer(bytes(row, "head")?),
        other => return Err(Unexpected::KeyState(other.into()).into()),
    };
    Ok(KeyCell::new(fingerprint, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_terms_and_the_latest_times_fit() {
        assert_eq!(micros(Duration::MAX), LONGEST);
        assert_eq!(micros(Duration::from_millis(1)), 1000);
        let at = UNIX_EPOCH + Duration::from_micros(1_234_567);
        assert_eq!(
            (moment(at).exact, moment(at).rounded),
            (1_234_567, 1_234_000)
        );
        let late = UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 1000);
        assert_eq!(moment(late).exact, LATEST);
        assert_eq!(moment(UNIX_EPOCH - Duration::from_secs(1)).exact, 0);
    }
}
