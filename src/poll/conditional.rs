//! Validators (RFC 9110, section 8.8), and the answers that have them.

use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    codec::put_number,
    operation::BufferedBody,
    store::{Record, Version},
};

/// Returns the weak entity tag of a record; `None` if the store does not count versions.
pub(super) fn etag<T>(record: &Record<T>) -> Option<HeaderValue> {
    record.version()?;
    let mut text = [0; LONGEST];
    let begin = put_etag(record, &mut text);
    HeaderValue::from_bytes(&text[begin..]).ok()
}

/// The length of the longest entity tag: two numbers of 64 bits, one in decimal and one in
/// hexadecimal digits, and the text around them.
const LONGEST: usize = "W/\"-\"".len() + 20 + 16;

/// Returns the version of a record and the time of its last change. The time distinguishes
/// operations that had the same id one after another.
pub(super) fn tag<T>(record: &Record<T>) -> String {
    let mut text = [0; LONGEST];
    let begin = put_etag(record, &mut text) + "W/\"".len();
    String::from_utf8_lossy(&text[begin..LONGEST - 1]).into_owned()
}

/// Writes the tag at the end of `text`, backwards as numbers are written. Returns the start of
/// the tag.
fn put_etag<T>(record: &Record<T>, text: &mut [u8; LONGEST]) -> usize {
    let updated = record.operation().metadata().updated_millis();
    let version = record.version().map_or(0, Version::get);
    text[LONGEST - 1] = b'"';
    let dash = put_number::<16>(updated, &mut text[..LONGEST - 1]) - 1;
    text[dash] = b'-';
    let begin = put_number::<10>(version, &mut text[..dash]) - 3;
    text[begin..begin + 3].copy_from_slice(b"W/\"");
    begin
}

/// Adds the fields that an operation has in both a 200 and a 304.
pub(super) fn validate(response: &mut Response<BufferedBody>, etag: Option<HeaderValue>) {
    let headers = response.headers_mut();
    if let Some(etag) = etag {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CACHE_CONTROL, PRIVATE);
    headers.insert(header::VARY, BY_ACCEPT_AND_PREFER);
}

/// Adds `Vary: Prefer` (RFC 7240, section 2).
pub(super) fn vary(response: &mut Response<BufferedBody>) {
    response.headers_mut().append(header::VARY, BY_PREFER);
}

const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const BY_ACCEPT_AND_PREFER: HeaderValue = HeaderValue::from_static("Accept, Prefer");
const BY_PREFER: HeaderValue = HeaderValue::from_static("Prefer");

/// Returns the 304 that replaces `response`, with the `Retry-After` of `response`.
pub(super) fn not_modified(
    etag: Option<HeaderValue>,
    response: &Response<BufferedBody>,
) -> Response<BufferedBody> {
    let mut unchanged = Response::new(BufferedBody::default());
    *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
    validate(&mut unchanged, etag);
    if let Some(retry_after) = response.headers().get(header::RETRY_AFTER) {
        let headers = unchanged.headers_mut();
        headers.insert(header::RETRY_AFTER, retry_after.clone());
    }
    unchanged
}
