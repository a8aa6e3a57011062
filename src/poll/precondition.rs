//! Preconditions of a conditional request (RFC 9110, sections 13.1.1 and 13.1.2).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::dialect::ApiError;

/// The versions that `If-Match` or `If-None-Match` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamedTags {
    /// The field is `*`, which names every version.
    Any,
    /// The field names this version.
    This,
    /// The field names no version, or only other versions.
    Others,
}

/// Returns the versions that `If-None-Match` names, if the field is present.
pub(super) fn if_none_match(
    headers: &HeaderMap,
    etag: Option<&HeaderValue>,
) -> Result<Option<NamedTags>, ApiError> {
    let named = named(headers, &header::IF_NONE_MATCH, etag);
    named.map_err(|MalformedPrecondition| ApiError::InvalidPrecondition {
        field: "If-None-Match",
    })
}

/// Returns the versions that `If-Match` names, if the field is present.
pub(crate) fn if_match(
    headers: &HeaderMap,
    etag: Option<&HeaderValue>,
) -> Result<Option<NamedTags>, ApiError> {
    let named = match named(headers, &header::IF_MATCH, etag) {
        // An empty `If-Match` can never hold, so the field is malformed. An empty
        // `If-None-Match` holds.
        Ok(Some(NamedTags::Others)) if is_empty(headers, &header::IF_MATCH) => {
            Err(MalformedPrecondition)
        }
        named => named,
    };
    named.map_err(|MalformedPrecondition| ApiError::InvalidPrecondition { field: "If-Match" })
}

/// Returns whether a list has no element.
fn is_empty(headers: &HeaderMap, field: &HeaderName) -> bool {
    let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
    let mut values = headers.get_all(field).iter();
    values.all(|value| value.as_bytes().iter().all(is_between))
}

/// Evaluates the preconditions of a request that reads. Returns the error if `If-Match` does not
/// hold, otherwise the versions that `If-None-Match` names.
pub(super) fn of_read(
    headers: &HeaderMap,
    etag: Option<&HeaderValue>,
) -> Result<Option<NamedTags>, ApiError> {
    match if_match(headers, etag)? {
        Some(NamedTags::Others) => Err(ApiError::PreconditionFailed { field: "If-Match" }),
        Some(NamedTags::Any | NamedTags::This) | None => if_none_match(headers, etag),
    }
}

/// Evaluates the preconditions of a request that changes something. Returns the error if a
/// precondition does not hold, otherwise the versions that `If-Match` names.
pub(super) fn holding(
    headers: &HeaderMap,
    etag: Option<&HeaderValue>,
) -> Result<Option<NamedTags>, ApiError> {
    let (only, unless) = (if_match(headers, etag)?, if_none_match(headers, etag)?);
    match (only, unless) {
        (Some(NamedTags::Others), _) => Err(ApiError::PreconditionFailed { field: "If-Match" }),
        (_, Some(NamedTags::Any | NamedTags::This)) => Err(ApiError::PreconditionFailed {
            field: "If-None-Match",
        }),
        (only, _) => Ok(only),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct MalformedPrecondition;

/// Compares tags weakly where ours is weak, as those of operations are, and for `If-None-Match`.
/// Compares a strong tag of ours strongly for `If-Match` (section 13.1.1). Several fields form one
/// list, in which elements may be empty (section 5.6.1.2).
fn named(
    headers: &HeaderMap,
    field: &HeaderName,
    etag: Option<&HeaderValue>,
) -> Result<Option<NamedTags>, MalformedPrecondition> {
    let mut values = headers.get_all(field).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if first.as_bytes().trim_ascii() == b"*" {
        // `*` must be the only element.
        return match values.next() {
            None => Ok(Some(NamedTags::Any)),
            Some(_) => Err(MalformedPrecondition),
        };
    }
    let ours = etag.map(|etag| opaque(etag.as_bytes()));
    let is_weak = |tag: &HeaderValue| tag.as_bytes().starts_with(b"W/");
    let is_strong = *field == header::IF_MATCH && etag.is_some_and(|etag| !is_weak(etag));
    let mut named = NamedTags::Others;
    for value in [first].into_iter().chain(values) {
        let mut rest = value.as_bytes();
        while let Some((tag, after)) = next_tag(rest)? {
            let before = &rest[..rest.len() - after.len() - tag.len()];
            let may_be = !(is_strong && before.ends_with(b"W/"));
            if may_be && Some(tag) == ours {
                named = NamedTags::This;
            }
            rest = after;
        }
    }
    Ok(Some(named))
}

/// An entity tag, and the rest of its list.
type Tag<'a> = (&'a [u8], &'a [u8]);

/// Returns the first entity tag of a list (section 8.8.3) without the mark of weakness, and
/// the rest of the list.
fn next_tag(list: &[u8]) -> Result<Option<Tag<'_>>, MalformedPrecondition> {
    let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
    let Some(begin) = list.iter().position(|byte| !is_between(byte)) else {
        return Ok(None);
    };
    let tag = opaque(&list[begin..]);
    let Some(text) = tag.strip_prefix(b"\"") else {
        return Err(MalformedPrecondition);
    };
    let is_of_tag = |byte: u8| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..);
    let length = text.iter().take_while(|byte| is_of_tag(**byte)).count();
    let Some(after) = text[length..].strip_prefix(b"\"") else {
        return Err(MalformedPrecondition);
    };
    match after.trim_ascii_start().first() {
        None | Some(b',') => Ok(Some((&tag[..length + 2], after))),
        Some(_) => Err(MalformedPrecondition),
    }
}

