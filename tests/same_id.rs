//! An id that is reused while the handler of its earlier operation is in its grace: the
//! new operation runs nevertheless.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_operations::{
    AcceptedRequest, AsyncAcceptLayer, BufferedBody, Idempotency, MemoryStore, Operation,
    OperationHandle, OperationId, Operations, Outcome, QueuedRequest, RecordedResponse,
    RequestBody, RunOutcome, RunService, State,
    dialect::{Dialect, DurableFunctions, Google},
    run::Recovery,
    store::{
        Created, Lease, LeaseConfig, LeaseHandle, NewOperation, NodeId, Repository, SingleNode,
        Store, Watch, Written,
    },
};

/// Longer than anything else in these tests.
const GRACE: Duration = Duration::from_secs(600);

const ID: &str = "invoice-2026-11";

/// Reports the body of each call when the call begins. A call whose body is `hang` never
/// ends, whatever happens to its operation.
#[derive(Clone)]
struct Calls(mpsc::UnboundedSender<String>);

impl Calls {
    fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    async fn call<B>(self, request: Request<B>) -> Result<Response<BufferedBody>, Infallible>
    where
        B: http_body::Body<Data = bytes::Bytes, Error: std::fmt::Debug>,
    {
        let operation = OperationHandle::from_extensions(request.extensions());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        operation.accept().await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let hangs = body == "hang";
        self.0.send(body).unwrap();
        if hangs {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(BufferedBody::from("done")))
    }
}

/// Returns the body of the next call, which begins soon.
async fn next(bodies: &mut mpsc::UnboundedReceiver<String>) -> String {
    let next = tokio::time::timeout(GRACE / 2, bodies.recv()).await;
    next.expect("no call begins").unwrap()
}

async fn post<R: Lease<Output = RecordedResponse>>(
    layer: &AsyncAcceptLayer<R>,
    calls: &Calls,
    key: &str,
    body: &'static str,
) {
    let calls = calls.clone();
    let service = layer.layer(service_fn(
        move |request: Request<RequestBody<BufferedBody>>| calls.clone().call(request),
    ));
    let request = Request::post("/reports")
        .header("prefer", "respond-async")
        .header("operation-id", ID)
        .header("idempotency-key", key)
        .body(BufferedBody::from(body))
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
}

fn id() -> OperationId {
    ID.parse().unwrap()
}

/// Cancels the operation and deletes it, as a client does.
async fn cancel_and_delete<S: Repository>(store: &S, id: &OperationId) {
    let record = store.get(id).await.unwrap().unwrap();
    let stamp = record.stamp().unwrap();
    let write = store.force_finish(id, stamp, Outcome::Canceled).await;
    let Ok(Written::Done(record)) = write else {
        panic!("{:?}", write.map(|_| "lost"));
    };
    let deleted = store.delete(id, record.stamp().unwrap()).await;
    assert!(matches!(deleted, Ok(Written::Done(_))));
}

async fn wait_for_end<S: Repository + Watch>(store: &S, id: &OperationId) -> Operation<S::Output>
where
    S::Output: Clone,
{
    let mut record = store.get(id).await.unwrap().expect("the operation exists");
    while !record.operation().state().is_terminal() {
        let version = record.version().unwrap();
        let changed = store.changed(id, version, Duration::from_secs(60)).await;
        record = changed.unwrap().expect("the operation exists");
        assert_ne!(
            record.version(),
            Some(version),
            "the operation does not run"
        );
    }
    record.operation().clone()
}

