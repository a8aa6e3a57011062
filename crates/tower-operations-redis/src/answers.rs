//! The answers of the server.

use ::redis::Value;
use bytes::Bytes;
use tower_operations::{
    engine::{Cell, Inserted, KeyCell, KeyState, LapsedCell, ListedCell, Replaced},
    store::StoreError,
};

use super::error::RedisFault;

type Read<T> = Result<T, StoreError>;

fn corrupt<T>(what: &'static str) -> Read<T> {
    Err(StoreError::refused(RedisFault::Corrupt(what)))
}

/// The values of one answer, in order.
struct Values(std::vec::IntoIter<Value>);

impl Values {
    fn from_value(value: Value) -> Read<Self> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => corrupt("an answer"),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    fn optional(&mut self) -> Read<Option<Bytes>> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(Some(bytes.into())),
            Some(Value::Nil) | None => Ok(None),
            Some(_) => corrupt("a value"),
        }
    }

    fn bytes(&mut self, what: &'static str) -> Read<Bytes> {
        self.optional()?.map_or_else(|| corrupt(what), Ok)
    }

    fn text(&mut self, what: &'static str) -> Read<Option<Box<str>>> {
        let Some(bytes) = self.optional()? else {
            return Ok(None);
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Some(text.into())),
            Err(_) => corrupt(what),
        }
    }

    fn number(&mut self) -> Read<Option<u64>> {
        let Some(text) = self.text("a number")? else {
            return Ok(None);
        };
        text.parse()
            .map_or_else(|_| corrupt("a number"), |number| Ok(Some(number)))
    }
}

/// Reads a record, and a result if there is one.
pub(super) fn cell(value: Value) -> Read<Option<Cell>> {
    let mut values = Values::from_value(value)?;
    let head = values.optional()?;
    let result = values.optional()?;
    Ok(head.map(|head| Cell::new(head, result)))
}

/// Reads 1, the state of the key, or the cell of the id.
pub(super) fn inserted(value: Value) -> Read<Inserted> {
    match value {
        Value::Int(1) => Ok(Inserted::Done),
        Value::Array(values) if values.len() == 2 => {
            let mut values = Values(values.into_iter());
            let head = values.bytes("a record")?;
            Ok(Inserted::Id(head, values.text("the name of a key")?))
        }
        value => key_cell(value).map(Inserted::Key),
    }
}

/// Reads 1, or the state of the key.
pub(super) fn reserved(value: Value) -> Read<Option<KeyCell>> {
    match value {
        Value::Int(1) => Ok(None),
        value => key_cell(value).map(Some),
    }
}

fn key_cell(value: Value) -> Read<KeyCell> {
    let mut values = Values::from_value(value)?;
    let class = values.bytes("a key")?;
    let fingerprint = values.bytes("a fingerprint")?;
    let Ok(fingerprint) = <[u8; 32]>::try_from(&fingerprint[..]) else {
        return corrupt("a fingerprint");
    };
    let state = match &class[..] {
        b"request" => KeyState::Reserved,
        b"operation" => KeyState::Operation(values.bytes("a record")?),
        b"remains" => KeyState::Deleted(values.bytes("a record")?),
        b"answer" => KeyState::Answer(values.bytes("an answer that was kept")?),
        _ => return corrupt("a key"),
    };
    Ok(KeyCell::new(fingerprint, state))
}

/// Reads 1, 0 if there is no cell, or the head of the present cell.
pub(super) fn replaced(value: Value) -> Read<Replaced> {
    match value {
        Value::Int(1) => Ok(Replaced::Done),
        Value::Int(0) => Ok(Replaced::Gone),
        value => {
            let head = Values(vec![value].into_iter()).bytes("a record")?;
            Ok(Replaced::Found(head))
        }
    }
}

pub(super) fn abandoned(value: Value) -> Read<Vec<LapsedCell>> {
    let mut values = Values::from_value(value)?;
    let mut found = Vec::new();
    while !values.is_empty() {
        let (id, head, request) = (
            values.bytes("an id")?,
            values.optional()?,
            values.optional()?,
        );
        let head = head.map_or_else(|| corrupt("a record"), Ok);
        found.push(LapsedCell::new(id, head, request));
    }
    Ok(found)
}

/// Reads the indexes of the requested leases that are not held.
pub(super) fn lost(value: Value) -> Read<Vec<usize>> {
    let Value::Array(values) = value else {
        return corrupt("an answer");
    };
    let index = |value| match value {
        Value::Int(index) => usize::try_from(index).or_else(|_| corrupt("an answer")),
        _ => corrupt("an answer"),
    };
    values.into_iter().map(index).collect()
}

/// Reads a part of a list, and the number before which the list continues.
pub(super) fn listed(value: Value) -> Read<(Vec<ListedCell>, Option<u64>)> {
    let mut values = Values::from_value(value)?;
    let next = values.number()?;
    let mut found = Vec::new();
    while !values.is_empty() {
        let Some(number) = values.number()? else {
            return corrupt("a number");
        };
        let (id, head, result) = (values.optional()?, values.optional()?, values.optional()?);
        let cell = |head| Ok(Cell::new(head, result));
        let cell = id
            .is_some()
            .then(|| head.map_or_else(|| corrupt("a record"), cell));
        found.push(ListedCell::new(number, id.unwrap_or_default(), cell));
    }
    Ok((found, next))
}

pub(super) fn flag(value: &Value) -> Read<bool> {
    match value {
        Value::Int(1) => Ok(true),
        Value::Int(0) => Ok(false),
        _ => corrupt("an answer"),
    }
}

pub(super) fn count(value: &Value) -> Read<usize> {
    match value {
        Value::Int(count) => usize::try_from(*count).or_else(|_| corrupt("an answer")),
        _ => corrupt("an answer"),
    }
}

pub(super) fn secret(value: Value) -> Read<[u8; 32]> {
    let secret = Values(vec![value].into_iter()).bytes("a secret")?;
    <[u8; 32]>::try_from(&secret[..]).or_else(|_| corrupt("a secret"))
}
