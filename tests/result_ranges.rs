//! The validator, the digest and the ranges of a replayed result.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Operations, PollService, RecordedResponse,
    dialect::{Azure, Dialect, Fhir, Google, OData, Ogc},
    store::{Created, NewOperation, Repository, Written},
};

/// The SHA-256 of `0123456789` in Base64.
const TEN: &str = "hNiYd/DUBB77a/kaFvAkjy/Vc+avBcGflr7bn4gveII=";

async fn operations_with(response: Response<BufferedBody>) -> Operations<MemoryStore> {
    let store = MemoryStore::new();
    let id: OperationId = "q3".parse().unwrap();
    let Created::New(record) = store.create(NewOperation::new(id.clone())).await.unwrap() else {
        panic!("the id is free");
    };
    let outcome = RecordedResponse::new(response).into_outcome();
    let ended = store.finish(&id, record.token(), outcome, None).await;
    assert!(matches!(ended, Ok(Written::Done(_))));
    Operations::new(store)
}

async fn polls_of_digits() -> PollService<MemoryStore> {
    let response = Response::builder()
        .header("content-type", "text/plain")
        .header("etag", "\"of the service\"")
        .header("content-digest", "sha-256=:of the whole:");
    let response = response.body(BufferedBody::from("0123456789")).unwrap();
    operations_with(response).await.poll_service()
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn ask(
    polls: &PollService<MemoryStore>,
    method: Method,
    uri: &str,
    fields: &[(&str, &str)],
) -> Answer {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = polls.clone().oneshot(request.body(()).unwrap()).await;
    let (parts, body) = response.unwrap().into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

async fn get(polls: &PollService<MemoryStore>, fields: &[(&str, &str)]) -> Answer {
    ask(polls, Method::GET, "/q3/result", fields).await
}

#[tokio::test]
async fn a_result_has_a_strong_validator_and_a_digest() {
    let polls = polls_of_digits().await;
    let whole = get(&polls, &[]).await;
    assert_eq!(
        (whole.status, &whole.body[..]),
        (StatusCode::OK, &b"0123456789"[..])
    );
    assert_eq!(whole.header("etag"), Some(&*format!("\"{TEN}\"")));
    assert_eq!(
        whole.header("repr-digest"),
        Some(&*format!("sha-256=:{TEN}:"))
    );
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(
        whole.header("content-digest"),
        Some("sha-256=:of the whole:")
    );
    assert_eq!(whole.header("cache-control"), Some("private, no-store"));

    // `Range` has no meaning for HEAD.
    let head = ask(
        &polls,
        Method::HEAD,
        "/q3/result",
        &[("range", "bytes=2-3")],
    )
    .await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    for name in ["etag", "repr-digest", "accept-ranges"] {
        assert_eq!(head.header(name), whole.header(name), "{name}");
    }
    assert_eq!(head.header("content-length"), Some("10"));
}

#[tokio::test]
async fn a_range_is_cut_out() {
    let polls = polls_of_digits().await;
    let etag = format!("\"{TEN}\"");
    for (fields, part, content_range) in [
        (&[("range", "bytes=2-3")][..], "23", "bytes 2-3/10"),
        (&[("range", "bytes=-1")], "9", "bytes 9-9/10"),
        (&[("range", "bytes=4-")], "456789", "bytes 4-9/10"),
        (
            &[("range", "bytes=0-0"), ("if-range", &etag)],
            "0",
            "bytes 0-0/10",
        ),
    ] {
        let answer = get(&polls, fields).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{fields:?}");
        assert_eq!(answer.body, part, "{fields:?}");
        assert_eq!(answer.header("content-range"), Some(content_range));
        assert_eq!(answer.header("etag"), Some(&*etag));
        assert_eq!(answer.header("operation-result"), Some("200"));
        assert_eq!(
            answer.header("content-digest"),
            None,
            "that of the whole content"
        );
        assert_eq!(answer.header("content-length"), None, "the server sets it");
    }
    for fields in [
        &[("range", "bytes=0-0,4-5")][..],
        &[("range", "lines=1-2")],
        &[("range", "bytes=x")],
        &[("range", "bytes=0-0"), ("if-range", "\"of the service\"")],
        &[("if-range", "\"x\"")],
    ] {
        let answer = get(&polls, fields).await;
        assert_eq!(
            (answer.status, answer.body.len()),
            (StatusCode::OK, 10),
            "{fields:?}"
        );
        assert_eq!(answer.header("content-range"), None, "{fields:?}");
    }
}

#[tokio::test]
async fn a_range_outside_of_the_result_is_416() {
    let polls = polls_of_digits().await;
    let answer = get(&polls, &[("range", "bytes=10-")]).await;
    assert_eq!(answer.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(answer.header("content-range"), Some("bytes */10"));
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        problem["type"],
        "urn:tower-operations:range-not-satisfiable"
    );
    assert_eq!(problem["detail"], "The result has 10 bytes.");
}

#[tokio::test]
async fn conditions_of_a_result_are_evaluated() {
    let polls = polls_of_digits().await;
    let etag = format!("\"{TEN}\"");
    for (fields, status) in [
        (("if-none-match", &*etag), StatusCode::NOT_MODIFIED),
        (("if-none-match", "*"), StatusCode::NOT_MODIFIED),
        (("if-none-match", "\"other\""), StatusCode::OK),
        (("if-match", &*etag), StatusCode::OK),
        (("if-match", "\"other\""), StatusCode::PRECONDITION_FAILED),
        (("if-match", "other"), StatusCode::BAD_REQUEST),
    ] {
        let answer = get(&polls, &[fields]).await;
        assert_eq!(answer.status, status, "{fields:?}");
        if status == StatusCode::NOT_MODIFIED {
            assert_eq!(answer.header("etag"), Some(&*etag));
            assert_eq!(answer.body.len(), 0);
        }
    }
}

/// The parts that a client fetches one after the other make up the whole.
#[tokio::test]
async fn a_large_result_is_resumed() {
    let body: Vec<u8> = (0..5_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let response = Response::new(BufferedBody::from(body.clone()));
    let polls = operations_with(response).await.poll_service();
    let begin = get(&polls, &[("range", "bytes=0-1999999")]).await;
    let etag = begin.header("etag").unwrap().to_owned();
    let fields = [("range", "bytes=2000000-"), ("if-range", &*etag)];
    let rest = get(&polls, &fields).await;
    assert_eq!(rest.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(
        rest.header("content-range"),
        Some("bytes 2000000-4999999/5000000")
    );
    assert!([begin.body, rest.body].concat() == body);
}

#[tokio::test]
async fn only_a_recorded_200_has_parts() {
    for status in [201, 404, 500] {
        let response = Response::builder().status(status);
        let response = response.body(BufferedBody::from("0123456789")).unwrap();
        let polls = operations_with(response).await.poll_service();
        let answer = get(&polls, &[("range", "bytes=0-0"), ("if-none-match", "*")]).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 10));
        for name in ["etag", "accept-ranges", "repr-digest"] {
            assert_eq!(answer.header(name), None, "{status} {name}");
        }
    }
    // Without a result there is nothing to cut.
    let response = Response::builder().status(204);
    let response = response.body(BufferedBody::default()).unwrap();
    let polls = operations_with(response).await.poll_service();
    let answer = get(&polls, &[("range", "bytes=0-0")]).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn every_dialect_that_replays_a_response_has_parts() {
    let dialects: [(Arc<dyn Dialect>, &str); 5] = [
        (Arc::new(Azure::default()), "/q3/result"),
        (Arc::new(Google::default()), "/q3/result"),
        (Arc::new(Ogc::default()), "/q3/results"),
        // These replay at the URL of the operation.
        (Arc::new(OData::default()), "/q3"),
        (Arc::new(Fhir::default()), "/q3"),
    ];
    for (dialect, uri) in dialects {
        let name = format!("{dialect:?}");
        let response = Response::builder().header("content-type", "application/octet-stream");
        let response = response.body(BufferedBody::from("0123456789")).unwrap();
        let polls = operations_with(response)
            .await
            .dialect(dialect)
            .poll_service();
        let whole = ask(&polls, Method::GET, uri, &[]).await;
        assert_eq!(
            (whole.status, whole.body.len()),
            (StatusCode::OK, 10),
            "{name}"
        );
        assert_eq!(
            whole.header("repr-digest"),
            Some(&*format!("sha-256=:{TEN}:")),
            "{name}"
        );
        let part = ask(&polls, Method::GET, uri, &[("range", "bytes=3-4")]).await;
        assert_eq!(
            (part.status, &part.body[..]),
            (StatusCode::PARTIAL_CONTENT, &b"34"[..]),
            "{name}"
        );
        assert_eq!(whole.header("etag"), Some(&*format!("\"{TEN}\"")), "{name}");
    }
}

#[tokio::test]
async fn the_application_turns_ranges_off_or_keeps_its_own_validator() {
    let response = || {
        let response = Response::builder().header("etag", "W/\"7\"");
        let response = response.header("repr-digest", "md5=:own:");
        response.body(BufferedBody::from("0123456789")).unwrap()
    };
    let none = |_: &RecordedResponse, fields: &mut HeaderMap| {
        fields.insert("accept-ranges", HeaderValue::from_static("none"));
    };
    let polls = operations_with(response())
        .await
        .map_replay(none)
        .poll_service();
    let answer = get(&polls, &[("range", "bytes=0-0"), ("if-none-match", "*")]).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 10));
    assert_eq!(
        (answer.header("etag"), answer.header("accept-ranges")),
        (None, Some("none"))
    );

    let operations = operations_with(response()).await;
    let polls = operations.replay_headers(|_| true).poll_service();
    let answer = get(&polls, &[]).await;
    assert_eq!(answer.header("etag"), Some("W/\"7\""));
    assert_eq!(answer.header("repr-digest"), Some("md5=:own:"));
    for (fields, status) in [
        (&[("if-none-match", "\"7\"")][..], StatusCode::NOT_MODIFIED),
        (&[("if-match", "\"8\"")], StatusCode::PRECONDITION_FAILED),
        (
            &[("range", "bytes=0-0"), ("if-range", "W/\"7\"")],
            StatusCode::OK,
        ),
        (&[("range", "bytes=0-0")], StatusCode::PARTIAL_CONTENT),
    ] {
        assert_eq!(get(&polls, fields).await.status, status, "{fields:?}");
    }
}

/// The digest is of the bytes that are sent, whatever a dialect makes of a recorded response.
#[tokio::test]
async fn a_changed_replay_has_neither_validator_nor_ranges() {
    let dialects: [(Arc<dyn Dialect>, &str); 4] = [
        (Arc::new(OData::default()), "/q3"),
        (Arc::new(Fhir::default()), "/q3"),
        (Arc::new(Azure::default()), "/q3/result"),
        (Arc::new(Ogc::default()), "/q3/results"),
    ];
    for (dialect, uri) in dialects {
        for status in [201, 202, 204, 205, 206, 304, 404] {
            let name = format!("{dialect:?}, {status}");
            let response = Response::builder()
                .status(status)
                .header("content-range", "bytes 0-9/99");
            let response = response.body(BufferedBody::from("0123456789")).unwrap();
            let operations = operations_with(response).await;
            let polls = operations.dialect(Arc::clone(&dialect)).poll_service();
            let answer = ask(&polls, Method::GET, uri, &[("range", "bytes=0-0")]).await;
            assert_eq!(answer.header("repr-digest"), None, "{name}: {answer:?}");
            assert_eq!(answer.header("accept-ranges"), None, "{name}: {answer:?}");
            assert_ne!(answer.body.len(), 1, "{name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn the_trailers_of_a_result_come_with_the_whole() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let body = BufferedBody::new("0123456789".into(), Some(trailers.clone()));
    let polls = operations_with(Response::new(body)).await.poll_service();
    let request = Request::get("/q3/result").header("range", "bytes=0-0");
    let response = polls.oneshot(request.body(()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let whole = response.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers(), Some(&trailers));
}

/// If-Match comes before If-None-Match, and both before the range.
#[tokio::test]
async fn conditions_come_before_the_range() {
    let polls = polls_of_digits().await;
    let etag = format!("\"{TEN}\"");
    let range = ("range", "bytes=99-");
    for (fields, status) in [
        (
            &[("if-match", "\"x\""), ("if-none-match", &*etag), range][..],
            412,
        ),
        (
            &[("if-match", &*etag), ("if-none-match", &*etag), range],
            304,
        ),
        (
            &[("if-match", &*etag), ("if-none-match", "\"x\""), range],
            416,
        ),
        (
            &[("if-none-match", "\"x\""), ("if-range", "\"x\""), range],
            200,
        ),
    ] {
        assert_eq!(get(&polls, fields).await.status, status, "{fields:?}");
    }
    let weak = format!("W/{etag}");
    assert_eq!(get(&polls, &[("if-match", &weak)]).await.status, 412);
    assert_eq!(get(&polls, &[("if-none-match", &weak)]).await.status, 304);
}

/// A 304 has the fields of the 200 but those of its content.
#[tokio::test]
async fn a_304_has_the_fields_of_the_200() {
    let polls = polls_of_digits().await;
    let whole = get(&polls, &[]).await;
    let unchanged = get(&polls, &[("if-none-match", "*")]).await;
    for name in ["etag", "cache-control", "vary", "operation-result"] {
        assert!(whole.header(name).is_some(), "{name}");
        assert_eq!(unchanged.header(name), whole.header(name), "{name}");
    }
    for name in [
        "content-type",
        "content-length",
        "content-digest",
        "repr-digest",
    ] {
        assert_eq!(unchanged.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_poll_that_waits_gets_a_part() {
    let body = vec![b'x'; 2_000_000];
    let polls = operations_with(Response::new(BufferedBody::from(body)))
        .await
        .poll_service();
    let fields = [("prefer", "wait=5"), ("range", "bytes=-7")];
    let answer = get(&polls, &fields).await;
    assert_eq!(
        (answer.status, answer.body.len()),
        (StatusCode::PARTIAL_CONTENT, 7)
    );
    let head = ask(&polls, Method::HEAD, "/q3/result", &[]).await;
    assert_eq!(head.header("etag"), answer.header("etag"));
}
