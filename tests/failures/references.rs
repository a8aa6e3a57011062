//! Relative references in a response, resolved against the original request.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response, StatusCode};
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, MemoryStore, OperationHandle, PollService, QueuedRequest,
    RequestBody, RunService,
    run::AcceptedRequest,
    store::{Created, NewOperation, Repository},
};

use crate::common::{Answer, get};

fn created_response() -> Response<BufferedBody> {
    Response::builder()
        .status(201)
        .header("location", "42")
        .header("content-location", "?v=2")
        .header("link", "<42/pages>; rel=\"pages\", </help>; rel=help")
        .body(BufferedBody::from("created"))
        .unwrap()
}

fn assert_resolved(answer: &Answer, folder: &str) {
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.headers["location"], format!("{folder}42"));
    assert_eq!(
        answer.headers["content-location"],
        format!("{folder}new?v=2")
    );
    let links = format!("<{folder}42/pages>; rel=\"pages\", </help>; rel=help");
    assert_eq!(answer.headers["link"], links);
}

async fn accept(layer: &AsyncAcceptLayer<MemoryStore>, signals: bool) -> String {
    let service = service_fn(
        move |request: Request<RequestBody<BufferedBody>>| async move {
            if signals {
                let operation = OperationHandle::from_extensions(request.extensions());
                operation.accept().await.unwrap();
            }
            sleep(Duration::from_secs(1)).await;
            Ok::<_, Infallible>(created_response())
        },
    );
    let request = Request::post("/reports/new?draft=1").body(BufferedBody::default());
    let answer = layer
        .layer(service)
        .oneshot(request.unwrap())
        .await
        .unwrap();
    answer.headers()["location"].to_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_relative_reference_is_resolved_against_the_request_in_every_mode() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let layer = AsyncAcceptLayer::new(store);
    let after = layer.clone().after(Duration::from_millis(10));
    let signaled = layer.clone().when_signaled();
    for (layer, signals) in [(layer, false), (after, false), (signaled, true)] {
        let nested = layer.clone().original_uri(|parts| {
            let target = format!("/api{}", parts.uri);
            target.parse().unwrap()
        });
        for (layer, folder) in [(layer, "/reports/"), (nested, "/api/reports/")] {
            let location = accept(&layer, signals).await;
            let answer = get(polls.clone(), &format!("{location}/result?wait=30")).await;
            assert_resolved(&answer, folder);
        }
    }
}

#[tokio::test]
async fn a_worker_resolves_references_against_the_stored_request() {
    for is_queued in [true, false] {
        let store = MemoryStore::new();
        let new = NewOperation::new("q3".parse().unwrap());
        let Created::New(record) = store.create(new).await.unwrap() else {
            panic!("the id is new");
        };
        let request = Request::post("http://example.com/reports/new?draft=1")
            .body(BufferedBody::default())
            .unwrap();
        let service = service_fn(|_: Request<BufferedBody>| async {
            Ok::<_, Infallible>(created_response())
        });
        let worker = RunService::new(store.clone(), service);
        match is_queued {
            true => worker
                .oneshot(QueuedRequest::new(&record, request))
                .await
                .unwrap(),
            false => worker
                .oneshot(AcceptedRequest::new(&record, request))
                .await
                .unwrap(),
        };
        let answer = get(PollService::new(store), "/operations/q3/result").await;
        assert_resolved(&answer, "/reports/");
    }
}
