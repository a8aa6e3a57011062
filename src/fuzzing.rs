//! Private parsers and decoders, for the fuzz targets in `fuzz/`. They are not part of the API.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, uri::PathAndQuery};

use crate::{
    BufferedBody, Idempotency, RecordedResponse, State,
    codec::{is_json, push_string},
    dialect::{self, Event, ForwardingHeader},
    engine,
    operation::resolve_references,
    poll::{NamedTags, RequestedPart, if_match, requested_part},
    run::stored_request,
    store::{Cursor, ListQuery, Owner, Record, cursor::CursorKey},
};

/// Returns whether these bytes are one JSON value.
#[must_use]
pub fn json(bytes: &[u8]) -> bool {
    is_json(bytes)
}

/// Returns `text` as a JSON string.
#[must_use]
pub fn json_string(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_string(text, &mut out);
    out
}

/// Returns the text that an `Idempotency-Key` of this value stands for.
#[must_use]
pub fn idempotency_key(rules: &Idempotency, value: &[u8]) -> Option<String> {
    rules.parse(value)
}

/// Returns the origin that `Forwarded` or the older fields name.
#[must_use]
pub fn forwarded_origin(headers: &HeaderMap, by_older_fields: bool) -> Option<String> {
    let by = match by_older_fields {
        true => ForwardingHeader::Older,
        false => ForwardingHeader::Standard,
    };
    dialect::url::forwarded_base(headers, by, "http")
}

/// Returns whether `If-Match` in these fields names this entity tag; `None` if the field is
/// missing or malformed.
#[must_use]
pub fn matches(headers: &HeaderMap, etag: &HeaderValue) -> Option<bool> {
    let named = if_match(headers, Some(etag)).ok()??;
    Some(matches!(named, NamedTags::Any | NamedTags::This))
}

/// Returns the part of a body of this length that `Range` and `If-Range` ask for; `None` for the
/// whole, and for a range outside of the body.
#[must_use]
pub fn range(headers: &HeaderMap, etag: &HeaderValue, length: usize) -> Option<Range<usize>> {
    match requested_part(headers, etag, length) {
        RequestedPart::Part(part) => Some(part),
        RequestedPart::Whole | RequestedPart::Unsatisfiable => None,
    }
}

/// Returns the number in a cursor of a fixed list; `None` if the text is no such cursor.
#[must_use]
pub fn open_cursor(text: &str) -> Option<u64> {
    let (key, query) = list();
    key.open(&query, &Cursor(text.into())).ok()
}

/// Returns the cursor of the same list for this number.
#[must_use]
pub fn seal_cursor(number: u64) -> String {
    let (key, query) = list();
    key.seal(&query, number).0.to_string()
}

fn list() -> (CursorKey, ListQuery) {
    let query = ListQuery::new(Some(Owner::new("ada")), 20).with_state(State::Failed);
    (CursorKey::new(&[7; 32]), query)
}

/// Resolves the references in these fields against the target of a request.
pub fn resolve(headers: &mut HeaderMap, base: &PathAndQuery) {
    resolve_references(headers, base);
}

/// Returns the bytes of an event as they are sent.
#[must_use]
pub fn event(name: &'static str, data: Vec<u8>, id: &str) -> Vec<u8> {
    let name = Some(name);
    Event { name, data }.encode(id)
}

/// Returns the request that these bytes hold, if they hold one.
#[must_use]
pub fn stored_request(bytes: &Bytes) -> Option<Request<BufferedBody>> {
    let stored = stored_request::restore(bytes).ok()?;
    Some(stored.request)
}

/// Returns a request as bytes, with its credentials.
#[must_use]
pub fn store_request(request: Request<BufferedBody>) -> Option<Bytes> {
    let (parts, body) = request.into_parts();
    stored_request::store(&parts, &parts.uri, &body, true)
}

/// Returns the record that a cell with this head and this result holds.
#[must_use]
pub fn record(head: Bytes, result: Option<Bytes>) -> Option<Record<RecordedResponse>> {
    engine::record_head::decode(engine::Cell::new(head, result)).ok()
}

/// Returns the head of the cell of a record.
#[must_use]
pub fn head(record: &Record<RecordedResponse>) -> Option<Bytes> {
    engine::record_head::encode(record).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_calls_the_parser_that_it_is_named_after() {
        assert!(json(b"[1]") && !json(b"[1"));
        assert_eq!(json_string("a\n"), b"\"a\\n\"");
        let key = idempotency_key(&Idempotency::optional(), b"\"a\"");
        assert_eq!(key.as_deref(), Some("a"));

        let mut headers = HeaderMap::new();
        headers.insert("forwarded", HeaderValue::from_static("host=a.example"));
        let origin = forwarded_origin(&headers, false);
        assert_eq!(origin.as_deref(), Some("http://a.example"));
        assert_eq!(forwarded_origin(&headers, true), None);
        assert_eq!(
            event("a", b"b".into(), "c"),
            b"id: c\nevent: a\ndata: b\n\n"
        );

        let mut headers = HeaderMap::new();
        let etag = HeaderValue::from_static("W/\"1\"");
        assert_eq!(matches(&headers, &etag), None);
        headers.insert("if-match", HeaderValue::from_static("\"2\""));
        assert_eq!(matches(&headers, &etag), Some(false));
        headers.append("if-match", HeaderValue::from_static("\"1\""));
        assert_eq!(matches(&headers, &etag), Some(true));

        let mut headers = HeaderMap::new();
        assert_eq!(range(&headers, &etag, 9), None);
        headers.insert("range", HeaderValue::from_static("bytes=1-2"));
        assert_eq!(range(&headers, &etag, 9), Some(1..3));

        assert_eq!(open_cursor(&seal_cursor(7)), Some(7));
        assert_eq!(open_cursor("7"), None);

        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_static("c"));
        resolve(&mut headers, &PathAndQuery::from_static("/a/b"));
        assert_eq!(headers["location"], "/a/c");

        let request = Request::post("/a").body(BufferedBody::from("b")).unwrap();
        let bytes = store_request(request).unwrap();
        assert_eq!(stored_request(&bytes).unwrap().uri().path(), "/a");
    }

    #[test]
    fn records_survive_a_round_trip() {
        let line = include_str!("engine/golden/format-2.jsonl");
        for line in line.lines() {
            let read = record(Bytes::from_static(line.as_bytes()), None).unwrap();
            assert_eq!(head(&read).unwrap(), line.as_bytes());
        }
    }
}