fn modes<R: Lease<Output = RecordedResponse>>(
    layer: &AsyncAcceptLayer<R>,
) -> Vec<(&'static str, AsyncAcceptLayer<R>)> {
    vec![
        ("always", layer.clone()),
        ("preferred", layer.clone().when_preferred()),
        ("after", layer.clone().after(Duration::from_secs(1))),
        ("signaled", layer.clone().when_signaled()),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_reused_id_runs_in_every_mode_during_the_grace() {
    for mode in 0..4 {
        let store = MemoryStore::new();
        let rules = || Idempotency::optional().client_ids();
        let layer = AsyncAcceptLayer::new(store.clone())
            .cancel_grace(GRACE)
            .idempotency(rules());
        let (name, layer) = modes(&layer).swap_remove(mode);
        let (calls, mut bodies) = Calls::new();
        post(&layer, &calls, "\"the first of two keys\"", "hang").await;
        assert_eq!(next(&mut bodies).await, "hang");
        cancel_and_delete(&store, &id()).await;

        post(&layer, &calls, "\"the second of two keys\"", "go").await;
        let operation = wait_for_end(&store, &id()).await;
        assert_eq!(operation.state(), State::Succeeded, "{name}");
        assert_eq!(next(&mut bodies).await, "go", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reused_id_runs_on_a_single_node_store_in_dialects_that_delete() {
    async fn assert_second_run(dialect: impl Dialect, lines: [(&str, String); 2]) {
        let store = SingleNode::new(MemoryStore::new());
        let layer = AsyncAcceptLayer::new(store.clone())
            .cancel_grace(GRACE)
            .idempotency(Idempotency::optional().client_ids());
        let polls = Operations::new(store.clone())
            .dialect(dialect)
            .poll_service();
        let (calls, mut bodies) = Calls::new();
        post(&layer, &calls, "\"the first of two keys\"", "hang").await;
        assert_eq!(next(&mut bodies).await, "hang");
        for (method, path) in &lines {
            let request = Request::builder().method(*method).uri(path).body(());
            let response = polls.clone().oneshot(request.unwrap()).await.unwrap();
            assert!(
                response.status().is_success(),
                "{method} {path}: {response:?}"
            );
        }
        post(&layer, &calls, "\"the second of two keys\"", "go").await;
        assert_eq!(wait_for_end(&store, &id()).await.state(), State::Succeeded);
        assert_eq!(next(&mut bodies).await, "go");
    }
    let lines = |cancel: &str| {
        let at = format!("/operations/{ID}");
        [("POST", format!("{at}{cancel}")), ("DELETE", at)]
    };
    assert_second_run(Google::default(), lines(":cancel")).await;
    assert_second_run(DurableFunctions::default(), lines("/terminate")).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_reused_id_runs_during_the_grace() {
    let store = MemoryStore::new();
    let messages: Arc<Mutex<Vec<QueuedRequest>>> = Arc::default();
    let queue = Arc::clone(&messages);
    let layer = Operations::dispatching(store.clone(), move |request: QueuedRequest| {
        queue.lock().unwrap().push(request);
        async { Ok::<_, Infallible>(()) }
    })
    .layer()
    .idempotency(Idempotency::optional().client_ids());
    let (calls, mut bodies) = Calls::new();
    let worker = {
        let calls = calls.clone();
        let app = service_fn(move |request: Request<BufferedBody>| calls.clone().call(request));
        RunService::new(store.clone(), app).cancel_grace(GRACE)
    };
    let post = async |key: &str, body: &'static str| {
        let unused_service = service_fn(async |_: Request<RequestBody<BufferedBody>>| {
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        });
        let request = Request::post("/reports")
            .header("operation-id", ID)
            .header("idempotency-key", key)
            .body(BufferedBody::from(body))
            .unwrap();
        let response = layer.layer(unused_service).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        messages
            .lock()
            .unwrap()
            .pop()
            .expect("the message is in the queue")
    };

    let first = post("\"the first of two keys\"", "hang").await;
    let first = tokio::spawn(worker.clone().oneshot(first));
    assert_eq!(next(&mut bodies).await, "hang");
    cancel_and_delete(&store, &id()).await;
    let second = post("\"the second of two keys\"", "go").await;
    let outcome = worker.clone().oneshot(second.clone()).await.unwrap();
    assert_eq!(outcome, RunOutcome::Recorded(State::Succeeded));
    // A repeated message is refused.
    assert_eq!(
        worker.clone().oneshot(second).await.unwrap(),
        RunOutcome::Refused
    );
    assert!(!first.is_finished(), "the first call has ended");
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_rerun_on_its_node_during_the_grace_of_its_first_run() {
    let store = MemoryStore::new();
    let term = |name: &'static str| LeaseConfig::new(NodeId::named(name), Duration::from_secs(30));
    let operations = Operations::new(store.clone())
        .lease(term("here"))
        .cancel_grace(GRACE);
    let layer = operations
        .layer()
        .idempotency(Idempotency::optional().client_ids())
        .rerun_if(|_| true);
    let (calls, mut bodies) = Calls::new();
    let rerun_app = {
        let (calls, app) = (calls.clone(), calls.clone());
        let _ = calls;
        service_fn(move |request: Request<BufferedBody>| {
            let attempt = OperationHandle::from_extensions(request.extensions()).attempt();
            let request = request.map(|_| BufferedBody::from(format!("attempt {attempt}")));
            app.clone().call(request)
        })
    };
    let recovery: Recovery<_> = operations.recovery().rerun_with(rerun_app, 3);
    post(&layer, &calls, "\"the first of two keys\"", "hang").await;
    assert_eq!(next(&mut bodies).await, "hang");
    // Another node considers this one dead, reclaims the operation and releases it.
    let handles = |token| {
        let id = id();
        [LeaseHandle { id, token }]
    };
    let token = store.get(&id()).await.unwrap().unwrap().token();
    store.release(&handles(token)).await.unwrap();
    let reclaimed = store.reclaim(&term("there"), 1).await.unwrap();
    let token = reclaimed[0].record.token();
    store.release(&handles(token)).await.unwrap();

    let since = tokio::time::Instant::now();
    tokio::spawn(recovery.run());
    assert_eq!(next(&mut bodies).await, "attempt 2");
    assert!(
        since.elapsed() < GRACE / 2,
        "the rerun waits for the first run"
    );
    assert_eq!(wait_for_end(&store, &id()).await.state(), State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn the_newer_operation_of_an_id_is_renewed_and_canceled_independently() {
    let store = MemoryStore::new();
    let (calls, mut bodies) = Calls::new();
    let app = {
        let calls = calls.clone();
        service_fn(move |request: Request<BufferedBody>| calls.clone().call(request))
    };
    let mut service = RunService::new(store.clone(), app).cancel_grace(GRACE);
    let mut runs = Vec::new();
    let mut run = async || {
        let new = NewOperation::new(id()).with_lease(service.lease_config());
        let Created::New(record) = store.create(new).await.unwrap() else {
            panic!("the id is free");
        };
        let request = Request::post("/").body(BufferedBody::from("hang")).unwrap();
        runs.push(tokio::spawn(
            service.call(AcceptedRequest::new(&record, request)),
        ));
    };
    run().await;
    next(&mut bodies).await;
    cancel_and_delete(&store, &id()).await;
    run().await;
    next(&mut bodies).await;

    let another = LeaseConfig::new(NodeId::named("another"), Duration::from_secs(30));
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(store.reclaim(&another, 1).await.unwrap().is_empty());
    }
    assert!(runs.iter().all(|run| !run.is_finished()));
    let record = store.get(&id()).await.unwrap().unwrap();
    let stamp = record.stamp().unwrap();
    let canceled = store.force_finish(&id(), stamp, Outcome::Canceled).await;
    assert!(matches!(canceled, Ok(Written::Done(_))));
    for run in runs {
        assert_eq!(run.await.unwrap().unwrap(), RunOutcome::Refused);
    }
}
