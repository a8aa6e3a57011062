//! The kit that users test their own 202 flow with.

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
async fn an_operation_does_what_the_test_says() {
    let (operation, polled) = begin().await;
    operation.start().await;
    operation.progress(Progress::from_count(1, 2)).await;
    let seen = polled.operation().await;
    assert_eq!(seen.state(), State::Running);
    assert_eq!(
        seen.metadata().progress(),
        Some(&Progress::from_count(1, 2))
    );

    // Whoever waits is told.
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
async fn a_cancel_is_seen_by_both_sides() {
    let (operation, polled) = begin().await;
    assert_eq!(polled.cancel().await.status(), StatusCode::OK);
    assert_eq!(polled.finished().await.state(), State::Canceled);
    let refused = tokio::spawn(async move { operation.start().await })
        .await
        .unwrap_err();
    let said = refused.into_panic().downcast::<String>().unwrap();
    assert!(said.contains("cannot be started"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_202_is_said_to_be_none() {
    let store = MemoryStore::<String>::with_weigher(String::capacity);
    let client = Client::new(PollService::new(store));
    let request = Request::get("/nope/nothing");
    let refused = tokio::spawn(async move { client.accepted(request, "").await.url().len() });
    let said = refused
        .await
        .unwrap_err()
        .into_panic()
        .downcast::<String>()
        .unwrap();
    assert!(said.contains("404"), "{said}");
}
