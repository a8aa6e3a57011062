//! The end of a node: what handlers are told, what clients are answered, and what the
//! report says. With a paused clock.

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
type Layered = AsyncAcceptLayer<MemoryStore>;

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(2);

fn whole(text: &'static str) -> Body {
    BufferedBody::from(text).boxed_unsync()
}

/// A layer with a grace of two seconds, and what is told of its handler.
struct Setup {
    store: MemoryStore,
    operations: Operations<MemoryStore>,
    layer: Layered,
    drain: Drain,
    begun: Instant,
    seen: Seen,
}

/// What has become of a handler, and when, in seconds.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(u64, &'static str)>>>);

impl Seen {
    fn note(&self, since: Instant, what: &'static str) {
        let at = since.elapsed().as_secs();
        self.0.lock().unwrap().push((at, what));
    }

    fn all(&self) -> Vec<(u64, &'static str)> {
        self.0.lock().unwrap().clone()
    }
}

/// Notes when it is dropped.
struct Noting(Seen, Instant);

impl Drop for Noting {
    fn drop(&mut self) {
        self.0.note(self.1, "dropped");
    }
}

impl Setup {
    fn new(set: impl FnOnce(Layered) -> Layered) -> Self {
        Self::of(|operations| operations, set)
    }

    fn of(
        shared: impl FnOnce(Operations<MemoryStore>) -> Operations<MemoryStore>,
        set: impl FnOnce(Layered) -> Layered,
    ) -> Self {
        let store = MemoryStore::new();
        let operations = shared(Operations::new(store.clone()));
        Self {
            layer: set(operations.layer().cancel_grace(GRACE)),
            drain: operations.drain_handle(),
            store,
            operations,
            begun: Instant::now(),
            seen: Seen::default(),
        }
    }

    /// Sends a request; its handler waits for its token, and for `tidying` after that.
    fn send(&self, request: Request<Body>, tidying: Duration) -> Answering {
        let (seen, begun) = (self.seen.clone(), self.begun);
        self.send_to(request, move |operation| {
            let seen = seen.clone();
            async move {
                let dropped = Noting(seen.clone(), begun);
                operation.cancellation().cancelled().await;
                seen.note(begun, "told");
                sleep(tidying).await;
                std::mem::forget(dropped);
                Response::new(whole("tidied up"))
            }
        })
    }

    fn send_to<F>(
        &self,
        request: Request<Body>,
        handler: impl Fn(OperationHandle) -> F + Clone + Send + 'static,
    ) -> Answering
    where
        F: Future<Output = Response<Body>> + Send,
    {
        let service = self
            .layer
            .layer(service_fn(move |request: Request<RequestBody<Body>>| {
                let answer = handler(OperationHandle::from_extensions(request.extensions()));
                async move { Ok::<_, Infallible>(answer.await) }
            }));
        let begun = self.begun;
        Answering(tokio::spawn(async move {
            let response = service.oneshot(request).await.unwrap();
            let at = begun.elapsed().as_secs();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (at, Response::from_parts(parts, body))
        }))
    }

    async fn drained(&self, seconds: u64) -> DrainReport {
        self.until_begun().await;
        self.drain.drain(Duration::from_secs(seconds)).await
    }

