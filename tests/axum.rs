//! The layer and the poll service in axum applications, under `axum::serve`.

use test_support::server;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{OriginalUri, Path, Request, State as Shared},
    http::request::Parts,
    response::Response,
    routing::{any, get, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use server::{Answer, Client, Server, chunked, empty, full, next_piece, piecemeal, soon, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    sync::Semaphore,
};
use tower::{Layer, Service, service_fn};
use tower_operations::{
    AsyncAcceptLayer, MemoryStore, OperationHandle, OperationId, Operations, PollService,
    RequestBody,
};

async fn length(body: Bytes) -> String {
    body.len().to_string()
}

async fn result(client: &mut Client, location: &str) -> Answer {
    client.get(&format!("{location}/result?wait=20")).await
}

/// The path prefix that outer routers have removed.
fn prefix(parts: &Parts) -> &str {
    let original = parts.extensions.get::<OriginalUri>();
    let original = original.map_or(parts.uri.path(), |uri| uri.0.path());
    original.strip_suffix(parts.uri.path()).unwrap_or_default()
}

fn location_in_sibling_router(parts: &Parts, id: &OperationId) -> String {
    format!("{}/operations/{id}", prefix(parts))
}

fn location_in_this_router(parts: &Parts, id: &OperationId) -> String {
    format!("{}/{id}", prefix(parts))
}

// ---- positions of the layer -------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn route_layer_keeps_405_for_other_methods_and_404_for_other_paths() {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let app = Router::new()
        .route(
            "/reports",
            get(|| async { "no report" })
                .post(length)
                .route_layer(layer),
        )
        .nest_service("/operations", PollService::new(store.clone()));
    let server = Server::axum(app).await;
    let mut client = server.http1().await;
    let location = client.post("/reports", "four").await.accepted();
    assert_eq!(result(&mut client, &location).await.text(), "4");
    assert_eq!(client.get("/reports").await.text(), "no report");
    for method in ["DELETE", "PUT", "PATCH", "OPTIONS"] {
        let answer = client.ask(&format!("{method} /reports"), &[]).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert!(answer.header("allow").unwrap().contains("POST"));
    }
    assert_eq!(client.post("/nope", "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(store.len(), 1);
    drop(client);
    server.stop().await;
}

/// `MethodRouter::layer` wraps the 405 of axum too, so routes use
/// `route_layer`.
#[tokio::test(flavor = "multi_thread")]
async fn layer_on_a_route_turns_the_405_into_an_operation() {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let app = Router::new()
        .route(
            "/reports",
            get(|| async { "no report" }).post(length).layer(layer),
        )
        .nest_service("/operations", PollService::new(store.clone()));
    let server = Server::axum(app).await;
    let mut client = server.http1().await;
    let location = client.post("/reports", "four").await.accepted();
    assert_eq!(result(&mut client, &location).await.text(), "4");
    assert_eq!(client.get("/reports").await.text(), "no report");

    let location = client.ask("DELETE /reports", &[]).await.accepted();
    let result_405 = result(&mut client, &location).await;
    assert_eq!(result_405.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(result_405.header("operation-result"), Some("405"));
    assert_eq!(client.get(&location).await.member("state"), "failed");
    // A request that is not accepted gets a plain 405.
    let answer = client.ask("OPTIONS /reports", &[]).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(client.post("/nope", "").await.status, StatusCode::NOT_FOUND);
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_pass_through_a_layer_around_the_whole_application() {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let hang = || async { std::future::pending::<String>().await };
    let app = Router::new()
        .route(
            "/reports/{year}",
            post(length).get(|| async { "no report" }),
        )
        .route("/hang", post(hang))
        .nest_service("/operations", PollService::new(store.clone()))
        .layer(layer);
    let server = Server::axum(app).await;
    let mut client = server.http1().await;
    let location = client.post("/reports/2026", "four").await.accepted();
    assert_eq!(result(&mut client, &location).await.text(), "4");
    assert_eq!(client.get(&location).await.member("state"), "succeeded");
    assert_eq!(client.get("/reports/2026").await.text(), "no report");

    // A cancel passes through, without an operation of its own.
    let hang_location = client.post("/hang", "").await.accepted();
    let answer = client.ask(&format!("DELETE {hang_location}"), &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.member("state"), "canceled");
    for method in ["POST", "PUT", "PATCH"] {
        let answer = client.ask(&format!("{method} {location}"), &[]).await;
        answer.problem(405, "method-not-allowed");
    }
    for uri in ["/operations", "/operations/"] {
        let answer = client.ask(&format!("DELETE {uri}"), &[]).await;
        answer.problem(400, "missing-id");
    }
    assert_eq!(store.len(), 2);
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_below_the_public_path_pass_through_too() {
    let store = MemoryStore::new();
    let layer = Operations::new(store.clone())
        .public_path("/v1/jobs")
        .layer();
    let app = Router::new()
        .route("/reports", post(length))
        .route("/v1/jobsite", post(length))
        .nest_service(
            "/v1/jobs",
            Operations::new(store.clone())
                .public_path("/v1/jobs")
                .poll_service(),
        )
        .layer(layer);
    let server = Server::axum(app).await;
    let mut client = server.http1().await;
    for uri in ["/reports", "/v1/jobsite"] {
        let location = client.post(uri, "four").await.accepted();
        assert!(location.starts_with("/v1/jobs/"), "{location}");
        assert_eq!(result(&mut client, &location).await.text(), "4");
    }
    let answer = client.ask("DELETE /v1/jobs/none", &[]).await;
    answer.problem(404, "not-found");
    assert_eq!(store.len(), 2);
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_within_a_layer_creates_one_operation() {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let app = Router::new()
        .route("/reports", post(length).route_layer(layer.clone()))
        .nest_service("/operations", PollService::new(store.clone()))
        .layer(layer);
    let server = Server::axum(app).await;
    let mut client = server.http1().await;
    let location = client.post("/reports", "four").await.accepted();
    assert_eq!(result(&mut client, &location).await.text(), "4");
    assert_eq!(store.len(), 1);
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_around_a_nested_service_works() {
    let store = MemoryStore::new();
    let layer = Operations::new(store.clone())
        .location(location_in_sibling_router)
        .layer();
    let inner = Router::new()
        .route("/reports/{year}", post(length))
        .nest_service(
            "/operations",
            Operations::new(store.clone())
                .location(location_in_this_router)
                .poll_service(),
        );
    let app = Router::new().nest_service("/v1", layer.layer(inner));
    let server = Server::axum(app).await;
    let mut client = server.http1().await;
    let location = client.post("/v1/reports/2026", "four").await.accepted();
    assert!(location.starts_with("/v1/operations/"), "{location}");
    assert_eq!(result(&mut client, &location).await.text(), "4");
    let answer = client.ask(&format!("DELETE {location}"), &[]).await;
    answer.problem(409, "already-finished");
    drop(client);
    server.stop().await;
}

/// An application that does not know its mount point. With `around`, the layer
/// wraps the whole application.
fn application(store: &MemoryStore, around: bool) -> Router {
    let layer = Operations::new(store.clone())
        .location(location_in_sibling_router)
        .layer();
    let polls = Operations::new(store.clone())
        .location(location_in_this_router)
        .poll_service();
    let hang = || async { std::future::pending::<String>().await };
    let routes = |method: axum::routing::MethodRouter| match around {
        true => method,
        false => method.route_layer(layer.clone()),
    };
    let app = Router::new()
        .route("/reports/{year}", routes(post(length)))
        .route("/hang", routes(post(hang)))
        .nest_service("/operations", polls);
    match around {
        true => app.layer(layer),
        false => app,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_location_of_a_nested_application_has_the_whole_path() {
    for (around, mount) in [(false, "/api"), (true, "/api"), (true, "/a/b"), (false, "")] {
        let store = MemoryStore::new();
        let app = application(&store, around);
        let app = match mount {
            "" => app,
            "/a/b" => Router::new().nest("/a", Router::new().nest("/b", app)),
            mount => Router::new().nest(mount, app),
        };
        let server = Server::axum(app).await;
        let mut client = server.http1().await;
        let answer = client.post(&format!("{mount}/reports/2026"), "four").await;
        let location = answer.accepted();
        let id = answer.member("id");
        assert_eq!(location, format!("{mount}/operations/{id}"));
        let link = format!("<{location}/result>; rel=\"result\"");
        assert_eq!(answer.header("link"), Some(link.as_str()));
        assert_eq!(result(&mut client, &location).await.text(), "4");

        let hang_location = client.post(&format!("{mount}/hang"), "").await.accepted();
        for suffix in ["/result", "/result/"] {
            let answer = client.get(&format!("{hang_location}{suffix}")).await;
            assert_eq!(answer.accepted(), hang_location, "{suffix}");
        }
        let answer = client.ask(&format!("DELETE {hang_location}"), &[]).await;
        assert_eq!(answer.member("state"), "canceled");
        client
            .get(&format!("{mount}/operations"))
            .await
            .problem(400, "missing-id");
        drop(client);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_in_the_background_has_all_its_extractors() {
    #[derive(serde::Deserialize)]
    struct Report {
        title: String,
    }
    async fn render(
        Path((year, month)): Path<(u32, String)>,
        Shared(greeting): Shared<&'static str>,
        OriginalUri(uri): OriginalUri,
        headers: HeaderMap,
        Json(report): Json<Report>,
    ) -> (StatusCode, [(&'static str, String); 1], String) {
        let agent = headers["user-agent"].to_str().unwrap().to_owned();
        let text = format!("{greeting} {} {year} {month} {uri}", report.title);
        (StatusCode::CREATED, [("x-agent", agent)], text)
    }
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let inner = Router::new().route("/{month}", post(render).route_layer(layer));
    let app = Router::new()
        .nest("/reports/{year}", inner)
        .nest_service("/operations", PollService::new(store))
        .with_state("Hello");
    let server = Server::axum(app).await;
    let mut client = server.http2().await;
    let request = http::Request::post("/reports/2026/may%20?a=1")
        .header("content-type", "application/json")
        .header("user-agent", "tests")
        .body(full(r#"{"title":"Q3"}"#))
        .unwrap();
    let location = client.send(request).await.accepted();
    let answer = result(&mut client, &location).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.header("x-agent"), Some("tests"));
    let expected = "Hello Q3 2026 may  ";
    assert!(answer.text().starts_with(expected), "{answer:?}");
    assert!(answer.text().ends_with("/reports/2026/may%20?a=1"));

    // A rejection by an extractor is recorded as a 4xx outcome.
    let location = client.post("/reports/2026/may", "{").await.accepted();
    let answer = result(&mut client, &location).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(client.get(&location).await.member("state"), "failed");
    drop(client);
    server.stop().await;
}

// ---- one bound, many connections -------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_connections_share_one_bound() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone()).max_in_flight(3);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let may_finish = Arc::new(Semaphore::new(0));
    async fn slow(Shared(may_finish): Shared<Arc<Semaphore>>) -> &'static str {
        may_finish.acquire().await.unwrap().forget();
        "done"
    }
    let app = Router::new()
        .route("/a", post(slow).route_layer(layer.clone()))
        .route("/b", post(slow).route_layer(layer.clone().body_limit(10)))
        .route("/c", post(slow).route_layer(layer.operation_name("report")))
        .with_state(Arc::clone(&may_finish))
        .nest_service("/operations", PollService::new(store.clone()));
    let server = Server::axum(app).await;
    let mut accepted = Vec::new();
    let mut clients = Vec::new();
    for uri in ["/a", "/b", "/c"] {
        let mut client = server.http1().await;
        accepted.push(client.post(uri, "").await.accepted());
        clients.push(client);
    }
    assert_eq!(drain.in_flight().operations, 3);
    for uri in ["/a", "/b", "/c"] {
        let mut client = server.http1().await;
        client.post(uri, "").await.problem(503, "overloaded");
        // An earlier connection is refused as well.
        clients[0].post(uri, "").await.problem(503, "overloaded");
    }
    // The bound is checked before the body limit of the route.
    clients[1]
        .post("/b", "eleven bytes")
        .await
        .problem(503, "overloaded");
    may_finish.add_permits(3);
    for location in &accepted {
        assert_eq!(result(&mut clients[0], location).await.text(), "done");
    }
    until("a permit is free again", || {
        drain.in_flight().operations == 0
    })
    .await;
    clients[1]
        .post("/b", "eleven bytes")
        .await
        .problem(413, "body-too-large");
    let location = clients[0].post("/a", "eleven bytes").await.accepted();
    may_finish.add_permits(1);
    assert_eq!(result(&mut clients[2], &location).await.text(), "done");
    drop(clients);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_each_get_their_own_answers() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let app = Router::new()
        .route(
            "/echo",
            post(|body: Bytes| async { body }).route_layer(layer),
        )
        .nest_service("/operations", PollService::new(store.clone()));
    let server = Arc::new(Server::axum(app).await);
    const CONNECTIONS: usize = 16;
    const REQUESTS: usize = 20;
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let mut client = match connection % 2 {
                    0 => server.http1().await,
                    _ => server.http2().await,
                };
                for request in 0..REQUESTS {
                    let body = format!("{connection}/{request}");
                    let location = client.post("/echo", body.clone()).await.accepted();
                    assert_eq!(client.get(&location).await.status, StatusCode::OK);
                    assert_eq!(result(&mut client, &location).await.text(), body);
                }
            })
        })
        .collect();
    for connection in connections {
        soon(connection).await.unwrap();
    }
    assert_eq!(store.len(), CONNECTIONS * REQUESTS);
    let report = soon(drain.drain(Duration::from_secs(10))).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(store.waiters(), 0);
    Arc::into_inner(server).unwrap().stop().await;
}

#[test]
fn layering_needs_no_runtime_and_does_not_clone_the_inner_service() {
    struct CloneCounter(Arc<AtomicUsize>);
    impl Clone for CloneCounter {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, SeqCst);
            Self(Arc::clone(&self.0))
        }
    }
    impl<B> Service<http::Request<B>> for CloneCounter {
        type Response = Response;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<B>) -> Self::Future {
            std::future::ready(Ok(Response::new(Body::empty())))
        }
    }
    let clones = Arc::new(AtomicUsize::new(0));
    // Without a runtime, spawning a task would panic.
    let layer = AsyncAcceptLayer::new(MemoryStore::new());
    let services: Vec<_> = (0..1000)
        .map(|_| layer.layer(CloneCounter(Arc::clone(&clones))))
        .collect();
    assert_eq!(clones.load(SeqCst), 0);
    // A service adds two pointers; no route has state of its own.
    assert_eq!(
        size_of_val(&services[0]),
        size_of::<CloneCounter>() + 2 * size_of::<usize>()
    );
    let _app: Router = Router::new()
        .route("/a", post(length).route_layer(layer.clone()))
        .route("/b", post(length).layer(layer.clone()))
        .layer(layer);
}

#[tokio::test]
async fn layering_spawns_no_task() {
    let layer = AsyncAcceptLayer::new(MemoryStore::new());
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    for _ in 0..100 {
        let _ = layer.layer(());
    }
    assert_eq!(metrics.num_alive_tasks(), before);
}

// ---- shutdown ---------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_answers_held_polls_and_finishes_operations() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let may_finish = Arc::new(Semaphore::new(0));
    async fn slow(Shared(may_finish): Shared<Arc<Semaphore>>) -> &'static str {
        may_finish.acquire().await.unwrap().forget();
        "done"
    }
    let app = Router::new()
        .route("/reports", post(slow).route_layer(layer))
        .with_state(Arc::clone(&may_finish))
        .nest_service("/operations", operations.poll_service());
    let server = Server::axum(app).await;
    let mut client = server.http1().await;
    let location = client.post("/reports", "").await.accepted();
    let start = Instant::now();
    let uri = format!("{location}?wait=30");
    let held_poll = tokio::spawn(async move { client.get(&uri).await });
    until("the poll is held", || store.waiters() == 1).await;
    drain.close();
    let answer = soon(held_poll).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(["pending", "running"].contains(&answer.member("state").as_str()));
    server.stop().await;
    assert!(start.elapsed() < Duration::from_secs(15));

    assert_eq!(drain.in_flight().operations, 1);
    let draining = soon(drain.drain(Duration::from_secs(10)));
    let (report, ()) = tokio::join!(draining, async { may_finish.add_permits(1) });
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.finished, 1);
}

// ---- pass-through -----------------------------------------------------------

/// Responds with the request body as it arrives.
async fn echo(request: Request) -> Response {
    Response::new(request.into_body())
}

/// A server whose requests all go through the layer, and its store.
async fn echo_server() -> (Server, MemoryStore) {
    let store = MemoryStore::new();
    let app = Router::new()
        .route("/echo", any(echo))
        .layer(AsyncAcceptLayer::new(store.clone()).body_limit(4));
    (Server::axum(app).await, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn read_requests_pass_through_and_stream() {
    let (server, store) = echo_server().await;
    let mut client = server.http2().await;
    for method in ["GET", "OPTIONS", "TRACE", "PROPFIND", "QUERY"] {
        let (pieces, body) = piecemeal();
        let request = http::Request::builder()
            .method(method)
            .uri("/echo")
            .body(body)
            .unwrap();
        pieces.send("first piece".into()).unwrap();
        let mut response = client.open(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{method}");
        assert_eq!(
            next_piece(response.body_mut()).await.unwrap(),
            "first piece"
        );
        pieces.send("second".into()).unwrap();
        assert_eq!(next_piece(response.body_mut()).await.unwrap(), "second");
        drop(pieces);
        assert_eq!(next_piece(response.body_mut()).await, None);
    }
    let answer = client.ask("HEAD /echo", &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(store.is_empty());
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_calls_pass_through_and_stream_both_ways() {
    let (server, store) = echo_server().await;
    let mut client = server.http2().await;
    for media_type in [
        "application/grpc",
        "application/grpc+proto",
        "Application/gRPC",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/grpc; charset=utf-8",
    ] {
        let (pieces, body) = piecemeal();
        let request = http::Request::post("/echo")
            .header("content-type", media_type)
            .header("te", "trailers")
            .body(body)
            .unwrap();
        // The response head arrives before any of the request body.
        let mut response = client.open(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{media_type}");
        for round in 0..10 {
            let piece = Bytes::from(format!("message {round}"));
            pieces.send(piece.clone()).unwrap();
            assert_eq!(next_piece(response.body_mut()).await, Some(piece));
        }
        drop(pieces);
        assert_eq!(next_piece(response.body_mut()).await, None);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let request = http::Request::post("/echo")
        .header("content-type", "application/grpc")
        .body(chunked("a message", Some(trailers.clone())))
        .unwrap();
    let answer = client.send(request).await;
    assert_eq!(answer.text(), "a message");
    assert_eq!(answer.trailers, Some(trailers));
    assert!(store.is_empty());

    let request = http::Request::post("/echo")
        .header("content-type", "application/graph")
        .body(full("x"))
        .unwrap();
    client.send(request).await.accepted();
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_passes_through_and_completes() {
    async fn upgrade(mut request: Request) -> Response {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let upgraded = hyper_util::rt::TokioIo::new(upgraded.await.unwrap());
            let (mut from, mut to) = split(upgraded);
            copy(&mut from, &mut to).await.unwrap();
            to.shutdown().await.unwrap();
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo");
        response.body(Body::empty()).unwrap()
    }
    let store = MemoryStore::new();
    let app = Router::new()
        .route("/chat", any(upgrade))
        .layer(AsyncAcceptLayer::new(store.clone()));
    let server = Server::axum(app).await;
    for (method, connection) in [
        ("GET", "Upgrade"),
        ("POST", "upgrade"),
        ("POST", "keep-alive, Upgrade"),
    ] {
        let mut raw = server.raw().await;
        raw.send(format!(
            "{method} /chat HTTP/1.1\r\nhost: localhost\r\n\
             connection: {connection}\r\nupgrade: echo\r\n\r\n"
        ))
        .await
        .unwrap();
        let answer = raw.answer().await;
        assert_eq!(answer.status, StatusCode::SWITCHING_PROTOCOLS);
        for word in ["to", "and fro"] {
            raw.send(word).await.unwrap();
            assert_eq!(raw.exactly(word.len()).await.unwrap(), word.as_bytes());
        }
    }
    assert!(store.is_empty());

    // An `upgrade` field without `connection: upgrade` is no upgrade.
    let mut raw = server.raw().await;
    raw.send(
        "POST /chat HTTP/1.1\r\nhost: localhost\r\nupgrade: echo\r\ncontent-length: 0\r\n\r\n",
    )
    .await
    .unwrap();
    raw.answer().await.accepted();
    drop(raw);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_passes_through() {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let inner = service_fn(|mut request: http::Request<RequestBody<_>>| async move {
        assert_eq!(request.uri().to_string(), "example.com:443");
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut upgraded = hyper_util::rt::TokioIo::new(upgraded.await.unwrap());
            let mut word = [0; 4];
            upgraded.read_exact(&mut word).await.unwrap();
            upgraded.write_all(&word).await.unwrap();
        });
        Ok::<_, Infallible>(http::Response::new(empty()))
    });
    let server = Server::hyper(layer.layer(inner)).await;
    let mut raw = server.raw().await;
    raw.send("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(raw.head_only().await.status, StatusCode::OK);
    raw.send("ping").await.unwrap();
    assert_eq!(raw.exactly(4).await.unwrap(), b"ping");
    assert!(store.is_empty());
    drop(raw);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predicate_selects_the_requests_that_pass_through() {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone())
        .accept_if(|parts| parts.headers.get("prefer").is_some() && parts.method != "PUT");
    let app = Router::new()
        .route("/reports", any(length))
        .nest_service("/operations", PollService::new(store))
        .layer(layer);
    let server = Server::axum(app).await;
    let mut client = server.http1().await;
    let prefer = [("prefer", "respond-async")];
    assert_eq!(client.post("/reports", "four").await.text(), "4");
    assert_eq!(client.ask("PUT /reports", &prefer).await.text(), "0");
    for method in ["POST", "GET"] {
        let location = client
            .ask(&format!("{method} /reports"), &prefer)
            .await
            .accepted();
        assert_eq!(result(&mut client, &location).await.text(), "0");
    }
    drop(client);
    server.stop().await;
}

// ---- operation handles ------------------------------------------------------

/// Describes an operation as its handler sees it.
fn describe(operation: &OperationHandle) -> String {
    match operation.id() {
        Some(id) => format!("{id}, attempt {}", operation.attempt()),
        None => "detached".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_has_its_operation_in_the_extensions() {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let handler = |request: Request| async move {
        describe(&OperationHandle::from_extensions(request.extensions()))
    };
    let app = Router::new()
        .route("/layered", get(handler).post(handler).route_layer(layer))
        .route("/plain", post(handler))
        .nest_service("/operations", PollService::new(store));
    let server = Server::axum(app).await;
    let mut client = server.http1().await;
    let answer = client.post("/layered", "").await;
    let expected = format!("{}, attempt 1", answer.member("id"));
    assert_eq!(
        result(&mut client, &answer.accepted()).await.text(),
        expected
    );
    assert_eq!(client.get("/layered").await.text(), "detached");
    assert_eq!(client.post("/plain", "").await.text(), "detached");
    drop(client);
    server.stop().await;
}

#[cfg(feature = "axum")]
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_extracts_its_operation_and_reports_progress() {
    use tower_operations::Progress;

    async fn render(
        operation: OperationHandle,
        Shared(may_finish): Shared<Arc<Semaphore>>,
        body: String,
    ) -> String {
        operation.progress(Progress::from_count(1, 2).with_unit("pages"));
        may_finish.acquire().await.unwrap().forget();
        operation.progress(Progress::from_count(2, 2).with_unit("pages"));
        format!("{body}: {}", describe(&operation))
    }
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let may_finish = Arc::new(Semaphore::new(0));
    let app = Router::new()
        .route("/layered", get(render).post(render).route_layer(layer))
        .with_state(Arc::clone(&may_finish))
        .nest_service("/operations", PollService::new(store));
    let server = Server::axum(app).await;
    let mut client = server.http1().await;
    let answer = client.post("/layered", "Q3").await;
    let location = answer.accepted();

    // The poll is held until a change; changes before the report are possible.
    let mut polled = client.get(&location).await;
    while polled.json()["progress"].is_null() {
        let etag = polled.header("etag").unwrap().to_owned();
        let fields = [("if-none-match", etag.as_str()), ("prefer", "wait=20")];
        polled = client.ask(&format!("GET {location}"), &fields).await;
        assert_eq!(polled.status, StatusCode::OK);
    }
    assert_eq!(polled.json()["progress"]["completed"], 1, "{polled:?}");
    may_finish.add_permits(1);
    let expected = format!("Q3: {}, attempt 1", answer.member("id"));
    assert_eq!(result(&mut client, &location).await.text(), expected);
    // The last report is stored with the outcome.
    let polled = client.get(&location).await;
    assert_eq!(polled.json()["progress"]["completed"], 2, "{polled:?}");

    may_finish.add_permits(1);
    let request = http::Request::get("/layered").body(empty()).unwrap();
    assert_eq!(client.send(request).await.text(), ": detached");
    drop(client);
    server.stop().await;
}

#[cfg(feature = "axum")]
#[tokio::test(flavor = "multi_thread")]
async fn a_relative_reference_below_nested_routers_uses_the_original_uri() {
    let create_report = || async { (StatusCode::CREATED, [("location", "42")]) };
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let reports = post(create_report).route_layer(layer.clone());
    let service = layer.layer(Router::new().route("/reports/new", post(create_report)));
    let app = Router::new()
        .route("/reports/new", reports.clone())
        .nest(
            "/api",
            Router::new().nest("/v1", Router::new().route("/reports/new", reports)),
        )
        .nest_service("/whole", service)
        .nest_service("/operations", PollService::new(store));
    let server = Server::axum(app).await;
    let mut client = server.http1().await;
    for prefix in ["", "/api/v1", "/whole"] {
        let answer = client.post(&format!("{prefix}/reports/new"), "").await;
        let result = result(&mut client, &answer.accepted()).await;
        assert_eq!(result.status, StatusCode::CREATED);
        let expected = format!("{prefix}/reports/42");
        assert_eq!(result.header("location"), Some(expected.as_str()));
    }
    drop(client);
    server.stop().await;
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn types_of_the_contract_are_responses_and_extractors() {
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    use tower_operations::{
        Accepted, Operation, Outcome,
        dialect::{ApiError, Preferences},
    };

    async fn text(response: impl IntoResponse) -> (StatusCode, String) {
        let response = response.into_response();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
    let id: OperationId = "q3".parse().unwrap();
    let (status, body) = text(Accepted::new(&id)).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert!(body.contains("\"id\":\"q3\""), "{body}");
    let ended = Operation::from_parts(id.clone(), Outcome::Succeeded(Some(5_u32)));
    let (status, body) = text(ended).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("\"result\":5"), "{body}");
    let (status, body) = text(ApiError::NotFound { id }).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("urn:tower-operations:not-found"), "{body}");

    async fn handler(id: OperationId, preferences: Preferences) -> String {
        format!("{id} {}", preferences.respond_async())
    }
    let operations = tower_operations::Operations::new(MemoryStore::new());
    let app = Router::<()>::new()
        .route("/reports", post(handler).route_layer(operations.layer()))
        .route("/plain", post(handler))
        .nest_service("/operations", operations.poll_service());
    let ask = async |method: &str, uri: &str| {
        let wait = if method == "POST" {
            "respond-async"
        } else {
            "wait=5"
        };
        let request = http::Request::builder().method(method).uri(uri);
        let request = request.header("prefer", wait);
        app.clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
    };
    let accepted = ask("POST", "/reports").await;
    let location = accepted.headers()["location"].to_str().unwrap().to_owned();
    let (_, body) = text(ask("GET", &format!("{location}/result")).await).await;
    let id = location.rsplit('/').next().unwrap();
    assert_eq!(body, format!("{id} true"));
    let (status, _) = text(ask("POST", "/plain").await).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}
