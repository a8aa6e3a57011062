//! A service that is itself made of operations, and says so in its problems.

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

use crate::common::{Answer, every_dialect, get, problem_json, spoken};

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

    fn on(self, layer: AsyncAcceptLayer<MemoryStore>) -> AsyncAcceptLayer<MemoryStore> {
        match self {
            Self::Always => layer,
            Self::Preferred => layer.when_preferred(),
            Self::After => layer.after(Duration::from_millis(10)),
            Self::Signaled => layer.when_signaled(),
        }
    }
}

/// A request to a service that answers after a second with this problem.
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
    Answer::of(layer.layer(service).oneshot(request).await.unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn a_key_stands_for_a_failure_of_the_service_whatever_type_the_service_gives_it() {
    for mode in Mode::ALL {
        let store = MemoryStore::new();
        let layer = AsyncAcceptLayer::new(store.clone()).idempotency(Idempotency::optional());
        let layer = mode.on(layer);
        let first = post(mode, &layer, NOT_DISPATCHED).await;
        assert_eq!(first.status, StatusCode::ACCEPTED, "{mode:?}");
        let location = first.headers["location"].to_str().unwrap();
        let ended = get(
            PollService::new(store.clone()),
            &format!("{location}?wait=30"),
        )
        .await;
        assert_eq!(ended.json()["state"], "failed", "{mode:?}");
        let again = post(mode, &layer, NOT_DISPATCHED).await;
        assert_eq!(again.status, StatusCode::ACCEPTED, "{mode:?}");
        assert_eq!(again.headers["location"], location, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_counts_as_finished_what_the_service_itself_calls_interrupted() {
    for mode in Mode::ALL {
        let operations = Operations::new(MemoryStore::new());
        let layer = mode.on(operations.layer());
        let first = post(mode, &layer, INTERRUPTED).await;
        assert_eq!(first.status, StatusCode::ACCEPTED, "{mode:?}");
        let report = operations.drain(Duration::from_secs(30)).await;
        assert_eq!((report.finished, report.is_clean()), (1, true), "{mode:?}");
    }
}

#[tokio::test]
async fn a_worker_keeps_the_problem_of_its_service_as_the_service_s() {
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
async fn every_dialect_tells_the_failures_of_the_service_from_ours() {
    let recorded = RecordedResponse::new(problem_json(503, INTERRUPTED));
    for dialect in every_dialect() {
        let ours = Outcome::failed(FailureKind::Interrupted);
        let [ours, _] = spoken(&dialect, ours).await;
        let [theirs, _] = spoken(&dialect, recorded.clone().into_outcome()).await;
        let says = |answer: &Answer, word: &str| {
            let text = answer.json().to_string();
            // Problems are embedded with the type they have.
            text.replace("urn:tower-operations:interrupted", "")
                .contains(word)
        };
        // These have no code of their own, or show what was recorded.
        let has_codes = !matches!(dialect.name, "plain" | "ogc");
        assert_eq!(says(&ours, "Interrupted"), has_codes, "{}", dialect.name);
        assert!(
            !says(&theirs, "Interrupted"),
            "{}: {theirs:?}",
            dialect.name
        );
    }
}

#[tokio::test]
async fn what_an_application_makes_of_a_problem_is_a_failure_of_its_own() {
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
