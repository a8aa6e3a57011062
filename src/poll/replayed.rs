//! The validator, the digest and the ranges of a replayed result (RFC 9110, sections 8.8, 13 and
//! 14; RFC 9530).

use std::ops::Range;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
        IF_RANGE, RANGE, TRAILER,
    },
};

use super::precondition::{self, NamedTags};
use crate::{
    codec::push_base64,
    dialect::ApiError,
    operation::{BodyDigest, RecordedResponse},
};

static REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
static CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
static CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");

/// The content of a replayed 200 that is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Nothing,
    Whole,
    Part(Range<usize>),
}

/// Adds the validator and the digest to the head of a replayed 200, and evaluates the conditions and
/// the range of the request. `length` is the length of the recorded body in bytes. A response without
/// ranges stays as it is.
///
/// # Errors
/// Returns the error of a precondition that is malformed or does not hold, and the error of a range
/// outside the body.
pub(super) fn complete<B>(
    method: &Method,
    headers: &HeaderMap,
    response: &mut Response<B>,
    recorded: &RecordedResponse,
    digest: &BodyDigest,
) -> Result<Sent, ApiError> {
    // The choice of the application.
    let accepted = response.headers_mut().entry(ACCEPT_RANGES);
    if *accepted.or_insert(BYTES) != BYTES {
        return Ok(Sent::Whole);
    }
    let (etag, repr_digest) = fields_of(digest);
    // The application may keep the validator of the service.
    let etag = response.headers_mut().entry(ETAG).or_insert(etag).clone();
    match precondition::of_read(headers, Some(&etag))? {
        Some(NamedTags::Any | NamedTags::This) => {
            not_modified(response);
            return Ok(Sent::Nothing);
        }
        Some(NamedTags::Others) | None => {}
    }
    // The service may have sent a digest of its own.
    let own_digest = response.headers_mut().entry(&REPR_DIGEST);
    own_digest.or_insert(repr_digest);
    // A part cannot have the trailers of the whole.
    if method != Method::GET || recorded.has_trailers() {
        return Ok(Sent::Whole);
    }
    let length = recorded.body_len();
    match requested_part(headers, &etag, length) {
        RequestedPart::Whole => Ok(Sent::Whole),
        RequestedPart::Part(range) => {
            part(response, &range, length);
            Ok(Sent::Part(range))
        }
        RequestedPart::Unsatisfiable => Err(ApiError::RangeNotSatisfiable {
            length: length as u64,
        }),
    }
}

/// Returns a strong `ETag` (RFC 9110, section 8.8.3) and `Repr-Digest` (RFC 9530, section 3).
fn fields_of(BodyDigest(digest): &BodyDigest) -> (HeaderValue, HeaderValue) {
    let field = |begin: &[u8], end: &[u8]| {
        let mut text = begin.to_vec();
        push_base64(digest, &mut text);
        text.extend_from_slice(end);
        // Base64 is valid in a header field.
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("\"\""))
    };
    (field(b"\"", b"\""), field(b"sha-256=:", b":"))
}

/// Turns the head of a replayed response into a 304, without the fields about its content.
fn not_modified<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, TRAILER] {
        headers.remove(name);
    }
    for name in [&REPR_DIGEST, &CONTENT_DIGEST, &CONTENT_MD5] {
        headers.remove(name);
    }
}

/// Turns the head of a response into that of a 206 with a part of the body.
fn part<B>(response: &mut Response<B>, range: &Range<usize>, length: usize) {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    let content_range = format!("bytes {}-{}/{length}", range.start, range.end - 1);
    if let Ok(content_range) = HeaderValue::try_from(content_range) {
        headers.insert(CONTENT_RANGE, content_range);
    }
    // These fields describe the whole content.
    headers.remove(CONTENT_LENGTH);
    headers.remove(&CONTENT_DIGEST);
    headers.remove(&CONTENT_MD5);
}

/// The part of a body that a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestedPart {
    Whole,
    Part(Range<usize>),
    /// The range begins after the end of the body.
    Unsatisfiable,
}

