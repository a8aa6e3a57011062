//! An id that comes again while the handler of the operation that had it before is
//! still in its grace: the new operation is run all the same.

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

/// Longer than anything else here takes.
const GRACE: Duration = Duration::from_secs(600);

const ID: &str = "invoice-2026-11";

/// Says when a call has begun, and of which body. Calls whose body is `hang` do, whatever
/// becomes of their operation.
#[derive(Clone)]
struct Calls(mpsc::UnboundedSender<String>);

impl Calls {
    fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (begun, calls) = mpsc::unbounded_channel();
        (Self(begun), calls)
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

/// The body of the next call, which begins soon.
async fn next(begun: &mut mpsc::UnboundedReceiver<String>) -> String {
    let next = tokio::time::timeout(GRACE / 2, begun.recv()).await;
    next.expect("nobody is called").unwrap()
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

/// Cancels the operation and forgets it, as a client does.
async fn cancel_and_forget<S: Repository>(store: &S, id: &OperationId) {
    let record = store.get(id).await.unwrap().unwrap();
    let version = record.version().unwrap();
    let write = store.force_finish(id, version, Outcome::Canceled).await;
    let Ok(Written::Done(record)) = write else {
        panic!("{:?}", write.map(|_| "lost"));
    };
    let forgotten = store.delete(id, record.version().unwrap()).await;
    assert!(matches!(forgotten, Ok(Written::Done(_))));
}

async fn ended<S: Repository + Watch>(store: &S, id: &OperationId) -> Operation<S::Output>
where
    S::Output: Clone,
{
    let mut record = store.get(id).await.unwrap().expect("it is there");
    while !record.operation().state().is_terminal() {
        let version = record.version().unwrap();
        let changed = store.changed(id, version, Duration::from_secs(60)).await;
        record = changed.unwrap().expect("it is there");
        assert_ne!(record.version(), Some(version), "nobody does its work");
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
async fn in_every_mode_a_chosen_id_is_run_again_while_the_one_before_is_in_its_grace() {
    for mode in 0..4 {
        let store = MemoryStore::new();
        let rules = || Idempotency::optional().client_ids();
        let layer = AsyncAcceptLayer::new(store.clone())
            .cancel_grace(GRACE)
            .idempotency(rules());
        let (name, layer) = modes(&layer).swap_remove(mode);
        let (calls, mut begun) = Calls::new();
        post(&layer, &calls, "\"the first of two keys\"", "hang").await;
        assert_eq!(next(&mut begun).await, "hang");
        cancel_and_forget(&store, &id()).await;

        post(&layer, &calls, "\"the second of two keys\"", "go").await;
        let operation = ended(&store, &id()).await;
        assert_eq!(operation.state(), State::Succeeded, "{name}");
        assert_eq!(next(&mut begun).await, "go", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_holds_for_a_store_of_one_node_and_over_the_wire_of_dialects_that_forget() {
    async fn forgotten(dialect: impl Dialect, lines: [(&str, String); 2]) {
        let store = SingleNode::new(MemoryStore::new());
        let layer = AsyncAcceptLayer::new(store.clone())
            .cancel_grace(GRACE)
            .idempotency(Idempotency::optional().client_ids());
        let polls = Operations::new(store.clone())
            .dialect(dialect)
            .poll_service();
        let (calls, mut begun) = Calls::new();
        post(&layer, &calls, "\"the first of two keys\"", "hang").await;
        assert_eq!(next(&mut begun).await, "hang");
        for (method, path) in &lines {
            let request = Request::builder().method(*method).uri(path).body(());
            let response = polls.clone().oneshot(request.unwrap()).await.unwrap();
            assert!(
                response.status().is_success(),
                "{method} {path}: {response:?}"
            );
        }
        post(&layer, &calls, "\"the second of two keys\"", "go").await;
        assert_eq!(ended(&store, &id()).await.state(), State::Succeeded);
        assert_eq!(next(&mut begun).await, "go");
    }
    let lines = |cancel: &str| {
        let at = format!("/operations/{ID}");
        [("POST", format!("{at}{cancel}")), ("DELETE", at)]
    };
    forgotten(Google::default(), lines(":cancel")).await;
    forgotten(DurableFunctions::default(), lines("/terminate")).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_new_operation_is_claimed_and_run_while_the_one_before_is_in_its_grace() {
    let store = MemoryStore::new();
    let sent: Arc<Mutex<Vec<QueuedRequest>>> = Arc::default();
    let queue = Arc::clone(&sent);
    let layer = Operations::dispatching(store.clone(), move |request: QueuedRequest| {
        queue.lock().unwrap().push(request);
        async { Ok::<_, Infallible>(()) }
    })
    .layer()
    .idempotency(Idempotency::optional().client_ids());
    let (calls, mut begun) = Calls::new();
    let worker = {
        let calls = calls.clone();
        let app = service_fn(move |request: Request<BufferedBody>| calls.clone().call(request));
        RunService::new(store.clone(), app).cancel_grace(GRACE)
    };
    let post = async |key: &str, body: &'static str| {
        let nobody = service_fn(async |_: Request<RequestBody<BufferedBody>>| {
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        });
        let request = Request::post("/reports")
            .header("operation-id", ID)
            .header("idempotency-key", key)
            .body(BufferedBody::from(body))
            .unwrap();
        let response = layer.layer(nobody).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        sent.lock().unwrap().pop().expect("it is in the queue")
    };

    let first = post("\"the first of two keys\"", "hang").await;
    let first = tokio::spawn(worker.clone().oneshot(first));
    assert_eq!(next(&mut begun).await, "hang");
    cancel_and_forget(&store, &id()).await;
    let second = post("\"the second of two keys\"", "go").await;
    let ran = worker.clone().oneshot(second.clone()).await.unwrap();
    assert_eq!(ran, RunOutcome::Recorded(State::Succeeded));
    // The same message again is no other work.
    assert_eq!(
        worker.clone().oneshot(second).await.unwrap(),
        RunOutcome::Refused
    );
    assert!(!first.is_finished(), "it is in its grace");
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_to_a_node_is_run_again_while_its_first_run_is_in_its_grace() {
    let store = MemoryStore::new();
    let term = |name: &'static str| LeaseConfig::new(NodeId::named(name), Duration::from_secs(30));
    let operations = Operations::new(store.clone())
        .lease(term("here"))
        .cancel_grace(GRACE);
    let layer = operations
        .layer()
        .idempotency(Idempotency::optional().client_ids())
        .rerun_if(|_| true);
    let (calls, mut begun) = Calls::new();
    let again = {
        let (calls, app) = (calls.clone(), calls.clone());
        let _ = calls;
        service_fn(move |request: Request<BufferedBody>| {
            let attempt = OperationHandle::from_extensions(request.extensions()).attempt();
            let request = request.map(|_| BufferedBody::from(format!("attempt {attempt}")));
            app.clone().call(request)
        })
    };
    let recovery: Recovery<_> = operations.recovery().rerun_with(again, 3);
    post(&layer, &calls, "\"the first of two keys\"", "hang").await;
    assert_eq!(next(&mut begun).await, "hang");
    // Another node thinks that this one is dead, takes it over, and gives it up.
    let held = |token| {
        let id = id();
        [LeaseHandle { id, token }]
    };
    let token = store.get(&id()).await.unwrap().unwrap().token();
    store.release(&held(token)).await.unwrap();
    let taken = store.reclaim(&term("there"), 1).await.unwrap();
    let token = taken[0].record.token();
    store.release(&held(token)).await.unwrap();

    let since = tokio::time::Instant::now();
    tokio::spawn(recovery.run());
    assert_eq!(next(&mut begun).await, "attempt 2");
    assert!(since.elapsed() < GRACE / 2, "it did not wait for the first");
    assert_eq!(ended(&store, &id()).await.state(), State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn the_newer_one_of_an_id_is_renewed_and_canceled_by_itself() {
    let store = MemoryStore::new();
    let (calls, mut begun) = Calls::new();
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
    next(&mut begun).await;
    cancel_and_forget(&store, &id()).await;
    run().await;
    next(&mut begun).await;

    let another = LeaseConfig::new(NodeId::named("another"), Duration::from_secs(30));
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(store.reclaim(&another, 1).await.unwrap().is_empty());
    }
    assert!(runs.iter().all(|run| !run.is_finished()));
    let record = store.get(&id()).await.unwrap().unwrap();
    let version = record.version().unwrap();
    let canceled = store.force_finish(&id(), version, Outcome::Canceled).await;
    assert!(matches!(canceled, Ok(Written::Done(_))));
    for run in runs {
        assert_eq!(run.await.unwrap().unwrap(), RunOutcome::Refused);
    }
}
