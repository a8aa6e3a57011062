//! Law 7: a recorded response comes back byte for byte.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tower_operations::{
    operation::{BufferedBody, Outcome, RecordedResponse},
    store::Repository,
};

use super::subject::{create, done, law, new_operation, ok, read, whole};

pub(super) async fn check<R: Repository<Output = RecordedResponse>>(store: &Arc<R>) {
    for (what, response) in samples() {
        comes_back(&**store, what, &response).await;
    }
}

async fn comes_back<R>(store: &R, what: &str, response: &RecordedResponse)
where
    R: Repository<Output = RecordedResponse>,
{
    let pending = create(store, new_operation()).await;
    let (id, token) = (pending.operation().id(), pending.token());
    let outcome = response.clone().into_outcome();
    let finished = ok(store.finish(id, token, outcome.clone(), None).await);
    let finished = whole(store, done(2, finished, "a finish by the holder")).await;
    let Some(found) = read(store, id).await else {
        panic!("law 8: an operation that has just ended is not there");
    };
    for record in [finished, found] {
        let Some(back) = record.operation().response() else {
            panic!("law 7: {what}: no response came back");
        };
        assert_same(what, response, back);
        if let (Outcome::Failed(failure), problem) = (&outcome, record.operation().problem()) {
            law!(
                7,
                problem == Some(&failure.problem),
                "{what}: the problem is {problem:?}"
            );
        }
    }
}

/// Asserts that two responses are the same, part by part: a message with a mebibyte of body
/// would not help.
pub(super) fn assert_same(what: &str, response: &RecordedResponse, back: &RecordedResponse) {
    law!(
        7,
        back.status() == response.status(),
        "{what}: the status is {}",
        back.status()
    );
    let (sent, found) = (response.headers(), back.headers());
    law!(
        7,
        fields(&sent) == fields(&found),
        "{what}: {sent:?} became {found:?}"
    );
    let (sent, found) = (response.trailers(), back.trailers());
    law!(
        7,
        sent.as_ref().map(fields) == found.as_ref().map(fields),
        "{what}: the trailers {sent:?} became {found:?}"
    );
    law!(
        7,
        back.body() == response.body(),
        "{what}: {} bytes of body came back as {} others",
        response.body_len(),
        back.body_len()
    );
}

/// Returns the fields in their order, repeated ones included.
fn fields(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

fn samples() -> Vec<(&'static str, RecordedResponse)> {
    let repeated: &[(&'static str, &[u8])] = &[
        ("x-last", b"1"),
        ("set-cookie", b"a=1"),
        ("set-cookie", b"b=2; Path=/"),
        ("set-cookie", b"a=1"),
        ("x-first", b"2"),
        ("link", b"</a>; rel=\"next\", </b>"),
        ("link", b"</c>"),
        ("content-type", b"text/plain"),
    ];
    let octets: &[(&'static str, &[u8])] = &[
        ("x-latin", b"gr\xfcn"),
        ("x-utf-8", "grün".as_bytes()),
        ("x-octets", b"\x80\xff\t \xfe"),
        ("x-empty", b""),
        ("content-type", b"text/plain; charset=iso-8859-1"),
    ];
    let json: &[(&'static str, &[u8])] = &[("content-type", b"application/json")];
    let problem: &[(&'static str, &[u8])] = &[("content-type", b"application/problem+json")];
    let zipped: &[(&'static str, &[u8])] = &[
        ("content-type", b"application/json"),
        ("content-encoding", b"gzip"),
    ];
    let every_byte: Vec<u8> = (0..=255).collect();
    vec![
        ("repeated fields", sample(200, repeated, b"body", &[])),
        (
            "values that are not UTF-8",
            sample(200, octets, b"gr\xfcn", &[]),
        ),
        ("nothing but a status", sample(204, &[], b"", &[])),
        ("a status without a name", sample(299, &[], b"", &[])),
        ("an empty body with fields", sample(200, repeated, b"", &[])),
        (
            "a redirect",
            sample(303, &[("location", b"/reports/q3")], b"", &[]),
        ),
        (
            "JSON as it was written",
            sample(
                200,
                json,
                b" {\"b\": 1.0e2,\n\t\"a\":\"\\u00fc\", \"a\": 12345678901234567890}\n",
                &[],
            ),
        ),
        ("JSON that is none", sample(200, json, b"{\"a\":", &[])),
        (
            "compressed bytes",
            sample(200, zipped, b"\x1f\x8b\x08\x00\x00", &[]),
        ),
        ("every byte", sample(200, &[], &every_byte, &[])),
        (
            "a problem",
            sample(
                422,
                problem,
                b"{\"title\":\"No data\",\"status\":422,\"page\":3}",
                &[],
            ),
        ),
        (
            "an error that is no problem",
            sample(500, octets, b"<h1>\xff</h1>", &[]),
        ),
        ("trailers", sample(200, json, b"{}", octets)),
        (
            "trailers without a body",
            sample(
                200,
                &[],
                b"",
                &[("x-checksum", b"abc"), ("x-checksum", b"def")],
            ),
        ),
        (
            "a mebibyte",
            sample(200, octets, &mebibyte(), &[("x-checksum", b"abc")]),
        ),
    ]
}

fn sample(
    status: u16,
    headers: &[(&'static str, &[u8])],
    body: &[u8],
    trailers: &[(&'static str, &[u8])],
) -> RecordedResponse {
    let trailers = (!trailers.is_empty()).then(|| map(trailers));
    let mut response = Response::new(BufferedBody::new(Bytes::copy_from_slice(body), trailers));
    *response.headers_mut() = map(headers);
    match StatusCode::from_u16(status) {
        Ok(status) => *response.status_mut() = status,
        Err(error) => panic!("{status} is a status: {error}"),
    }
    RecordedResponse::new(response)
}

fn map(fields: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        match HeaderValue::from_bytes(value) {
            Ok(value) => map.append(HeaderName::from_static(name), value),
            Err(error) => panic!("{value:?} is a value: {error}"),
        };
    }
    map
}

/// Returns 1 MiB without a pattern.
fn mebibyte() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..(1 << 20) / 8).flat_map(|_| next()).collect()
}