/// Returns the part that `Range` and `If-Range` ask for (RFC 9110, sections 14.2 and 13.1.5). A
/// server may ignore `Range`: this one does so for several ranges, for another unit, and for a
/// malformed field.
pub(crate) fn requested_part(
    headers: &HeaderMap,
    etag: &HeaderValue,
    length: usize,
) -> RequestedPart {
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return RequestedPart::Whole;
    };
    // A date, a weak tag, or the tag of another representation asks for the whole.
    let is_of_it = |tag: &HeaderValue| tag == etag && !tag.as_bytes().starts_with(b"W/");
    if !headers.get_all(IF_RANGE).iter().all(is_of_it) {
        return RequestedPart::Whole;
    }
    let range = range.to_str().ok().and_then(parse_range);
    let range = match range {
        None => return RequestedPart::Whole,
        // No 206 can say that the last bytes of nothing are nothing.
        Some(ByteRange::Last(1..)) if length == 0 => return RequestedPart::Whole,
        Some(ByteRange::Last(count)) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(length);
            length - count..length
        }
        Some(ByteRange::From(first, last)) => {
            let begin = usize::try_from(first).unwrap_or(usize::MAX);
            let end = last.saturating_add(1);
            let end = usize::try_from(end).unwrap_or(usize::MAX).min(length);
            begin..end
        }
    };
    match range.is_empty() {
        true => RequestedPart::Unsatisfiable,
        false => RequestedPart::Part(range),
    }
}

/// A range of bytes, whatever the length of the body.
#[derive(Debug, PartialEq, Eq)]
enum ByteRange {
    /// The bytes from the first to the last position, both included.
    From(u64, u64),
    /// So many bytes at the end.
    Last(u64),
}

/// Parses a single range of bytes (RFC 9110, section 14.1.2).
fn parse_range(field: &str) -> Option<ByteRange> {
    let (unit, range) = field.split_once('=')?;
    let (first, last) = range.trim_matches([' ', '\t']).split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (first, last) {
        ("", count) => Some(ByteRange::Last(position(count)?)),
        (first, "") => Some(ByteRange::From(position(first)?, u64::MAX)),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(ByteRange::From(first, last))
        }
    }
}

/// Parses a position. A number above all positions counts as the last one.
fn position(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{RequestedPart::*, *};

    fn requested_of(range: &str, length: usize) -> RequestedPart {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        requested_part(&headers, &HeaderValue::from_static("\"a\""), length)
    }

    #[test]
    fn single_ranges_are_cut_out() {
        for (range, expected) in [
            ("bytes=0-0", Part(0..1)),
            ("bytes=2-5", Part(2..6)),
            ("bytes=2-99", Part(2..10)),
            ("bytes=9-", Part(9..10)),
            ("bytes=-3", Part(7..10)),
            ("bytes=-99", Part(0..10)),
            ("Bytes= 0-1 ", Part(0..2)),
            ("bytes=0-99999999999999999999999", Part(0..10)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=10-20", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
        ] {
            assert_eq!(requested_of(range, 10), expected, "{range}");
        }
        assert_eq!(requested_of("bytes=-1", 0), Whole);
        for range in ["bytes=0-", "bytes=0-0", "bytes=-0"] {
            assert_eq!(requested_of(range, 0), Unsatisfiable, "{range}");
        }
    }

    #[test]
    fn other_ranges_ask_for_the_whole() {
        for range in [
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=0-1,4-5",
            "bytes=0-1, 4-5",
            "bytes=+1-2",
            "bytes=a-b",
            "bytes=1 - 2",
            "items=0-1",
            "=0-1",
            "bytes=0x1-2",
        ] {
            assert_eq!(requested_of(range, 10), Whole, "{range}");
        }
    }

    #[test]
    fn a_range_holds_only_for_the_named_representation() {
        let etag = HeaderValue::from_static("\"a\"");
        for (tags, is_part) in [
            (&[][..], true),
            (&["\"a\""], true),
            (&["\"b\""], false),
            (&["W/\"a\""], false),
            (&["\"a\"", "\"b\""], false),
            (&["Sun, 06 Nov 1994 08:49:37 GMT"], false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
            for tag in tags {
                headers.append(IF_RANGE, tag.parse().unwrap());
            }
            let part = requested_part(&headers, &etag, 10);
            assert_eq!(part == Part(0..1), is_part, "{tags:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(RANGE, HeaderValue::from_static("bytes=0-0"));
        twice.append(RANGE, HeaderValue::from_static("bytes=1-1"));
        assert_eq!(requested_part(&twice, &etag, 10), Whole);
        let weak = HeaderValue::from_static("W/\"a\"");
        twice.remove(RANGE);
        twice.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        twice.insert(IF_RANGE, weak.clone());
        assert_eq!(requested_part(&twice, &weak, 10), Whole);
    }

    proptest! {
        #[test]
        fn parts_are_within_the_body(range in "bytes=[0-9 ,a-]{0,8}", length in 0_usize..200) {
            if let Part(part) = requested_of(&range, length) {
                prop_assert!(part.start < part.end && part.end <= length);
            }
        }
    }
}
