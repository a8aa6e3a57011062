//! Services that use operations themselves and report so in their problems.

use std::{convert::Infallible, time::Duration};

use http::{Request, StatusCode};
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, Failure, FailureKind, Idempotency, MemoryStore,
    OperationHandle, Operations, Outcome, PollService, RecordedResponse, RequestBody, RunService,
    run::AcceptedRequest,
    store::{Created, NewOperation, Repository, Store},
};

use crate::common::{Answer, every_dialect, get, problem_json, status_and_result};

const KEY: &str = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"";

const NOT_DISPATCHED: &str = r#"{"type":"urn:tower-operations:not-dispatched","status":503}"#;
const INTERRUPTED: &str = r#"{"type":"urn:tower-operations:interrupted","status":503}"#;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Always,
    Preferred,
    After,
    Signaled,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Always, Self::Preferred, Self::After, Self::Signaled];

    fn apply(self, layer: AsyncAcceptLayer<MemoryStore>) -> AsyncAcceptLayer<MemoryStore> {
        match self {
            Self::Always => layer,
            Self::Preferred => layer.when_preferred(),
            Self::After => layer.after(Duration::from_millis(10)),
            Self::Signaled => layer.when_signaled(),
        }
    }
}

/// Sends a request to a service that answers after a second with `problem`.
async fn post(mode: Mode, layer: &AsyncAcceptLayer<MemoryStore>, problem: &'static str) -> Answer {
    let service = service_fn(
        move |request: Request<RequestBody<BufferedBody>>| async move {
            let operation = OperationHandle::from_extensions(request.extensions());
            if mode == Mode::Signaled {
                operation.accept().await.unwrap();
            }
            sleep(Duration::from_secs(1)).await;
            Ok::<_, Infallible>(problem_json(503, problem))
        },
    );
    let request = Request::post("/reports")
        .header("prefer", "respond-async")
        .header("idempotency-key", KEY)
        .body(BufferedBody::from("Q3"))
        .unwrap();
    Answer::from_response(layer.layer(service).oneshot(request).await.unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_a_failure_of_the_service_of_any_type() {
    for mode in Mode::ALL {
        let store = MemoryStore::new();
        let layer = AsyncAcceptLayer::new(store.clone()).idempotency(Idempotency::optional());
        let layer = mode.apply(layer);
        let first = post(mode, &layer, NOT_DISPATCHED).await;
        assert_eq!(first.status, StatusCode::ACCEPTED, "{mode:?}");
        let location = first.headers["location"].to_str().unwrap();
        let ended = get(
            PollService::new(store.clone()),
            &format!("{location}?wait=30"),
        )
        .await;
        assert_eq!(ended.json()["state"], "failed", "{mode:?}");
        let second = post(mode, &layer, NOT_DISPATCHED).await;
        assert_eq!(second.status, StatusCode::ACCEPTED, "{mode:?}");
        assert_eq!(second.headers["location"], location, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_counts_an_interrupted_problem_of_the_service_as_finished() {
    for mode in Mode::ALL {
        let operations = Operations::new(MemoryStore::new());
        let layer = mode.apply(operations.layer());
        let first = post(mode, &layer, INTERRUPTED).await;
        assert_eq!(first.status, StatusCode::ACCEPTED, "{mode:?}");
        let report = operations.drain(Duration::from_secs(30)).await;
        assert_eq!((report.finished, report.is_clean()), (1, true), "{mode:?}");
    }
}

#[tokio::test]
async fn a_worker_records_the_problem_of_its_service_without_a_kind() {
    for problem in [NOT_DISPATCHED, INTERRUPTED] {
        let store = MemoryStore::new();
        let new = NewOperation::new("q3".parse().unwrap());
        let Created::New(record) = store.create(new).await.unwrap() else {
            panic!("the id is new");
        };
        let service = service_fn(move |_: Request<BufferedBody>| async move {
            Ok::<_, Infallible>(problem_json(503, problem))
        });
        let request = Request::post("/reports")
            .body(BufferedBody::default())
            .unwrap();
        let accepted = AcceptedRequest::new(&record, request);
        RunService::new(store.clone(), service)
            .oneshot(accepted)
            .await
            .unwrap();
        let record = store.get(record.operation().id()).await.unwrap().unwrap();
        let Some(Outcome::Failed(failure)) = record.operation().outcome() else {
            panic!("{record:?}");
        };
        assert_eq!(failure.kind(), None);
    }
}

#[tokio::test]
async fn failures_of_the_service_differ_from_those_of_the_layer() {
    let recorded = RecordedResponse::new(problem_json(503, INTERRUPTED));
    for dialect in every_dialect() {
        let layer_failure = Outcome::failed(FailureKind::Interrupted);
        let [layer_failure, _] = status_and_result(&dialect, layer_failure).await;
        let [service_failure, _] =
            status_and_result(&dialect, recorded.clone().into_outcome()).await;
        let contains = |answer: &Answer, word: &str| {
            let text = answer.json().to_string();
            // An embedded problem keeps its type.
            text.replace("urn:tower-operations:interrupted", "")
                .contains(word)
        };
        // These dialects have no codes of their own, or show the recorded problem.
        let has_codes = !matches!(dialect.name, "plain" | "ogc");
        assert_eq!(
            contains(&layer_failure, "Interrupted"),
            has_codes,
            "{}",
            dialect.name
        );
        assert!(
            !contains(&service_failure, "Interrupted"),
            "{}: {service_failure:?}",
            dialect.name
        );
    }
}

#[tokio::test]
async fn a_failure_from_a_problem_has_no_kind() {
    let problem: tower_operations::Problem = serde_json::from_str(NOT_DISPATCHED).unwrap();
    let failure = Failure::<RecordedResponse>::from(problem);
    assert_eq!(failure.kind(), None);
    for kind in FailureKind::ALL {
        let failure = Failure::<RecordedResponse>::from(*kind);
        assert_eq!(failure.kind(), Some(*kind));
        assert_eq!(failure.problem.type_uri(), kind.urn());
        assert_eq!(FailureKind::from_code(kind.code()), Some(*kind));
    }
    assert_eq!(FailureKind::from_code("not-found"), None);
}
