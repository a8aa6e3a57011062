use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::{environment, environment::random_bytes};

/// The maximum length of an id in bytes.
const MAX_LEN: usize = 128;

/// The length of a UUID with hyphens.
const UUID_LEN: usize = 36;

/// Path segments that sub-resources use.
const RESERVED: [&str; 4] = ["result", "results", "events", "terminate"];

/// The id of an operation; unguessable unless the application chooses its own ids.
///
/// [`OperationId::new`] creates a UUID in the layout of version 7 (RFC 9562, section 5.7):
/// 48 bits of time, then 74 bits from a CSPRNG that are drawn anew for every id. Anyone who
/// knows the id can find the operation, so an operation's URL is a capability URL. Set an
/// owner to restrict access further.
///
/// [`FromStr`] validates an id from outside: 1 to 128 bytes of the characters that are *unreserved*
/// in RFC 3986, section 2.3 (letters, digits, `-`, `.`, `_`, `~`), except `.`, `..` and the
/// words that sub-resources use (`result`, `results`, `events`, `terminate`). A valid id
/// can therefore be part of a path unchanged.
///
/// Only [`FromStr`] refuses the words of sub-resources. An id that was accepted before its
/// word became reserved can still be read, also by [`Deserialize`], and found.
///
/// ```
/// use tower_operations::OperationId;
///
/// let id = OperationId::new();
/// assert_eq!(id.to_string().parse(), Ok(id));
///
/// assert!("invoice-2026.11".parse::<OperationId>().is_ok());
/// assert!("../etc/passwd".parse::<OperationId>().is_err());
/// assert!("result".parse::<OperationId>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(Repr);

/// A canonical UUID is always stored as `Uuid`, so that equal texts are equal ids.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Repr {
    Uuid(Uuid),
    Text(Box<str>),
}

impl OperationId {
    /// Creates an id from the time and 74 random bits.
    #[must_use]
    #[allow(clippy::new_without_default)] // a default value would have to be a constant
    pub fn new() -> Self {
        let millis = environment::wall_clock()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_millis() as u64);
        // `Uuid::now_v7` shares a counter between the ids of one millisecond, which leaves
        // too few random bits.
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &random_bytes());
        Self(Repr::Uuid(id.into_uuid()))
    }

    /// Appends the text of the id to `out`.
    pub(crate) fn push_to(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Repr::Uuid(uuid) => {
                let mut text = Uuid::encode_buffer();
                out.extend_from_slice(uuid.as_hyphenated().encode_lower(&mut text).as_bytes());
            }
            Repr::Text(text) => out.extend_from_slice(text.as_bytes()),
        }
    }

    /// Returns the id in the last segment of `path`, if it is a UUID, as most ids are.
    pub(crate) fn at_end_of(path: &str) -> Option<Self> {
        let (before, last) = path.split_at_checked(path.len().checked_sub(UUID_LEN)?)?;
        let is_segment = before.is_empty() || before.ends_with('/');
        let uuid = is_segment.then(|| canonical_uuid(last))??;
        Some(Self(Repr::Uuid(uuid)))
    }

    /// Parses an id from a path or a query. Reserved words are allowed: the id may be older
    /// than the reservation.
    pub(crate) fn named(text: &str) -> Result<Self, InvalidId> {
        // Fast path: a UUID, as most ids are, satisfies the rules below.
        if let Some(uuid) = canonical_uuid(text) {
            return Ok(Self(Repr::Uuid(uuid)));
        }
        if text.is_empty() {
            return Err(InvalidId::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(InvalidId::TooLong);
        }
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if !text.bytes().all(unreserved) {
            return Err(InvalidId::Character);
        }
        if text == "." || text == ".." {
            return Err(InvalidId::Reserved);
        }
        Ok(Self(Repr::Text(text.into())))
    }

    /// Returns the id with a text that a store has kept. The text is not validated again: the
    /// release that accepted the id has validated it.
    ///
    /// # Errors
    /// [`InvalidId::Empty`] if the text is empty.
    pub fn from_stored(text: &str) -> Result<Self, InvalidId> {
        match (canonical_uuid(text), text) {
            (Some(uuid), _) => Ok(Self(Repr::Uuid(uuid))),
            (None, "") => Err(InvalidId::Empty),
            (None, text) => Ok(Self(Repr::Text(text.into()))),
        }
    }

    /// Returns the length of the text in bytes.
    pub(crate) fn text_len(&self) -> usize {
        match &self.0 {
            Repr::Uuid(_) => UUID_LEN,
            Repr::Text(text) => text.len(),
        }
    }

    /// Returns the size on the heap in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Uuid(_) => 0,
            Repr::Text(text) => text.len(),
        }
    }
}

impl FromStr for OperationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match RESERVED.contains(&text) {
            true => Err(InvalidId::Reserved),
            false => Self::named(text),
        }
    }
}

/// Parses a UUID in the form that [`OperationId`] writes.
fn canonical_uuid(text: &str) -> Option<Uuid> {
    if text.len() != UUID_LEN {
        return None;
    }
    // No early exit, so that the loop vectorizes.
    let has_uppercase = text
        .bytes()
        .fold(false, |found, byte| found | byte.is_ascii_uppercase());
    (!has_uppercase).then(|| Uuid::try_parse(text).ok())?
}

impl Hash for OperationId {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        match &self.0 {
            Repr::Uuid(uuid) => hasher.write_u128(uuid.as_u128()),
            Repr::Text(text) => hasher.write(text.as_bytes()),
        }
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Uuid(uuid) => fmt::Display::fmt(uuid, f),
            Repr::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationId({self})")
    }
}

impl Serialize for OperationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OperationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        Self::named(&text).map_err(de::Error::custom)
    }
}

/// The reason why a text is not a valid [`OperationId`]. The text is not repeated: it may
/// be long or hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// The text is empty.
    #[error("an operation id must not be empty")]
    Empty,
    /// The text has more than 128 bytes.
    #[error("an operation id has at most {MAX_LEN} characters")]
    TooLong,
    /// The text has a character outside of `A-Z a-z 0-9 - . _ ~`.
    #[error("an operation id consists of letters, digits, '-', '.', '_' and '~'")]
    Character,
    /// The text is `.`, `..`, `result`, `results`, `events` or `terminate`.
    #[error("this word cannot be an operation id")]
    Reserved,
}

#[cfg(test)]
mod tests;
