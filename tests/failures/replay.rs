//! Which fields of a recorded response are sent once more.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tower::ServiceExt;
use tower_operations::{
    BufferedBody, MemoryStore, Operations, RecordedResponse, dialect::not_replayed,
};

use crate::common::{Answer, end, every_dialect, get};

/// What a field has that the service has set.
const INNER: &str = "777";

fn answered(status: u16, media_type: &'static str, names: &[&'static str]) -> RecordedResponse {
    let mut response = Response::new(BufferedBody::from("{\"pages\":5}"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(media_type));
    for name in names {
        headers.insert(*name, HeaderValue::from_static(INNER));
    }
    RecordedResponse::new(response)
}

async fn recorded(recorded: RecordedResponse) -> Operations<MemoryStore> {
    let store = MemoryStore::new();
    end(&store, "q3", recorded.into_outcome()).await;
    Operations::new(store)
}

const FOR_POLLS: &[&str] = &[
    "retry-after",
    "operation-result",
    "operation-location",
    "operation-id",
    "azure-asyncoperation",
    "asyncresult",
    "x-progress",
    "x-ms-continuation-token",
];

#[tokio::test]
async fn a_field_that_means_something_to_who_polls_never_comes_from_the_service() {
    for dialect in every_dialect() {
        for (status, media_type) in [
            (200, "application/json"),
            (202, "application/json"),
            (400, "application/json"),
            (400, "application/fhir+json"),
        ] {
            let more = match dialect.name {
                "azure" | "arm" => &["location"][..],
                "fhir" => &["content-location"],
                _ => &[],
            };
            let names = [FOR_POLLS, more].concat();
            let operations = recorded(answered(status, media_type, &names)).await;
            // Whatever the application lets through.
            let polls = operations
                .replay_headers(|_| true)
                .dialect(dialect.dialect.clone())
                .poll_service();
            let answer = get(polls, &format!("/operations/q3{}", dialect.result)).await;
            for name in names {
                let sent = answer.headers.get(name);
                let is_inner = sent.is_some_and(|value| value == INNER);
                assert!(!is_inner, "{}: {name}: {answer:?}", dialect.name);
            }
        }
    }
}

#[tokio::test]
async fn a_recorded_202_is_an_end_to_pollers_that_come_back_to_a_202() {
    for dialect in every_dialect() {
        if !matches!(dialect.name, "azure" | "arm" | "odata" | "fhir") {
            continue;
        }
        let operations = recorded(answered(202, "application/json", &["location"])).await;
        let polls = operations.dialect(dialect.dialect.clone()).poll_service();
        let answer = get(polls, &format!("/operations/q3{}", dialect.result)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", dialect.name);
    }
}

/// What acts on more than one answer, or belongs to the URL or the moment of the first.
const OF_THE_FIRST: &[&str] = &[
    "accept-ch",
    "accept-ranges",
    "access-control-allow-origin",
    "age",
    "alt-svc",
    "authentication-info",
    "cdn-cache-control",
    "clear-site-data",
    "critical-ch",
    "date",
    "etag",
    "expect-ct",
    "expires",
    "last-modified",
    "nel",
    "origin-agent-cluster",
    "proxy-authentication-info",
    "public-key-pins",
    "public-key-pins-report-only",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "set-cookie",
    "strict-transport-security",
    "surrogate-control",
    "use-as-dictionary",
    "www-authenticate",
];

#[tokio::test]
async fn nothing_is_replayed_that_acts_on_more_than_its_answer_and_nothing_is_sniffed() {
    for dialect in every_dialect() {
        for (status, media_type) in [
            (200, "application/json"),
            (200, "text/html"),
            (400, "application/json"),
            (400, "application/fhir+json"),
        ] {
            let operations = recorded(answered(status, media_type, OF_THE_FIRST)).await;
            let polls = operations.dialect(dialect.dialect.clone()).poll_service();
            let answer = get(polls, &format!("/operations/q3{}", dialect.result)).await;
            for name in OF_THE_FIRST {
                let sent = answer.headers.get(*name);
                assert!(
                    sent.is_none_or(|value| value != INNER),
                    "{}: {name}",
                    dialect.name
                );
            }
            let is_replayed = answer.body == "{\"pages\":5}";
            assert!(is_replayed || status == 400, "{}: {answer:?}", dialect.name);
            if is_replayed {
                assert_eq!(answer.headers["x-content-type-options"], "nosniff");
                assert_eq!(answer.headers["cache-control"], "private, no-store");
            }
        }
    }
    for name in OF_THE_FIRST {
        assert!(not_replayed(&HeaderName::from_static(name)), "{name}");
    }
    for name in [
        "content-type",
        "location",
        "link",
        "content-security-policy",
        "vary",
    ] {
        assert!(!not_replayed(&HeaderName::from_static(name)), "{name}");
    }
}

#[tokio::test]
async fn a_validator_of_the_service_decides_no_request_to_the_result() {
    for dialect in every_dialect() {
        let operations = recorded(answered(
            200,
            "application/json",
            &["etag", "last-modified"],
        ))
        .await;
        let polls = operations.dialect(dialect.dialect.clone()).poll_service();
        for (name, value) in [
            ("if-none-match", "\"777\""),
            ("if-match", "\"other\""),
            ("if-modified-since", "Sun, 29 Nov 2026 09:00:00 GMT"),
            ("if-unmodified-since", "Sun, 29 Nov 1970 09:00:00 GMT"),
        ] {
            let request = Request::get(format!("/operations/q3{}", dialect.result))
                .header(name, value)
                .body(())
                .unwrap();
            let answer = Answer::of(polls.clone().oneshot(request).await.unwrap()).await;
            assert_eq!(answer.status, StatusCode::OK, "{}: {name}", dialect.name);
            assert_eq!(answer.body, "{\"pages\":5}");
        }
    }
}

#[tokio::test]
async fn an_application_may_set_any_field_of_a_replay() {
    let attach = |recorded: &RecordedResponse, fields: &mut HeaderMap| {
        if recorded.media_type() == Some("text/html") {
            let attachment = HeaderValue::from_static("attachment");
            fields.insert("content-disposition", attachment);
        }
        fields.remove("x-internal");
    };
    for keeps_first in [true, false] {
        for (media_type, is_attached) in [("text/html", true), ("application/json", false)] {
            let answered = answered(200, media_type, &["x-internal", "set-cookie"]);
            let operations = recorded(answered).await;
            let operations = match keeps_first {
                true => operations.replay_headers(|_| true).map_replay(attach),
                false => operations.map_replay(attach).replay_headers(|_| true),
            };
            let polls = operations.poll_service();
            let answer = get(polls, "/operations/q3/result").await;
            assert_eq!(
                answer.headers.contains_key("content-disposition"),
                is_attached
            );
            assert!(!answer.headers.contains_key("x-internal"));
            assert_eq!(answer.headers["set-cookie"], INNER);
        }
    }
}

#[tokio::test]
async fn a_status_that_has_no_content_is_replayed_without_a_body() {
    for status in [204, 205, 304] {
        let operations = recorded(answered(status, "application/json", &[])).await;
        let polls = operations.poll_service();
        let answer = get(polls, "/operations/q3/result").await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.body, "");
    }
}
