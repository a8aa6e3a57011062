//! The encoding of cells and keys.
//!
//! Numbers are big-endian. An optional text is preceded by its length. The first byte is
//! the version of the encoding.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tower_operations::{
    operation::State,
    store::{FencingToken, Stamp, Version},
};

use super::error::RedbFault;

const LAYOUT: u8 = 1;

/// Converts a time to milliseconds since 1970, at least 1. No stored time is before 1970.
pub(super) fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(1, whole).max(1)
}

/// Returns `at` + `term` in milliseconds.
pub(super) fn after(at: u64, term: Duration) -> u64 {
    at.saturating_add(whole(term))
}

fn whole(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A row of the table of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CellRow<'a> {
    pub(super) stamp: Stamp,
    pub(super) number: u64,
    pub(super) expires_at: Option<u64>,
    pub(super) state: State,
    pub(super) parts: CellParts,
    pub(super) owner: Option<&'a [u8]>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) head: &'a [u8],
}

/// The parts of a cell that are in other tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CellParts {
    pub(super) lease: bool,
    pub(super) request: bool,
    pub(super) result: bool,
}

impl<'a> CellRow<'a> {
    pub(super) fn has_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(
            64 + self.owner.map_or(0, <[u8]>::len)
                + self.key.map_or(0, <[u8]>::len)
                + self.head.len(),
        );
        out.push(LAYOUT);
        out.extend(self.stamp.version.get().to_be_bytes());
        out.extend(self.stamp.token.get().to_be_bytes());
        out.extend(self.number.to_be_bytes());
        put_moment(&mut out, self.expires_at);
        out.push(number_of(self.state));
        let CellParts {
            lease,
            request,
            result,
        } = self.parts;
        out.push(u8::from(lease) | u8::from(request) << 1 | u8::from(result) << 2);
        put_text(&mut out, self.owner);
        put_text(&mut out, self.key);
        out.extend(self.head);
        out
    }

    pub(super) fn decode(row: &'a [u8]) -> Result<Self, RedbFault> {
        let mut row = RowReader::new(row)?;
        let version = Version::from_number(row.number()?).ok_or(RedbFault::Row("version"))?;
        let token = FencingToken::from_number(row.number()?);
        let (number, expires_at) = (row.number()?, row.moment()?);
        let state = state_of(row.byte()?)?;
        let parts = row.byte()?;
        Ok(Self {
            stamp: Stamp::new(version, token),
            number,
            expires_at,
            state,
            parts: CellParts {
                lease: parts & 1 != 0,
                request: parts & 2 != 0,
                result: parts & 4 != 0,
            },
            owner: row.text()?,
            key: row.text()?,
            head: row.0,
        })
    }
}

/// A row of the table of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyRow<'a> {
    pub(super) owner: Option<&'a [u8]>,
    pub(super) fingerprint: [u8; 32],
    /// The token of the reservation that was completed.
    pub(super) token: FencingToken,
    /// The expiry; `None` if the key lasts as long as its operation, or forever.
    pub(super) until: Option<u64>,
    pub(super) bound: RowBinding<'a>,
}

/// The binding of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowBinding<'a> {
    /// The id of an operation.
    Operation(&'a [u8]),
    /// The remains of a deleted operation.
    Remains(&'a [u8]),
    /// An early answer.
    Answer(&'a [u8]),
}

impl<'a> KeyRow<'a> {
    pub(super) fn has_expired(&self, now: u64) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    pub(super) fn is_of(&self, id: &[u8]) -> bool {
        self.bound == RowBinding::Operation(id)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, content) = match self.bound {
            RowBinding::Operation(id) => (1, id),
            RowBinding::Remains(head) => (2, head),
            RowBinding::Answer(answer) => (3, answer),
        };
        let mut out = Vec::with_capacity(64 + self.owner.map_or(0, <[u8]>::len) + content.len());
        out.push(LAYOUT);
        out.extend(self.token.get().to_be_bytes());
        put_moment(&mut out, self.until);
        out.extend(self.fingerprint);
        put_text(&mut out, self.owner);
        out.push(kind);
        out.extend(content);
        out
    }

    pub(super) fn decode(row: &'a [u8]) -> Result<Self, RedbFault> {
        let mut row = RowReader::new(row)?;
        let token = FencingToken::from_number(row.number()?);
        let (until, fingerprint, owner) = (row.moment()?, row.array()?, row.text()?);
        let bound = match row.byte()? {
            1 => RowBinding::Operation(row.0),
            2 => RowBinding::Remains(row.0),
            3 => RowBinding::Answer(row.0),
            _ => return Err(RedbFault::Row("kind of key")),
        };
        Ok(Self {
            owner,
            fingerprint,
            token,
            until,
            bound,
        })
    }
}

/// Decodes and encodes a row of the table of cells.
#[cfg(fuzzing)]
pub fn cell_again(row: &[u8]) -> Option<Vec<u8>> {
    CellRow::decode(row).ok().map(|row| row.encode())
}

/// Decodes and encodes a row of the table of keys.
#[cfg(fuzzing)]
pub fn key_again(row: &[u8]) -> Option<Vec<u8>> {
    KeyRow::decode(row).ok().map(|row| row.encode())
}

fn number_of(state: State) -> u8 {
    match state {
        State::Pending => 1,
        State::Running => 2,
        State::Succeeded => 3,
        State::Failed => 4,
        State::Canceled => 5,
    }
}

fn state_of(number: u8) -> Result<State, RedbFault> {
    Ok(match number {
        1 => State::Pending,
        2 => State::Running,
        3 => State::Succeeded,
        4 => State::Failed,
        5 => State::Canceled,
        _ => return Err(RedbFault::Row("state")),
    })
}

/// Writes `None` as 0, which is not a valid time.
fn put_moment(out: &mut Vec<u8>, at: Option<u64>) {
    out.extend(at.unwrap_or(0).to_be_bytes());
}

/// The length that stands for `None`.
const NO_TEXT: u32 = u32::MAX;

fn put_text(out: &mut Vec<u8>, text: Option<&[u8]>) {
    let len = text.map_or(NO_TEXT, |text| text.len() as u32);
    out.extend(len.to_be_bytes());
    out.extend(text.unwrap_or_default());
}

/// The unread rest of a row.
struct RowReader<'a>(&'a [u8]);

impl<'a> RowReader<'a> {
    fn new(row: &'a [u8]) -> Result<Self, RedbFault> {
        let mut row = Self(row);
        match row.byte()? {
            LAYOUT => Ok(row),
            _ => Err(RedbFault::Row("layout")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RedbFault> {
        let (array, rest) = self.0.split_first_chunk().ok_or(RedbFault::Row("end"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, RedbFault> {
        self.array().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u64, RedbFault> {
        self.array().map(u64::from_be_bytes)
    }

    fn moment(&mut self) -> Result<Option<u64>, RedbFault> {
        Ok(Some(self.number()?).filter(|at| *at != 0))
    }

    fn text(&mut self) -> Result<Option<&'a [u8]>, RedbFault> {
        let len = u32::from_be_bytes(self.array()?);
        if len == NO_TEXT {
            return Ok(None);
        }
        let (text, rest) = (self.0)
            .split_at_checked(len as usize)
            .ok_or(RedbFault::Row("end"))?;
        self.0 = rest;
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests;