/// Returns an entity tag without the mark of weakness.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{NamedTags::*, *};

    fn parsed_fields(fields: &[&str]) -> Result<Option<NamedTags>, MalformedPrecondition> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::IF_MATCH, HeaderValue::from_str(field).unwrap());
        }
        let etag = HeaderValue::from_static("W/\"2-a\"");
        named(&headers, &header::IF_MATCH, Some(&etag))
    }

    #[test]
    fn a_strong_tag_is_compared_strongly_with_if_match() {
        let etag = HeaderValue::from_static("\"2-a\"");
        for (field, of_match, of_none_match) in [
            ("\"2-a\"", This, This),
            ("W/\"2-a\"", Others, This),
            ("W/\"x\", \"2-a\"", This, This),
            ("\"x\", W/\"2-a\"", Others, This),
        ] {
            for (name, expected) in [
                (&header::IF_MATCH, of_match),
                (&header::IF_NONE_MATCH, of_none_match),
            ] {
                let mut headers = HeaderMap::new();
                headers.insert(name, HeaderValue::from_static(field));
                let found = named(&headers, name, Some(&etag));
                assert_eq!(found, Ok(Some(expected)), "{name}: {field}");
            }
        }
    }

    #[test]
    fn lists_name_the_tags_in_them() {
        assert_eq!(parsed_fields(&[]), Ok(None));
        for (fields, expected) in [
            (&["*"][..], Any),
            (&[" * "], Any),
            (&["W/\"2-a\""], This),
            (&["\"2-a\""], This),
            (&["\"x\" ,\t\"2-a\" , W/\"y\""], This),
            (&["\"x\"", "\"2-a\""], This),
            (&[",, \"2-a\",,"], This),
            (&["\"a,b\",\"2-a\""], This),
            (&["\"2-b\""], Others),
            (&["\"2-a,\""], Others),
            (&["\"*\""], Others),
            (&["\"\""], Others),
            (&[""], Others),
            (&[" , ,"], Others),
        ] {
            assert_eq!(parsed_fields(fields), Ok(Some(expected)), "{fields:?}");
        }
    }

    #[test]
    fn fields_that_are_neither_a_star_nor_a_list_of_tags_are_malformed() {
        for fields in [
            &["*, \"x\""][..],
            &["*, \"2-a\""],
            &["\"2-a\", *"],
            &["*", "\"2-a\""],
            &["\"2-a\"", "*"],
            &["*", "*"],
            &["*,"],
            &["**"],
            &["2-a"],
            &["\"2-a"],
            &["2-a\""],
            &["w/\"2-a\""],
            &["W/ \"2-a\""],
            &["W/"],
            &["\"2-a\" \"x\""],
            &["\"2-a\"x"],
            &["\"2-a\";q=1"],
            &["\"2 a\""],
            &["\"2-a\", x"],
        ] {
            assert_eq!(
                parsed_fields(fields),
                Err(MalformedPrecondition),
                "{fields:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_name_something_or_are_malformed(
            values in prop::collection::vec("[*W/\", a2\\-\\t]{0,12}", 0..3),
        ) {
            let fields: Vec<&str> = values.iter().map(String::as_str).collect();
            if parsed_fields(&fields) == Ok(Some(This)) {
                prop_assert!(values.iter().any(|value| value.contains("\"2-a\"")));
            }
        }

        #[test]
        fn lists_of_tags_survive_a_round_trip(
            tags in prop::collection::vec("(W/)?\"[!#-~]{0,6}\"", 0..5),
            between in "[ \\t]{0,2},[ \\t,]{0,2}",
            lines in any::<bool>(),
        ) {
            let joined = tags.join(&between);
            let fields: Vec<&str> = match lines {
                true => tags.iter().map(String::as_str).collect(),
                false => vec![&joined],
            };
            let is_named = tags.iter().any(|tag| opaque(tag.as_bytes()) == b"\"2-a\"");
            let expected = match (fields.is_empty(), is_named) {
                (true, _) => None,
                (false, true) => Some(This),
                (false, false) => Some(Others),
            };
            prop_assert_eq!(parsed_fields(&fields), Ok(expected));
        }
    }
}
