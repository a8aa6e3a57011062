//! Long request bodies that are kept for a rerun or go through a queue by way of a result store.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use test_support::results::MemoryResults;
use tokio::{sync::mpsc, time::timeout};
use tower::{Layer, ServiceExt, limit::ConcurrencyLimit, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, Idempotency, MemoryStore, OperationId, Operations,
    QueuedRequest, RecordedResponse, RequestBody, RunOutcome, RunService, State,
    store::{Record, Store, Version, Watch},
};

const LENGTH: usize = 3_000_000;
const PATIENCE: Duration = Duration::from_secs(600);

fn content() -> Bytes {
    (0..LENGTH).map(|index| (index * 7 % 251) as u8).collect()
}

/// Posts a body to a service that never answers.
async fn post<D>(
    layer: &AsyncAcceptLayer<MemoryStore, D>,
    body: Bytes,
) -> (StatusCode, Option<OperationId>) {
    let hang = service_fn(|_: Request<RequestBody<BufferedBody>>| {
        pending::<Result<Response<BufferedBody>, Infallible>>()
    });
    let request = Request::post("/reports").header("x-name", "q3");
    let request = request.header(
        "idempotency-key",
        "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
    );
    let request = request.body(BufferedBody::from(body)).unwrap();
    let response = layer.layer(hang).oneshot(request).await.unwrap();
    let id = response.extensions().get::<OperationId>().cloned();
    (response.status(), id)
}

/// Answers with the length of the body, which has to be the posted one, and counts the calls.
async fn measure(
    request: Request<BufferedBody>,
    calls: Arc<AtomicUsize>,
) -> Result<Response<BufferedBody>, Infallible> {
    assert_eq!(request.headers()["x-name"], "q3");
    assert_eq!(request.uri(), "/reports");
    let Ok(body) = request.into_body().collect().await;
    let body = body.to_bytes();
    assert!(body == content());
    calls.fetch_add(1, SeqCst);
    Ok(Response::new(BufferedBody::from(body.len().to_string())))
}

async fn end(store: &MemoryStore, id: &OperationId) -> Record<RecordedResponse> {
    let mut since = Version::FIRST;
    loop {
        let record = store.changed(id, since, PATIENCE).await.unwrap().unwrap();
        if record.operation().state().is_terminal() {
            return record;
        }
        since = record.version().unwrap();
    }
}

/// A node that dispatches to a queue, and a worker behind it.
struct Dispatching {
    store: MemoryStore,
    results: MemoryResults,
    messages: mpsc::UnboundedReceiver<Bytes>,
    sender: mpsc::UnboundedSender<Bytes>,
    calls: Arc<AtomicUsize>,
}

impl Dispatching {
    fn new() -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        Self {
            store: MemoryStore::new(),
            results: MemoryResults::default(),
            messages,
            sender,
            calls: Arc::default(),
        }
    }

    async fn post(&self, body: Bytes) -> (StatusCode, Option<OperationId>) {
        let into = self.sender.clone();
        let dispatch = move |request: QueuedRequest| {
            let sent = into.send(request.to_bytes());
            async move { sent }
        };
        let operations = Operations::dispatching(self.store.clone(), dispatch);
        let operations = operations.result_store(self.results.clone());
        post(&operations.layer().body_limit(10_000_000), body).await
    }

    fn message(&mut self) -> Bytes {
        self.messages
            .try_recv()
            .expect("the message is in the queue")
    }

    async fn work(
        &self,
        message: &Bytes,
        results: Option<&MemoryResults>,
    ) -> Result<RunOutcome, tower_operations::store::StoreError> {
        let calls = Arc::clone(&self.calls);
        let service = service_fn(move |request| measure(request, Arc::clone(&calls)));
        let mut worker = RunService::new(self.store.clone(), service);
        if let Some(results) = results {
            worker = worker.result_store(results.clone());
        }
        let queued = QueuedRequest::from_bytes(message).unwrap();
        timeout(PATIENCE, worker.oneshot(queued)).await.unwrap()
    }

    async fn state(&self, id: &OperationId) -> State {
        let record = self.store.get(id).await.unwrap().unwrap();
        record.operation().state()
    }
}

