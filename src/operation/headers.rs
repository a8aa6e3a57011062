use http::{HeaderMap, HeaderName, HeaderValue};

/// Header fields in one allocation: order and repetition kept, values as bytes.
///
/// A `HeaderMap` costs a stored operation about a kilobyte for one field; this
/// costs six bytes a field beyond name and value.
///
/// Layout, repeated: name length (`u16`), value length (`u32`, its top bit for
/// *sensitive*), name, value.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct HeaderBlock(Box<[u8]>);

const SENSITIVE: u32 = 1 << 31;

impl HeaderBlock {
    pub(crate) fn from_map(
        map: &HeaderMap,
        keep: impl Fn(&HeaderName, &HeaderValue) -> bool,
    ) -> Self {
        // Exact where all are kept, as mostly.
        let size = (map.iter())
            .map(|(name, value)| 6 + name.as_str().len() + value.len())
            .sum();
        let mut block = Vec::with_capacity(size);
        for (name, value) in map.iter().filter(|(name, value)| keep(name, value)) {
            let name = name.as_str().as_bytes();
            // `http` bounds a name to 64 KiB and no server takes a value of 2 GiB.
            let mut length = value.len() as u32;
            if value.is_sensitive() {
                length |= SENSITIVE;
            }
            block.extend_from_slice(&(name.len() as u16).to_le_bytes());
            block.extend_from_slice(&length.to_le_bytes());
            block.extend_from_slice(name);
            block.extend_from_slice(value.as_bytes());
        }
        Self(block.into_boxed_slice())
    }

    /// The fields in their order, as bytes.
    fn fields(&self) -> Fields<'_> {
        Fields(&self.0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value of `name`, which must be in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields()
            .find(|field| field.name == name.as_bytes())
            .map(|field| field.value)
    }

    pub(crate) fn append_to(&self, map: &mut HeaderMap) {
        for field in self.fields() {
            let name = HeaderName::from_bytes(field.name);
            let value = HeaderValue::from_bytes(field.value);
            if let (Ok(name), Ok(mut value)) = (name, value) {
                value.set_sensitive(field.sensitive);
                map.append(name, value);
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The block that has these bytes; what is no field in them is not shown.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

struct Field<'a> {
    name: &'a [u8],
    value: &'a [u8],
    sensitive: bool,
}

struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let (name_length, rest) = self.0.split_first_chunk()?;
        let (value_length, rest) = rest.split_first_chunk()?;
        let value_length = u32::from_le_bytes(*value_length);
        let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*name_length).into())?;
        let (value, rest) = rest.split_at_checked((value_length & !SENSITIVE) as usize)?;
        self.0 = rest;
        Some(Field {
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
        fn every_field_comes_back(
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
            prop_assert_eq!(block.is_empty(), map.is_empty());
            let mut back = HeaderMap::new();
            block.append_to(&mut back);
            prop_assert_eq!(&back, &map);
            for (name, value) in &map {
                prop_assert_eq!(back.get_all(name).iter().filter(|v| v.is_sensitive()).count(),
                    map.get_all(name).iter().filter(|v| v.is_sensitive()).count());
                let first = map.get(name).unwrap().as_bytes();
                prop_assert_eq!(block.get(name.as_str()), Some(first));
                let _ = value;
            }
        }
    }
}
