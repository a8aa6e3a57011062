//! Fields of a recorded response that are replayed.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tower::ServiceExt;
use tower_operations::{
    BufferedBody, MemoryStore, Operations, RecordedResponse, dialect::not_replayed,
};

use crate::common::{Answer, end, every_dialect, get};

/// The value of every field that the service sets.
const INNER: &str = "777";

fn recorded_response(
    status: u16,
    media_type: &'static str,
    names: &[&'static str],
) -> RecordedResponse {
    let mut response = Response::new(BufferedBody::from("{\"pages\":5}"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(media_type));
    for name in names {
        headers.insert(*name, HeaderValue::from_static(INNER));
    }
    RecordedResponse::new(response)
}

async fn operations_with(response: RecordedResponse) -> Operations<MemoryStore> {
    let store = MemoryStore::new();
    end(&store, "q3", response.into_outcome()).await;
    Operations::new(store)
}

const POLL_FIELDS: &[&str] = &[
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
async fn poll_fields_never_come_from_the_service() {
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
            let names = [POLL_FIELDS, more].concat();
            let operations = operations_with(recorded_response(status, media_type, &names)).await;
            // The application replays every field here.
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
async fn a_recorded_202_is_replayed_as_200_where_a_202_means_running() {
    for dialect in every_dialect() {
        if !matches!(dialect.name, "azure" | "arm" | "odata" | "fhir") {
            continue;
        }
        let operations =
            operations_with(recorded_response(202, "application/json", &["location"])).await;
        let polls = operations.dialect(dialect.dialect.clone()).poll_service();
        let answer = get(polls, &format!("/operations/q3{}", dialect.result)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", dialect.name);
    }
}

/// Fields that affect more than one response, or that belong to the URL or the time
/// of the first one.
const NOT_REPLAYED: &[&str] = &[
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
async fn fields_beyond_one_response_are_not_replayed_and_sniffing_is_off() {
    for dialect in every_dialect() {
        for (status, media_type) in [
            (200, "application/json"),
            (200, "text/html"),
            (400, "application/json"),
            (400, "application/fhir+json"),
        ] {
            let operations =
                operations_with(recorded_response(status, media_type, NOT_REPLAYED)).await;
            let polls = operations.dialect(dialect.dialect.clone()).poll_service();
            let answer = get(polls, &format!("/operations/q3{}", dialect.result)).await;
            for name in NOT_REPLAYED {
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
    for name in NOT_REPLAYED {
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
async fn validators_of_the_service_do_not_apply_to_the_result() {
    for dialect in every_dialect() {
        let operations = operations_with(recorded_response(
            200,
            "application/json",
            &["etag", "last-modified"],
        ))
        .await;
        let polls = operations.dialect(dialect.dialect.clone()).poll_service();
        for (name, value) in [
            ("if-none-match", "\"777\""),
            ("if-match", "*"),
            ("if-modified-since", "Sun, 29 Nov 2026 09:00:00 GMT"),
            ("if-unmodified-since", "Sun, 29 Nov 1970 09:00:00 GMT"),
        ] {
            let request = Request::get(format!("/operations/q3{}", dialect.result))
                .header(name, value)
                .body(())
                .unwrap();
            let answer = Answer::from_response(polls.clone().oneshot(request).await.unwrap()).await;
            assert_eq!(answer.status, StatusCode::OK, "{}: {name}", dialect.name);
            assert_eq!(answer.body, "{\"pages\":5}");
        }
    }
}

#[tokio::test]
async fn the_application_sets_any_field_of_a_replay() {
    let attach = |response: &RecordedResponse, fields: &mut HeaderMap| {
        if response.media_type() == Some("text/html") {
            let attachment = HeaderValue::from_static("attachment");
            fields.insert("content-disposition", attachment);
        }
        fields.remove("x-internal");
    };
    for keeps_first in [true, false] {
        for (media_type, is_attached) in [("text/html", true), ("application/json", false)] {
            let recorded_response =
                recorded_response(200, media_type, &["x-internal", "set-cookie"]);
            let operations = operations_with(recorded_response).await;
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
async fn a_status_without_content_is_replayed_without_a_body() {
    for status in [204, 205, 304] {
        let operations = operations_with(recorded_response(status, "application/json", &[])).await;
        let polls = operations.poll_service();
        let answer = get(polls, "/operations/q3/result").await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.body, "");
    }
}
