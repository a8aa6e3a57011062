//! The encoding of cells and keys.
//!
//! Numbers are big-endian. An optional text is preceded by its length. The first byte is
//! the version of the encoding. Version 2 of a row of the table of cells has the length of the
//! result, after the parts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tower_operations::{
    engine::CellReader,
    operation::State,
    store::{FencingToken, Stamp, Version},
};

use super::error::RedbFault;

const LAYOUT: u8 = 1;

/// The layout of a cell with a result of known length.
const WITH_LENGTH: u8 = 2;

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
    pub(super) result: ResultPart,
}

/// The result of a cell, which is in another table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ResultPart {
    #[default]
    None,
    /// The result has this length in bytes.
    Length(u64),
    /// An early release wrote the result, and not its length.
    OfUnknownLength,
}

impl ResultPart {
    pub(super) fn of(result: Option<&[u8]>) -> Self {
        result.map_or(Self::None, |result| Self::Length(result.len() as u64))
    }

    /// Returns whether a reader reads the result of a cell of this owner. A result of unknown
    /// length counts as short, since it has to be read to know its length.
    pub(super) fn is_read_by(self, reader: CellReader<'_>, owner: Option<&[u8]>) -> bool {
        let length = match self {
            Self::None => return false,
            Self::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Self::OfUnknownLength => 0,
        };
        reader.reads(owner, length)
    }
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
        out.push(match self.parts.result {
            ResultPart::Length(_) => WITH_LENGTH,
            ResultPart::None | ResultPart::OfUnknownLength => LAYOUT,
        });
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
        let has_result = result != ResultPart::None;
        out.push(u8::from(lease) | u8::from(request) << 1 | u8::from(has_result) << 2);
        if let ResultPart::Length(length) = result {
            out.extend(length.to_be_bytes());
        }
        put_text(&mut out, self.owner);
        put_text(&mut out, self.key);
        out.extend(self.head);
        out
    }

    pub(super) fn decode(row: &'a [u8]) -> Result<Self, RedbFault> {
        let (layout, mut row) = RowReader::new(row, WITH_LENGTH)?;
        let version = Version::from_number(row.number()?).ok_or(RedbFault::Row("version"))?;
        let token = FencingToken::from_number(row.number()?);
        let (number, expires_at) = (row.number()?, row.moment()?);
        let state = state_of(row.byte()?)?;
        let parts = row.byte()?;
        let result = match (parts & 4 != 0, layout) {
            (true, WITH_LENGTH) => ResultPart::Length(row.number()?),
            (true, _) => ResultPart::OfUnknownLength,
            (false, WITH_LENGTH) => return Err(RedbFault::Row("result")),
            (false, _) => ResultPart::None,
        };
        Ok(Self {
            stamp: Stamp::new(version, token),
            number,
            expires_at,
            state,
            parts: CellParts {
                lease: parts & 1 != 0,
                request: parts & 2 != 0,
                result,
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
        let (_, mut row) = RowReader::new(row, LAYOUT)?;
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
    /// Reads the layout, which is at most `latest`.
    fn new(row: &'a [u8], latest: u8) -> Result<(u8, Self), RedbFault> {
        let mut row = Self(row);
        match row.byte()? {
            layout @ LAYOUT.. if layout <= latest => Ok((layout, row)),
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
