//! Cancels that race with other changes of the operation.

use test_support::hooked;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use hooked::{Call, Hooked, When};
use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Operations, PollService, Progress, RequestBody, State,
    store::{Created, NewOperation, Repository, Store},
};

/// Stores with a pending operation that reports progress just before each of
/// the first `times` cancels.
async fn stores_with_racing_reports(times: usize) -> (MemoryStore, Hooked, OperationId) {
    let memory = MemoryStore::new();
    let new = NewOperation::new(OperationId::new());
    let Created::New(record) = memory.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let id = record.operation().id().clone();
    let cancels = Arc::new(AtomicUsize::new(0));
    let store = Hooked::new(memory.clone(), {
        let memory = memory.clone();
        move |call, when| {
            let (memory, record) = (memory.clone(), record.clone());
            let cancel = (call, when) == (Call::ForceFinish, When::Before);
            let turn = if cancel {
                cancels.fetch_add(1, SeqCst)
            } else {
                usize::MAX
            };
            async move {
                if turn < times {
                    let progress = Progress::from_count(turn as u64, 100);
                    memory
                        .report(record.operation().id(), record.token(), progress)
                        .await?;
                }
                Ok(())
            }
        }
    });
    (memory, store, id)
}

#[tokio::test]
async fn a_cancel_that_loses_a_race_is_retried() {
    let (memory, store, id) = stores_with_racing_reports(5).await;
    let request = Request::delete(format!("/{id}")).body(()).unwrap();
    let response = PollService::new(store).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    // One create, five reports and one cancel.
    let record = memory.get(&id).await.unwrap().unwrap();
    assert_eq!(record.version().unwrap().get(), 7);
}

#[tokio::test]
async fn a_cancel_with_a_version_is_not_retried() {
    let (_, store, id) = stores_with_racing_reports(1).await;
    let polls = PollService::new(store);
    let get = Request::get(format!("/{id}")).body(()).unwrap();
    let etag = polls.clone().oneshot(get).await.unwrap().headers()["etag"].clone();
    let delete = Request::delete(format!("/{id}"))
        .header("if-match", etag)
        .body(())
        .unwrap();
    let response = polls.oneshot(delete).await.unwrap();
    assert_eq!(response.status(), StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_cancel_that_never_wins_is_503() {
    let (_, store, id) = stores_with_racing_reports(usize::MAX).await;
    let request = Request::delete(format!("/{id}")).body(()).unwrap();
    let response = PollService::new(store).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_races_with_the_end_wins_or_is_409() {
    let (mut won, mut late) = (0, 0);
    for (work, delay) in (0..12).flat_map(|work| (0..12).map(move |delay| (work, delay))) {
        let memory = MemoryStore::new();
        let store = Hooked::new(memory.clone(), async |_, _| {
            tokio::task::yield_now().await;
            Ok(())
        });
        let operations = Operations::new(store.clone());
        let (layer, drain) = (operations.layer(), operations.drain_handle());
        let service = layer.layer(service_fn(
            move |_: Request<RequestBody<BufferedBody>>| async move {
                for _ in 0..work {
                    tokio::task::yield_now().await;
                }
                Ok::<_, Infallible>(Response::new(BufferedBody::from("done")))
            },
        ));
        let request = Request::post("/").body(BufferedBody::default()).unwrap();
        let accepted = service.oneshot(request).await.unwrap();
        let location = accepted.headers()["location"].to_str().unwrap().to_owned();
        for _ in 0..delay {
            tokio::task::yield_now().await;
        }
        let request = Request::delete(&location).body(()).unwrap();
        let answer = PollService::new(store)
            .oneshot(request)
            .await
            .unwrap()
            .status();
        assert!(drain.drain(Duration::from_secs(60)).await.is_clean());
        let id = location.rsplit('/').next().unwrap().parse().unwrap();
        let state = memory.get(&id).await.unwrap().unwrap().operation().state();
        match (answer, state) {
            (StatusCode::OK, State::Canceled) => won += 1,
            (StatusCode::CONFLICT, State::Succeeded) => late += 1,
            other => panic!("after {work} and {delay}: {other:?}"),
        }
    }
    assert!(won > 0 && late > 0, "{won} {late}");
}