    async fn until_begun(&self) {
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

struct Answering(JoinHandle<(u64, Response<Bytes>)>);

impl Answering {
    /// The answer, and after how many seconds it came.
    async fn answer(self) -> (u64, Response<Bytes>) {
        self.0.await.unwrap()
    }

    /// Insists on a refusal after so many seconds.
    async fn refused_at(self, after: u64) {
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
    request.body(whole("Q3")).unwrap()
}

fn id_of(response: &Response<Bytes>) -> OperationId {
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap();
    location.rsplit('/').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_told_its_grace_before_the_deadline_and_what_it_returns_by_then_is_kept() {
    let signaled = |operation: OperationHandle| async move { operation.accept().await.unwrap() };
    for mode in ["always", "after", "signaled"] {
        let setup = Setup::new(|layer| match mode {
            "always" => layer,
            "after" => layer.after(Duration::from_millis(1)),
            _ => layer.when_signaled(),
        });
        let (seen, begun) = (setup.seen.clone(), setup.begun);
        let answering = setup.send_to(request("handling=strict"), move |operation| {
            let seen = seen.clone();
            async move {
                if mode == "signaled" {
                    signaled(operation.clone()).await;
                }
                operation.cancellation().cancelled().await;
                seen.note(begun, "told");
                sleep(SECOND).await;
                Response::new(whole("tidied up"))
            }
        });
        let (_, response) = answering.answer().await;
        let report = setup.drained(10).await;
        assert_eq!(setup.seen.all(), [(8, "told")], "{mode}");
        assert_eq!(
            setup.state(&id_of(&response)).await,
            State::Succeeded,
            "{mode}"
        );
        assert_eq!(report.finished, 1, "{mode}: {report:?}");
        assert_eq!(
            report.took.as_secs(),
            9,
            "{mode}: it waited no longer than it had to"
        );
        assert!(report.is_clean(), "{mode}: {report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_come_to_an_end_in_its_grace_is_dropped_at_the_deadline() {
    // (deadline, when it is told)
    for (deadline, told) in [(10, 8), (2, 0), (1, 0), (0, 0)] {
        let setup = Setup::new(|layer| layer);
        let answering = setup.send(request("handling=strict"), 60 * SECOND);
        let id = id_of(&answering.answer().await.1);
        let report = setup.drained(deadline).await;
        assert_eq!(setup.seen.all(), [(told, "told"), (deadline, "dropped")]);
        assert_eq!(report.interrupted, std::slice::from_ref(&id));
        assert_eq!(report.took.as_secs(), deadline);
        let record = setup.store.get(&id).await.unwrap().unwrap();
        let problem = record.operation().problem().unwrap();
        assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_zero_still_takes_what_a_told_handler_returns_at_once() {
    let setup = Setup::new(|layer| layer);
    let answering = setup.send(request("handling=strict"), Duration::ZERO);
    let id = id_of(&answering.answer().await.1);
    let report = setup.drained(0).await;
    assert_eq!(setup.state(&id).await, State::Succeeded);
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_may_be_run_again_is_released_at_the_deadline_unless_it_has_an_outcome_by_then() {
    for (tidying, released) in [(SECOND, 0), (60 * SECOND, 1)] {
        let setup = Setup::new(|layer| layer.rerun_if(|_| true));
        let app = service_fn(async |_: Request<BufferedBody>| {
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        });
        let _recovery = setup.operations.recovery().rerun_with(app, 3);
        let answering = setup.send(request("handling=strict"), tidying);
        let id = id_of(&answering.answer().await.1);
        let report = setup.drained(10).await;
        assert_eq!(report.released.len(), released, "{report:?}");
        let expected = match released {
            0 => State::Succeeded,
            _ => State::Running,
        };
        assert_eq!(setup.state(&id).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_s_handlers_have_their_grace_too() {
    for (tidying, expected) in [(SECOND, State::Succeeded), (60 * SECOND, State::Failed)] {
        let store = MemoryStore::new();
        let app = service_fn(move |request: Request<BufferedBody>| async move {
            let operation = OperationHandle::from_extensions(request.extensions());
            operation.cancellation().cancelled().await;
            sleep(tidying).await;
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
        let ran = tokio::spawn(service.cancel_grace(GRACE).oneshot(request));
        tokio::task::yield_now().await;
        let begun = Instant::now();
        drain.drain(10 * SECOND).await;
        assert_eq!(ran.await.unwrap().unwrap(), RunOutcome::Recorded(expected));
        let took = if expected == State::Failed { 10 } else { 9 };
        assert_eq!(begun.elapsed().as_secs(), took);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_held_is_refused_at_the_deadline_and_leaves_no_operation() {
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
        let answering = setup.send(request(prefer), 60 * SECOND);
        let report = setup.drained(3).await;
        answering.refused_at(3).await;
        assert_eq!(setup.seen.all(), [(1, "told"), (3, "dropped")], "{mode}");
        assert_eq!(setup.operations().await, 0, "{mode}");
        assert_eq!((report.refused, report.unanswered), (1, 0), "{mode}");
        assert_eq!(report.took.as_secs(), 3, "{mode}");
        assert!(!report.is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_call_that_returns_before_the_deadline_is_answered_and_counted() {
    let setup = Setup::new(|layer| layer.after(20 * SECOND));
    let tidied = setup.send(request("handling=strict"), SECOND);
    let report = setup.drained(10).await;
    let (at, response) = tidied.answer().await;
    assert_eq!((at, response.status()), (9, StatusCode::OK));
    assert_eq!((report.answered, report.refused), (1, 0), "{report:?}");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(setup.operations().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_ends_while_it_is_drained_is_accepted_and_interrupted() {
    let setup = Setup::new(|layer| layer.after(5 * SECOND));
    let answering = setup.send(request("handling=strict"), 60 * SECOND);
    let report = setup.drained(10).await;
    let (at, response) = answering.answer().await;
    assert_eq!(at, 5);
    assert_eq!(report.interrupted, [id_of(&response)]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_at_the_deadline_frees_its_key() {
    let setup = Setup::new(|layer| {
        layer
            .after(20 * SECOND)
            .idempotency(Idempotency::optional())
    });
    let keyed = || {
        let request =
            Request::post("/reports").header("idempotency-key", "\"of 16 letters or more\"");
        request.body(whole("Q3")).unwrap()
    };
    let first = setup.send(keyed(), 60 * SECOND);
    // The second waits for the first.
    let second = setup.send(keyed(), 60 * SECOND);
    let report = setup.drained(3).await;
    first.refused_at(3).await;
    second.refused_at(3).await;
    assert_eq!((report.refused, report.unanswered), (2, 0), "{report:?}");
    // On another node.
    let another = AsyncAcceptLayer::new(setup.store.clone())
        .after(20 * SECOND)
        .idempotency(Idempotency::optional());
    let service = another.layer(service_fn(async |_: Request<RequestBody<Body>>| {
        Ok::<_, Infallible>(Response::new(whole("done")))
    }));
    let response = service.oneshot(keyed()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_the_preference_has_what_is_left_of_the_drain() {
    let setup = Setup::new(Layered::when_preferred);
    let answering = setup.send_to(request("handling=strict"), taking(4));
    let report = setup.drained(10).await;
    let (at, response) = answering.answer().await;
    assert_eq!((at, response.status()), (4, StatusCode::OK));
    assert_eq!(
        (report.answered, report.took.as_secs()),
        (1, 4),
        "{report:?}"
    );
    assert!(report.is_clean(), "{report:?}");

    let setup = Setup::new(Layered::when_preferred);
    let answering = setup.send_to(request("handling=strict"), taking(40));
    let report = setup.drained(10).await;
    answering.refused_at(10).await;
    assert_eq!((report.refused, report.unanswered), (1, 0), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_layer_does_not_accept_is_refused_at_the_deadline() {
    let call = |field: &'static str, value: &'static str| {
        let request = Request::post("/page").header(field, value);
        request.body(whole("Q3")).unwrap()
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
        let dropped = Gone::default();
        let holding = Arc::new(Mutex::new(Some(Holding(dropped.clone()))));
        let answering = setup.send_to(request, move |_| {
            let holding = holding.lock().unwrap().take();
            async move {
                let _holding = holding;
                std::future::pending().await
            }
        });
        let report = setup.drained(10).await;
        answering.refused_at(10).await;
        assert!(dropped.0.load(SeqCst), "its call goes on");
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
async fn a_poll_and_what_runs_within_an_operation_are_not_waited_for_twice() {
    let setup = Setup::new(|layer| layer);
    let mut poll = request("handling=strict");
    *poll.method_mut() = Method::GET;
    *poll.uri_mut() = "/operations/1".parse().unwrap();
    let _poll = setup.send_to(poll, |_| std::future::pending());
    let mut within = request("handling=strict");
    within.extensions_mut().insert(OperationHandle::detached());
    let _within = setup.send_to(within, |_| std::future::pending());
    let report = setup.drained(10).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_response_is_waited_for_to_its_last_byte() {
    for mode in [Layered::when_preferred, |layer: Layered| {
        layer.after(60 * SECOND)
    }] {
        let setup = Setup::new(mode);
        let (pieces, mut from) = mpsc::unbounded_channel::<Bytes>();
        let body = Pieces(move |context: &mut Context<'_>| from.poll_recv(context));
        let from = Arc::new(Mutex::new(Some(body.boxed_unsync())));
        let answering = setup.send_to(request("handling=strict"), move |_| {
            let body = from.lock().unwrap().take().unwrap();
            async { Response::new(body) }
        });
        tokio::spawn(async move {
            for _ in 0..4 {
                sleep(SECOND).await;
                pieces.send(Bytes::from_static(b"piece")).unwrap();
            }
        });
        let report = setup.drained(10).await;
        assert_eq!(report.took.as_secs(), 4);
        assert!(report.is_clean(), "{report:?}");
        let (at, response) = answering.answer().await;
        assert_eq!((at, response.body().len()), (0, 20));
    }
}

/// A body whose pieces come as this says.
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
async fn a_request_whose_body_is_still_coming_is_refused_at_the_deadline() {
    let setup = Setup::new(|layer| layer.body_timeout(60 * SECOND));
    let never = Pieces(|_: &mut Context<'_>| Poll::Pending);
    let request = Request::post("/reports")
        .body(never.boxed_unsync())
        .unwrap();
    let answering = setup.send(request, SECOND);
    let report = setup.drained(3).await;
    answering.refused_at(3).await;
    assert_eq!((report.refused, report.unanswered), (1, 0), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_at_the_deadline_is_in_the_words_of_the_dialect() {
    let setup = Setup::of(
        |operations| operations.dialect(Azure::default()),
        |layer| layer.after(20 * SECOND),
    );
    let answering = setup.send(request("handling=strict"), 60 * SECOND);
    setup.drained(3).await;
    let (_, response) = answering.answer().await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let error: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert!(error["error"]["code"].is_string(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_drain_see_the_same_and_end_together_at_the_earliest_deadline() {
    let setup = Setup::new(|layer| layer);
    let answering = setup.send(request("handling=strict"), 600 * SECOND);
    let id = id_of(&answering.answer().await.1);
    let (one, other) = (setup.drain.clone(), setup.drain.clone());
    assert_eq!(one.in_flight(), 1);
    let long = tokio::spawn(async move { one.drain(600 * SECOND).await });
    sleep(5 * SECOND).await;
    assert_eq!(other.in_flight(), 1);
    let short = other.drain(5 * SECOND).await;
    assert_eq!(short.interrupted, [id]);
    assert_eq!(short.took.as_secs(), 10);
    assert_eq!(long.await.unwrap(), short);
    // A longer one later changes nothing.
    assert_eq!(setup.drain.drain(60 * SECOND).await, short);
    assert_eq!(setup.drain.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_with_whoever_calls_it_after_the_first_call_was_dropped() {
    let setup = Setup::new(|layer| layer);
    let finished = Arc::new(AtomicUsize::new(0));
    let (go, may_go) = oneshot::channel::<()>();
    let may_go = Arc::new(Mutex::new(Some(may_go)));
    let counted = Arc::clone(&finished);
    let answering = setup.send_to(request("handling=strict"), move |_| {
        let (counted, may_go) = (Arc::clone(&counted), may_go.lock().unwrap().take());
        async move {
            let _ = may_go.unwrap().await;
            counted.fetch_add(1, SeqCst);
            Response::new(whole("done"))
        }
    });
    id_of(&answering.answer().await.1);
    let gone = tokio::time::timeout(SECOND, setup.drain.drain(60 * SECOND)).await;
    assert!(gone.is_err());
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

fn taking(
    seconds: u64,
) -> impl Fn(OperationHandle) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Clone {
    move |_| {
        Box::pin(async move {
            sleep(Duration::from_secs(seconds)).await;
            Response::new(whole("done"))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_a_busy_server_ends_when_what_was_there_as_the_doors_closed_has_ended() {
    for closed_before in [false, true] {
        let setup = Setup::new(|layer| layer);
        let operation = setup.send_to(request("handling=strict"), taking(2));
        let id = id_of(&operation.answer().await.1);
        let before = setup.send_to(get("/page"), taking(3));
        setup.until_begun().await;
        if closed_before {
            setup.drain.close();
            let early = setup.send_to(get("/page"), taking(60));
            setup.until_begun().await;
            drop(early);
        }
        let draining = tokio::spawn({
            let drain = setup.drain.clone();
            async move { drain.drain(60 * SECOND).await }
        });
        // One is always on its way.
        let mut later = Vec::new();
        for _ in 0..4 {
            setup.until_begun().await;
            later.push(setup.send_to(get("/page"), taking(5)));
            sleep(SECOND).await;
        }
        setup.until_begun().await;
        assert!(draining.is_finished(), "it goes on for what came later");
        let report = draining.await.unwrap();
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
async fn what_passes_without_the_preference_after_the_doors_closed_is_refused_at_the_end_uncounted()
{
    let setup = Setup::new(Layered::when_preferred);
    let operation = setup.send_to(request("respond-async"), taking(3));
    id_of(&operation.answer().await.1);
    setup.drain.close();
    let in_time = setup.send_to(request("handling=strict"), taking(1));
    let too_long = setup.send_to(request("handling=strict"), taking(60));
    let report = setup.drained(60).await;
    assert_eq!(in_time.answer().await.1.status(), StatusCode::OK);
    too_long.refused_at(3).await;
    assert_eq!((report.answered, report.refused), (0, 0), "{report:?}");
    assert_eq!(report.took, 3 * SECOND);
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_no_concern_of_the_layer_is_waited_for_if_its_length_is_known() {
    // (its length, how long the drain takes, unanswered)
    for (length, took, unanswered) in [(None, 0, 0), (Some("20"), 10 + 1, 1)] {
        let setup = Setup::new(|layer| layer);
        let answering = setup.send_to(get("/stream"), move |_| async move {
            let never = Pieces(|_: &mut Context<'_>| Poll::Pending);
            let mut response = Response::new(never.boxed_unsync());
            if let Some(length) = length {
                let headers = response.headers_mut();
                headers.insert("content-length", length.parse().unwrap());
            }
            response
        });
        let report = setup.drained(10).await;
        assert_eq!(report.took.as_secs(), took, "{report:?}");
        assert_eq!(report.unanswered, unanswered, "{report:?}");
        drop(answering);
    }
}

/// It is set when this is dropped.
#[derive(Clone, Default)]
struct Gone(Arc<AtomicBool>);

struct Holding(Gone);

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.0.store(true, SeqCst);
    }
}

/// A service that never answers, and is never ready where that is said.
#[derive(Clone)]
struct Never {
    is_ready: bool,
    accepts: bool,
    /// Of whoever has the service, or its future, in its hands.
    held: Arc<Holding>,
}

impl tower::Service<Request<RequestBody<Body>>> for Never {
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
        let (accepts, held) = (self.accepts, Arc::clone(&self.held));
        Box::pin(async move {
            let _held = held;
            let operation = OperationHandle::from_extensions(request.extensions());
            if accepts {
                operation.accept().await.unwrap();
            }
            std::future::pending().await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_dropped_before_its_operation_is_released_or_said_to_have_ended() {
    for mode in ["always", "after", "signaled", "unready", "unready after"] {
        for released in [true, false] {
            let gone = Gone::default();
            let seen = Arc::new(Mutex::new(Vec::new()));
            let store = {
                let (gone, seen) = (gone.clone(), Arc::clone(&seen));
                Hooked::new(MemoryStore::new(), move |call, when| {
                    let is_end = matches!(call, Call::Release | Call::Finish);
                    if is_end && when == When::Before {
                        seen.lock().unwrap().push((call, gone.0.load(SeqCst)));
                    }
                    async { Ok(()) }
                })
            };
            let operations = Operations::new(store);
            let (layer, drain) = (operations.layer(), operations.drain_handle());
            let layer = layer.rerun_if(move |_| released);
            let layer = match mode {
                "always" | "unready" => layer,
                "after" | "unready after" => layer.after(SECOND),
                _ => layer.when_signaled(),
            };
            let app = service_fn(async |_: Request<BufferedBody>| {
                Ok::<_, Infallible>(Response::new(BufferedBody::default()))
            });
            let _recovery = operations.recovery().rerun_with(app, 3);
            let service = layer.layer(Never {
                is_ready: !mode.starts_with("unready"),
                accepts: mode == "signaled",
                held: Arc::new(Holding(gone)),
            });
            let response = service.oneshot(request("handling=strict")).await.unwrap();
            assert_eq!(response.status(), StatusCode::ACCEPTED, "{mode}");
            let report = drain.drain(SECOND).await;
            let expected = match released {
                true => Call::Release,
                false => Call::Finish,
            };
            assert_eq!(*seen.lock().unwrap(), [(expected, true)], "{mode}");
            assert_eq!(report.released.len(), usize::from(released), "{mode}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_as_it_is_dropped_still_ends_its_operation() {
    struct Panicking;
    impl Drop for Panicking {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let setup = Setup::new(|layer| layer.after(SECOND));
    let answering = setup.send_to(request("handling=strict"), |_| async {
        let _held = Panicking;
        std::future::pending().await
    });
    setup.until_begun().await;
    let (_, response) = answering.answer().await;
    let report = setup.drained(1).await;
    let id = id_of(&response);
    let record = setup.store.get(&id).await.unwrap().unwrap();
    let problem = record.operation().problem().unwrap();
    assert_eq!(problem.type_uri(), FailureKind::Panicked.urn());
    assert!(report.unrecorded.is_empty(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_being_kept_for_its_key_is_given_up_at_the_deadline() {
    let setup = Setup::new(|layer| {
        layer
            .after(20 * SECOND)
            .idempotency(Idempotency::optional())
    });
    let mut keyed = request("handling=strict");
    let key = "\"of 16 letters or more\"".parse().unwrap();
    keyed.headers_mut().insert("idempotency-key", key);
    let answering = setup.send_to(keyed, |_| async {
        let never = Pieces(|_: &mut Context<'_>| Poll::Pending);
        Response::new(never.boxed_unsync())
    });
    let report = setup.drained(3).await;
    answering.refused_at(3).await;
    assert_eq!((report.refused, report.unanswered), (1, 0), "{report:?}");
    assert_eq!(report.took, 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_key_a_silent_store_is_asked_for_is_refused_at_the_deadline() {
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
        Ok::<_, Infallible>(Response::new(whole("done")))
    }));
    let mut keyed = request("handling=strict");
    let key = "\"of 16 letters or more\"".parse().unwrap();
    keyed.headers_mut().insert("idempotency-key", key);
    let begun = Instant::now();
    let answering = tokio::spawn(service.oneshot(keyed));
    tokio::task::yield_now().await;
    let report = drain.drain(3 * SECOND).await;
    let response = answering.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(begun.elapsed(), 3 * SECOND);
    assert_eq!((report.refused, report.unanswered), (1, 0), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_silent_store_keeps_waiting_is_refused_at_the_deadline() {
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
                let asks = match (silent, key, mode) {
                    (Call::Reserve, Some("operation-id"), _) => true,
                    (Call::Reserve, key, mode) => key.is_some() && mode != "always",
                    (Call::Get, key, _) => key == Some("operation-id"),
                    _ => true,
                };
                if !asks {
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
                let begun = Instant::now();
                let answering = Answering(tokio::spawn(async move {
                    let response = service.oneshot(request).await.unwrap();
                    let at = begun.elapsed().as_secs();
                    let (parts, body) = response.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    (at, Response::from_parts(parts, body))
                }));
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                let report = drain.drain(10 * SECOND).await;
                let what = (silent, mode, key);
                assert_eq!(
                    (report.refused, report.unanswered, report.took),
                    (1, 0, 10 * SECOND),
                    "{what:?}: {report:?}"
                );
                answering.refused_at(10).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_silent_store_has_refused_by_the_deadline_is_counted_as_answered() {
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
    let answering = tokio::spawn(service.oneshot(request("handling=strict")));
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let report = drain.drain(10 * SECOND).await;
    let response = answering.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (report.answered, report.refused, report.unanswered),
        (1, 0, 0),
        "{report:?}"
    );
    assert_eq!(report.took, 5 * SECOND);
}
