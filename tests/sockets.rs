//! Every accept mode over real sockets: keep-alive and pipelining, a thousand
//! streams on one connection, slow bodies, clients that hang up.

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

/// What a request is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Get {
    /// A 202.
    Accepted,
    /// The handler's own answer.
    Answer,
    /// The handler's own answer, had it one: it gets stuck.
    Stuck,
}

/// What waits no longer than this is soon an operation.
const SHORT: Duration = Duration::from_millis(10);
/// What waits no longer than this is answered before.
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

    /// Method, target and fields of the request that gets `get` in this mode.
    fn request(self, get: Get, number: usize) -> (Method, String, &'static str) {
        let method = match (self, get) {
            (Always, Get::Answer | Get::Stuck) => Method::OPTIONS,
            _ => Method::POST,
        };
        let path = match (self, get) {
            (After, Get::Accepted) => "/short",
            _ => "/long",
        };
        let deed = match (self, get) {
            (_, Get::Answer) => "answer",
            (Signaled, Get::Accepted) => "accept",
            _ => "hold",
        };
        let prefer = match (self, get) {
            (Preferred, Get::Accepted) => "respond-async",
            _ => "",
        };
        (method, format!("{path}/{deed}?{number}"), prefer)
    }

    /// The request, with whatever body.
    fn with_body<B>(self, get: Get, number: usize, body: B) -> Request<B> {
        let (method, uri, prefer) = self.request(get, number);
        let mut request = Request::builder().method(method).uri(uri);
        request = request.header("te", "trailers");
        if !prefer.is_empty() {
            request = request.header("prefer", prefer);
        }
        request.body(body).unwrap()
    }

    /// The head of the request in HTTP/1.1, with `fields` in it.
    fn head(self, get: Get, number: usize, fields: &str) -> String {
        let (method, uri, prefer) = self.request(get, number);
        let prefer = match prefer {
            "" => String::new(),
            prefer => format!("prefer: {prefer}\r\n"),
        };
        format!(
            "{method} {uri} HTTP/1.1\r\nhost: localhost\r\n\
             te: trailers\r\nconnection: te\r\n{prefer}{fields}\r\n"
        )
    }

    /// The whole request in HTTP/1.1; its body is its number.
    fn whole(self, get: Get, number: usize) -> String {
        let text = number.to_string();
        let length = text.len();
        match number.is_multiple_of(2) {
            true => self.head(get, number, &format!("content-length: {length}\r\n")) + &text,
            false => {
                let head = self.head(get, number, "transfer-encoding: chunked\r\n");
                format!("{head}{length:x}\r\n{text}\r\n0\r\n\r\n")
            }
        }
    }
}

/// A server of one mode, and all that could leak from it.
struct World {
    mode: Mode,
    server: Server,
    store: MemoryStore,
    drain: Drain,
    calls: Arc<Calls>,
    /// Alive tasks before there was a server.
    tasks: usize,
}

/// The calls of the usual handler.
struct Calls {
    begun: AtomicUsize,
    /// Those that no operation is or will be behind.
    passing: AtomicUsize,
    finished: AtomicUsize,
    dropped: AtomicUsize,
    /// The handler takes one to go on.
    gate: Semaphore,
}

impl Calls {
    /// None yet, and the gate is closed.
    fn new() -> Self {
        Self {
            begun: AtomicUsize::new(0),
            passing: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        }
    }
}

/// Counts a call, and how it ends.
struct Call {
    calls: Arc<Calls>,
    passes: bool,
    finished: bool,
}

