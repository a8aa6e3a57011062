//! Invalid input and failures, over real sockets: bodies that are too large, too
//! slow or incomplete, disconnected clients, failing stores, invalid ids and
//! panicking inner services.

use test_support::hooked;
use test_support::server;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body as AxumBody,
    extract::State as Shared,
    routing::{any_service, post, post_service},
};
use bytes::Bytes;
use hooked::{Call, Hooked, When};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use server::{
    Answer, AnyBody, Client, Raw, Server, chunked, empty, full, next_piece, piecemeal, soon, until,
};
use tokio::sync::{Semaphore, watch};
use tower::{BoxError, Service, service_fn};
use tower_operations::{
    AsyncAcceptLayer, Drain, FailureKind, MemoryStore, Operations, PollService, RecordedResponse,
    RequestBody, State,
    store::{Lease, List, ListQuery, Record, StoreError},
};

const LIMIT: usize = 100_000;
const OVER: [usize; 2] = [10_000, 5_000_000];

/// A server with one slow route that counts its calls.
struct World {
    server: Server,
    store: MemoryStore,
    drain: Drain,
    inner: Arc<Inner>,
}

struct Inner {
    calls: AtomicUsize,
    /// A handler consumes one permit before it finishes.
    may_finish: Semaphore,
}

/// Responds with the number of bytes received, once a permit is available.
async fn count(Shared(inner): Shared<Arc<Inner>>, body: Bytes) -> String {
    inner.calls.fetch_add(1, SeqCst);
    let permit = inner.may_finish.acquire().await.unwrap();
    permit.forget();
    body.len().to_string()
}

impl World {
    async fn new() -> Self {
        Self::with(MemoryStore::new(), |store| store, |layer| layer).await
    }

    async fn with_layer(
        configure: impl FnOnce(AsyncAcceptLayer<MemoryStore>) -> AsyncAcceptLayer<MemoryStore>,
    ) -> Self {
        Self::with(MemoryStore::new(), |store| store, configure).await
    }

    /// With a bound of `max_in_flight` operations.
    async fn with_max_in_flight(max_in_flight: usize) -> Self {
        let store = MemoryStore::new();
        let operations = Operations::new(store.clone()).max_in_flight(max_in_flight);
        Self::from_operations(store, operations, |layer| layer).await
    }

    /// With `wrap` around the store of the layer.
    async fn with<R>(
        store: MemoryStore,
        wrap: impl FnOnce(MemoryStore) -> R,
        configure: impl FnOnce(AsyncAcceptLayer<R>) -> AsyncAcceptLayer<R>,
    ) -> Self
    where
        R: Lease<Output = RecordedResponse>,
    {
        let operations = Operations::new(wrap(store.clone()));
        Self::from_operations(store, operations, configure).await
    }

