//! Every mode of acceptance over real sockets: keep-alive and pipelining, a thousand
//! streams on one connection, slow bodies, clients that disconnect.

use test_support::server;

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, body::Body as AxumBody, routing::any_service};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use server::{
    Answer, AnyBody, Client, Server, chunked, empty, framewise, full, next_piece, piecemeal, soon,
    until,
};
use tokio::{
    io::{copy, split},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tower::service_fn;
use tower_operations::{
    AsyncAcceptLayer, Drain, MemoryStore, OperationHandle, Operations, PollService,
    RecordedResponse, RequestBody, State,
    store::{List, ListQuery, Record},
};

type Incoming = Request<RequestBody<AxumBody>>;
type Layer = AsyncAcceptLayer<MemoryStore>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Always,
    Preferred,
    After,
    Signaled,
}

use Mode::{After, Always, Preferred, Signaled};

const MODES: [Mode; 4] = [Always, Preferred, After, Signaled];

/// The response that a request is meant to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// A 202.
    Accepted,
    /// The handler's own answer.
    Answer,
    /// The handler's own answer, which never comes because the handler hangs.
    Stuck,
}

/// A limit after which a request becomes an operation soon.
const SHORT: Duration = Duration::from_millis(10);
/// A limit within which every request is answered.
const LONG: Duration = Duration::from_secs(3600);

impl Mode {
    fn apply(self, layer: Layer, limit: Duration) -> Layer {
        let layer = layer.max_wait(limit);
        match self {
            Always => layer,
            Preferred => layer.when_preferred(),
            After => layer.after(limit),
            Signaled => layer.when_signaled(),
        }
    }

    /// Returns method, target and `prefer` of the request for `expected` in this mode.
    fn request(self, expected: Expected, number: usize) -> (Method, String, &'static str) {
        let method = match (self, expected) {
            (Always, Expected::Answer | Expected::Stuck) => Method::OPTIONS,
            _ => Method::POST,
        };
        let path = match (self, expected) {
            (After, Expected::Accepted) => "/short",
            _ => "/long",
        };
        let deed = match (self, expected) {
            (_, Expected::Answer) => "answer",
            (Signaled, Expected::Accepted) => "accept",
            _ => "hold",
        };
        let prefer = match (self, expected) {
            (Preferred, Expected::Accepted) => "respond-async",
            _ => "",
        };
        (method, format!("{path}/{deed}?{number}"), prefer)
    }

    /// Returns the request with this body.
    fn with_body<B>(self, expected: Expected, number: usize, body: B) -> Request<B> {
        let (method, uri, prefer) = self.request(expected, number);
        let mut request = Request::builder().method(method).uri(uri);
        request = request.header("te", "trailers");
        if !prefer.is_empty() {
            request = request.header("prefer", prefer);
        }
        request.body(body).unwrap()
    }

    /// Returns the head of the request in HTTP/1.1, with `fields` in it.
    fn head(self, expected: Expected, number: usize, fields: &str) -> String {
        let (method, uri, prefer) = self.request(expected, number);
        let prefer = match prefer {
            "" => String::new(),
            prefer => format!("prefer: {prefer}\r\n"),
        };
        format!(
            "{method} {uri} HTTP/1.1\r\nhost: localhost\r\n\
             te: trailers\r\nconnection: te\r\n{prefer}{fields}\r\n"
        )
    }

    /// Returns the whole request in HTTP/1.1, with its number as its body.
    fn http1_request(self, expected: Expected, number: usize) -> String {
        let text = number.to_string();
        let length = text.len();
        match number.is_multiple_of(2) {
            true => self.head(expected, number, &format!("content-length: {length}\r\n")) + &text,
            false => {
                let head = self.head(expected, number, "transfer-encoding: chunked\r\n");
                format!("{head}{length:x}\r\n{text}\r\n0\r\n\r\n")
            }
        }
    }
}

/// A server of one mode, with all counters that reveal a leak.
struct World {
    mode: Mode,
    server: Server,
    store: MemoryStore,
    drain: Drain,
    calls: Arc<Calls>,
    /// The number of alive tasks before the server started.
    tasks: usize,
}

/// Counters of the calls of the usual handler.
struct Calls {
    started: AtomicUsize,
    /// Calls in progress that never become an operation.
    passing: AtomicUsize,
    finished: AtomicUsize,
    dropped: AtomicUsize,
    /// A handler consumes one permit before it finishes.
    gate: Semaphore,
}

impl Calls {
    /// Starts without calls, and with a closed gate.
    fn new() -> Self {
        Self {
            started: AtomicUsize::new(0),
            passing: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        }
    }
}

/// Counts a call and its end.
struct Call {
    calls: Arc<Calls>,
    passes: bool,
    finished: bool,
}

