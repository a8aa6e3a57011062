//! The drain of a node: cancellation of handlers, answers to clients, and the
//! report. The clock is paused.

use test_support::hooked;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hooked::{Call, Hooked, When};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AcceptedRequest, AsyncAcceptLayer, BufferedBody, Drain, DrainReport, FailureKind, Idempotency,
    MemoryStore, OperationHandle, OperationId, Operations, RequestBody, RunOutcome, RunService,
    State,
    dialect::Azure,
    store::{Created, List, ListQuery, NewOperation, Repository, Store},
};

type Body = UnsyncBoxBody<Bytes, Infallible>;
type AcceptLayer = AsyncAcceptLayer<MemoryStore>;

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(2);

fn text_body(text: &'static str) -> Body {
    BufferedBody::from(text).boxed_unsync()
}

/// A layer with a grace of two seconds, and a log of its handler.
struct Setup {
    store: MemoryStore,
    operations: Operations<MemoryStore>,
    layer: AcceptLayer,
    drain: Drain,
    start: Instant,
    log: HandlerLog,
}

/// The events of a handler, each with its time in seconds.
#[derive(Clone, Default)]
struct HandlerLog(Arc<Mutex<Vec<(u64, &'static str)>>>);

impl HandlerLog {
    fn note(&self, since: Instant, event: &'static str) {
        let at = since.elapsed().as_secs();
        self.0.lock().unwrap().push((at, event));
    }

    fn events(&self) -> Vec<(u64, &'static str)> {
        self.0.lock().unwrap().clone()
    }
}

/// Logs its drop.
struct DropLogger(HandlerLog, Instant);

impl Drop for DropLogger {
    fn drop(&mut self) {
        self.0.note(self.1, "dropped");
    }
}

impl Setup {
    fn new(configure_layer: impl FnOnce(AcceptLayer) -> AcceptLayer) -> Self {
        Self::with_operations(|operations| operations, configure_layer)
    }

    fn with_operations(
        configure: impl FnOnce(Operations<MemoryStore>) -> Operations<MemoryStore>,
        configure_layer: impl FnOnce(AcceptLayer) -> AcceptLayer,
    ) -> Self {
        let store = MemoryStore::new();
        let operations = configure(Operations::new(store.clone()));
        Self {
            layer: configure_layer(operations.layer().cancel_grace(GRACE)),
            drain: operations.drain_handle(),
            store,
            operations,
            start: Instant::now(),
            log: HandlerLog::default(),
        }
    }

    /// Sends a request. Its handler waits for its cancellation, and then for `cleanup`.
    fn send(&self, request: Request<Body>, cleanup: Duration) -> PendingAnswer {
        let (log, start) = (self.log.clone(), self.start);
        self.send_to(request, move |operation| {
            let log = log.clone();
            async move {
                let drop_logger = DropLogger(log.clone(), start);
                operation.cancellation().cancelled().await;
                log.note(start, "told");
                sleep(cleanup).await;
                std::mem::forget(drop_logger);
                Response::new(text_body("tidied up"))
            }
        })
    }

    fn send_to<F>(
        &self,
        request: Request<Body>,
        handler: impl Fn(OperationHandle) -> F + Clone + Send + 'static,
    ) -> PendingAnswer
    where
        F: Future<Output = Response<Body>> + Send,
    {
        let service = self
            .layer
            .layer(service_fn(move |request: Request<RequestBody<Body>>| {
                let answer = handler(OperationHandle::from_extensions(request.extensions()));
                async move { Ok::<_, Infallible>(answer.await) }
            }));
        let start = self.start;
        PendingAnswer(tokio::spawn(async move {
            let response = service.oneshot(request).await.unwrap();
            let at = start.elapsed().as_secs();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (at, Response::from_parts(parts, body))
        }))
    }

    async fn drain_within(&self, seconds: u64) -> DrainReport {
        self.let_tasks_run().await;
        self.drain.drain(Duration::from_secs(seconds)).await
    }

    async fn let_tasks_run(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    async fn operations(&self) -> usize {
        let page = self.store.list(&ListQuery::new(None, 10)).await.unwrap();
        page.records.len()
    }

    async fn state(&self, id: &OperationId) -> State {
        let record = self.store.get(id).await.unwrap().unwrap();
        record.operation().state()
    }
}

struct PendingAnswer(JoinHandle<(u64, Response<Bytes>)>);

impl PendingAnswer {
    /// Waits for the answer. Returns it with its time in seconds.
    async fn answer(self) -> (u64, Response<Bytes>) {
        self.0.await.unwrap()
    }

    /// Asserts a refusal after `after` seconds.
    async fn assert_refused_at(self, after: u64) {
        let (at, response) = self.answer().await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
        assert!(!response.headers().contains_key("location"));
        let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(problem["type"], "urn:tower-operations:shutting-down");
        assert_eq!(at, after);
    }
}

fn request(prefer: &'static str) -> Request<Body> {
    let request = Request::post("/reports").header("prefer", prefer);
    request.body(text_body("Q3")).unwrap()
}

fn id_of(response: &Response<Bytes>) -> OperationId {
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap();
    location.rsplit('/').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_canceled_one_grace_before_the_deadline() {
    let accept = |operation: OperationHandle| async move { operation.accept().await.unwrap() };
    for mode in ["always", "after", "signaled"] {
        let setup = Setup::new(|layer| match mode {
            "always" => layer,
            "after" => layer.after(Duration::from_millis(1)),
            _ => layer.when_signaled(),
        });
        let (log, start) = (setup.log.clone(), setup.start);
        let pending_answer = setup.send_to(request("handling=strict"), move |operation| {
            let log = log.clone();
            async move {
                if mode == "signaled" {
                    accept(operation.clone()).await;
                }
                operation.cancellation().cancelled().await;
                log.note(start, "told");
                sleep(SECOND).await;
                Response::new(text_body("tidied up"))
            }
        });
        let (_, response) = pending_answer.answer().await;
        let report = setup.drain_within(10).await;
        assert_eq!(setup.log.events(), [(8, "told")], "{mode}");
        assert_eq!(
            setup.state(&id_of(&response)).await,
            State::Succeeded,
            "{mode}"
        );
        assert_eq!(report.finished, 1, "{mode}: {report:?}");
        assert_eq!(report.took.as_secs(), 9, "{mode}: the drain took too long");
        assert!(report.is_clean(), "{mode}: {report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_exceeds_its_grace_is_dropped_at_the_deadline() {
    // (deadline, second of the cancellation)
    for (deadline, canceled_at) in [(10, 8), (2, 0), (1, 0), (0, 0)] {
        let setup = Setup::new(|layer| layer);
        let pending_answer = setup.send(request("handling=strict"), 60 * SECOND);
        let id = id_of(&pending_answer.answer().await.1);
        let report = setup.drain_within(deadline).await;
        assert_eq!(
            setup.log.events(),
            [(canceled_at, "told"), (deadline, "dropped")]
        );
        assert_eq!(report.interrupted, std::slice::from_ref(&id));
        assert_eq!(report.took.as_secs(), deadline);
        let record = setup.store.get(&id).await.unwrap().unwrap();
        let problem = record.operation().problem().unwrap();
        assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_zero_records_an_immediate_response_to_the_cancellation() {
    let setup = Setup::new(|layer| layer);
    let pending_answer = setup.send(request("handling=strict"), Duration::ZERO);
    let id = id_of(&pending_answer.answer().await.1);
    let report = setup.drain_within(0).await;
    assert_eq!(setup.state(&id).await, State::Succeeded);
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rerunnable_operation_without_an_outcome_is_released_at_the_deadline() {
    for (cleanup, released) in [(SECOND, 0), (60 * SECOND, 1)] {
        let setup = Setup::new(|layer| layer.rerun_if(|_| true));
        let app = service_fn(async |_: Request<BufferedBody>| {
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        });
        let _recovery = setup.operations.recovery().rerun_with(app, 3);
        let pending_answer = setup.send(request("handling=strict"), cleanup);
        let id = id_of(&pending_answer.answer().await.1);
        let report = setup.drain_within(10).await;
        assert_eq!(report.released.len(), released, "{report:?}");
        let expected = match released {
            0 => State::Succeeded,
            _ => State::Running,
        };
        assert_eq!(setup.state(&id).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn handlers_of_a_worker_have_a_grace_too() {
    for (cleanup, expected) in [(SECOND, State::Succeeded), (60 * SECOND, State::Failed)] {
        let store = MemoryStore::new();
        let app = service_fn(move |request: Request<BufferedBody>| async move {
            let operation = OperationHandle::from_extensions(request.extensions());
            operation.cancellation().cancelled().await;
            sleep(cleanup).await;
            Ok::<_, Infallible>(Response::new(BufferedBody::from("tidied up")))
        });
        let service = RunService::new(store.clone(), app);
        let drain = service.drain_handle();
        let new = NewOperation::new(OperationId::new()).with_lease(service.lease_config());
        let Created::New(record) = store.create(new).await.unwrap() else {
            panic!("the id is new");
        };
        let request = Request::post("/").body(BufferedBody::default()).unwrap();
        let request = AcceptedRequest::new(&record, request);
        let run = tokio::spawn(service.cancel_grace(GRACE).oneshot(request));
        tokio::task::yield_now().await;
        let start = Instant::now();
        drain.drain(10 * SECOND).await;
        assert_eq!(run.await.unwrap().unwrap(), RunOutcome::Recorded(expected));
        let took = if expected == State::Failed { 10 } else { 9 };
        assert_eq!(start.elapsed().as_secs(), took);
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_call_is_refused_at_the_deadline_without_an_operation() {
    for (mode, prefer) in [
        ("always", "wait=20"),
        ("preferred", "respond-async, wait=20"),
        ("after", "handling=strict"),
        ("signaled", "handling=strict"),
    ] {
        let setup = Setup::new(|layer| match mode {
            "always" => layer,
            "preferred" => layer.when_preferred(),
            "after" => layer.after(20 * SECOND),
            _ => layer.when_signaled(),
        });
        let pending_answer = setup.send(request(prefer), 60 * SECOND);
        let report = setup.drain_within(3).await;
        pending_answer.assert_refused_at(3).await;
        assert_eq!(setup.log.events(), [(1, "told"), (3, "dropped")], "{mode}");
        assert_eq!(setup.operations().await, 0, "{mode}");
        assert_eq!((report.refused, report.unanswered), (1, 0), "{mode}");
        assert_eq!(report.took.as_secs(), 3, "{mode}");
        assert!(!report.is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_call_that_returns_before_the_deadline_is_answered_and_counted() {
    let setup = Setup::new(|layer| layer.after(20 * SECOND));
    let pending_answer = setup.send(request("handling=strict"), SECOND);
    let report = setup.drain_within(10).await;
    let (at, response) = pending_answer.answer().await;
    assert_eq!((at, response.status()), (9, StatusCode::OK));
    assert_eq!((report.answered, report.refused), (1, 0), "{report:?}");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(setup.operations().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_held_call_accepted_during_a_drain_is_interrupted() {
    let setup = Setup::new(|layer| layer.after(5 * SECOND));
    let pending_answer = setup.send(request("handling=strict"), 60 * SECOND);
    let report = setup.drain_within(10).await;
    let (at, response) = pending_answer.answer().await;
    assert_eq!(at, 5);
    assert_eq!(report.interrupted, [id_of(&response)]);
}

#[tokio::test(start_paused = true)]
async fn a_request_refused_at_the_deadline_releases_its_key() {
    let setup = Setup::new(|layer| {
        layer
            .after(20 * SECOND)
            .idempotency(Idempotency::optional())
    });
    let keyed_request = || {
        let request =
            Request::post("/reports").header("idempotency-key", "\"of 16 letters or more\"");
        request.body(text_body("Q3")).unwrap()
    };
    let first = setup.send(keyed_request(), 60 * SECOND);
    // The second request waits for the first.
    let second = setup.send(keyed_request(), 60 * SECOND);
    let report = setup.drain_within(3).await;
    first.assert_refused_at(3).await;
    second.assert_refused_at(3).await;
    assert_eq!((report.refused, report.unanswered), (2, 0), "{report:?}");
    // The key is free on another node.
    let another = AsyncAcceptLayer::new(setup.store.clone())
        .after(20 * SECOND)
        .idempotency(Idempotency::optional());
    let service = another.layer(service_fn(async |_: Request<RequestBody<Body>>| {
        Ok::<_, Infallible>(Response::new(text_body("done")))
    }));
    let response = service.oneshot(keyed_request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_the_preference_has_the_rest_of_the_drain() {
    let setup = Setup::new(AcceptLayer::when_preferred);
    let pending_answer = setup.send_to(request("handling=strict"), handler_of(4));
    let report = setup.drain_within(10).await;
    let (at, response) = pending_answer.answer().await;
    assert_eq!((at, response.status()), (4, StatusCode::OK));
    assert_eq!(
        (report.answered, report.took.as_secs()),
        (1, 4),
        "{report:?}"
    );
    assert!(report.is_clean(), "{report:?}");

    let setup = Setup::new(AcceptLayer::when_preferred);
    let pending_answer = setup.send_to(request("handling=strict"), handler_of(40));
    let report = setup.drain_within(10).await;
    pending_answer.assert_refused_at(10).await;
    assert_eq!((report.refused, report.unanswered), (1, 0), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_passed_through_request_is_refused_at_the_deadline() {
    let call = |field: &'static str, value: &'static str| {
        let request = Request::post("/page").header(field, value);
        request.body(text_body("Q3")).unwrap()
    };
    let mut upgrade = call("upgrade", "websocket");
    let connection = "upgrade".parse().unwrap();
    upgrade.headers_mut().insert("connection", connection);
    for request in [
        get("/page"),
        upgrade,
        call("content-type", "application/grpc"),
    ] {
        let setup = Setup::new(|layer| layer);
        let drop_flag = DropFlag::default();
        let guard = Arc::new(Mutex::new(Some(DropGuard(drop_flag.clone()))));
        let pending_answer = setup.send_to(request, move |_| {
            let guard = guard.lock().unwrap().take();
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        });
        let report = setup.drain_within(10).await;
        pending_answer.assert_refused_at(10).await;
        assert!(drop_flag.0.load(SeqCst), "the call was not dropped");
        assert_eq!(
            (report.answered, report.refused, report.unanswered),
            (0, 1, 0),
            "{report:?}"
        );
        assert_eq!(report.took, 10 * SECOND);
        assert!(!report.is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn polls_and_nested_calls_do_not_extend_a_drain() {
    let setup = Setup::new(|layer| layer);
    let mut poll = request("handling=strict");
    *poll.method_mut() = Method::GET;
    *poll.uri_mut() = "/operations/1".parse().unwrap();
    let _poll = setup.send_to(poll, |_| std::future::pending());
    let mut nested = request("handling=strict");
    nested.extensions_mut().insert(OperationHandle::detached());
    let _nested = setup.send_to(nested, |_| std::future::pending());
    let report = setup.drain_within(10).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_last_byte_of_a_response() {
    for mode in [AcceptLayer::when_preferred, |layer: AcceptLayer| {
        layer.after(60 * SECOND)
    }] {
        let setup = Setup::new(mode);
        let (pieces, mut from) = mpsc::unbounded_channel::<Bytes>();
        let body = Pieces(move |context: &mut Context<'_>| from.poll_recv(context));
        let from = Arc::new(Mutex::new(Some(body.boxed_unsync())));
        let pending_answer = setup.send_to(request("handling=strict"), move |_| {
            let body = from.lock().unwrap().take().unwrap();
            async { Response::new(body) }
        });
        tokio::spawn(async move {
            for _ in 0..4 {
                sleep(SECOND).await;
                pieces.send(Bytes::from_static(b"piece")).unwrap();
            }
        });
        let report = setup.drain_within(10).await;
        assert_eq!(report.took.as_secs(), 4);
        assert!(report.is_clean(), "{report:?}");
        let (at, response) = pending_answer.answer().await;
        assert_eq!((at, response.body().len()), (0, 20));
    }
}

/// A body whose frames come from a poll function.
struct Pieces<P>(P);

impl<P> http_body::Body for Pieces<P>
where
    P: FnMut(&mut Context<'_>) -> Poll<Option<Bytes>> + Unpin,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        (self.0)(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_with_an_incomplete_body_is_refused_at_the_deadline() {
    let setup = Setup::new(|layer| layer.body_timeout(60 * SECOND));
    let hanging_body = Pieces(|_: &mut Context<'_>| Poll::Pending);
    let request = Request::post("/reports")
        .body(hanging_body.boxed_unsync())
        .unwrap();
    let pending_answer = setup.send(request, SECOND);
    let report = setup.drain_within(3).await;
    pending_answer.assert_refused_at(3).await;
    assert_eq!((report.refused, report.unanswered), (1, 0), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_at_the_deadline_has_the_format_of_the_dialect() {
    let setup = Setup::with_operations(
        |operations| operations.dialect(Azure::default()),
        |layer| layer.after(20 * SECOND),
    );
    let pending_answer = setup.send(request("handling=strict"), 60 * SECOND);
    setup.drain_within(3).await;
    let (_, response) = pending_answer.answer().await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let error: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert!(error["error"]["code"].is_string(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_drain_share_the_earliest_deadline_and_the_report() {
    let setup = Setup::new(|layer| layer);
    let pending_answer = setup.send(request("handling=strict"), 600 * SECOND);
    let id = id_of(&pending_answer.answer().await.1);
    let (one, other) = (setup.drain.clone(), setup.drain.clone());
    assert_eq!(one.in_flight().operations, 1);
    let long = tokio::spawn(async move { one.drain(600 * SECOND).await });
    sleep(5 * SECOND).await;
    assert_eq!(other.in_flight().operations, 1);
    let short = other.drain(5 * SECOND).await;
    assert_eq!(short.interrupted, [id]);
    assert_eq!(short.took.as_secs(), 10);
    assert_eq!(long.await.unwrap(), short);
    // A later drain with a longer deadline changes nothing.
    assert_eq!(setup.drain.drain(60 * SECOND).await, short);
    assert_eq!(setup.drain.in_flight().operations, 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_continues_after_its_first_call_was_dropped() {
    let setup = Setup::new(|layer| layer);
    let finished = Arc::new(AtomicUsize::new(0));
    let (go, may_go) = oneshot::channel::<()>();
    let may_go = Arc::new(Mutex::new(Some(may_go)));
    let counter = Arc::clone(&finished);
    let pending_answer = setup.send_to(request("handling=strict"), move |_| {
        let (counter, may_go) = (Arc::clone(&counter), may_go.lock().unwrap().take());
        async move {
            let _ = may_go.unwrap().await;
            counter.fetch_add(1, SeqCst);
            Response::new(text_body("done"))
        }
    });
    id_of(&pending_answer.answer().await.1);
    let first_call = tokio::time::timeout(SECOND, setup.drain.drain(60 * SECOND)).await;
    assert!(first_call.is_err());
    go.send(()).unwrap();
    let report = setup.drain.drain(600 * SECOND).await;
    assert_eq!((report.finished, finished.load(SeqCst)), (1, 1));
    assert_eq!(report.took, SECOND);
}

fn get(path: &'static str) -> Request<Body> {
    let mut get = request("handling=strict");
    *get.method_mut() = Method::GET;
    *get.uri_mut() = path.parse().unwrap();
    get
}

fn handler_of(
    seconds: u64,
) -> impl Fn(OperationHandle) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Clone {
    move |_| {
        Box::pin(async move {
            sleep(Duration::from_secs(seconds)).await;
            Response::new(text_body("done"))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_requests_after_the_close() {
    for is_closed_before in [false, true] {
        let setup = Setup::new(|layer| layer);
        let operation = setup.send_to(request("handling=strict"), handler_of(2));
        let id = id_of(&operation.answer().await.1);
        let before = setup.send_to(get("/page"), handler_of(3));
        setup.let_tasks_run().await;
        if is_closed_before {
            setup.drain.close();
            let early = setup.send_to(get("/page"), handler_of(60));
            setup.let_tasks_run().await;
            drop(early);
        }
        let drain_task = tokio::spawn({
            let drain = setup.drain.clone();
            async move { drain.drain(60 * SECOND).await }
        });
        // One later request is always in progress.
        let mut later = Vec::new();
        for _ in 0..4 {
            setup.let_tasks_run().await;
            later.push(setup.send_to(get("/page"), handler_of(5)));
            sleep(SECOND).await;
        }
        setup.let_tasks_run().await;
        assert!(
            drain_task.is_finished(),
            "the drain waits for later requests"
        );
        let report = drain_task.await.unwrap();
        assert_eq!(
            (report.took, report.answered),
            (3 * SECOND, 1),
            "{report:?}"
        );
        assert_eq!(report.finished, 1, "{report:?}");
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(setup.state(&id).await, State::Succeeded);
        assert_eq!(before.answer().await.1.status(), StatusCode::OK);
        for later in later {
            assert_eq!(later.answer().await.1.status(), StatusCode::OK);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_after_the_close_is_refused_at_the_end_and_not_counted() {
    let setup = Setup::new(AcceptLayer::when_preferred);
    let operation = setup.send_to(request("respond-async"), handler_of(3));
    id_of(&operation.answer().await.1);
    setup.drain.close();
    let in_time = setup.send_to(request("handling=strict"), handler_of(1));
    let too_long = setup.send_to(request("handling=strict"), handler_of(60));
    let report = setup.drain_within(60).await;
    assert_eq!(in_time.answer().await.1.status(), StatusCode::OK);
    too_long.assert_refused_at(3).await;
    assert_eq!((report.answered, report.refused), (0, 0), "{report:?}");
    assert_eq!(report.took, 3 * SECOND);
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_passed_through_response_of_known_length_is_waited_for() {
    // (length, seconds of the drain, unanswered)
    for (length, took, unanswered) in [(None, 0, 0), (Some("20"), 10 + 1, 1)] {
        let setup = Setup::new(|layer| layer);
        let pending_answer = setup.send_to(get("/stream"), move |_| async move {
            let hanging_body = Pieces(|_: &mut Context<'_>| Poll::Pending);
            let mut response = Response::new(hanging_body.boxed_unsync());
            if let Some(length) = length {
                let headers = response.headers_mut();
                headers.insert("content-length", length.parse().unwrap());
            }
            response
        });
        let report = setup.drain_within(10).await;
        assert_eq!(report.took.as_secs(), took, "{report:?}");
        assert_eq!(report.unanswered, unanswered, "{report:?}");
        drop(pending_answer);
    }
}

/// A flag that a `DropGuard` sets when it is dropped.
#[derive(Clone, Default)]
struct DropFlag(Arc<AtomicBool>);

struct DropGuard(DropFlag);

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.0.0.store(true, SeqCst);
    }
}

/// A service that never answers. Without `is_ready` it is never ready either.
#[derive(Clone)]
struct HangingService {
    is_ready: bool,
    accepts: bool,
    /// The guard shared by all clones and futures of the service.
    guard: Arc<DropGuard>,
}

impl tower::Service<Request<RequestBody<Body>>> for HangingService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.is_ready {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    fn call(&mut self, request: Request<RequestBody<Body>>) -> Self::Future {
        let (accepts, guard) = (self.accepts, Arc::clone(&self.guard));
        Box::pin(async move {
            let _guard = guard;
            let operation = OperationHandle::from_extensions(request.extensions());
            if accepts {
                operation.accept().await.unwrap();
            }
            std::future::pending().await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_dropped_before_its_operation_is_released_or_finished() {
    for mode in ["always", "after", "signaled", "unready", "unready after"] {
        for is_released in [true, false] {
            let flag = DropFlag::default();
            let log = Arc::new(Mutex::new(Vec::new()));
            let store = {
                let (flag, log) = (flag.clone(), Arc::clone(&log));
                Hooked::new(MemoryStore::new(), move |call, when| {
                    let is_end = matches!(call, Call::Release | Call::Finish);
                    if is_end && when == When::Before {
                        log.lock().unwrap().push((call, flag.0.load(SeqCst)));
                    }
                    async { Ok(()) }
                })
            };
            let operations = Operations::new(store);
            let (layer, drain) = (operations.layer(), operations.drain_handle());
            let layer = layer.rerun_if(move |_| is_released);
            let layer = match mode {
                "always" | "unready" => layer,
                "after" | "unready after" => layer.after(SECOND),
                _ => layer.when_signaled(),
            };
            let app = service_fn(async |_: Request<BufferedBody>| {
                Ok::<_, Infallible>(Response::new(BufferedBody::default()))
            });
            let _recovery = operations.recovery().rerun_with(app, 3);
            let service = layer.layer(HangingService {
                is_ready: !mode.starts_with("unready"),
                accepts: mode == "signaled",
                guard: Arc::new(DropGuard(flag)),
            });
            let response = service.oneshot(request("handling=strict")).await.unwrap();
            assert_eq!(response.status(), StatusCode::ACCEPTED, "{mode}");
            let report = drain.drain(SECOND).await;
            let expected = match is_released {
                true => Call::Release,
                false => Call::Finish,
            };
            assert_eq!(*log.lock().unwrap(), [(expected, true)], "{mode}");
            assert_eq!(report.released.len(), usize::from(is_released), "{mode}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_on_drop_still_ends_its_operation() {
    struct PanicOnDrop;
    impl Drop for PanicOnDrop {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let setup = Setup::new(|layer| layer.after(SECOND));
    let pending_answer = setup.send_to(request("handling=strict"), |_| async {
        let _guard = PanicOnDrop;
        std::future::pending().await
    });
    setup.let_tasks_run().await;
    let (_, response) = pending_answer.answer().await;
    let report = setup.drain_within(1).await;
    let id = id_of(&response);
    let record = setup.store.get(&id).await.unwrap().unwrap();
    let problem = record.operation().problem().unwrap();
    assert_eq!(problem.type_uri(), FailureKind::Panicked.urn());
    assert!(report.unrecorded.is_empty(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_keyed_answer_with_an_incomplete_body_is_refused_at_the_deadline() {
    let setup = Setup::new(|layer| {
        layer
            .after(20 * SECOND)
            .idempotency(Idempotency::optional())
    });
    let mut keyed_request = request("handling=strict");
    let key = "\"of 16 letters or more\"".parse().unwrap();
    keyed_request.headers_mut().insert("idempotency-key", key);
    let pending_answer = setup.send_to(keyed_request, |_| async {
        let hanging_body = Pieces(|_: &mut Context<'_>| Poll::Pending);
        Response::new(hanging_body.boxed_unsync())
    });
    let report = setup.drain_within(3).await;
    pending_answer.assert_refused_at(3).await;
    assert_eq!((report.refused, report.unanswered), (1, 0), "{report:?}");
    assert_eq!(report.took, 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_its_reservation_is_refused_at_the_deadline() {
    let store = Hooked::new(MemoryStore::new(), |call, when| async move {
        if (call, when) == (Call::Reserve, When::Before) {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let operations = Operations::new(store);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let layer = layer.after(20 * SECOND).create_timeout(60 * SECOND);
    let layer = layer.idempotency(Idempotency::optional());
    let service = layer.layer(service_fn(async |_: Request<RequestBody<Body>>| {
        Ok::<_, Infallible>(Response::new(text_body("done")))
    }));
    let mut keyed_request = request("handling=strict");
    let key = "\"of 16 letters or more\"".parse().unwrap();
    keyed_request.headers_mut().insert("idempotency-key", key);
    let start = Instant::now();
    let pending_answer = tokio::spawn(service.oneshot(keyed_request));
    tokio::task::yield_now().await;
    let report = drain.drain(3 * SECOND).await;
    let response = pending_answer.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert_eq!((report.refused, report.unanswered), (1, 0), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_silent_store_is_refused_at_the_deadline() {
    for silent in [Call::Create, Call::Reserve, Call::Get] {
        for mode in ["always", "after", "signaled"] {
            for key in [None, Some("idempotency-key"), Some("operation-id")] {
                let store = Hooked::new(MemoryStore::new(), move |call, _| async move {
                    if call == silent {
                        std::future::pending::<()>().await;
                    }
                    Ok(())
                });
                let operations = Operations::new(store);
                let (layer, drain) = (operations.layer(), operations.drain_handle());
                let layer = layer
                    .create_timeout(60 * SECOND)
                    .idempotency(Idempotency::optional().client_ids());
                let layer = match mode {
                    "after" => layer.after(SECOND),
                    "signaled" => layer.when_signaled(),
                    _ => layer,
                };
                let is_called = match (silent, key, mode) {
                    (Call::Reserve, Some("operation-id"), _) => true,
                    (Call::Reserve, key, mode) => key.is_some() && mode != "always",
                    (Call::Get, key, _) => key == Some("operation-id"),
                    _ => true,
                };
                if !is_called {
                    continue;
                }
                let service =
                    layer.layer(service_fn(async |request: Request<RequestBody<Body>>| {
                        let operation = OperationHandle::from_extensions(request.extensions());
                        let _ = operation.accept().await;
                        std::future::pending::<Result<Response<Body>, Infallible>>().await
                    }));
                let mut request = request("handling=strict");
                if let Some(key) = key {
                    let value = match key {
                        "operation-id" => "invoice-7".to_owned(),
                        _ => format!("\"{}\"", OperationId::new()),
                    };
                    request.headers_mut().insert(key, value.parse().unwrap());
                }
                let start = Instant::now();
                let pending_answer = PendingAnswer(tokio::spawn(async move {
                    let response = service.oneshot(request).await.unwrap();
                    let at = start.elapsed().as_secs();
                    let (parts, body) = response.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    (at, Response::from_parts(parts, body))
                }));
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                let report = drain.drain(10 * SECOND).await;
                let case = (silent, mode, key);
                assert_eq!(
                    (report.refused, report.unanswered, report.took),
                    (1, 0, 10 * SECOND),
                    "{case:?}: {report:?}"
                );
                pending_answer.assert_refused_at(10).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_timeout_before_the_deadline_counts_as_answered() {
    let store = Hooked::new(MemoryStore::new(), |call, _| async move {
        if call == Call::Create {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let operations = Operations::new(store);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let service = layer.layer(service_fn(async |_: Request<RequestBody<Body>>| {
        std::future::pending::<Result<Response<Body>, Infallible>>().await
    }));
    let pending_answer = tokio::spawn(service.oneshot(request("handling=strict")));
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let report = drain.drain(10 * SECOND).await;
    let response = pending_answer.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (report.answered, report.refused, report.unanswered),
        (1, 0, 0),
        "{report:?}"
    );
    assert_eq!(report.took, 5 * SECOND);
}
