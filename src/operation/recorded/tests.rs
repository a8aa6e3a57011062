use http::HeaderValue;

use super::*;

fn recorded(headers: &[(&'static str, &'static str)], body: &'static [u8]) -> RecordedResponse {
    let mut response = Response::new(BufferedBody::from(body));
    for (name, value) in headers {
        response
            .headers_mut()
            .append(*name, HeaderValue::from_static(value));
    }
    RecordedResponse::new(response)
}

#[test]
fn hop_by_hop_fields_are_left_out() {
    let recorded = recorded(
        &[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-checksum"),
            ("content-length", "7"),
            ("x-kept", "a"),
            ("x-kept", "b"),
        ],
        b"four",
    );
    let names: Vec<_> = recorded.headers().keys().map(ToString::to_string).collect();
    assert_eq!(names, ["trailer", "x-kept"]);
    assert_eq!(recorded.headers().get_all("x-kept").iter().count(), 2);
}

#[test]
fn only_json_and_text_are_embedded() {
    let embed = |media_type: &'static str, body: &'static [u8]| {
        recorded(&[("content-type", media_type)], body).embed()
    };
    assert_eq!(embed("application/json", b"{\"a\":1}"), Embedding::Json);
    assert_eq!(
        embed("application/vnd.api+JSON; v=1", b" [1] "),
        Embedding::Json
    );
    assert_eq!(embed("application/json", b"{\"a\":1"), Embedding::No);
    assert_eq!(embed("application/json", b"{} {}"), Embedding::No);
    assert_eq!(embed("application/json", b"\"\xff\""), Embedding::No);
    assert_eq!(embed("application/json", b""), Embedding::No);
    assert_eq!(embed("text/plain", "grün".as_bytes()), Embedding::Text);
    assert_eq!(
        embed("text/csv; charset=\"UTF-8\"", b"a,b"),
        Embedding::Text
    );
    assert_eq!(embed("text/plain; charset=iso-8859-1", b"a"), Embedding::No);
    assert_eq!(embed("text/plain", b"gr\xfcn"), Embedding::No);
    assert_eq!(embed("application/pdf", b"%PDF"), Embedding::No);
    let zipped = recorded(
        &[
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ],
        b"{}",
    );
    assert_eq!(zipped.embed(), Embedding::No);
}

#[test]
fn trailers_replace_the_content_length() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("abc"));
    let mut response = Response::new(BufferedBody::new("four".into(), Some(trailers.clone())));
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from_static("4"));
    let replayed = RecordedResponse::new(response).to_response().unwrap();
    assert!(replayed.headers().is_empty());
    assert_eq!(replayed.body().trailers(), Some(&trailers));
    assert_eq!(http_body::Body::size_hint(replayed.body()).exact(), None);
}
