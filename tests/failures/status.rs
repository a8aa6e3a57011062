//! A failure is sent with the status of its response.

use http::StatusCode;
use serde_json::json;
use tower_operations::{
    OperationId, Operations, Outcome, PollService, Problem, RecordedResponse, Snapshot, StoreFn,
};

use crate::{
    common::{every_dialect, get, problem_json, status_and_result},
    server::Server,
};

const LIES: [&str; 6] = [
    r#"{"detail":"no data","status":200}"#,
    r#"{"detail":"no data","status":204}"#,
    r#"{"detail":"no data","status":101}"#,
    r#"{"detail":"no data","status":999}"#,
    r#"{"detail":"no data","status":"400"}"#,
    r#"{"detail":"no data","status":503}"#,
];

fn outcome(status: u16, body: &'static str) -> Outcome<RecordedResponse> {
    RecordedResponse::new(problem_json(status, body)).into_outcome()
}

#[tokio::test]
async fn the_status_of_the_response_decides_in_every_dialect() {
    for dialect in every_dialect() {
        for lie in LIES {
            let [status, result] = status_and_result(&dialect, outcome(400, lie)).await;
            let name = dialect.name;
            match name {
                "google" => {
                    let error = &status.json()["error"];
                    assert_eq!(error["code"], 3, "{lie}");
                    let details = &error["details"][0]["value"];
                    assert_eq!(details["httpStatus"], 400, "{lie}");
                    assert_eq!(details["reason"], "BadRequest", "{lie}");
                    assert_eq!(details["retryable"], false, "{lie}");
                }
                "durable" => assert_eq!(status.json()["output"], "BadRequest: no data", "{lie}"),
                "odata" => {
                    assert_eq!(result.status, StatusCode::OK);
                    assert_eq!(result.headers["asyncresult"], "400", "{lie}");
                }
                _ => assert_eq!(result.status, StatusCode::BAD_REQUEST, "{name}: {lie}"),
            }
            match name {
                "azure" | "arm" => assert_eq!(status.json()["error"]["code"], "BadRequest"),
                "ipa" => {
                    assert_eq!(status.json()["error"]["code"], "BadRequest");
                    assert_eq!(status.json()["error"]["retryable"], false);
                    assert_eq!(result.json()["error"], 400);
                }
                "ogc" => assert_eq!(result.json()["status"], 400),
                "plain" => assert_eq!(status.json()["problem"]["status"], 400),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn retryability_follows_the_status_of_the_response() {
    for dialect in every_dialect() {
        let [status, _] = status_and_result(&dialect, outcome(503, LIES[0])).await;
        match dialect.name {
            "ipa" => assert_eq!(status.json()["error"]["retryable"], true),
            "google" => {
                let details = &status.json()["error"]["details"][0]["value"];
                assert_eq!(details["retryable"], true);
            }
            _ => {}
        }
    }
}

/// A failure sent as 101 or 204 would break the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_never_breaks_its_connection() {
    for dialect in every_dialect() {
        let lookup = move |id: OperationId| async move {
            let at = id.to_string().parse::<usize>().ok();
            let found = at.and_then(|at| LIES.get(at));
            Ok::<_, std::io::Error>(found.map(|lie| {
                let problem: Problem = serde_json::from_str(lie).unwrap();
                Snapshot::from(Outcome::<u32>::failed(problem))
            }))
        };
        let polls = Operations::new(StoreFn::new(lookup))
            .dialect(dialect.dialect.clone())
            .read_only_poll_service();
        let server = Server::hyper(polls.clone()).await;
        let mut client = server.http1().await;
        for at in 0..LIES.len() {
            let path = format!("/{at}{}", dialect.result);
            let answer = client.get(&path).await;
            assert!(client.serves_on().await, "{}: {path}", dialect.name);
            let status = answer.status.as_u16();
            match dialect.name {
                "google" | "durable" | "odata" => assert_eq!(status, 200, "{path}"),
                _ => assert!((400..600).contains(&status), "{}: {answer:?}", dialect.name),
            }
            if dialect.name == "odata" {
                assert!(["500", "503"].contains(&answer.header("asyncresult").unwrap()));
            }
        }
    }
}

#[tokio::test]
async fn a_problem_without_an_error_status_is_sent_as_500() {
    for (status, expected) in [
        (200, 500),
        (204, 500),
        (101, 500),
        (302, 500),
        (999, 500),
        (409, 409),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let response = Problem::new(status).into_response();
        assert_eq!(response.status(), expected);
        let body: serde_json::Value = serde_json::from_slice(response.body().data()).unwrap();
        assert_eq!(body["status"], expected);
        let lookup = move |_: OperationId| async move {
            let failed = Outcome::<u32>::failed(Problem::new(status));
            Ok::<_, std::io::Error>(Some(Snapshot::from(failed)))
        };
        let polls = PollService::read_only(StoreFn::new(lookup));
        let answer = get(polls, "/operations/q3/result").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["status"]),
            (expected, &json!(expected))
        );
    }
}

#[tokio::test]
async fn a_failure_with_a_success_response_is_sent_as_an_error() {
    for dialect in every_dialect() {
        for status in [200, 204, 302, 101] {
            let failure = tower_operations::Failure::from(Problem::new(StatusCode::CONFLICT))
                .with_response(RecordedResponse::new(problem_json(status, "{}")));
            let [_, result] = status_and_result(&dialect, Outcome::Failed(failure)).await;
            match dialect.name {
                "google" | "durable" => {}
                "odata" => assert_eq!(result.headers["asyncresult"], "500"),
                name => assert!(
                    (400..600).contains(&result.status.as_u16()),
                    "{name}: {result:?}"
                ),
            }
        }
    }
}

/// An id can equal a word that was reserved after the operation was accepted.
#[tokio::test]
async fn an_operation_whose_id_is_a_reserved_word_is_found() {
    let lookup = |id: OperationId| async move {
        let is_known = id.to_string() == "terminate";
        Ok::<_, std::io::Error>(is_known.then(|| Snapshot::from(Outcome::Succeeded(Some(42)))))
    };
    let polls = PollService::read_only(StoreFn::new(lookup));
    let answer = get(polls.clone(), "/operations/terminate").await;
    assert_eq!(answer.json()["result"], 42);
    let answer = get(polls, "/operations/terminate/result").await;
    assert_eq!(answer.body, "42");
}

#[tokio::test]
async fn a_failure_is_described_by_its_response_and_not_by_its_problem() {
    for dialect in every_dialect() {
        // A failure in the form that early releases stored.
        let problem: Problem = serde_json::from_str(LIES[0]).unwrap();
        let failure = tower_operations::Failure::from(problem)
            .with_response(RecordedResponse::new(problem_json(503, LIES[0])));
        let [status, _] = status_and_result(&dialect, Outcome::Failed(failure)).await;
        match dialect.name {
            "google" => {
                let details = &status.json()["error"]["details"][0]["value"];
                assert_eq!(details["httpStatus"], 503);
                assert_eq!(details["reason"], "ServiceUnavailable");
                assert_eq!(details["retryable"], true);
            }
            "azure" | "arm" => {
                assert_eq!(status.json()["error"]["code"], "ServiceUnavailable");
            }
            "ipa" => {
                let error = &status.json()["error"];
                assert_eq!(error["code"], "ServiceUnavailable");
                assert_eq!(error["retryable"], true);
            }
            "ogc" => assert_eq!(status.json()["exception"]["status"], 503),
            _ => {}
        }
    }
}