#[tokio::test]
async fn the_message_of_a_long_request_names_its_body() {
    let mut nodes = Dispatching::new();
    let (status, id) = nodes.post(content()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let (id, message) = (id.unwrap(), nodes.message());
    assert!(message.len() < 1000, "{}", message.len());
    let keys = nodes.results.keys();
    assert!(keys.len() == 1 && keys[0].ends_with(".request"), "{keys:?}");

    let error = nodes.work(&message, None).await.unwrap_err();
    assert!(!error.is_transient());
    assert_eq!(nodes.state(&id).await, State::Pending, "it was not claimed");
    let ran = nodes.work(&message, Some(&nodes.results)).await;
    assert_eq!(ran.unwrap(), RunOutcome::Recorded(State::Succeeded));
    let again = nodes.work(&message, Some(&nodes.results)).await;
    assert_eq!(again.unwrap(), RunOutcome::Refused);
    assert_eq!(nodes.calls.load(SeqCst), 1);

    // A body up to the threshold stays in the message.
    let (_, id) = nodes.post(content().slice(..256 * 1024)).await;
    assert!(id.is_some() && nodes.message().len() > 256 * 1024);
    assert_eq!(nodes.results.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_result_store_is_asked_again_for_a_request() {
    let mut nodes = Dispatching::new();
    nodes.results.fail(3);
    let (status, _) = nodes.post(content()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let message = nodes.message();
    nodes.results.fail(3);
    let ran = nodes.work(&message, Some(&nodes.results)).await;
    assert_eq!(ran.unwrap(), RunOutcome::Recorded(State::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_body_cannot_be_stored_is_refused() {
    for refuses in [true, false] {
        let mut nodes = Dispatching::new();
        match refuses {
            true => nodes.results.refuse(),
            false => nodes.results.fail(1000),
        }
        let (status, id) = nodes.post(content()).await;
        assert_eq!((status, id), (StatusCode::SERVICE_UNAVAILABLE, None));
        assert!(nodes.store.is_empty() && nodes.messages.try_recv().is_err());
        assert_eq!(nodes.results.uploads(), 0, "the upload is aborted");
    }
}

#[tokio::test]
async fn an_operation_whose_request_is_lost_or_damaged_fails() {
    let damages: [fn(&MemoryResults); 3] = [
        MemoryResults::clear,
        |results| results.change(|body| body.slice(1..)),
        |results| results.change(|body| [&body[1..], b"x"].concat().into()),
    ];
    for damage in damages {
        let mut nodes = Dispatching::new();
        let (_, id) = nodes.post(content()).await;
        damage(&nodes.results);
        let message = nodes.message();
        let ran = nodes.work(&message, Some(&nodes.results)).await;
        assert_eq!(ran.unwrap(), RunOutcome::Recorded(State::Failed));
        let record = end(&nodes.store, &id.unwrap()).await;
        let problem = record.operation().problem().unwrap();
        assert_eq!(
            problem.type_uri(),
            "urn:tower-operations:request-unreadable"
        );
        assert_eq!(nodes.calls.load(SeqCst), 0);
    }
}

/// The bytes of a body count from the claim on, although the body is still to be read.
#[tokio::test]
async fn a_worker_claims_no_message_whose_body_has_no_room() {
    let mut nodes = Dispatching::new();
    nodes.post(content()).await;
    nodes.post(content()).await;
    let never_ready = ConcurrencyLimit::new(
        service_fn(|_: Request<BufferedBody>| {
            pending::<Result<Response<BufferedBody>, Infallible>>()
        }),
        0,
    );
    let worker = RunService::new(nodes.store.clone(), never_ready)
        .result_store(nodes.results.clone())
        .max_bytes_in_flight(LENGTH * 3 / 2);
    let first = QueuedRequest::from_bytes(&nodes.message()).unwrap();
    let id = first.id().clone();
    let token = async || nodes.store.get(&id).await.unwrap().unwrap().token();
    let created = token().await;
    let running = tokio::spawn(worker.clone().oneshot(first));
    while token().await == created {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = QueuedRequest::from_bytes(&nodes.message()).unwrap();
    let error = worker.oneshot(second).await.unwrap_err();
    assert!(error.is_transient());
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("bytes in flight"), "{cause}");
    running.abort();
}

/// A repetition uploads nothing: it is answered although the result store is away.
#[tokio::test(start_paused = true)]
async fn a_repeated_request_does_not_need_the_result_store() {
    let (store, results) = (MemoryStore::new(), MemoryResults::default());
    let operations = Operations::new(store).result_store(results.clone());
    let layer = operations.layer().rerun_if(|_| true).body_limit(10_000_000);
    let layer = layer.idempotency(Idempotency::optional());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (status, id) = post(&layer, content()).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        ids.push(id.unwrap());
        results.refuse();
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(results.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_recovery_without_a_result_store_leaves_a_long_request_to_others() {
    let (store, results) = (MemoryStore::new(), MemoryResults::default());
    let with_results = || Operations::new(store.clone()).result_store(results.clone());
    let first = with_results();
    let hang = service_fn(|_: Request<BufferedBody>| {
        pending::<Result<Response<BufferedBody>, Infallible>>()
    });
    let rerunning = tokio::spawn(first.recovery().rerun_with(hang, 3).run());
    let layer = first.layer().rerun_if(|_| true).body_limit(10_000_000);
    let (_, id) = post(&layer, content()).await;
    let id = id.unwrap();
    first.drain_handle().drain(Duration::ZERO).await;
    rerunning.abort();

    let calls = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&calls);
    let app = service_fn(move |request| measure(request, Arc::clone(&counted)));
    let recovery = Operations::new(store.clone())
        .recovery()
        .rerun_with(app.clone(), 3);
    let stats = recovery.stats();
    let without = tokio::spawn(recovery.run());
    while stats.reclaimed() == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(stats.rerun(), 0);
    let state = store.get(&id).await.unwrap().unwrap().operation().state();
    assert!(!state.is_terminal());
    without.abort();

    let recovering = tokio::spawn(with_results().recovery().rerun_with(app, 3).run());
    let record = timeout(PATIENCE, end(&store, &id)).await.unwrap();
    assert_eq!(record.operation().state(), State::Succeeded);
    assert_eq!(calls.load(SeqCst), 1);
    recovering.abort();
}

#[tokio::test(start_paused = true)]
async fn a_recovery_reads_no_request_that_has_no_room_in_memory() {
    let (store, results) = (MemoryStore::new(), MemoryResults::default());
    let node = || Operations::new(store.clone()).result_store(results.clone());
    let never_ready = || {
        let hang = service_fn(|_: Request<BufferedBody>| {
            pending::<Result<Response<BufferedBody>, Infallible>>()
        });
        ConcurrencyLimit::new(hang, 0)
    };
    let first = node();
    let rerunning = tokio::spawn(first.recovery().rerun_with(never_ready(), 3).run());
    let layer = first.layer().rerun_if(|_| true).body_limit(10_000_000);
    post(&layer, content()).await;
    post(&layer, content()).await;
    first.drain_handle().drain(Duration::ZERO).await;
    rerunning.abort();

    let second = node().max_bytes_in_flight(LENGTH * 3 / 2);
    let recovery = second.recovery().rerun_with(never_ready(), 3);
    let stats = recovery.stats();
    let recovering = tokio::spawn(recovery.run());
    while stats.reclaimed() < 2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(stats.rerun(), 1);
    assert!(second.in_flight().bytes <= LENGTH * 3 / 2);
    recovering.abort();
}

#[tokio::test(start_paused = true)]
async fn a_long_request_is_read_from_the_result_store_for_a_rerun() {
    for is_raced in [false, true] {
        let (store, results) = (MemoryStore::new(), MemoryResults::default());
        let node = || Operations::new(store.clone()).result_store(results.clone());
        let first = node();
        let mut layer = first.layer().rerun_if(|_| true).body_limit(10_000_000);
        if is_raced {
            layer = layer.after(Duration::from_secs(5));
        }
        let hang = service_fn(|_: Request<BufferedBody>| {
            pending::<Result<Response<BufferedBody>, Infallible>>()
        });
        let runs_first = tokio::spawn(first.recovery().rerun_with(hang, 3).run());
        let (status, id) = post(&layer, content()).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        assert_eq!(results.keys().len(), 1);
        let report = first.drain_handle().drain(Duration::ZERO).await;
        assert_eq!(report.released.len(), 1);
        runs_first.abort();

        let calls = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&calls);
        let app = service_fn(move |request| measure(request, Arc::clone(&counted)));
        let recovering = tokio::spawn(node().recovery().rerun_with(app, 3).run());
        let record = timeout(PATIENCE, end(&store, &id.unwrap())).await.unwrap();
        let result = record.operation().result().unwrap();
        assert_eq!(result.body().unwrap(), LENGTH.to_string().as_bytes());
        assert_eq!(calls.load(SeqCst), 1);
        recovering.abort();
    }
}

/// A request that is answered directly leaves nothing in the result store.
#[tokio::test(start_paused = true)]
async fn a_direct_answer_uploads_no_request() {
    let results = MemoryResults::default();
    let operations = Operations::new(MemoryStore::new()).result_store(results.clone());
    let layer = operations.layer().rerun_if(|_| true).body_limit(10_000_000);
    let layer = layer.after(Duration::from_secs(5));
    let service = service_fn(async |_: Request<RequestBody<BufferedBody>>| {
        Ok::<_, Infallible>(Response::new(BufferedBody::from("at once")))
    });
    let request = Request::post("/reports").body(BufferedBody::from(content()));
    let response = layer
        .layer(service)
        .oneshot(request.unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(results.keys().is_empty());
}