impl Call {
    fn begin(calls: Arc<Calls>, passes: bool) -> Self {
        calls.begun.fetch_add(1, SeqCst);
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

/// The usual handler: sends back what it got, as its path says: at once
/// (`answer`), when it may (`hold`), or after it has accepted and when it may
/// (`accept`).
async fn work(request: Incoming, calls: Arc<Calls>) -> Response<AnyBody> {
    let operation = OperationHandle::from_extensions(request.extensions());
    let mut call = Call::begin(calls, operation.is_detached());
    let (parts, body) = request.into_parts();
    // A body that breaks off is the end of the call.
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

/// What the usual handler answers, whichever way it comes.
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

/// The handler's answer went out as it is, not as a result.
#[track_caller]
fn assert_is_early(answer: &Answer) {
    for name in ["operation-result", "location", "retry-after", "link"] {
        assert_eq!(answer.header(name), None, "{answer:?}");
    }
}

/// An operation that is there and has not ended.
#[track_caller]
fn assert_unfinished(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let state = answer.member("state").parse::<State>().unwrap();
    assert!(!state.is_terminal(), "{answer:?}");
}

impl World {
    async fn new(mode: Mode) -> Self {
        Self::configured(mode, |layer| layer).await
    }

    async fn configured(mode: Mode, configure: impl Fn(Layer) -> Layer) -> Self {
        let calls = Arc::new(Calls::new());
        let counted = Arc::clone(&calls);
        let handler = move |request| work(request, Arc::clone(&counted));
        Self {
            calls,
            ..Self::with(mode, configure, handler).await
        }
    }

    /// With room for so many operations.
    async fn bounded(mode: Mode, max_in_flight: usize) -> Self {
        let calls = Arc::new(Calls::new());
        let counted = Arc::clone(&calls);
        let handler = move |request| work(request, Arc::clone(&counted));
        let store = MemoryStore::new();
        let operations = Operations::new(store.clone()).max_in_flight(max_in_flight);
        Self {
            calls,
            ..Self::of(store, operations, mode, |layer| layer, handler).await
        }
    }

    /// With a handler of one's own.
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
            Self::of(store, operations, mode, configure, handler).await
        }
    }

    async fn of<F>(
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
            let layered = tower::ServiceBuilder::new().layer(layer);
            any_service(layered.service(handler.clone()))
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

    fn begun(&self) -> usize {
        self.calls.begun.load(SeqCst)
    }

    fn dropped(&self) -> usize {
        self.calls.dropped.load(SeqCst)
    }

    fn open_the_gate(&self) {
        self.calls.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn is_idle(&self) {
        let mode = self.mode;
        let what = format!("nothing is in flight, {mode:?}");
        until(&what, || self.drain.in_flight() == 0).await;
    }

    async fn operations(&self) -> Vec<Arc<Record<RecordedResponse>>> {
        let query = ListQuery::new(None, 10_000);
        self.store.list(&query).await.unwrap().records
    }

    /// Every 202 comes to its end, with the answer to its own request.
    async fn assert_results(&self, client: &mut Client, accepted: &[(usize, String)]) {
        self.open_the_gate();
        self.is_idle().await;
        for (number, location) in accepted {
            let operation = client.get(location).await;
            assert_eq!(operation.member("state"), "succeeded", "{operation:?}");
            let line = format!("GET {location}/result");
            let result = client.ask(&line, &[("te", "trailers")]).await;
            assert_answers(&result, *number);
            assert_eq!(result.header("operation-result"), Some("201"));
        }
    }

    /// Nothing is left behind. All clients have to be gone.
    async fn assert_nothing_left(self) {
        self.is_idle().await;
        let report = soon(self.drain.drain(Duration::from_secs(10))).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(self.store.waiters(), 0, "{:?}", self.mode);
        self.server.stop().await;
        let what = format!("no task is left, {:?}", self.mode);
        until(&what, || alive_tasks() == self.tasks).await;
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
async fn a_kept_alive_connection_serves_one_request_after_the_other() {
    for mode in MODES {
        let world = World::new(mode).await;
        let mut raw = world.server.raw().await;
        let mut accepted = Vec::new();
        for number in 0..30 {
            if number % 3 == 0 {
                raw.send(mode.whole(Get::Answer, number)).await.unwrap();
                let answer = raw.answer().await;
                assert_answers(&answer, number);
                assert_is_early(&answer);
            } else {
                raw.send(mode.whole(Get::Accepted, number)).await.unwrap();
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
async fn pipelined_requests_are_answered_in_their_order() {
    const REQUESTS: usize = 60;
    for mode in MODES {
        let world = World::new(mode).await;
        let mut all = String::new();
        for number in 0..REQUESTS {
            all += &match number % 4 {
                0 => mode.whole(Get::Answer, number),
                3 => format!("GET /operations/none-{number} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
                _ => mode.whole(Get::Accepted, number),
            };
        }
        let mut raw = world.server.raw().await;
        raw.send(all).await.unwrap();
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
        // And what was accepted is read the same way.
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
async fn a_thousand_streams_of_one_connection_are_each_answered() {
    const STREAMS: usize = 1000;
    for mode in MODES {
        let world = World::new(mode).await;
        let mut client = world.server.http2().await;
        let mut answers = JoinSet::new();
        let mut bodies = Vec::new();
        for number in 0..STREAMS {
            let get = match number % 4 {
                0 => Get::Answer,
                _ => Get::Accepted,
            };
            let (body, pieces) = piecemeal();
            bodies.push(body);
            let request = mode.with_body(get, number, pieces);
            let mut stream = client.stream();
            answers.spawn(async move {
                let answer = stream.send(request).await;
                if get == Get::Answer {
                    assert_answers(&answer, number);
                    assert_is_early(&answer);
                    return None;
                }
                let location = answer.accepted();
                assert_unfinished(&stream.get(&location).await);
                Some((number, location))
            });
        }
        // Their bodies have not come, so none of them has been answered.
        let open = || world.drain.in_flight() + world.calls.passing.load(SeqCst);
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
async fn a_slow_body_is_408_where_it_is_collected_and_its_handler_never_called() {
    for mode in [Always, Preferred, After] {
        let slow = |layer: Layer| layer.body_timeout(Duration::from_millis(50));
        let world = World::configured(mode, slow).await;
        for (fields, begin) in [
            ("content-length: 10\r\n", "half "),
            ("transfer-encoding: chunked\r\n", "5\r\nhalf \r\n"),
        ] {
            let mut raw = world.server.raw().await;
            let head = mode.head(Get::Accepted, 0, fields);
            raw.send(head + begin).await.unwrap();
            let answer = raw.answer().await;
            answer.problem(408, "body-timeout");
            assert_eq!(answer.header("connection"), Some("close"), "{mode:?}");
        }
        let mut client = world.server.http2().await;
        let (pieces, body) = piecemeal();
        pieces.send("half".into()).unwrap();
        let answer = client.send(mode.with_body(Get::Accepted, 0, body)).await;
        answer.problem(408, "body-timeout");
        assert_eq!((world.begun(), world.store.len()), (0, 0), "{mode:?}");
        // Only that stream.
        let next = client.get("/operations/none").await;
        next.problem(404, "not-found");
        drop(client);
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_in_pieces_comes_whole() {
    for mode in MODES {
        for version in VERSIONS {
            let world = World::new(mode).await;
            let mut client = world.client(version).await;
            let mut accepted = Vec::new();
            for (number, get) in [(123_456, Get::Accepted), (654_321, Get::Answer)] {
                let (pieces, body) = piecemeal();
                let request = mode.with_body(get, number, body);
                let sending = tokio::spawn(async move {
                    let answer = client.send(request).await;
                    (client, answer)
                });
                let open = || world.drain.in_flight() + world.calls.passing.load(SeqCst);
                until("it is there", || open() == accepted.len() + 1).await;
                for digit in number.to_string().chars() {
                    assert!(!sending.is_finished(), "{mode:?}");
                    pieces.send(digit.to_string().into()).unwrap();
                }
                assert_eq!(world.store.len(), accepted.len(), "{mode:?}");
                drop(pieces);
                let answer;
                (client, answer) = soon(sending).await.unwrap();
                match get {
                    Get::Accepted => accepted.push((number, answer.accepted())),
                    _ => assert_answers(&answer, number),
                }
            }
            world.assert_results(&mut client, &accepted).await;
            drop(client);
            world.assert_nothing_left().await;
        }
    }
}

/// Reads piece after piece, tells of each, and accepts when one says so.
async fn listen(request: Incoming, tell: mpsc::UnboundedSender<Bytes>) -> Response<AnyBody> {
    let operation = OperationHandle::from_extensions(request.extensions());
    let mut body = request.into_body();
    let mut heard = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.unwrap().into_data() else {
            continue;
        };
        heard.extend_from_slice(&piece);
        if piece == "accept" {
            operation.accept().await.unwrap();
        }
        if !piece.is_empty() {
            tell.send(piece).unwrap();
        }
    }
    Response::new(full(heard))
}

/// A server that listens, and what it hears.
async fn listening(mode: Mode) -> (World, mpsc::UnboundedReceiver<Bytes>) {
    let (tell, heard) = mpsc::unbounded_channel();
    // However slow a body is.
    let hasty = |layer: Layer| layer.body_timeout(Duration::ZERO);
    let handler = move |request| listen(request, tell.clone());
    (World::with(mode, hasty, handler).await, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signaled_body_streams_to_its_handler_before_and_after_the_202_over_http_1() {
    let (world, mut heard) = listening(Signaled).await;
    let mut raw = world.server.raw().await;
    let head = Signaled.head(Get::Accepted, 0, "transfer-encoding: chunked\r\n");
    raw.send(head).await.unwrap();
    for piece in ["one ", "two ", "accept", " three", " four"] {
        let length = piece.len();
        raw.send(format!("{length:x}\r\n{piece}\r\n"))
            .await
            .unwrap();
        assert_eq!(soon(heard.recv()).await.unwrap(), piece);
        if piece == "accept" {
            let location = raw.answer().await.accepted();
            let mut client = world.server.http1().await;
            assert_unfinished(&client.get(&location).await);
        } else {
            assert!(raw.has_nothing_yet());
        }
    }
    // The rest of the body, and the next request behind it.
    raw.send(format!(
        "0\r\n\r\n{}",
        Signaled.head(Get::Answer, 0, "content-length: 4\r\n") + "next"
    ))
    .await
    .unwrap();
    assert_eq!(raw.answer().await.text(), "next");
    world.is_idle().await;
    let operations = world.operations().await;
    assert_eq!(operations.len(), 1);
    let result = operations[0].operation().result().expect("no result");
    assert_eq!(result.body(), "one two accept three four");
    drop(raw);
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signaled_body_streams_to_its_handler_before_and_after_the_202_over_http_2() {
    let (world, mut heard) = listening(Signaled).await;
    let mut client = world.server.http2().await;
    let (pieces, body) = piecemeal();
    let mut stream = client.stream();
    let request = Signaled.with_body(Get::Accepted, 0, body);
    let sending = tokio::spawn(async move { stream.send(request).await });
    for piece in ["one ", "two "] {
        pieces.send(piece.into()).unwrap();
        assert_eq!(soon(heard.recv()).await.unwrap(), piece);
    }
    assert!(!sending.is_finished() && world.store.is_empty());
    pieces.send("accept".into()).unwrap();
    let location = soon(sending).await.unwrap().accepted();
    assert_eq!(soon(heard.recv()).await.unwrap(), "accept");
    assert_unfinished(&client.get(&location).await);
    for piece in [" three", " four"] {
        pieces.send(piece.into()).unwrap();
        assert_eq!(soon(heard.recv()).await.unwrap(), piece);
    }
    drop(pieces);
    world.is_idle().await;
    let result = client.get(&format!("{location}/result")).await;
    assert_eq!(result.text(), "one two accept three four");
    drop(client);
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_what_passes_through_streams_too() {
    for mode in [Always, Preferred] {
        let (world, mut heard) = listening(mode).await;
        let mut client = world.server.http2().await;
        let (pieces, body) = piecemeal();
        let request = mode.with_body(Get::Answer, 0, body);
        let sending = tokio::spawn(async move { client.send(request).await });
        for piece in ["one ", "two "] {
            pieces.send(piece.into()).unwrap();
            assert_eq!(soon(heard.recv()).await.unwrap(), piece);
        }
        drop(pieces);
        assert_eq!(soon(sending).await.unwrap().text(), "one two ");
        assert!(world.store.is_empty(), "{mode:?}");
        world.assert_nothing_left().await;
    }
}

// ---- clients that hang up --------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_before_it_is_accepted_takes_the_call_with_it() {
    for mode in MODES {
        let mut world = World::new(mode).await;
        // The connection, over HTTP/1.1.
        let mut raw = world.server.raw().await;
        raw.send(mode.whole(Get::Stuck, 0)).await.unwrap();
        until("the call is there", || world.begun() == 1).await;
        assert_eq!(world.dropped(), 0);
        drop(raw);
        until("the call is gone", || world.dropped() == 1).await;
        world.server.ended(1).await;

        // One stream, over HTTP/2.
        let mut client = world.server.http2().await;
        for number in 1..3 {
            let mut stream = client.stream();
            let request = mode.with_body(Get::Stuck, number, full(number.to_string()));
            let sending = tokio::spawn(async move { stream.open(request).await.map(drop) });
            until("the call is there", || world.begun() == number + 1).await;
            sending.abort();
            until("the call is gone", || world.dropped() == number + 1).await;
        }
        let request = mode.with_body(Get::Answer, 3, full("3"));
        assert_answers(&client.send(request).await, 3);

        // All streams, with their connection.
        let mut streams = JoinSet::new();
        for number in 4..14 {
            let mut stream = client.stream();
            let request = mode.with_body(Get::Stuck, number, full(number.to_string()));
            streams.spawn(async move { stream.open(request).await.map(drop) });
        }
        until("the calls are there", || world.begun() == 14).await;
        drop(client);
        streams.shutdown().await;
        until("the calls are gone", || world.dropped() == 13).await;

        assert!(world.store.is_empty(), "{mode:?}");
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_in_the_midst_of_its_body_leaves_nothing() {
    for mode in MODES {
        let mut world = World::new(mode).await;
        for (index, fields) in ["content-length: 10\r\n", "transfer-encoding: chunked\r\n"]
            .into_iter()
            .enumerate()
        {
            let mut raw = world.server.raw().await;
            let head = mode.head(Get::Accepted, 0, fields);
            raw.send(head + "4\r\nhalf").await.unwrap();
            until("it is let in", || world.drain.in_flight() == 1).await;
            drop(raw);
            world.server.ended(index + 1).await;
            world.is_idle().await;
        }
        let client = world.server.http2().await;
        let mut stream = client.stream();
        let (pieces, body) = piecemeal();
        pieces.send("half".into()).unwrap();
        let request = mode.with_body(Get::Accepted, 0, body);
        let sending = tokio::spawn(async move { stream.open(request).await.map(drop) });
        until("it is let in", || world.drain.in_flight() == 1).await;
        sending.abort();
        world.is_idle().await;
        // Only where bodies stream was there anybody to call.
        assert_eq!(world.begun() > 0, mode == Signaled, "{mode:?}");
        assert_eq!(world.dropped(), world.begun(), "{mode:?}");
        assert!(world.store.is_empty(), "{mode:?}");
        drop((client, pieces));
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_after_it_is_accepted_changes_nothing() {
    for mode in MODES {
        let mut world = World::new(mode).await;
        let mut raw = world.server.raw().await;
        raw.send(mode.whole(Get::Accepted, 0)).await.unwrap();
        let mut accepted = vec![(0, raw.answer().await.accepted())];
        drop(raw);
        world.server.ended(1).await;

        let mut client = world.server.http2().await;
        for number in 1..11 {
            let request = mode.with_body(Get::Accepted, number, full(number.to_string()));
            // Nothing of its body is read.
            let response = client.open(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::ACCEPTED, "{mode:?}");
            let location = response.headers()["location"].to_str().unwrap();
            accepted.push((number, location.to_owned()));
        }
        drop(client);
        world.server.ended(2).await;

        until("all are running", || world.begun() == 11).await;
        assert_eq!(world.drain.in_flight(), 11, "{mode:?}");
        assert_eq!(world.dropped(), 0, "{mode:?}");
        let mut client = world.server.http1().await;
        world.assert_results(&mut client, &accepted).await;
        assert_eq!(world.dropped(), 0, "{mode:?}");
        drop(client);
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_at_any_moment_leaves_nothing_or_what_ends() {
    const CLIENTS: usize = 60;
    for mode in MODES {
        let mut world = World::new(mode).await;
        let mut accepted = Vec::new();
        for number in 0..CLIENTS {
            let mut raw = world.server.raw().await;
            raw.send(mode.whole(Get::Accepted, number)).await.unwrap();
            if number.is_multiple_of(2) {
                for _ in 0..number * number {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            // Some have patience until the operation is about to be made.
            let patience = SHORT * 2 * number as u32 / CLIENTS as u32;
            if let Ok(answer) = timeout(patience, raw.answer()).await {
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
        assert_eq!(finished + world.dropped(), world.begun(), "{mode:?}");
        world.assert_nothing_left().await;
    }
}

// ---- answers that come before there is an operation ------------------------

type Bodies = Arc<Mutex<Option<AnyBody>>>;

#[tokio::test(flavor = "multi_thread")]
async fn early_answers_stream_as_they_are() {
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
            for breaks_off in [false, true] {
                let (frames, body) = framewise();
                *bodies.lock().unwrap() = Some(body);
                let request = mode.with_body(Get::Answer, 0, empty());
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
                if breaks_off {
                    // Whoever goes now takes the body with it.
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
async fn early_answers_keep_their_length_and_whatever_they_say() {
    for mode in MODES {
        let world = World::with(
            mode,
            |layer| layer,
            async |_: Incoming| {
                // It may even look like an answer of this crate's.
                let response = Response::builder()
                    .status(StatusCode::ACCEPTED)
                    .header("location", "/elsewhere")
                    .header("retry-after", "77");
                response.body(full("mine")).unwrap()
            },
        )
        .await;
        let mut raw = world.server.raw().await;
        raw.send(mode.whole(Get::Answer, 0)).await.unwrap();
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
async fn a_body_is_asked_for_with_100_continue() {
    for mode in MODES {
        let world = World::new(mode).await;
        let mut raw = world.server.raw().await;
        let mut accepted = Vec::new();
        for (number, get) in [Get::Accepted, Get::Answer, Get::Accepted, Get::Answer]
            .into_iter()
            .enumerate()
        {
            let fields = "content-length: 1\r\nexpect: 100-continue\r\n";
            raw.send(mode.head(get, number, fields)).await.unwrap();
            let interim = raw.answer().await;
            assert_eq!(interim.status, StatusCode::CONTINUE, "{mode:?}");
            raw.send(number.to_string()).await.unwrap();
            let answer = raw.answer().await;
            match get {
                Get::Accepted => accepted.push((number, answer.accepted())),
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
async fn an_answer_that_needs_no_body_comes_in_place_of_the_100_continue() {
    // A body that is not read is not asked for.
    for mode in [Always, Preferred, Signaled] {
        let refuse = async |_: Incoming| {
            let response = Response::builder().status(StatusCode::FORBIDDEN);
            response.body(full("no")).unwrap()
        };
        let world = World::with(mode, |layer| layer, refuse).await;
        let mut raw = world.server.raw().await;
        let fields = "content-length: 4\r\nexpect: 100-continue\r\n";
        raw.send(mode.head(Get::Answer, 0, fields)).await.unwrap();
        let answer = raw.answer().await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{mode:?}");
        assert_eq!(answer.text(), "no");
        // Whether the body comes is open, so where a next request would begin
        // is too.
        assert!(raw.is_closed().await, "{mode:?}");
        assert!(world.store.is_empty(), "{mode:?}");
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_accept_before_it_asks_for_the_body() {
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
        raw.send(Signaled.head(Get::Accepted, 0, fields))
            .await
            .unwrap();
        // Whichever comes first: the 202 says that the body is wanted as well.
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
async fn upgrades_pass_through_and_take_place() {
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

// ---- what is said of preferences -------------------------------------------

fn list(answer: &Answer, name: &str) -> Vec<String> {
    let values = answer.headers.get_all(name).iter();
    values
        .flat_map(|value| value.to_str().unwrap().split(','))
        .map(|item| item.trim().to_owned())
        .collect()
}

/// A `Prefer` of so many fields, what the handler does, and what comes: the
/// status and what was applied.
type Row = (
    &'static [&'static str],
    &'static str,
    u16,
    &'static [&'static str],
);

const ASYNC: &str = "respond-async";

/// What is asked, and what is answered. A wait of less than a second is not said.
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
async fn answers_say_which_preferences_they_followed() {
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
                // What passes through is none of these.
                fields.push(("x-other", "1"));
                let answer = client.ask("GET /long/answer?0", &fields).await;
                assert_eq!(answer.status, StatusCode::CREATED);
                assert!(list(&answer, "preference-applied").is_empty(), "{case}");
                assert!(list(&answer, "vary").is_empty(), "{case}");
            }
        }
        world.open_the_gate();
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_has_followed_no_preference() {
    for mode in MODES {
        let world = World::bounded(mode, 0).await;
        for version in VERSIONS {
            let mut client = world.client(version).await;
            let prefer = [("prefer", "respond-async, wait=20")];
            let answer = client.ask("POST /short/accept?0", &prefer).await;
            answer.problem(503, "overloaded");
            assert_eq!(list(&answer, "preference-applied"), [""; 0], "{mode:?}");
        }
        assert_eq!(world.begun(), 0, "{mode:?}");
        world.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn preferences_that_the_handler_followed_are_said_too() {
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
