use bytes::BufMut;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Header fields as bytes, in their order, including repeated fields.
///
/// A `HeaderMap` costs a stored operation about a kilobyte for one field; a `HeaderBlock`
/// costs six bytes a field in addition to name and value.
///
/// Layout of each field: name length (`u16`), value length (`u32`, with the top bit for
/// *sensitive*), name, value.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum HeaderBlock {
    /// The number of used bytes, and the bytes, padded with zeros.
    Few(u8, [u8; FEW]),
    Many(Box<[u8]>),
}

impl Default for HeaderBlock {
    fn default() -> Self {
        Self::Few(0, [0; FEW])
    }
}

/// The greatest size of a block that is stored inline, in bytes. This size fits a
/// `Content-Type`, the only field of many responses, in no more space than a block on the heap
/// takes.
const FEW: usize = 46;

const SENSITIVE: u32 = 1 << 31;

impl HeaderBlock {
    pub(crate) fn from_map(
        map: &HeaderMap,
        keep: impl Fn(&HeaderName, &HeaderValue) -> bool,
    ) -> Self {
        // The size is exact if all fields are kept, as is common.
        let size = (map.iter())
            .map(|(name, value)| 6 + name.as_str().len() + value.len())
            .sum();
        Self::with_size(size, |out| {
            put_fields(map, keep, out);
        })
    }

    /// Creates a block from at most `size` bytes that `write` appends.
    fn with_size(size: usize, write: impl FnOnce(&mut dyn BufMut)) -> Self {
        if size > FEW {
            let mut many = Vec::with_capacity(size);
            write(&mut many);
            return Self::Many(many.into_boxed_slice());
        }
        let mut few = [0; FEW];
        let mut rest = &mut few[..];
        write(&mut rest);
        let written = FEW - rest.len();
        Self::Few(written as u8, few)
    }

    pub(crate) fn append_to(&self, map: &mut HeaderMap) {
        HeaderFields::of_block(self.as_bytes()).append_to(map);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Few(length, few) => &few[..usize::from(*length)],
            Self::Many(many) => many,
        }
    }

    /// Creates a block from its bytes; bytes that are not a valid field are ignored when
    /// reading.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self::with_size(bytes.len(), |out| out.put_slice(bytes))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Few(..) => 0,
            Self::Many(many) => many.len(),
        }
    }
}

/// Returns whether a response has this field. A response has few fields: comparing their names
/// costs less than a search by hash.
pub(crate) fn has_field(map: &HeaderMap, name: &HeaderName) -> bool {
    map.keys().any(|it| it == name)
}

/// Appends the fields that `keep` selects to `out`, as a block.
pub(crate) fn put_fields(
    map: &HeaderMap,
    keep: impl Fn(&HeaderName, &HeaderValue) -> bool,
    out: &mut (impl BufMut + ?Sized),
) {
    for (name, value) in map.iter().filter(|(name, value)| keep(name, value)) {
        let name = name.as_str().as_bytes();
        put_field(name, value.as_bytes(), value.is_sensitive(), out);
    }
}

/// Appends a field to a block.
pub(super) fn put_field(
    name: &[u8],
    value: &[u8],
    is_sensitive: bool,
    out: &mut (impl BufMut + ?Sized),
) {
    // `http` limits a name to 64 KiB and no server accepts a value of 2 GiB.
    let mut length = value.len() as u32;
    if is_sensitive {
        length |= SENSITIVE;
    }
    out.put_u16_le(name.len() as u16);
    out.put_u32_le(length);
    out.put_slice(name);
    out.put_slice(value);
}

pub(crate) struct HeaderField<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) sensitive: bool,
}

/// The fields of a block in their order, as bytes.
pub(crate) struct HeaderFields<'a>(&'a [u8]);

impl<'a> HeaderFields<'a> {
    /// Reads the bytes of a block.
    pub(crate) fn of_block(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the first value of `name`, which must be in lower case.
    pub(crate) fn get(mut self, name: &str) -> Option<&'a [u8]> {
        let field = self.find(|field| field.name == name.as_bytes());
        field.map(|field| field.value)
    }

    pub(crate) fn append_to(self, map: &mut HeaderMap) {
        for field in self {
            let name = HeaderName::from_bytes(field.name);
            let value = HeaderValue::from_bytes(field.value);
            if let (Ok(name), Ok(mut value)) = (name, value) {
                value.set_sensitive(field.sensitive);
                map.append(name, value);
            }
        }
    }
}

impl<'a> Iterator for HeaderFields<'a> {
    type Item = HeaderField<'a>;

    fn next(&mut self) -> Option<HeaderField<'a>> {
        let (name_length, rest) = self.0.split_first_chunk()?;
        let (value_length, rest) = rest.split_first_chunk()?;
        let value_length = u32::from_le_bytes(*value_length);
        let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*name_length).into())?;
        let (value, rest) = rest.split_at_checked((value_length & !SENSITIVE) as usize)?;
        self.0 = rest;
        Some(HeaderField {
            name,
            value,
            sensitive: value_length & SENSITIVE != 0,
        })
    }
}

impl std::fmt::Debug for HeaderBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut map = HeaderMap::new();
        self.append_to(&mut map);
        map.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fields_survive_a_round_trip(
            fields in prop::collection::vec(
                ("[a-zA-Z][a-zA-Z0-9-]{0,20}", prop::collection::vec(32_u8..=255, 0..40), any::<bool>()),
                0..20,
            )
        ) {
            let mut map = HeaderMap::new();
            for (name, value, sensitive) in fields {
                let value: Vec<u8> = value.into_iter().filter(|byte| *byte != 127).collect();
                let mut value = HeaderValue::from_bytes(&value).unwrap();
                value.set_sensitive(sensitive);
                map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
            let block = HeaderBlock::from_map(&map, |_, _| true);
            prop_assert_eq!(block.as_bytes().is_empty(), map.is_empty());
            let mut back = HeaderMap::new();
            block.append_to(&mut back);
            prop_assert_eq!(&back, &map);
            for (name, value) in &map {
                prop_assert_eq!(back.get_all(name).iter().filter(|v| v.is_sensitive()).count(),
                    map.get_all(name).iter().filter(|v| v.is_sensitive()).count());
                let first = map.get(name).unwrap().as_bytes();
                prop_assert_eq!(HeaderFields::of_block(block.as_bytes()).get(name.as_str()), Some(first));
                let _ = value;
            }
        }
    }
}