impl Call {
    fn begin(calls: Arc<Calls>, passes: bool) -> Self {
        calls.started.fetch_add(1, SeqCst);
        calls.passing.fetch_add(usize::from(passes), SeqCst);
        Self {
            calls,
            passes,
            finished: false,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls
            .passing
            .fetch_sub(usize::from(self.passes), SeqCst);
        match self.finished {
            true => self.calls.finished.fetch_add(1, SeqCst),
            false => self.calls.dropped.fetch_add(1, SeqCst),
        };
    }
}

/// The usual handler. It sends back its request body as its path says: immediately
/// (`answer`), when the gate permits (`hold`), or when the gate permits after it has
/// accepted (`accept`).
async fn work(request: Incoming, calls: Arc<Calls>) -> Response<AnyBody> {
    let operation = OperationHandle::from_extensions(request.extensions());
    let mut call = Call::begin(calls, operation.is_detached());
    let (parts, body) = request.into_parts();
    // An incomplete body ends the call.
    let Ok(body) = body.collect().await else {
        return Response::new(empty());
    };
    let deed = parts.uri.path().rsplit('/').next().unwrap();
    if deed == "accept" {
        operation.accept().await.unwrap();
    }
    if deed != "answer" {
        call.calls.gate.acquire().await.unwrap().forget();
    }
    call.finished = true;
    let number = parts.uri.query().unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", number.parse().unwrap());
    let response = Response::builder()
        .status(201)
        .header("x-number", number)
        .header("x-list", "a")
        .header("x-list", not_utf8())
        .header("trailer", "x-checksum");
    response
        .body(chunked(body.to_bytes(), Some(trailers)))
        .unwrap()
}

fn not_utf8() -> HeaderValue {
    HeaderValue::from_bytes(b"caf\xe9").unwrap()
}

/// Asserts an answer of the usual handler, sent early or as a result.
#[track_caller]
fn assert_answers(answer: &Answer, number: usize) {
    let number = number.to_string();
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(answer.header("x-number"), Some(&*number), "{answer:?}");
    let list: Vec<_> = answer.headers.get_all("x-list").iter().collect();
    assert_eq!(list, [&HeaderValue::from_static("a"), &not_utf8()]);
    assert_eq!(answer.text(), number);
    let trailers = answer.trailers.as_ref().expect("no trailers");
    assert_eq!(trailers["x-checksum"], *number);
}

/// Asserts that the handler's answer was sent unchanged and not as a result.
#[track_caller]
fn assert_is_early(answer: &Answer) {
    for name in ["operation-result", "location", "retry-after", "link"] {
        assert_eq!(answer.header(name), None, "{answer:?}");
    }
}

/// Asserts an operation that exists and has not ended.
#[track_caller]
fn assert_unfinished(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let state = answer.member("state").parse::<State>().unwrap();
    assert!(!state.is_terminal(), "{answer:?}");
}

impl World {
    async fn new(mode: Mode) -> Self {
        Self::with_layer(mode, |layer| layer).await
    }

    async fn with_layer(mode: Mode, configure: impl Fn(Layer) -> Layer) -> Self {
        let calls = Arc::new(Calls::new());
        let shared_calls = Arc::clone(&calls);
        let handler = move |request| work(request, Arc::clone(&shared_calls));
        Self {
            calls,
            ..Self::with(mode, configure, handler).await
        }
    }

    /// With a bound of `max_in_flight` operations.
    async fn with_max_in_flight(mode: Mode, max_in_flight: usize) -> Self {
        let calls = Arc::new(Calls::new());
        let shared_calls = Arc::clone(&calls);
        let handler = move |request| work(request, Arc::clone(&shared_calls));
        let store = MemoryStore::new();
        let operations = Operations::new(store.clone()).max_in_flight(max_in_flight);
        Self {
            calls,
            ..Self::from_operations(store, operations, mode, |layer| layer, handler).await
        }
    }

    /// With a custom handler.
    async fn with<F>(
        mode: Mode,
        configure: impl Fn(Layer) -> Layer,
        handler: impl Fn(Incoming) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        {
            let store = MemoryStore::new();
            let operations = Operations::new(store.clone());
            Self::from_operations(store, operations, mode, configure, handler).await
        }
    }

    async fn from_operations<F>(
        store: MemoryStore,
        operations: Operations<MemoryStore>,
        mode: Mode,
        configure: impl Fn(Layer) -> Layer,
        handler: impl Fn(Incoming) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let tasks = alive_tasks();
        let (layer, drain) = (operations.layer(), operations.drain_handle());
        let layer = configure(layer);
        let handler = service_fn(move |request| {
            let answer = handler(request);
            async { Ok::<_, Infallible>(answer.await) }
        });
        let route = |limit| {
            let layer = mode.apply(layer.clone(), limit);
            let builder = tower::ServiceBuilder::new().layer(layer);
            any_service(builder.service(handler.clone()))
        };
        let app = Router::new()
            .route("/short/{deed}", route(SHORT))
            .route("/long/{deed}", route(LONG))
            .nest_service("/operations", PollService::new(store.clone()));
        Self {
            mode,
            server: Server::hyper(app).await,
            store,
            drain,
            calls: Arc::new(Calls::new()),
            tasks,
        }
    }

    async fn client(&self, version: Version) -> Client {
        match version {
            Version::HTTP_2 => self.server.http2().await,
            _ => self.server.http1().await,
        }
    }

    fn started(&self) -> usize {
        self.calls.started.load(SeqCst)
    }

    fn dropped(&self) -> usize {
        self.calls.dropped.load(SeqCst)
    }

