//! The kit for tests of a 202 flow.

use http::{Request, StatusCode};
use tower_operations::{
    FailureKind, MemoryStore, PollService, Problem, Progress, State,
    testing::{Client, Polled, TestOperation},
};

type Polls = Polled<PollService<MemoryStore<String>>>;

async fn begin() -> (TestOperation<String>, Polls) {
    let store = MemoryStore::with_weigher(String::capacity);
    let operation = TestOperation::begin(&store).await;
    let polled = Client::new(PollService::new(store)).at(format!("/{}", operation.id()));
    (operation, polled)
}

#[tokio::test(start_paused = true)]
async fn a_test_operation_has_the_states_that_the_test_sets() {
    let (operation, polled) = begin().await;
    operation.start().await;
    operation.progress(Progress::from_count(1, 2)).await;
    let snapshot = polled.operation().await;
    assert_eq!(snapshot.state(), State::Running);
    assert_eq!(
        snapshot.metadata().progress(),
        Some(&Progress::from_count(1, 2))
    );

    // A waiting client gets the outcome.
    let (finished, ()) = tokio::join!(polled.finished(), operation.finish("done".into()));
    assert_eq!(finished.result(), Some(&"done".into()));
    assert_eq!(polled.result().await.body(), "\"done\"");

    let (operation, polled) = begin().await;
    operation.fail(Problem::new(StatusCode::CONFLICT)).await;
    assert_eq!(
        polled.finished().await.problem(),
        Some(&Problem::new(StatusCode::CONFLICT))
    );

    let (operation, polled) = begin().await;
    drop(operation);
    let problem = polled.finished().await.problem().cloned().unwrap();
    assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_visible_to_both_sides() {
    let (operation, polled) = begin().await;
    assert_eq!(polled.cancel().await.status(), StatusCode::OK);
    assert_eq!(polled.finished().await.state(), State::Canceled);
    let refused = tokio::spawn(async move { operation.start().await })
        .await
        .unwrap_err();
    let message = refused.into_panic().downcast::<String>().unwrap();
    assert!(message.contains("cannot be started"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_response_other_than_202_is_a_panic_with_its_status() {
    let store = MemoryStore::<String>::with_weigher(String::capacity);
    let client = Client::new(PollService::new(store));
    let request = Request::get("/nope/nothing");
    let refused = tokio::spawn(async move { client.accepted(request, "").await.url().len() });
    let message = refused
        .await
        .unwrap_err()
        .into_panic()
        .downcast::<String>()
        .unwrap();
    assert!(message.contains("404"), "{message}");
}
