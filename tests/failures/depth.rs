//! Deeply nested JSON is available only from the result resource.

use http::{Request, StatusCode};
use tower::ServiceExt;
use tower_operations::{MemoryStore, Operations, Outcome, PollService, RecordedResponse};

use crate::common::{Answer, end, every_dialect, get, response, status_and_result};

fn nested_arrays(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

fn recorded_response(status: u16, media_type: &str, body: String) -> RecordedResponse {
    RecordedResponse::new(response(status, media_type, body))
}

#[tokio::test]
async fn json_of_at_most_128_levels_is_embedded() {
    for dialect in every_dialect() {
        for (levels, is_embedded) in [(128, true), (129, false), (30_000, false)] {
            let body = nested_arrays(levels);
            let json = recorded_response(200, "application/json", body.clone());
            let outcome = Outcome::Succeeded(Some(json));
            let [status, result] = status_and_result(&dialect, outcome).await;
            let name = dialect.name;
            // In these dialects the status is the result, or has no place for it.
            if !matches!(name, "odata" | "fhir" | "ogc" | "ipa") {
                let text = String::from_utf8(status.body.to_vec()).unwrap();
                assert_eq!(text.contains(&body), is_embedded, "{name}: {levels}");
            }
            assert_eq!(result.status, StatusCode::OK, "{name}");
            assert_eq!(result.body, body, "{name}");
        }
    }
}

#[tokio::test]
async fn json_of_a_million_levels_overflows_no_stack() {
    let body = nested_arrays(1_000_000);
    for dialect in every_dialect() {
        for (status, media_type) in [
            (200, "application/json"),
            (400, "application/json"),
            (400, "application/problem+json"),
        ] {
            let outcome = recorded_response(status, media_type, body.clone()).into_outcome();
            let store = MemoryStore::new();
            end(&store, "q3", outcome).await;
            let polls = Operations::new(store)
                .dialect(dialect.dialect.clone())
                .poll_service()
                .listing();
            for path in ["/operations/q3", "/operations/"] {
                let request = Request::get(path).body(()).unwrap();
                let answer = polls
                    .clone()
                    .inline_limit(usize::MAX)
                    .oneshot(request)
                    .await;
                let answer = Answer::from_response(answer.unwrap()).await;
                let is_result = answer.body == body;
                assert!(answer.body.len() < 4096 || is_result, "{}", dialect.name);
            }
        }
    }
}

#[tokio::test]
async fn events_embed_json_of_at_most_128_levels() {
    for (levels, is_embedded) in [(128, true), (129, false)] {
        let body = nested_arrays(levels);
        let json = recorded_response(200, "application/json", body.clone());
        let store = MemoryStore::new();
        end(&store, "q3", Outcome::Succeeded(Some(json))).await;
        let polls = PollService::new(store);
        let events = get(polls, "/operations/q3/events").await;
        let text = String::from_utf8(events.body.to_vec()).unwrap();
        assert!(text.contains("event: succeeded"));
        assert_eq!(text.contains(&body), is_embedded);
    }
}

#[tokio::test]
async fn a_problem_with_too_deep_members_is_replaced_by_its_status() {
    for (levels, has_detail) in [(90, true), (110, false), (130, false)] {
        let body = format!(r#"{{"detail":"no data","deep":{}}}"#, nested_arrays(levels));
        let outcome = recorded_response(409, "application/problem+json", body).into_outcome();
        let Outcome::Failed(failure) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(failure.problem.detail().is_some(), has_detail, "{levels}");
        assert_eq!(failure.problem.status(), Some(StatusCode::CONFLICT));
    }
}