    fn open_gate(&self) {
        self.calls.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn wait_until_idle(&self) {
        let mode = self.mode;
        let case = format!("nothing is in flight, {mode:?}");
        until(&case, || self.drain.in_flight().operations == 0).await;
    }

    async fn operations(&self) -> Vec<Record<RecordedResponse>> {
        let query = ListQuery::new(None, 10_000);
        self.store.list(&query).await.unwrap().records
    }

    /// Asserts that every 202 ends with the answer to its own request.
    async fn assert_results(&self, client: &mut Client, accepted: &[(usize, String)]) {
        self.open_gate();
        self.wait_until_idle().await;
        for (number, location) in accepted {
            let operation = client.get(location).await;
            assert_eq!(operation.member("state"), "succeeded", "{operation:?}");
            let line = format!("GET {location}/result");
            let result = client.ask(&line, &[("te", "trailers")]).await;
            assert_answers(&result, *number);
            assert_eq!(result.header("operation-result"), Some("201"));
        }
    }

    /// Asserts that nothing is left behind. All clients must be dropped before.
    async fn assert_nothing_left(self) {
        self.wait_until_idle().await;
        let report = soon(self.drain.drain(Duration::from_secs(10))).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(self.store.waiters(), 0, "{:?}", self.mode);
        self.server.stop().await;
        let case = format!("no task is left, {:?}", self.mode);
        until(&case, || alive_tasks() == self.tasks).await;
    }
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

// ---- many requests on one connection ---------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_keep_alive_connection_serves_requests_in_sequence() {
    for mode in MODES {
        let world = World::new(mode).await;
        let mut raw = world.server.raw().await;
        let mut accepted = Vec::new();
        for number in 0..30 {
            if number % 3 == 0 {
                raw.send(mode.http1_request(Expected::Answer, number))
                    .await
                    .unwrap();
                let answer = raw.answer().await;
                assert_answers(&answer, number);
                assert_is_early(&answer);
            } else {
                raw.send(mode.http1_request(Expected::Accepted, number))
                    .await
                    .unwrap();
                let location = raw.answer().await.accepted();
                assert_unfinished(&raw.ask(&format!("GET {location}")).await);
                accepted.push((number, location));
            }
            assert!(raw.has_nothing_yet(), "{mode:?}");
        }
        drop(raw);
        assert_eq!(world.store.len(), accepted.len(), "{mode:?}");
        let mut client = world.server.http1().await;
        world.assert_results(&mut client, &accepted).await;
        drop(client);
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    const REQUESTS: usize = 60;
    for mode in MODES {
        let world = World::new(mode).await;
        let mut requests = String::new();
        for number in 0..REQUESTS {
            requests += &match number % 4 {
                0 => mode.http1_request(Expected::Answer, number),
                3 => format!("GET /operations/none-{number} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
                _ => mode.http1_request(Expected::Accepted, number),
            };
        }
        let mut raw = world.server.raw().await;
        raw.send(requests).await.unwrap();
        let mut accepted = Vec::new();
        for number in 0..REQUESTS {
            let answer = raw.answer().await;
            match number % 4 {
                0 => assert_answers(&answer, number),
                3 => {
                    let problem = answer.problem(404, "not-found");
                    let detail = problem["detail"].as_str().unwrap();
                    assert!(detail.contains(&format!("none-{number}.")), "{detail}");
                }
                _ => accepted.push((number, answer.accepted())),
            }
        }
        // Polls of the accepted operations are pipelined too.
        let polls = accepted
            .iter()
            .map(|(_, location)| format!("GET {location} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
        raw.send(polls.collect::<String>()).await.unwrap();
        for (_, location) in &accepted {
            let answer = raw.answer().await;
            assert_unfinished(&answer);
            assert!(location.ends_with(&answer.member("id")), "{mode:?}");
        }
        drop(raw);
        let mut client = world.server.http1().await;
        world.assert_results(&mut client, &accepted).await;
        drop(client);
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_of_one_connection_are_all_answered() {
    const STREAMS: usize = 1000;
    for mode in MODES {
        let world = World::new(mode).await;
        let mut client = world.server.http2().await;
        let mut answers = JoinSet::new();
        let mut bodies = Vec::new();
        for number in 0..STREAMS {
            let expected = match number % 4 {
                0 => Expected::Answer,
                _ => Expected::Accepted,
            };
            let (body, pieces) = piecemeal();
            bodies.push(body);
            let request = mode.with_body(expected, number, pieces);
            let mut stream = client.stream();
            answers.spawn(async move {
                let answer = stream.send(request).await;
                if expected == Expected::Answer {
                    assert_answers(&answer, number);
                    assert_is_early(&answer);
                    return None;
                }
                let location = answer.accepted();
                assert_unfinished(&stream.get(&location).await);
                Some((number, location))
            });
        }
        // No stream is answered before its body arrives.
        let open = || world.drain.in_flight().operations + world.calls.passing.load(SeqCst);
        until("all streams are open", || open() == STREAMS).await;
        assert!(world.store.is_empty(), "{mode:?}");
        for (number, body) in bodies.into_iter().enumerate() {
            body.send(number.to_string().into()).unwrap();
        }
        let accepted: Vec<_> = soon(answers.join_all())
            .await
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(accepted.len(), STREAMS * 3 / 4, "{mode:?}");
        assert_eq!(world.store.len(), accepted.len(), "{mode:?}");
        world.assert_results(&mut client, &accepted).await;
        drop(client);
        world.assert_nothing_left().await;
    }
}

// ---- slow bodies -----------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_collected_body_is_408_without_a_call_of_the_handler() {
    for mode in [Always, Preferred, After] {
        let with_body_timeout = |layer: Layer| layer.body_timeout(Duration::from_millis(50));
        let world = World::with_layer(mode, with_body_timeout).await;
        for (fields, begin) in [
            ("content-length: 10\r\n", "half "),
            ("transfer-encoding: chunked\r\n", "5\r\nhalf \r\n"),
        ] {
            let mut raw = world.server.raw().await;
            let head = mode.head(Expected::Accepted, 0, fields);
            raw.send(head + begin).await.unwrap();
            let answer = raw.answer().await;
            answer.problem(408, "body-timeout");
            assert_eq!(answer.header("connection"), Some("close"), "{mode:?}");
        }
        let mut client = world.server.http2().await;
        let (pieces, body) = piecemeal();
        pieces.send("half".into()).unwrap();
        let answer = client
            .send(mode.with_body(Expected::Accepted, 0, body))
            .await;
        answer.problem(408, "body-timeout");
        assert_eq!((world.started(), world.store.len()), (0, 0), "{mode:?}");
        // Only that stream is affected.
        let next = client.get("/operations/none").await;
        next.problem(404, "not-found");
        drop(client);
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_pieces_arrives_whole() {
    for mode in MODES {
        for version in VERSIONS {
            let world = World::new(mode).await;
            let mut client = world.client(version).await;
            let mut accepted = Vec::new();
            for (number, expected) in [(123_456, Expected::Accepted), (654_321, Expected::Answer)] {
                let (pieces, body) = piecemeal();
                let request = mode.with_body(expected, number, body);
                let client_task = tokio::spawn(async move {
                    let answer = client.send(request).await;
                    (client, answer)
                });
                let open = || world.drain.in_flight().operations + world.calls.passing.load(SeqCst);
                until("the request is in progress", || {
                    open() == accepted.len() + 1
                })
                .await;
                for digit in number.to_string().chars() {
                    assert!(!client_task.is_finished(), "{mode:?}");
                    pieces.send(digit.to_string().into()).unwrap();
                }
                assert_eq!(world.store.len(), accepted.len(), "{mode:?}");
                drop(pieces);
                let answer;
                (client, answer) = soon(client_task).await.unwrap();
                match expected {
                    Expected::Accepted => accepted.push((number, answer.accepted())),
                    _ => assert_answers(&answer, number),
                }
            }
            world.assert_results(&mut client, &accepted).await;
            drop(client);
            world.assert_nothing_left().await;
        }
    }
}

/// Reads a body piece by piece, reports each piece, and accepts at the piece `accept`.
async fn listen(request: Incoming, sender: mpsc::UnboundedSender<Bytes>) -> Response<AnyBody> {
    let operation = OperationHandle::from_extensions(request.extensions());
    let mut body = request.into_body();
    let mut received = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.unwrap().into_data() else {
            continue;
        };
        received.extend_from_slice(&piece);
        if piece == "accept" {
            operation.accept().await.unwrap();
        }
        if !piece.is_empty() {
            sender.send(piece).unwrap();
        }
    }
    Response::new(full(received))
}

/// A server whose handler reports each piece, and the receiver of these pieces.
async fn listening_world(mode: Mode) -> (World, mpsc::UnboundedReceiver<Bytes>) {
    let (sender, received) = mpsc::unbounded_channel();
    // The body time-out does not apply to a streamed body.
    let zero_timeout = |layer: Layer| layer.body_timeout(Duration::ZERO);
    let handler = move |request| listen(request, sender.clone());
    (World::with(mode, zero_timeout, handler).await, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signaled_body_streams_before_and_after_the_202_over_http_1() {
    let (world, mut received) = listening_world(Signaled).await;
    let mut raw = world.server.raw().await;
    let head = Signaled.head(Expected::Accepted, 0, "transfer-encoding: chunked\r\n");
    raw.send(head).await.unwrap();
    for piece in ["one ", "two ", "accept", " three", " four"] {
        let length = piece.len();
        raw.send(format!("{length:x}\r\n{piece}\r\n"))
            .await
            .unwrap();
        assert_eq!(soon(received.recv()).await.unwrap(), piece);
        if piece == "accept" {
            let location = raw.answer().await.accepted();
            let mut client = world.server.http1().await;
            assert_unfinished(&client.get(&location).await);
        } else {
            assert!(raw.has_nothing_yet());
        }
    }
    // The rest of the body is followed by the next request.
    raw.send(format!(
        "0\r\n\r\n{}",
        Signaled.head(Expected::Answer, 0, "content-length: 4\r\n") + "next"
    ))
    .await
    .unwrap();
    assert_eq!(raw.answer().await.text(), "next");
    world.wait_until_idle().await;
    let operations = world.operations().await;
    assert_eq!(operations.len(), 1);
    let result = operations[0].operation().result().expect("no result");
    assert_eq!(result.body().unwrap(), b"one two accept three four");
    drop(raw);
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signaled_body_streams_before_and_after_the_202_over_http_2() {
    let (world, mut received) = listening_world(Signaled).await;
    let mut client = world.server.http2().await;
    let (pieces, body) = piecemeal();
    let mut stream = client.stream();
    let request = Signaled.with_body(Expected::Accepted, 0, body);
    let client_task = tokio::spawn(async move { stream.send(request).await });
    for piece in ["one ", "two "] {
        pieces.send(piece.into()).unwrap();
        assert_eq!(soon(received.recv()).await.unwrap(), piece);
    }
    assert!(!client_task.is_finished() && world.store.is_empty());
    pieces.send("accept".into()).unwrap();
    let location = soon(client_task).await.unwrap().accepted();
    assert_eq!(soon(received.recv()).await.unwrap(), "accept");
    assert_unfinished(&client.get(&location).await);
    for piece in [" three", " four"] {
        pieces.send(piece.into()).unwrap();
        assert_eq!(soon(received.recv()).await.unwrap(), piece);
    }
    drop(pieces);
    world.wait_until_idle().await;
    let result = client.get(&format!("{location}/result")).await;
    assert_eq!(result.text(), "one two accept three four");
    drop(client);
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_passed_through_request_streams_too() {
    for mode in [Always, Preferred] {
        let (world, mut received) = listening_world(mode).await;
        let mut client = world.server.http2().await;
        let (pieces, body) = piecemeal();
        let request = mode.with_body(Expected::Answer, 0, body);
        let client_task = tokio::spawn(async move { client.send(request).await });
        for piece in ["one ", "two "] {
            pieces.send(piece.into()).unwrap();
            assert_eq!(soon(received.recv()).await.unwrap(), piece);
        }
        drop(pieces);
        assert_eq!(soon(client_task).await.unwrap().text(), "one two ");
        assert!(world.store.is_empty(), "{mode:?}");
        world.assert_nothing_left().await;
    }
}

// ---- disconnected clients ---------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_before_acceptance_drops_the_call() {
    for mode in MODES {
        let mut world = World::new(mode).await;
        // HTTP/1.1: the connection is closed.
        let mut raw = world.server.raw().await;
        raw.send(mode.http1_request(Expected::Stuck, 0))
            .await
            .unwrap();
        until("the call has started", || world.started() == 1).await;
        assert_eq!(world.dropped(), 0);
        drop(raw);
        until("the call is dropped", || world.dropped() == 1).await;
        world.server.ended(1).await;

        // HTTP/2: one stream is reset.
        let mut client = world.server.http2().await;
        for number in 1..3 {
            let mut stream = client.stream();
            let request = mode.with_body(Expected::Stuck, number, full(number.to_string()));
            let client_task = tokio::spawn(async move { stream.open(request).await.map(drop) });
            until("the call has started", || world.started() == number + 1).await;
            client_task.abort();
            until("the call is dropped", || world.dropped() == number + 1).await;
        }
        let request = mode.with_body(Expected::Answer, 3, full("3"));
        assert_answers(&client.send(request).await, 3);

        // HTTP/2: the connection is closed with all its streams.
        let mut streams = JoinSet::new();
        for number in 4..14 {
            let mut stream = client.stream();
            let request = mode.with_body(Expected::Stuck, number, full(number.to_string()));
            streams.spawn(async move { stream.open(request).await.map(drop) });
        }
        until("the calls have started", || world.started() == 14).await;
        drop(client);
        streams.shutdown().await;
        until("the calls are dropped", || world.dropped() == 13).await;

        assert!(world.store.is_empty(), "{mode:?}");
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_within_the_body_leaves_nothing() {
    for mode in MODES {
        let mut world = World::new(mode).await;
        for (index, fields) in ["content-length: 10\r\n", "transfer-encoding: chunked\r\n"]
            .into_iter()
            .enumerate()
        {
            let mut raw = world.server.raw().await;
            let head = mode.head(Expected::Accepted, 0, fields);
            raw.send(head + "4\r\nhalf").await.unwrap();
            until("the request is admitted", || {
                world.drain.in_flight().operations == 1
            })
            .await;
            drop(raw);
            world.server.ended(index + 1).await;
            world.wait_until_idle().await;
        }
        let client = world.server.http2().await;
        let mut stream = client.stream();
        let (pieces, body) = piecemeal();
        pieces.send("half".into()).unwrap();
        let request = mode.with_body(Expected::Accepted, 0, body);
        let client_task = tokio::spawn(async move { stream.open(request).await.map(drop) });
        until("the request is admitted", || {
            world.drain.in_flight().operations == 1
        })
        .await;
        client_task.abort();
        world.wait_until_idle().await;
        // The handler is called only where bodies stream.
        assert_eq!(world.started() > 0, mode == Signaled, "{mode:?}");
        assert_eq!(world.dropped(), world.started(), "{mode:?}");
        assert!(world.store.is_empty(), "{mode:?}");
        drop((client, pieces));
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_after_acceptance_changes_nothing() {
    for mode in MODES {
        let mut world = World::new(mode).await;
        let mut raw = world.server.raw().await;
        raw.send(mode.http1_request(Expected::Accepted, 0))
            .await
            .unwrap();
        let mut accepted = vec![(0, raw.answer().await.accepted())];
        drop(raw);
        world.server.ended(1).await;

        let mut client = world.server.http2().await;
        for number in 1..11 {
            let request = mode.with_body(Expected::Accepted, number, full(number.to_string()));
            // The client does not read the body of the 202.
            let response = client.open(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::ACCEPTED, "{mode:?}");
            let location = response.headers()["location"].to_str().unwrap();
            accepted.push((number, location.to_owned()));
        }
        drop(client);
        world.server.ended(2).await;

        until("all calls have started", || world.started() == 11).await;
        assert_eq!(world.drain.in_flight().operations, 11, "{mode:?}");
        assert_eq!(world.dropped(), 0, "{mode:?}");
        let mut client = world.server.http1().await;
        world.assert_results(&mut client, &accepted).await;
        assert_eq!(world.dropped(), 0, "{mode:?}");
        drop(client);
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_at_any_moment_leaves_nothing_or_an_operation_that_ends() {
    const CLIENTS: usize = 60;
    for mode in MODES {
        let mut world = World::new(mode).await;
        let mut accepted = Vec::new();
        for number in 0..CLIENTS {
            let mut raw = world.server.raw().await;
            raw.send(mode.http1_request(Expected::Accepted, number))
                .await
                .unwrap();
            if number.is_multiple_of(2) {
                for _ in 0..number * number {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            // Some clients wait until the operation is about to be created.
            let wait_time = SHORT * 2 * number as u32 / CLIENTS as u32;
            if let Ok(answer) = timeout(wait_time, raw.answer()).await {
                accepted.push((number, answer.accepted()));
            }
        }
        world.server.ended(CLIENTS).await;
        let mut client = world.server.http1().await;
        world.assert_results(&mut client, &accepted).await;
        drop(client);
        let operations = world.operations().await;
        for record in &operations {
            let state = record.operation().state();
            assert_eq!(state, State::Succeeded, "{mode:?}");
        }
        let finished = world.calls.finished.load(SeqCst);
        assert_eq!(finished, operations.len(), "{mode:?}");
        assert_eq!(finished + world.dropped(), world.started(), "{mode:?}");
        world.assert_nothing_left().await;
    }
}

// ---- early answers ----------------------------------------------------------

type Bodies = Arc<Mutex<Option<AnyBody>>>;

#[tokio::test(flavor = "multi_thread")]
async fn early_answers_stream_unchanged() {
    for mode in MODES {
        let bodies = Bodies::default();
        let next = Arc::clone(&bodies);
        let world = World::with(
            mode,
            |layer| layer,
            move |_| {
                let body = next.lock().unwrap().take().expect("no body");
                let response = Response::builder()
                    .status(StatusCode::UNPROCESSABLE_ENTITY)
                    .header("trailer", "x-checksum, x-odd")
                    .header("x-list", "a")
                    .header("x-list", not_utf8())
                    .header("set-cookie", "session=1")
                    .header("vary", "Accept")
                    .header("cache-control", "max-age=60")
                    .header("date", "Sun, 06 Nov 1994 08:49:37 GMT");
                std::future::ready(response.body(body).unwrap())
            },
        )
        .await;
        for version in VERSIONS {
            let mut client = world.client(version).await;
            for disconnects in [false, true] {
                let (frames, body) = framewise();
                *bodies.lock().unwrap() = Some(body);
                let request = mode.with_body(Expected::Answer, 0, empty());
                let response = client.open(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
                let mut headers = response.headers().clone();
                headers.remove("transfer-encoding");
                let mut vary: Vec<_> = headers.get_all("vary").iter().cloned().collect();
                if matches!(mode, Preferred | After) {
                    assert_eq!(vary.pop().unwrap(), "Prefer", "{mode:?}");
                }
                assert_eq!(vary, ["Accept"], "{mode:?}");
                headers.remove("vary");
                let list: Vec<_> = headers.get_all("x-list").iter().collect();
                assert_eq!(list, [&HeaderValue::from_static("a"), &not_utf8()]);
                headers.remove("x-list");
                let mut rest: Vec<_> = headers.iter().collect();
                rest.sort_by_key(|(name, _)| name.as_str());
                let rest = rest
                    .into_iter()
                    .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
                assert_eq!(
                    rest.collect::<Vec<_>>(),
                    [
                        "cache-control: max-age=60",
                        "date: Sun, 06 Nov 1994 08:49:37 GMT",
                        "set-cookie: session=1",
                        "trailer: x-checksum, x-odd",
                    ],
                    "{mode:?} {version:?}"
                );
                let mut body = response.into_body();
                for piece in ["one", "two", "three"] {
                    frames.send(Frame::data(piece.into())).unwrap();
                    assert_eq!(next_piece(&mut body).await.unwrap(), piece);
                }
                if disconnects {
                    // A disconnect drops the body.
                    drop(body);
                    drop(client);
                    soon(frames.closed()).await;
                    break;
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("x-checksum", HeaderValue::from_static("abc"));
                trailers.insert("x-odd", not_utf8());
                frames.send(Frame::trailers(trailers.clone())).unwrap();
                drop(frames);
                let rest = soon(body.collect()).await.unwrap();
                assert_eq!(rest.trailers(), Some(&trailers), "{mode:?} {version:?}");
            }
        }
        assert!(world.store.is_empty(), "{mode:?}");
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn early_answers_keep_their_length_and_their_fields() {
    for mode in MODES {
        let world = World::with(
            mode,
            |layer| layer,
            async |_: Incoming| {
                // The answer even looks like one of this crate.
                let response = Response::builder()
                    .status(StatusCode::ACCEPTED)
                    .header("location", "/elsewhere")
                    .header("retry-after", "77");
                response.body(full("mine")).unwrap()
            },
        )
        .await;
        let mut raw = world.server.raw().await;
        raw.send(mode.http1_request(Expected::Answer, 0))
            .await
            .unwrap();
        let answer = raw.answer().await;
        assert_eq!(answer.accepted(), "/elsewhere");
        assert_eq!(answer.header("retry-after"), Some("77"));
        assert_eq!(answer.header("content-length"), Some("4"), "{mode:?}");
        assert_eq!(answer.header("transfer-encoding"), None, "{mode:?}");
        assert_eq!(answer.header("preference-applied"), None, "{mode:?}");
        assert_eq!(answer.text(), "mine");
        drop(raw);
        assert!(world.store.is_empty(), "{mode:?}");
        world.assert_nothing_left().await;
    }
}

// ---- 100-continue and upgrades ---------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_body_gets_100_continue() {
    for mode in MODES {
        let world = World::new(mode).await;
        let mut raw = world.server.raw().await;
        let mut accepted = Vec::new();
        for (number, expected) in [
            Expected::Accepted,
            Expected::Answer,
            Expected::Accepted,
            Expected::Answer,
        ]
        .into_iter()
        .enumerate()
        {
            let fields = "content-length: 1\r\nexpect: 100-continue\r\n";
            raw.send(mode.head(expected, number, fields)).await.unwrap();
            let interim = raw.answer().await;
            assert_eq!(interim.status, StatusCode::CONTINUE, "{mode:?}");
            raw.send(number.to_string()).await.unwrap();
            let answer = raw.answer().await;
            match expected {
                Expected::Accepted => accepted.push((number, answer.accepted())),
                _ => assert_answers(&answer, number),
            }
        }
        drop(raw);
        let mut client = world.server.http1().await;
        world.assert_results(&mut client, &accepted).await;
        drop(client);
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_the_body_comes_in_place_of_100_continue() {
    // A body that is not read gets no 100 Continue.
    for mode in [Always, Preferred, Signaled] {
        let refuse = async |_: Incoming| {
            let response = Response::builder().status(StatusCode::FORBIDDEN);
            response.body(full("no")).unwrap()
        };
        let world = World::with(mode, |layer| layer, refuse).await;
        let mut raw = world.server.raw().await;
        let fields = "content-length: 4\r\nexpect: 100-continue\r\n";
        raw.send(mode.head(Expected::Answer, 0, fields))
            .await
            .unwrap();
        let answer = raw.answer().await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{mode:?}");
        assert_eq!(answer.text(), "no");
        // The body may or may not follow here. The start of the next request is
        // therefore unknown, and the connection closes.
        assert!(raw.is_closed().await, "{mode:?}");
        assert!(world.store.is_empty(), "{mode:?}");
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_accepts_before_it_reads_the_body() {
    let handler = async |request: Incoming| {
        let operation = OperationHandle::from_extensions(request.extensions());
        operation.accept().await.unwrap();
        let body = request.into_body().collect().await.unwrap();
        Response::new(full(body.to_bytes()))
    };
    let world = World::with(Signaled, |layer| layer, handler).await;
    for _ in 0..20 {
        let mut raw = world.server.raw().await;
        let fields = "content-length: 4\r\nexpect: 100-continue\r\n";
        raw.send(Signaled.head(Expected::Accepted, 0, fields))
            .await
            .unwrap();
        // The 100 Continue may come first, or the 202, which permits the body too.
        let mut answer = raw.answer().await;
        if answer.status == StatusCode::CONTINUE {
            answer = raw.answer().await;
        }
        let location = answer.accepted();
        raw.send("four").await.unwrap();
        let result = raw.ask(&format!("GET {location}/result?wait=20")).await;
        assert_eq!(result.text(), "four");
    }
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_pass_through_and_complete() {
    async fn echo(mut request: Incoming) -> Response<AnyBody> {
        assert!(OperationHandle::from_extensions(request.extensions()).is_detached());
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut from, mut to) = split(TokioIo::new(upgraded.await.unwrap()));
            copy(&mut from, &mut to).await.unwrap();
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo");
        response.body(empty()).unwrap()
    }
    for mode in MODES {
        let world = World::with(mode, |layer| layer, echo).await;
        for method in ["GET", "POST"] {
            let mut raw = world.server.raw().await;
            raw.send(format!(
                "{method} /short/any HTTP/1.1\r\nhost: localhost\r\n\
                 prefer: respond-async, wait=1\r\n\
                 connection: upgrade\r\nupgrade: echo\r\n\r\n"
            ))
            .await
            .unwrap();
            let answer = raw.answer().await;
            assert_eq!(answer.status, StatusCode::SWITCHING_PROTOCOLS, "{mode:?}");
            assert_eq!(answer.header("preference-applied"), None, "{mode:?}");
            assert_eq!(answer.header("vary"), None, "{mode:?}");
            for word in ["to", "and fro"] {
                raw.send(word).await.unwrap();
                assert_eq!(raw.exactly(word.len()).await.unwrap(), word.as_bytes());
            }
        }
        assert!(world.store.is_empty(), "{mode:?}");
        world.assert_nothing_left().await;
    }
}

// ---- applied preferences ----------------------------------------------------

fn list(answer: &Answer, name: &str) -> Vec<String> {
    let values = answer.headers.get_all(name).iter();
    values
        .flat_map(|value| value.to_str().unwrap().split(','))
        .map(|item| item.trim().to_owned())
        .collect()
}

/// The `Prefer` fields of a request, its path, and the status and the applied
/// preferences of the answer.
type Row = (
    &'static [&'static str],
    &'static str,
    u16,
    &'static [&'static str],
);

const ASYNC: &str = "respond-async";

/// Requests and their answers. A wait of less than a second is not reported as applied.
fn rows(mode: Mode) -> Vec<Row> {
    match mode {
        Always => vec![
            (&[], "/long/hold", 202, &[]),
            (&["foo, return=minimal"], "/long/hold", 202, &[]),
            (&[ASYNC], "/long/hold", 202, &[ASYNC]),
            (&["wait=0"], "/long/hold", 202, &[]),
            (&["wait=20"], "/long/answer", 201, &["wait=20"]),
            (&["wait=20"], "/short/hold", 202, &[]),
            (&["wait=20", ASYNC], "/long/answer", 201, &["wait=20"]),
            (
                &["Respond-Async; a=b", "WAIT = \"20\", wait=0"],
                "/short/hold",
                202,
                &[ASYNC],
            ),
        ],
        Preferred => vec![
            (&[], "/long/answer", 201, &[]),
            (&["wait=20"], "/short/answer", 201, &[]),
            (&["foo=\"respond-async\""], "/long/answer", 201, &[]),
            (&["foo", ASYNC], "/long/hold", 202, &[ASYNC]),
            (&[ASYNC, "wait=20"], "/long/answer", 201, &["wait=20"]),
            (&["respond-async,wait=20"], "/short/hold", 202, &[ASYNC]),
        ],
        After => vec![
            (&[], "/long/answer", 201, &[]),
            (&[], "/short/hold", 202, &[]),
            (&[ASYNC], "/short/hold", 202, &[ASYNC]),
            (&[ASYNC], "/long/answer", 201, &[]),
            (&["wait=20"], "/long/answer", 201, &["wait=20"]),
            (&["respond-async, wait=20"], "/short/hold", 202, &[ASYNC]),
        ],
        Signaled => vec![
            (&[], "/long/answer", 201, &[]),
            (&["respond-async, wait=20"], "/long/answer", 201, &[]),
            (&["respond-async, wait=20"], "/long/accept", 202, &[]),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_name_the_applied_preferences() {
    for mode in MODES {
        let world = World::new(mode).await;
        for version in VERSIONS {
            let mut client = world.client(version).await;
            for (prefer, path, status, applied) in rows(mode) {
                let mut fields: Vec<_> = prefer.iter().map(|value| ("prefer", *value)).collect();
                let line = format!("POST {path}?0");
                let answer = client.ask(&line, &fields).await;
                let case = format!("{mode:?} {prefer:?} {path}: {answer:?}");
                assert_eq!(answer.status, status, "{case}");
                assert_eq!(list(&answer, "preference-applied"), applied, "{case}");
                let vary: &[&str] = match mode {
                    Signaled => &[],
                    _ => &["Prefer"],
                };
                assert_eq!(list(&answer, "vary"), vary, "{case}");
                // A passed-through request has no applied preferences.
                fields.push(("x-other", "1"));
                let answer = client.ask("GET /long/answer?0", &fields).await;
                assert_eq!(answer.status, StatusCode::CREATED);
                assert!(list(&answer, "preference-applied").is_empty(), "{case}");
                assert!(list(&answer, "vary").is_empty(), "{case}");
            }
        }
        world.open_gate();
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_has_no_applied_preferences() {
    for mode in MODES {
        let world = World::with_max_in_flight(mode, 0).await;
        for version in VERSIONS {
            let mut client = world.client(version).await;
            let prefer = [("prefer", "respond-async, wait=20")];
            let answer = client.ask("POST /short/accept?0", &prefer).await;
            answer.problem(503, "overloaded");
            assert_eq!(list(&answer, "preference-applied"), [""; 0], "{mode:?}");
        }
        assert_eq!(world.started(), 0, "{mode:?}");
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn preferences_applied_by_the_handler_are_named_too() {
    for mode in [Always, Preferred, After] {
        let minimal = async |_: Incoming| {
            let response = Response::builder()
                .header("preference-applied", "return=minimal")
                .header("vary", "Accept, Prefer");
            response.body(empty()).unwrap()
        };
        let world = World::with(mode, |layer| layer, minimal).await;
        let mut client = world.server.http1().await;
        let prefer = [("prefer", "return=minimal, respond-async, wait=20")];
        let answer = client.ask("POST /long/answer?0", &prefer).await;
        assert_eq!(answer.status, StatusCode::OK, "{mode:?}");
        let mut applied = list(&answer, "preference-applied");
        applied.sort();
        assert_eq!(applied, ["return=minimal", "wait=20"], "{mode:?}");
        let vary = list(&answer, "vary");
        assert!(vary.contains(&"Accept".into()) && vary.contains(&"Prefer".into()));
        drop(client);
        world.assert_nothing_left().await;
    }
}