    async fn from_operations<R>(
        store: MemoryStore,
        operations: Operations<R>,
        configure: impl FnOnce(AsyncAcceptLayer<R>) -> AsyncAcceptLayer<R>,
    ) -> Self
    where
        R: Lease<Output = RecordedResponse>,
    {
        let inner = Arc::new(Inner {
            calls: AtomicUsize::new(0),
            may_finish: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let (layer, drain) = (operations.layer(), operations.drain_handle());
        let layer = configure(layer.body_limit(LIMIT as u64));
        let app = Router::new()
            .route("/reports", post(count).route_layer(layer))
            .with_state(Arc::clone(&inner))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .nest_service("/operations", PollService::new(store.clone()));
        Self {
            server: Server::hyper(app).await,
            store,
            drain,
            inner,
        }
    }

    fn calls(&self) -> usize {
        self.inner.calls.load(SeqCst)
    }

    fn hold_handlers(&self) {
        let permits = self.inner.may_finish.available_permits();
        self.inner.may_finish.forget_permits(permits);
    }

    fn release_handlers(&self) {
        self.inner.may_finish.add_permits(1000);
    }

    /// Lists all operations.
    async fn operations(&self) -> Vec<Record<RecordedResponse>> {
        let query = ListQuery::new(None, 100);
        self.store.list(&query).await.unwrap().records
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(self.calls(), 0, "the inner service was called");
        assert!(self.store.is_empty(), "there is an operation");
    }

    /// Asserts that no operation is in flight and no poll is held.
    async fn assert_idle(self) {
        let report = soon(self.drain.drain(Duration::from_secs(10))).await;
        assert!(report.is_clean(), "{report:?}");
        assert!(report.took < Duration::from_secs(10), "{report:?}");
        assert_eq!(self.store.waiters(), 0);
        self.server.stop().await;
    }
}

/// Waits over the wire until the operation is terminal.
async fn wait_for_end(client: &mut Client, location: &str) -> Answer {
    let answer = client.get(&format!("{location}?wait=20")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let state: State = answer.member("state").parse().unwrap();
    assert!(state.is_terminal(), "{answer:?}");
    answer
}

fn post_head(fields: &str) -> String {
    format!("POST /reports HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")
}

/// Encodes `data` in the chunked coding.
fn in_chunks(data: &[u8]) -> Vec<u8> {
    let mut coded = Vec::with_capacity(data.len() + data.len() / 1000);
    for chunk in data.chunks(16 * 1024) {
        coded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        coded.extend_from_slice(chunk);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(b"0\r\n\r\n");
    coded
}

#[track_caller]
fn assert_too_large(answer: &Answer) {
    let problem = answer.problem(413, "body-too-large");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&LIMIT.to_string()), "{detail}");
}

/// Asserts that the connection closes after `answer`, or that it serves another request.
async fn assert_closes(raw: &mut Raw, answer: &Answer, closes: bool) {
    if closes {
        assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
        assert!(raw.is_closed().await, "the connection was not closed well");
    } else {
        assert_eq!(answer.header("connection"), None, "{answer:?}");
        let next = raw.ask("GET /operations/none").await;
        next.problem(404, "not-found");
    }
}

// ---- bodies over the limit --------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_all_of_a_too_large_body_reads_the_413() {
    let world = World::new().await;
    for over in OVER {
        let length = LIMIT + over;
        let mut raw = world.server.raw().await;
        let mut request = post_head(&format!("content-length: {length}\r\n")).into_bytes();
        request.resize(request.len() + length, b'x');
        raw.send(request).await.expect("broken off while sending");
        let answer = raw.answer().await;
        assert_too_large(&answer);
        assert_closes(&mut raw, &answer, true).await;
    }
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_all_of_a_too_large_chunked_body_reads_the_413() {
    let world = World::new().await;
    for over in OVER {
        let mut raw = world.server.raw().await;
        let mut request = post_head("transfer-encoding: chunked\r\n").into_bytes();
        request.extend(in_chunks(&vec![b'x'; LIMIT + over]));
        raw.send(request).await.expect("broken off while sending");
        let answer = raw.answer().await;
        assert_too_large(&answer);
        assert_closes(&mut raw, &answer, over > 64 * 1024).await;
    }
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_survives_a_body_at_most_64_kib_above_the_limit() {
    let world = World::new().await;
    for (over, closes) in [(1, false), (64 * 1024, false), (64 * 1024 + 1, true)] {
        let mut raw = world.server.raw().await;
        let mut request = post_head("transfer-encoding: chunked\r\n").into_bytes();
        request.extend(in_chunks(&vec![b'x'; LIMIT + over]));
        raw.send(request).await.expect("broken off while sending");
        let answer = raw.answer().await;
        assert_too_large(&answer);
        assert_closes(&mut raw, &answer, closes).await;
    }
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_at_the_limit_is_accepted() {
    let world = World::new().await;
    let mut client = world.server.http1().await;
    for body in [
        full(vec![b'x'; LIMIT]),
        chunked(vec![b'x'; LIMIT], None),
        full(""),
    ] {
        let request = Request::post("/reports").body(body).unwrap();
        let location = client.send(request).await.accepted();
        assert_eq!(
            wait_for_end(&mut client, &location).await.member("state"),
            "succeeded"
        );
    }
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_413_comes_in_place_of_100_continue() {
    let world = World::new().await;
    for over in OVER {
        let length = LIMIT + over;
        let mut raw = world.server.raw().await;
        let head = post_head(&format!(
            "content-length: {length}\r\nexpect: 100-continue\r\n"
        ));
        raw.send(head).await.unwrap();
        let answer = raw.answer().await;
        assert_too_large(&answer);
        assert_closes(&mut raw, &answer, true).await;
    }
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_await_100_continue_reads_the_413() {
    let world = World::new().await;
    for over in OVER {
        let length = LIMIT + over;
        let mut raw = world.server.raw().await;
        let fields = format!("content-length: {length}\r\nexpect: 100-continue\r\n");
        let mut request = post_head(&fields).into_bytes();
        request.resize(request.len() + length, b'x');
        raw.send(request).await.expect("broken off while sending");
        let answer = raw.answer().await;
        assert_too_large(&answer);
        assert_closes(&mut raw, &answer, true).await;
    }
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_too_large_chunked_body_gets_100_continue_and_then_the_413() {
    let world = World::new().await;
    for over in OVER {
        let mut raw = world.server.raw().await;
        let head = post_head("transfer-encoding: chunked\r\nexpect: 100-continue\r\n");
        raw.send(head).await.unwrap();
        assert_eq!(raw.answer().await.status, StatusCode::CONTINUE);
        raw.send(in_chunks(&vec![b'x'; LIMIT + over]))
            .await
            .expect("broken off while sending");
        let answer = raw.answer().await;
        assert_too_large(&answer);
        assert_closes(&mut raw, &answer, over > 64 * 1024).await;
    }
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_within_the_limit_gets_100_continue() {
    let world = World::new().await;
    let mut raw = world.server.raw().await;
    raw.send(post_head("content-length: 4\r\nexpect: 100-continue\r\n"))
        .await
        .unwrap();
    assert_eq!(raw.answer().await.status, StatusCode::CONTINUE);
    raw.send("four").await.unwrap();
    let location = raw.answer().await.accepted();
    let result = raw.ask(&format!("GET {location}/result?wait=20")).await;
    assert_eq!(result.text(), "4");
    world.assert_idle().await;
}

/// Too large requests for a client of hyper: with a length or chunked, with or
/// without `expect`. The flag says whether the connection closes.
fn too_large_requests() -> impl Iterator<Item = (Request<AnyBody>, bool)> {
    let bodies = OVER.into_iter().flat_map(|over| {
        let data = Bytes::from(vec![b'x'; LIMIT + over]);
        let closes = over > 64 * 1024;
        let copy = data.clone();
        [false, true].into_iter().flat_map(move |expect| {
            [
                (full(copy.clone()), true, expect),
                (chunked(data.clone(), None), closes, expect),
            ]
        })
    });
    bodies.map(|(body, closes, expect)| {
        let mut request = Request::post("/reports");
        if expect {
            request = request.header("expect", "100-continue");
        }
        (request.body(body).unwrap(), closes)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hyper_client_reads_the_413_over_http_1() {
    let world = World::new().await;
    for (request, closes) in too_large_requests() {
        let mut client = world.server.http1().await;
        let answer = client.send(request).await;
        assert_too_large(&answer);
        let has_close = answer.header("connection") == Some("close");
        assert_eq!(has_close, closes, "{answer:?}");
        assert_eq!(client.serves_on().await, !closes, "{answer:?}");
        if !closes {
            client
                .get("/operations/none")
                .await
                .problem(404, "not-found");
        }
    }
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_413_over_http_2_ends_only_its_own_stream() {
    let world = World::new().await;
    let mut client = world.server.http2().await;
    // One half of this body is sent before the requests below, the other half
    // after them.
    let (pieces, body) = piecemeal();
    pieces.send("half".into()).unwrap();
    let mut concurrent = client.stream();
    let concurrent = tokio::spawn(async move {
        let request = Request::post("/reports").body(body).unwrap();
        concurrent.send(request).await
    });

    for (request, _) in too_large_requests() {
        let answer = client.send(request).await;
        assert_too_large(&answer);
        assert_eq!(answer.header("connection"), None, "{answer:?}");
        client
            .get("/operations/none")
            .await
            .problem(404, "not-found");
    }
    world.assert_untouched();

    assert!(!concurrent.is_finished());
    pieces.send("half".into()).unwrap();
    drop(pieces);
    let location = concurrent.await.unwrap().accepted();
    assert_eq!(
        wait_for_end(&mut client, &location).await.member("result"),
        "8"
    );
    assert_eq!(world.calls(), 1);
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_413s_do_not_exhaust_the_window_of_an_http_2_connection() {
    let world = World::new().await;
    let client = world.server.http2().await;
    let data = Bytes::from(vec![b'x'; 5_000_000]);
    for _ in 0..10 {
        let both = [full(data.clone()), chunked(data.clone(), None)].map(|body| {
            let mut stream = client.stream();
            let request = Request::post("/reports").body(body).unwrap();
            async move { assert_too_large(&stream.send(request).await) }
        });
        let [first, second] = both;
        tokio::join!(first, second);
    }
    let mut client = client.stream();
    let location = client.post("/reports", vec![b'x'; LIMIT]).await.accepted();
    wait_for_end(&mut client, &location).await;
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_refused_at_the_bound_reads_the_503_whatever_it_sends() {
    let world = World::with_max_in_flight(1).await;
    world.hold_handlers();
    let mut client = world.server.http1().await;
    let location = client.post("/reports", "first").await.accepted();
    let data = vec![b'x'; 5_000_000];

    let length = format!("content-length: {}\r\n", data.len());
    let expect = "expect: 100-continue\r\n";
    let with_length = [post_head(&length).as_bytes(), &data].concat();
    let with_expect = [post_head(&(length + expect)).as_bytes(), &data].concat();
    let with_chunks = [
        post_head("transfer-encoding: chunked\r\n").into_bytes(),
        in_chunks(&data),
    ]
    .concat();
    let small = post_head("content-length: 4\r\n").into_bytes();
    let small = [&small[..], b"four"].concat();
    for request in [with_length, with_expect, with_chunks, small] {
        let mut raw = world.server.raw().await;
        raw.send(request).await.expect("broken off while sending");
        let answer = raw.answer().await;
        answer.problem(503, "overloaded");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    // The body may or may not follow here. The start of the next request is
    // therefore unknown, and the connection closes.
    let mut raw = world.server.raw().await;
    let head = post_head(&format!("content-length: 4\r\n{expect}"));
    raw.send(head).await.unwrap();
    let answer = raw.answer().await;
    answer.problem(503, "overloaded");
    assert_closes(&mut raw, &answer, true).await;

    assert_eq!(world.drain.in_flight().operations, 1);
    assert_eq!(world.store.len(), 1);

    world.release_handlers();
    wait_for_end(&mut client, &location).await;
    until("a permit is free again", || {
        world.drain.in_flight().operations == 0
    })
    .await;
    let next = client.post("/reports", "next").await.accepted();
    wait_for_end(&mut client, &next).await;
    assert_eq!(world.calls(), 2);
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_refused_at_the_end_of_a_drain_reads_the_503_whatever_it_sends() {
    type Configure = fn(AsyncAcceptLayer<MemoryStore>) -> AsyncAcceptLayer<MemoryStore>;
    let modes: [(&str, Configure); 3] = [
        ("always", |layer| layer.body_limit(10_000_000)),
        ("preferred", |layer| layer.when_preferred()),
        ("signaled", |layer| layer.when_signaled()),
    ];
    for (mode, configure) in modes {
        for fields in [
            "content-length: 5000000\r\n",
            "transfer-encoding: chunked\r\n",
        ] {
            let operations = Operations::new(MemoryStore::new());
            let (layer, drain) = (operations.layer(), operations.drain_handle());
            let (begin, begin_receiver) = watch::channel(());
            // The service reads one frame and never returns.
            let stuck = service_fn(move |request: Request<RequestBody<AxumBody>>| {
                let begin = begin.clone();
                async move {
                    let mut body = request.into_body();
                    body.frame().await.unwrap().unwrap();
                    begin.send_replace(());
                    std::future::pending::<()>().await;
                    drop(body);
                    Ok::<_, Infallible>(Response::new(empty()))
                }
            });
            let builder = tower::ServiceBuilder::new().layer(configure(layer));
            let app = Router::new().route("/reports", any_service(builder.service(stuck)));
            let server = Server::hyper(app).await;
            let mut raw = server.raw().await;
            let data = vec![b'x'; 5_000_000];
            let data = match fields.starts_with("content-length") {
                true => data,
                false => in_chunks(&data),
            };
            let (first, rest) = data.split_at(100_000);
            raw.send([post_head(fields).as_bytes(), first].concat())
                .await
                .unwrap();
            match mode {
                "always" => {
                    until("the request is in flight", || {
                        drain.in_flight().operations == 1
                    })
                    .await;
                }
                _ => {
                    until("the service is called", || {
                        begin_receiver.has_changed().unwrap_or(true)
                    })
                    .await;
                }
            }
            let report = soon(drain.drain(Duration::ZERO)).await;
            assert_eq!(
                (report.refused, report.unanswered),
                (1, 0),
                "{mode}: {report:?}"
            );
            raw.send(rest)
                .await
                .unwrap_or_else(|error| panic!("{mode} {fields}: {error}"));
            let answer = raw.answer().await;
            answer.problem(503, "shutting-down");
            assert!(answer.header("retry-after").is_some());
            assert_closes(&mut raw, &answer, true).await;
            server.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_large_body_reads_the_504_of_a_timeout() {
    let operations = Operations::new(MemoryStore::new());
    let (layer, _drain) = (operations.layer(), operations.drain_handle());
    let layer = layer
        .when_signaled()
        .running_timeout(Duration::from_millis(200));
    let stuck = service_fn(|_: Request<RequestBody<AxumBody>>| {
        std::future::pending::<Result<Response<AnyBody>, Infallible>>()
    });
    let builder = tower::ServiceBuilder::new().layer(layer);
    let app = Router::new().route("/reports", any_service(builder.service(stuck)));
    let server = Server::hyper(app).await;
    let mut raw = server.raw().await;
    let length = 5_000_000;
    let mut request = post_head(&format!("content-length: {length}\r\n")).into_bytes();
    request.resize(request.len() + length, b'x');
    raw.send(request).await.expect("broken off while sending");
    let answer = raw.answer().await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{answer:?}");
    assert_closes(&mut raw, &answer, true).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_survives_a_drain_refusal_after_the_whole_body() {
    let operations = Operations::new(MemoryStore::new());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let (begin, begin_receiver) = watch::channel(());
    let stuck = service_fn(move |request: Request<RequestBody<AxumBody>>| {
        let begin = begin.clone();
        async move {
            request.into_body().collect().await.unwrap();
            begin.send_replace(());
            std::future::pending::<Result<Response<AnyBody>, Infallible>>().await
        }
    });
    let builder = tower::ServiceBuilder::new().layer(layer.when_preferred());
    let app = Router::new().route("/reports", any_service(builder.service(stuck)));
    let server = Server::hyper(app).await;
    let mut client = server.http1().await;
    let client_task = tokio::spawn(async move {
        let answer = client.post("/reports", "four").await;
        (client, answer)
    });
    until("the service is called", || {
        begin_receiver.has_changed().unwrap_or(true)
    })
    .await;
    soon(drain.drain(Duration::ZERO)).await;
    let (mut client, answer) = soon(client_task).await.unwrap();
    answer.problem(503, "shutting-down");
    assert_eq!(answer.header("connection"), None, "{answer:?}");
    assert!(client.serves_on().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_survives_a_drain_refusal_with_the_end_of_the_body_unread() {
    let operations = Operations::new(MemoryStore::new());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let (begin, begin_receiver) = watch::channel(());
    let stuck = service_fn(move |request: Request<RequestBody<AxumBody>>| {
        let begin = begin.clone();
        async move {
            let mut body = request.into_body();
            body.frame().await.unwrap().unwrap();
            begin.send_replace(());
            std::future::pending::<()>().await;
            drop(body);
            Ok::<_, Infallible>(Response::new(empty()))
        }
    });
    let builder = tower::ServiceBuilder::new().layer(layer.when_preferred());
    let app = Router::new().route("/reports", any_service(builder.service(stuck)));
    let server = Server::hyper(app).await;
    let mut client = server.http1().await;
    let client_task = tokio::spawn(async move {
        let answer = client.post("/reports", "four").await;
        (client, answer)
    });
    until("the service is called", || {
        begin_receiver.has_changed().unwrap_or(true)
    })
    .await;
    soon(drain.drain(Duration::ZERO)).await;
    let (mut client, answer) = soon(client_task).await.unwrap();
    answer.problem(503, "shutting-down");
    assert_eq!(answer.header("connection"), None, "{answer:?}");
    assert!(client.serves_on().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_refusal_closes_the_connection_while_a_task_reads_the_body() {
    let operations = Operations::new(MemoryStore::new());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let (begin, begin_receiver) = watch::channel(());
    let detached_reader = service_fn(move |request: Request<RequestBody<AxumBody>>| {
        let begin = begin.clone();
        // The task outlives the call.
        tokio::spawn(async move {
            let mut body = request.into_body();
            body.frame().await.unwrap().unwrap();
            begin.send_replace(());
            std::future::pending::<()>().await;
            drop(body);
        });
        std::future::pending::<Result<Response<AnyBody>, Infallible>>()
    });
    let builder = tower::ServiceBuilder::new().layer(layer.when_preferred());
    let app = Router::new().route("/reports", any_service(builder.service(detached_reader)));
    let server = Server::hyper(app).await;
    let mut raw = server.raw().await;
    let mut request = post_head("content-length: 5000000\r\n").into_bytes();
    request.resize(request.len() + 1000, b'x');
    raw.send(request).await.unwrap();
    until("the service is called", || {
        begin_receiver.has_changed().unwrap_or(true)
    })
    .await;
    soon(drain.drain(Duration::ZERO)).await;
    let answer = raw.answer().await;
    answer.problem(503, "shutting-down");
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
}

// ---- incomplete bodies ------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_408_and_closes_its_http_1_connection() {
    let world = World::with_layer(|layer| layer.body_timeout(Duration::from_millis(50))).await;
    let mut connections = Vec::new();
    for (fields, begin) in [
        ("content-length: 10\r\n", "half "),
        ("content-length: 10\r\n", ""),
        ("transfer-encoding: chunked\r\n", "5\r\nhalf \r\n"),
        ("transfer-encoding: chunked\r\n", ""),
    ] {
        let mut raw = world.server.raw().await;
        raw.send(post_head(fields) + begin).await.unwrap();
        connections.push(tokio::spawn(async move {
            let answer = raw.answer().await;
            answer.problem(408, "body-timeout");
            assert_closes(&mut raw, &answer, true).await;
        }));
    }
    for connection in connections {
        connection.await.unwrap();
    }
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_missing_after_100_continue_is_408() {
    let world = World::with_layer(|layer| layer.body_timeout(Duration::from_millis(50))).await;
    let mut raw = world.server.raw().await;
    raw.send(post_head("content-length: 10\r\nexpect: 100-continue\r\n"))
        .await
        .unwrap();
    assert_eq!(raw.answer().await.status, StatusCode::CONTINUE);
    let answer = raw.answer().await;
    answer.problem(408, "body-timeout");
    assert_closes(&mut raw, &answer, true).await;
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_over_http_2_is_408_on_its_stream_alone() {
    let world = World::with_layer(|layer| layer.body_timeout(Duration::from_millis(50))).await;
    let mut client = world.server.http2().await;
    let (pieces, body) = piecemeal();
    pieces.send("half".into()).unwrap();
    let request = Request::post("/reports").body(body).unwrap();
    client.send(request).await.problem(408, "body-timeout");
    world.assert_untouched();
    let location = client.post("/reports", "whole").await.accepted();
    wait_for_end(&mut client, &location).await;
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_chunked_coding_is_400() {
    let world = World::new().await;
    let mut raw = world.server.raw().await;
    raw.send(post_head("transfer-encoding: chunked\r\n") + "4\r\nfour\r\nnonsense\r\n")
        .await
        .unwrap();
    raw.answer().await.problem(400, "body-unreadable");
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_body_leaves_no_operation() {
    let mut world = World::new().await;
    let broken = [
        post_head("content-length: 10\r\n") + "half ",
        post_head("transfer-encoding: chunked\r\n") + "a\r\nhalf ",
        post_head("transfer-encoding: chunked\r\n") + "4\r\nhalf\r\n",
        post_head(&format!("content-length: {}\r\n", LIMIT + 10)) + "much too large",
    ];
    for (index, request) in broken.into_iter().enumerate() {
        let mut raw = world.server.raw().await;
        raw.send(request).await.unwrap();
        drop(raw);
        world.server.ended(index + 1).await;
        assert_eq!(world.drain.in_flight().operations, 0);
    }
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_http_2_stream_leaves_no_operation() {
    let world = World::new().await;
    let mut client = world.server.http2().await;
    for begin in ["", "half"] {
        let (pieces, body) = piecemeal();
        pieces.send(begin.into()).unwrap();
        let mut stream = client.stream();
        let request = Request::post("/reports").body(body).unwrap();
        let client_task = tokio::spawn(async move { stream.open(request).await.map(drop) });
        until("the request is admitted", || {
            world.drain.in_flight().operations == 1
        })
        .await;
        client_task.abort();
        until("the request is dropped", || {
            world.drain.in_flight().operations == 0
        })
        .await;
    }
    world.assert_untouched();
    let location = client.post("/reports", "whole").await.accepted();
    wait_for_end(&mut client, &location).await;
    world.assert_idle().await;
}

// ---- disconnected clients ---------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_within_the_request_leaves_no_operation() {
    let mut world = World::new().await;
    let whole = post_head("content-length: 4\r\n") + "four";
    // Each incomplete length of the request is sent on a connection of its own.
    for (index, length) in (0..whole.len()).enumerate() {
        let mut raw = world.server.raw().await;
        raw.send(&whole[..length]).await.unwrap();
        drop(raw);
        world.server.ended(index + 1).await;
        assert_eq!(
            world.drain.in_flight().operations,
            0,
            "after {length} bytes"
        );
    }
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_during_the_create_leaves_an_operation_that_finishes() {
    let create = Script::new(|_| Fault::None);
    create.close();
    let script = Arc::clone(&create);
    let store = MemoryStore::new();
    let mut world = World::with(store, |store| script.on(Call::Create, store), |l| l).await;
    let mut raw = world.server.raw().await;
    raw.send(post_head("content-length: 4\r\n") + "four")
        .await
        .unwrap();
    create.wait_for_calls(1).await;
    drop(raw);
    world.server.ended(1).await;
    assert_eq!(world.drain.in_flight().operations, 1);
    create.open();
    world.assert_one_operation_finishes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_after_the_202_leaves_an_operation_that_finishes() {
    let mut world = World::new().await;
    world.hold_handlers();
    let mut raw = world.server.raw().await;
    raw.send(post_head("content-length: 4\r\n") + "four")
        .await
        .unwrap();
    raw.answer().await.accepted();
    drop(raw);
    world.server.ended(1).await;
    assert_eq!(world.drain.in_flight().operations, 1);
    world.release_handlers();
    world.assert_one_operation_finishes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_after_the_request_leaves_nothing_or_an_operation_that_finishes() {
    let mut world = World::new().await;
    const CLIENTS: usize = 50;
    for _ in 0..CLIENTS {
        let mut raw = world.server.raw().await;
        raw.send(post_head("content-length: 4\r\n") + "four")
            .await
            .unwrap();
    }
    world.server.ended(CLIENTS).await;
    until("nothing is in flight", || {
        world.drain.in_flight().operations == 0
    })
    .await;
    let operations = world.operations().await;
    assert_eq!(operations.len(), world.calls());
    for record in operations {
        assert_eq!(record.operation().state(), State::Succeeded);
    }
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_reset_during_the_create_leaves_an_operation_that_finishes() {
    let create = Script::new(|_| Fault::None);
    create.close();
    let script = Arc::clone(&create);
    let store = MemoryStore::new();
    let world = World::with(store, |store| script.on(Call::Create, store), |l| l).await;
    let client = world.server.http2().await;
    let mut stream = client.stream();
    let client_task = tokio::spawn(async move { stream.post("/reports", "four").await });
    create.wait_for_calls(1).await;
    client_task.abort();
    assert!(client_task.await.is_err());
    create.open();
    world.assert_one_operation_finishes().await;
}

impl World {
    async fn assert_one_operation_finishes(self) {
        let mut client = self.server.http1().await;
        let operations = soon(async {
            loop {
                let operations = self.operations().await;
                if !operations.is_empty() {
                    return operations;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(operations.len(), 1);
        let location = format!("/operations/{}", operations[0].operation().id());
        let answer = wait_for_end(&mut client, &location).await;
        assert_eq!(answer.member("state"), "succeeded");
        assert_eq!(answer.member("result"), "4");
        assert_eq!(self.calls(), 1);
        self.assert_idle().await;
    }
}

// ---- failing stores ---------------------------------------------------------

/// The fault of one call of the store.
enum Fault {
    None,
    /// The call fails without an effect.
    Instead(StoreError),
    /// The call takes effect and fails.
    Afterwards(StoreError),
}

/// The faults of all calls of one method.
struct Script {
    fault: Box<dyn Fn(usize) -> Fault + Send + Sync>,
    calls: watch::Sender<usize>,
    gate: Semaphore,
}

impl Script {
    /// `fault` receives the number of the call, from 0.
    fn new(fault: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            fault: Box::new(fault),
            calls: watch::channel(0).0,
            gate: Semaphore::new(1),
        })
    }

    fn close(&self) {
        self.gate.forget_permits(1);
    }

    fn open(&self) {
        self.gate.add_permits(1);
    }

    fn calls(&self) -> usize {
        *self.calls.borrow()
    }

    /// Waits for `times` calls, returned or not.
    async fn wait_for_calls(&self, times: usize) {
        let mut calls = self.calls.subscribe();
        soon(calls.wait_for(|calls| *calls >= times)).await.unwrap();
    }

    async fn act(&self, when: When) -> Result<(), StoreError> {
        match when {
            When::Before => {
                let mut number = 0;
                self.calls.send_modify(|calls| {
                    number = *calls;
                    *calls += 1;
                });
                let _open = self.gate.acquire().await.unwrap();
                match (self.fault)(number) {
                    Fault::Instead(error) => Err(error),
                    Fault::None | Fault::Afterwards(_) => Ok(()),
                }
            }
            // Calls do not overlap here, so this call is the latest.
            When::After => match (self.fault)(self.calls() - 1) {
                Fault::Afterwards(error) => Err(error),
                Fault::None | Fault::Instead(_) => Ok(()),
            },
        }
    }

    /// Wraps `store` so that calls of one kind follow this script.
    fn on(self: Arc<Self>, kind: Call, store: MemoryStore) -> Hooked {
        Hooked::new(store, move |call, when| {
            let script = Arc::clone(&self);
            async move {
                match call == kind {
                    true => script.act(when).await,
                    false => Ok(()),
                }
            }
        })
    }
}

/// The text of an error that no client may see.
const SECRET: &str = "postgres://admin:hunter2@db";

#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert_refused(answer, "unavailable");
}

#[track_caller]
fn assert_refused(answer: &Answer, code: &str) {
    answer.problem(503, code);
    let seconds = answer.header("retry-after").expect("no Retry-After");
    assert!(seconds.parse::<u64>().unwrap() >= 1);
    assert!(!answer.text().contains(SECRET), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_create_is_503_without_a_call_of_the_inner_service() {
    type MakeError = fn() -> StoreError;
    let errors: [(MakeError, &str, bool); 4] = [
        (|| StoreError::refused(SECRET), "unavailable", false),
        (|| StoreError::Full, "overloaded", false),
        (|| StoreError::FullForOwner, "overloaded", false),
        (|| StoreError::unavailable(SECRET), "unavailable", true),
    ];
    for (error, code, is_retried) in errors {
        let create = Script::new(move |_| Fault::Instead(error()));
        let script = Arc::clone(&create);
        let world = World::with(
            MemoryStore::new(),
            |store| script.on(Call::Create, store),
            |layer| layer.create_timeout(Duration::from_millis(200)),
        )
        .await;
        let mut client = world.server.http1().await;
        assert_refused(&client.post("/reports", "four").await, code);
        assert_eq!(create.calls() > 1, is_retried, "{}", error());
        assert!(client.serves_on().await);
        world.assert_untouched();
        world.assert_idle().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_store_is_503_after_the_create_timeout() {
    let create = Script::new(|_| Fault::None);
    create.close();
    let script = Arc::clone(&create);
    let world = World::with(
        MemoryStore::new(),
        |store| script.on(Call::Create, store),
        |layer| layer.create_timeout(Duration::from_millis(50)),
    )
    .await;
    let mut client = world.server.http1().await;
    assert_unavailable(&client.post("/reports", "four").await);
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_create_that_fails_is_retried_and_runs_once() {
    let create = Script::new(|call| match call {
        0 | 1 => Fault::Afterwards(StoreError::unavailable(SECRET)),
        _ => Fault::None,
    });
    let script = Arc::clone(&create);
    let store = MemoryStore::new();
    let world = World::with(store, |store| script.on(Call::Create, store), |l| l).await;
    let mut client = world.server.http1().await;
    let answer = client.post("/reports", "four").await;
    let location = answer.accepted();
    assert_eq!(
        wait_for_end(&mut client, &location).await.member("result"),
        "4"
    );
    assert_eq!(create.calls(), 3);
    assert_eq!(world.calls(), 1);
    // All three creates had the same id.
    assert_eq!(world.store.len(), 1);
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncertain_create_with_a_503_never_runs() {
    let create = Script::new(|_| Fault::Afterwards(StoreError::unavailable(SECRET)));
    let store = MemoryStore::new();
    let world = World::with(
        store,
        |store| create.on(Call::Create, store),
        |layer| layer.create_timeout(Duration::from_millis(200)),
    )
    .await;
    let mut client = world.server.http1().await;
    assert_unavailable(&client.post("/reports", "four").await);
    until("a permit is free again", || {
        world.drain.in_flight().operations == 0
    })
    .await;
    assert_eq!(world.calls(), 0);
    // The operation is ended nevertheless.
    let start = Instant::now();
    let operation = loop {
        let operations = world.operations().await;
        assert_eq!(operations.len(), 1);
        if operations[0].operation().state().is_terminal() {
            break operations[0].operation().clone();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{operations:?}");
        tokio::task::yield_now().await;
    };
    let problem = operation.problem().unwrap();
    assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
    assert_eq!(world.calls(), 0);
    world.assert_idle().await;
}

/// Each uncertain create has a task that runs until the store answers. The bound
/// on operations in flight bounds these tasks too.
#[tokio::test(flavor = "multi_thread")]
async fn an_uncertain_create_stays_in_flight_until_it_is_ended() {
    for is_held in [false, true] {
        let is_down = Arc::new(AtomicBool::new(true));
        let ends = Arc::new(AtomicUsize::new(0));
        let (store_is_down, end_attempts) = (Arc::clone(&is_down), Arc::clone(&ends));
        let hooked = |store| {
            Hooked::new(store, move |call, when| {
                let is_down = store_is_down.load(SeqCst);
                let ends = call == Call::Finish && when == When::Before;
                end_attempts.fetch_add(usize::from(ends), SeqCst);
                let fails = is_down && (ends || (call == Call::Create && when == When::After));
                async move {
                    match fails {
                        true => Err(StoreError::unavailable(SECRET)),
                        false => Ok(()),
                    }
                }
            })
        };
        let store = MemoryStore::new();
        let operations = Operations::new(hooked(store.clone())).max_in_flight(1);
        let world = World::from_operations(store, operations, |layer| {
            let layer = layer.create_timeout(Duration::from_millis(50));
            match is_held {
                true => layer.after(Duration::ZERO),
                false => layer,
            }
        })
        .await;
        let mut client = world.server.http1().await;
        if is_held {
            world.hold_handlers();
        }
        let client_task = tokio::spawn(async move {
            let answer = client.post("/reports", "four").await;
            (client, answer)
        });
        until("the create is abandoned", || ends.load(SeqCst) > 0).await;
        if is_held {
            world.release_handlers();
        }
        let (mut client, answer) = soon(client_task).await.unwrap();
        match is_held {
            true => assert_eq!(answer.text(), "4"),
            false => assert_unavailable(&answer),
        }
        assert_eq!(world.drain.in_flight().operations, 1);
        let refused = client.post("/reports", "four").await;
        refused.problem(503, "overloaded");
        is_down.store(false, SeqCst);
        until("a permit is free again", || {
            world.drain.in_flight().operations == 0
        })
        .await;
        let operations = world.operations().await;
        assert_eq!(operations.len(), 1);
        let problem = operations[0]
            .operation()
            .problem()
            .expect("the operation was ended");
        assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
        let answer = client.post("/reports", "four").await;
        assert!(matches!(answer.status.as_u16(), 200 | 202), "{answer:?}");
        world.assert_idle().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_recorded_after_an_outage_of_the_store() {
    for is_committed in [false, true] {
        let is_up = Arc::new(AtomicBool::new(false));
        let store_is_up = Arc::clone(&is_up);
        let finish = Script::new(move |_| match (store_is_up.load(SeqCst), is_committed) {
            (true, _) => Fault::None,
            (false, false) => Fault::Instead(StoreError::unavailable(SECRET)),
            (false, true) => Fault::Afterwards(StoreError::unavailable(SECRET)),
        });
        let script = Arc::clone(&finish);
        let store = MemoryStore::new();
        let world = World::with(store, |store| script.on(Call::Finish, store), |l| l).await;
        let mut client = world.server.http1().await;
        let location = client.post("/reports", "four").await.accepted();
        finish.wait_for_calls(3).await;
        if !is_committed {
            let answer = client.get(&location).await;
            assert_eq!(answer.member("state"), "running");
            let answer = client.get(&format!("{location}/result")).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED);
            assert_eq!(world.drain.in_flight().operations, 1);
        }
        is_up.store(true, SeqCst);
        assert_eq!(
            wait_for_end(&mut client, &location).await.member("result"),
            "4"
        );
        assert_eq!(world.calls(), 1);
        world.assert_idle().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unrecorded_outcome_is_reported_by_the_drain() {
    let finish = Script::new(|_| Fault::Instead(StoreError::unavailable(SECRET)));
    let script = Arc::clone(&finish);
    let store = MemoryStore::new();
    let world = World::with(store, |store| script.on(Call::Finish, store), |l| l).await;
    let mut client = world.server.http1().await;
    let answer = client.post("/reports", "four").await;
    finish.wait_for_calls(1).await;
    let report = soon(world.drain.drain(Duration::from_millis(100))).await;
    let unrecorded: Vec<_> = report.unrecorded.iter().map(ToString::to_string).collect();
    assert_eq!(unrecorded, [answer.member("id")]);
    assert!(report.interrupted.is_empty(), "{report:?}");
    assert!(!report.is_clean());
    let answer = client.get(&answer.accepted()).await;
    assert_eq!(answer.member("state"), "running");
    assert!(finish.calls() > 1);
}

// ---- invalid ids ------------------------------------------------------------

fn hostile_ids() -> Vec<String> {
    // White space separates the ids.
    let short = r##"
        a/b a%2Fb a%2fb %2F .. ../.. ../reports %2e%2e %2E%2E%2F . a%00 %00 %zz % %f a% %ff%fe %C3%28
        %c3%bc %25 a%0d%0aset-cookie:x a;b a'b a* (a) a+b a,b a:b a@b a=b a&b a! $a {a} a|b a[b]
        // a// /a/ result events result/result events/result ?id= ?id=%ff ?id=%zz ?id=a%2Fb ?id=..
        ?id=a%00 ?id=result ?id=a&id=b ? ?id ?%zz=a
    "##;
    let mut ids: Vec<String> = short.split_whitespace().map(Into::into).collect();
    ids.push("x".repeat(10 * 1024));
    ids.push("%41".repeat(4 * 1024));
    ids.push(format!("?id={}", "x".repeat(10 * 1024)));
    ids.push("a/".repeat(5 * 1024));
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_id_is_a_problem_and_keeps_the_connection() {
    let world = World::new().await;
    let mut raw = world.server.raw().await;
    for id in hostile_ids() {
        let (path, query) = match id.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (id.as_str(), String::new()),
        };
        for line in [
            format!("GET /operations/{path}{query}"),
            format!("DELETE /operations/{path}{query}"),
            format!("GET /operations/{path}/result{query}"),
        ] {
            let answer = raw.ask(&line).await;
            let excerpt = &line[..line.len().min(60)];
            let expected = [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND];
            let is_refused = expected.contains(&answer.status)
                // A sub-resource has no DELETE.
                || (answer.status == 405 && line.starts_with("DELETE") && (path.ends_with("result") || path.ends_with("events")));
            assert!(is_refused, "{excerpt}: {answer:?}");
            assert_eq!(
                answer.header("content-type"),
                Some("application/problem+json"),
                "{excerpt}: {answer:?}"
            );
            assert_eq!(answer.json()["status"], answer.status.as_u16(), "{excerpt}");
            assert_eq!(answer.header("connection"), None, "{excerpt}: {answer:?}");
        }
    }
    world.assert_untouched();
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_request_line_affects_only_its_own_connection() {
    let world = World::new().await;
    for target in [
        &b"/operations/\xff\xfe"[..],
        b"/operations/\xc3\xbc",
        b"/operations/a b",
        b"/operations/a\0b",
        b"/operations/a`b",
        b"operations/a",
        b"http://[::1/operations/a",
        b"*",
    ] {
        let mut raw = world.server.raw().await;
        let request = [b"GET ", target, b" HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat();
        raw.send(request).await.unwrap();
        let answer = raw.answer().await;
        assert!(answer.status.is_client_error(), "{target:?}: {answer:?}");
    }
    world.assert_untouched();
    let mut client = world.server.http1().await;
    let location = client.post("/reports", "four").await.accepted();
    wait_for_end(&mut client, &location).await;
    world.assert_idle().await;
}

// ---- failing inner services -------------------------------------------------

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailurePoint {
    Nowhere,
    PollReady,
    Call,
    Future,
    Body,
}

/// Panics or fails, or answers in two frames.
#[derive(Clone)]
struct FailingService {
    at: FailurePoint,
    panics: bool,
}

impl FailingService {
    fn fail(&self, at: FailurePoint) -> Result<(), BoxError> {
        match self.at == at {
            true if self.panics => panic!("on purpose, at {at:?}"),
            true => Err(SECRET.into()),
            false => Ok(()),
        }
    }
}

impl<B: Send + 'static> Service<Request<B>> for FailingService {
    type Response = Response<FailingBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<FailingBody>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(self.fail(FailurePoint::PollReady))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let outcome = self.fail(FailurePoint::Call);
        let service = self.clone();
        Box::pin(async move {
            outcome?;
            tokio::task::yield_now().await;
            service.fail(FailurePoint::Future)?;
            Ok(Response::new(FailingBody { service, frames: 0 }))
        })
    }
}

struct FailingBody {
    service: FailingService,
    frames: usize,
}

impl Body for FailingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.frames += 1;
        Poll::Ready(match self.frames {
            1 => Some(Ok(Frame::data("the first half, ".into()))),
            2 => Some(
                self.service
                    .fail(FailurePoint::Body)
                    .map(|()| Frame::data("the second".into())),
            ),
            _ => None,
        })
    }
}

/// A server with the layer around one route for each failure point.
async fn failing_server(panics: bool) -> (Server, Drain, MemoryStore) {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let route = |at| {
        let inner = FailingService { at, panics };
        let service = tower::ServiceBuilder::new()
            .layer(layer.clone())
            .service(inner);
        tower::ServiceExt::<Request<AxumBody>>::map_err(service, |error| -> Infallible {
            panic!("{error}")
        })
    };
    let app = Router::new()
        .route("/nowhere", post_service(route(FailurePoint::Nowhere)))
        .route("/poll-ready", post_service(route(FailurePoint::PollReady)))
        .route("/call", post_service(route(FailurePoint::Call)))
        .route("/future", post_service(route(FailurePoint::Future)))
        .route("/body", post_service(route(FailurePoint::Body)))
        .nest_service("/operations", PollService::new(store.clone()));
    (Server::hyper(app).await, drain, store)
}

const FAILING_ROUTES: [&str; 4] = ["/poll-ready", "/call", "/future", "/body"];

async fn assert_fails(panics: bool, code: &str, status: u16) {
    let (server, drain, store) = failing_server(panics).await;
    let mut client = server.http1().await;
    for route in FAILING_ROUTES {
        let location = client.post(route, "").await.accepted();
        let answer = wait_for_end(&mut client, &location).await;
        assert_eq!(answer.member("state"), "failed", "{route}");
        let problem = &answer.json()["problem"];
        assert_eq!(
            problem["type"],
            format!("urn:tower-operations:{code}"),
            "{route}"
        );
        assert_eq!(problem["status"], status, "{route}");
        assert!(!answer.text().contains(SECRET), "{route}: {answer:?}");
        assert!(!answer.text().contains("on purpose"), "{route}: {answer:?}");

        let result = client.get(&format!("{location}/result")).await;
        assert_eq!(result.problem(status, code), *problem, "{route}");
    }
    let location = client.post("/nowhere", "").await.accepted();
    let result = client.get(&format!("{location}/result?wait=20")).await;
    assert_eq!(result.text(), "the first half, the second");
    assert_eq!(store.len(), FAILING_ROUTES.len() + 1);
    let report = soon(drain.drain(Duration::from_secs(10))).await;
    assert!(report.is_clean(), "{report:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_anywhere_in_the_inner_service_fails_only_the_operation() {
    assert_fails(true, "panicked", 500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_anywhere_in_the_inner_service_fails_the_operation() {
    assert_fails(false, "inner-error", 502).await;
}

// ---- replayed responses -----------------------------------------------------

fn not_utf8() -> HeaderValue {
    HeaderValue::from_bytes(b"caf\xe9 \xff\xfe").unwrap()
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("abc"));
    trailers.append("x-note", HeaderValue::from_static("one"));
    trailers.append("x-note", HeaderValue::from_static("two"));
    trailers.append("x-odd", not_utf8());
    trailers
}

/// A server whose responses are hard to record.
async fn odd_server() -> Server {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let inner = service_fn(|request: Request<RequestBody<AxumBody>>| async move {
        let (parts, body) = request.into_parts();
        let request_body = body.collect().await.unwrap();
        let response = Response::builder()
            .header("x-odd", not_utf8())
            .header("x-list", "a")
            .header("x-other", "b")
            .header("x-list", "c, d")
            .header("x-list", "")
            .header("content-type", "application/octet-stream")
            .header("etag", "\"the report's own\"")
            .header("cache-control", "public, max-age=600");
        let response = match parts.uri.path() {
            "/empty" => response.body(empty()),
            "/no-content" => response.status(204).body(empty()),
            "/not-found" => response.status(404).body(full("nothing")),
            "/bytes" => response.body(full((0..=255).collect::<Vec<u8>>())),
            "/pieces" => response.body(chunked(vec![b'x'; 100_000], None)),
            "/trailers" => response
                .header("trailer", "x-checksum, x-note, x-odd")
                .body(chunked("before the trailers", Some(trailers()))),
            "/only-trailers" => response
                .header("trailer", "x-checksum, x-note, x-odd")
                .body(chunked("", Some(trailers()))),
            "/request-trailers" => response
                .header("trailer", "x-checksum, x-note, x-odd")
                .body(chunked("", request_body.trailers().cloned())),
            "/moment" => response
                .header("set-cookie", "session=1")
                .header("set-cookie", "other=2")
                .header("date", "Sun, 06 Nov 1994 08:49:37 GMT")
                .header("access-control-allow-origin", "*")
                .header("access-control-expose-headers", "x-list")
                .header("accept-ranges", "bytes")
                .header("alt-svc", "h3=\":443\"")
                .body(full("a moment")),
            other => panic!("{other}"),
        };
        Ok::<_, Infallible>(response.unwrap())
    });
    let service = tower::ServiceBuilder::new().layer(layer).service(inner);
    let app = Router::new()
        .route("/{what}", any_service(service))
        .nest_service("/operations", PollService::new(store));
    Server::hyper(app).await
}

async fn odd_result(client: &mut Client, path: &str) -> Answer {
    let location = client.post(path, "").await.accepted();
    let uri = format!("{location}/result?wait=20");
    client
        .ask(&format!("GET {uri}"), &[("te", "trailers")])
        .await
}

#[track_caller]
fn assert_odd_headers(answer: &Answer) {
    assert_eq!(answer.headers["x-odd"], not_utf8());
    let list: Vec<_> = answer.headers.get_all("x-list").iter().collect();
    assert_eq!(list, ["a", "c, d", ""]);
    assert_eq!(answer.header("x-other"), Some("b"));
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );
    // That of the body, not that of the service.
    let is_digest = |etag: &str| etag.starts_with('"') && etag.len() == 46;
    assert!(answer.header("etag").is_none_or(is_digest), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_bodies_are_replayed_unchanged_over_both_versions() {
    let server = odd_server().await;
    for mut client in [server.http1().await, server.http2().await] {
        for (path, status, body) in [
            ("/empty", 200, Vec::new()),
            ("/no-content", 204, Vec::new()),
            ("/not-found", 404, b"nothing".to_vec()),
            ("/bytes", 200, (0..=255).collect()),
            ("/pieces", 200, vec![b'x'; 100_000]),
        ] {
            let answer = odd_result(&mut client, path).await;
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.body, body, "{path}");
            assert_eq!(
                answer.header("operation-result"),
                Some(status.to_string().as_str()),
                "{path}"
            );
            assert_odd_headers(&answer);
            assert_eq!(answer.trailers, None, "{path}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_are_replayed_unchanged_over_both_versions() {
    let server = odd_server().await;
    for mut client in [server.http1().await, server.http2().await] {
        for (path, body) in [("/trailers", "before the trailers"), ("/only-trailers", "")] {
            let answer = odd_result(&mut client, path).await;
            assert_eq!(answer.text(), body, "{path}");
            assert_odd_headers(&answer);
            assert_eq!(answer.trailers, Some(trailers()), "{path}: {answer:?}");
        }
        let request = Request::post("/request-trailers")
            .header("trailer", "x-checksum, x-note, x-odd")
            .body(chunked("data", Some(trailers())))
            .unwrap();
        let location = client.send(request).await.accepted();
        let uri = format!("GET {location}/result?wait=20");
        let answer = client.ask(&uri, &[("te", "trailers")]).await;
        assert_eq!(answer.trailers, Some(trailers()), "{answer:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_te_trailers_gets_the_body_alone() {
    let server = odd_server().await;
    let mut raw = server.raw().await;
    raw.send("POST /trailers HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let location = raw.answer().await.accepted();
    let answer = raw.ask(&format!("GET {location}/result?wait=20")).await;
    assert_eq!(answer.text(), "before the trailers");
    assert_eq!(answer.trailers, None);
    // The connection stays open.
    assert_eq!(raw.ask(&format!("GET {location}")).await.status, 200);
    drop(raw);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_specific_to_the_first_response_are_not_replayed() {
    let server = odd_server().await;
    for mut client in [server.http1().await, server.http2().await] {
        let answer = odd_result(&mut client, "/moment").await;
        assert_eq!(answer.text(), "a moment");
        assert_odd_headers(&answer);
        for name in [
            "set-cookie",
            "access-control-allow-origin",
            "access-control-expose-headers",
            "alt-svc",
        ] {
            assert!(!answer.headers.contains_key(name), "{name}: {answer:?}");
        }
        // The `date` is that of the server, not of the recorded response.
        let dates: Vec<_> = answer.headers.get_all("date").iter().collect();
        assert_eq!(dates.len(), 1);
        assert!(!dates[0].to_str().unwrap().contains("1994"));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_selects_the_replayed_fields() {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let inner = service_fn(|_: Request<_>| async {
        let response = Response::builder()
            .header("set-cookie", "session=1")
            .header("x-internal", "secret")
            .body(full("done"));
        Ok::<_, Infallible>(response.unwrap())
    });
    let service = tower::ServiceBuilder::new().layer(layer).service(inner);
    let polls = Operations::new(store)
        .replay_headers(|name| name != "x-internal")
        .poll_service();
    let app = Router::new()
        .route("/reports", post_service(service))
        .nest_service("/operations", polls);
    let server = Server::hyper(app).await;
    let mut client = server.http1().await;
    let location = client.post("/reports", "").await.accepted();
    let answer = client.get(&format!("{location}/result?wait=20")).await;
    assert_eq!(answer.header("set-cookie"), Some("session=1"));
    assert_eq!(answer.header("x-internal"), None);
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_above_the_result_limit_fails_the_operation() {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone()).result_limit(1000);
    let inner = service_fn(|request: Request<RequestBody<AxumBody>>| async move {
        let body = match request.uri().path() {
            "/full" => full(vec![b'x'; 1001]),
            "/pieces" => chunked(vec![b'x'; 1001], None),
            _ => full(vec![b'x'; 1000]),
        };
        Ok::<_, Infallible>(Response::new(body))
    });
    let service = tower::ServiceBuilder::new().layer(layer).service(inner);
    let app = Router::new()
        .route("/{what}", any_service(service))
        .nest_service("/operations", PollService::new(store));
    let server = Server::hyper(app).await;
    let mut client = server.http1().await;
    for path in ["/full", "/pieces"] {
        let location = client.post(path, "").await.accepted();
        let answer = wait_for_end(&mut client, &location).await;
        assert_eq!(answer.member("state"), "failed", "{path}");
        let result = client.get(&format!("{location}/result")).await;
        result.problem(500, "result-too-large");
    }
    let location = client.post("/fits", "").await.accepted();
    let answer = client.get(&format!("{location}/result?wait=20")).await;
    assert_eq!(answer.body.len(), 1000);
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_polls_of_disconnected_clients_are_dropped() {
    let mut world = World::new().await;
    world.hold_handlers();
    let mut client = world.server.http1().await;
    let location = client.post("/reports", "four").await.accepted();
    let start = Instant::now();
    for index in 0..20 {
        let mut raw = world.server.raw().await;
        raw.send(format!(
            "GET {location}?wait=30 HTTP/1.1\r\nhost: localhost\r\n\r\n"
        ))
        .await
        .unwrap();
        until("the poll is held", || world.store.waiters() == 1).await;
        assert!(raw.has_nothing_yet());
        drop(raw);
        world.server.ended(index + 1).await;
        assert_eq!(world.store.waiters(), 0);
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    world.release_handlers();
    wait_for_end(&mut client, &location).await;
    world.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_through_response_ends_with_its_client() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let is_dropped = Arc::new(AtomicBool::new(false));
    let guard = Arc::clone(&is_dropped);
    let inner = service_fn(move |_: Request<_>| {
        let (pieces, body) = piecemeal();
        pieces.send("first".into()).unwrap();
        let guard = Arc::clone(&guard);
        tokio::spawn(async move {
            pieces.closed().await;
            guard.store(true, SeqCst);
        });
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    let server = Server::hyper(tower::ServiceBuilder::new().layer(layer).service(inner)).await;
    let mut client = server.http1().await;
    let request = Request::get("/stream").body(empty()).unwrap();
    let mut response = client.open(request).await.unwrap();
    assert_eq!(next_piece(response.body_mut()).await.unwrap(), "first");
    drop(response);
    drop(client);
    until("the inner body is dropped", || is_dropped.load(SeqCst)).await;
    assert!(store.is_empty());
    assert_eq!(drain.in_flight().operations, 0);
    server.stop().await;
}
