//! Every row of the Plain dialect's wire table, over real sockets.

use test_support::server;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body as AxumBody,
    routing::{any_service, post_service},
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use server::{Answer, Client, Server, chunked, empty, full, soon, until};
use tokio::task::JoinHandle;
use tower::service_fn;
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, Drain, FailureKind, MemoryStore, OperationId, Operations,
    Outcome, PollService, Problem, Progress, RecordedResponse, RequestBody, Snapshot, StoreFn,
    dialect::{ApiError, Plain},
    store::{
        Change, FencingToken, NewOperation, Owner, Polling, Record, Repository, RepositoryFn,
        Store, StoreError,
    },
};

/// A poll service over a store that the test writes to.
struct Polls {
    server: Server,
    store: MemoryStore,
}

/// Returns the token of the operation's holder.
async fn holder_token<R: Store>(store: &R, id: &OperationId) -> FencingToken {
    store.get(id).await.unwrap().unwrap().token()
}

impl Polls {
    async fn new() -> Self {
        Self::with_polls(|polls| polls).await
    }

    async fn with_polls(
        configure: impl FnOnce(PollService<MemoryStore>) -> PollService<MemoryStore>,
    ) -> Self {
        Self::from_operations(|operations| configure(operations.poll_service())).await
    }

    async fn from_operations(
        make: impl FnOnce(Operations<MemoryStore>) -> PollService<MemoryStore>,
    ) -> Self {
        let store = MemoryStore::new();
        let polls = make(Operations::new(store.clone()));
        Self {
            server: Server::hyper(nest(polls)).await,
            store,
        }
    }

    async fn create_pending(&self, id: &str) -> OperationId {
        let id: OperationId = id.parse().unwrap();
        self.store
            .create(NewOperation::new(id.clone()))
            .await
            .unwrap();
        id
    }

    async fn create_running(&self, id: &str) -> OperationId {
        let id = self.create_pending(id).await;
        self.store
            .start(&id, holder_token(&self.store, &id).await)
            .await
            .unwrap();
        id
    }

    async fn create_ended(&self, id: &str, outcome: Outcome<RecordedResponse>) -> OperationId {
        let id = self.create_running(id).await;
        self.finish(&id, outcome).await;
        id
    }

    async fn report(&self, id: &OperationId, progress: Progress) {
        self.store
            .report(id, holder_token(&self.store, id).await, progress)
            .await
            .unwrap();
    }

    async fn finish(&self, id: &OperationId, outcome: Outcome<RecordedResponse>) {
        self.store
            .finish(id, holder_token(&self.store, id).await, outcome, None)
            .await
            .unwrap();
    }

    /// Creates one operation in each state. Each id names its state.
    async fn create_one_of_each(&self) {
        self.create_pending("pending").await;
        self.create_running("running").await;
        self.create_ended("succeeded", outcome_of(json_response(r#"{"pages":5}"#)))
            .await;
        self.create_ended("empty", Outcome::Succeeded(None)).await;
        self.create_ended("failed", Outcome::failed(FailureKind::TimedOut))
            .await;
        let mut refused = json_response(r#"{"title":"Report failed","code":"InvalidInput"}"#);
        *refused.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        let media_type = HeaderValue::from_static("application/problem+json");
        refused.headers_mut().insert("content-type", media_type);
        self.create_ended("refused", outcome_of(refused)).await;
        self.create_ended("canceled", Outcome::Canceled).await;
    }

    /// Sends a poll, and returns once the poll is held.
    async fn hold(&self, line: &str, fields: &[(&str, &str)]) -> JoinHandle<Answer> {
        let mut client = self.server.http1().await;
        let before = self.store.waiters();
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(empty()).unwrap();
        let poll = tokio::spawn(async move { client.send(request).await });
        until("the poll is held", || self.store.waiters() == before + 1).await;
        assert!(!poll.is_finished());
        poll
    }
}

fn nest<S: Store>(polls: PollService<S>) -> Router {
    Router::new().nest_service("/operations", polls)
}

const STATES: [&str; 7] = [
    "pending",
    "running",
    "succeeded",
    "empty",
    "failed",
    "refused",
    "canceled",
];
const TERMINAL: [&str; 5] = ["succeeded", "empty", "failed", "refused", "canceled"];

fn is_terminal(id: &str) -> bool {
    TERMINAL.contains(&id)
}

fn json_response(body: &'static str) -> Response<BufferedBody> {
    let mut response = Response::new(BufferedBody::from(body));
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", media_type);
    response
}

fn outcome_of(response: Response<BufferedBody>) -> Outcome<RecordedResponse> {
    RecordedResponse::new(response).into_outcome()
}

async fn answer_of(poll: JoinHandle<Answer>) -> Answer {
    soon(poll).await.unwrap()
}

#[track_caller]
fn etag(answer: &Answer) -> String {
    let etag = answer.header("etag").expect("no ETag");
    assert!(etag.starts_with("W/\"") && etag.ends_with('"'), "{etag}");
    etag.to_owned()
}

/// The fields of an answer, except those of the connection and the time.
fn fields(answer: &Answer) -> Vec<(String, String)> {
    let mut fields: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !["date", "transfer-encoding"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), format!("{value:?}")))
        .collect();
    fields.sort();
    fields
}

// ---- accepted requests ------------------------------------------------------

/// A server with a layer around a service that answers immediately, and a poll service.
async fn accepting_server(
    configure: impl FnOnce(Operations<MemoryStore>) -> Operations<MemoryStore>,
) -> (Server, Drain) {
    let operations = configure(Operations::new(MemoryStore::new()));
    let drain = operations.drain_handle();
    let inner =
        service_fn(|_: Request<_>| async { Ok::<_, Infallible>(Response::new(full("done"))) });
    let service = tower::ServiceBuilder::new()
        .layer(operations.layer())
        .service(inner);
    let app = Router::new()
        .route("/reports", any_service(service))
        .nest_service("/operations", operations.poll_service());
    (Server::hyper(app).await, drain)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_202_has_all_fields_that_polls_need() {
    let (server, _drain) = accepting_server(|operations| operations).await;
    for mut client in [server.http1().await, server.http2().await] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let answer = client.ask(&format!("{method} /reports?a=1"), &[]).await;
            let location = answer.accepted();
            let id = location.strip_prefix("/operations/").unwrap();
            assert!(id.parse::<OperationId>().is_ok());
            assert_eq!(
                answer.text(),
                format!(r#"{{"id":"{id}","state":"pending","location":"{location}"}}"#)
            );
            let link = format!("<{location}/result>; rel=\"result\"");
            assert_eq!(answer.header("link"), Some(link.as_str()));
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(client.get(&location).await.member("id"), id);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_in_whole_seconds_rounded_up_and_at_least_one() {
    for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1500, "2"), (60_001, "61")] {
        let (server, _drain) = accepting_server(|operations| {
            operations.retry_after(move |_| Duration::from_millis(millis))
        })
        .await;
        let answer = server.http1().await.post("/reports", "").await;
        answer.accepted();
        assert_eq!(answer.header("retry-after"), Some(seconds), "{millis} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_location_is_set_by_the_application() {
    let (server, _drain) = accepting_server(|operations| {
        operations
            .public_url("https://api.example.com/v1/")
            .unwrap()
    })
    .await;
    let answer = server.http1().await.post("/reports", "").await;
    let location = format!(
        "https://api.example.com/v1/operations/{}",
        answer.member("id")
    );
    assert_eq!(answer.accepted(), location);
    assert_eq!(answer.member("location"), location);
    let link = format!("<{location}/result>; rel=\"result\"");
    assert_eq!(answer.header("link"), Some(link.as_str()));

    let (server, _drain) = accepting_server(|operations| {
        operations.location(|parts, id| {
            let tenant = parts.headers["x-tenant"].to_str().unwrap();
            format!("  /{tenant}/operations/{id}?v=1 ")
        })
    })
    .await;
    let fields = [("x-tenant", "acme"), ("host", "evil.example")];
    let answer = server.http1().await.ask("POST /reports", &fields).await;
    let id = answer.member("id");
    assert_eq!(answer.accepted(), format!("/acme/operations/{id}?v=1"));
    let link = format!("</acme/operations/{id}/result?v=1>; rel=\"result\"");
    assert_eq!(answer.header("link"), Some(link.as_str()));

    let (server, _drain) =
        accepting_server(|operations| operations.location(|_, _| " ".into())).await;
    let answer = server.http1().await.post("/reports", "").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.header("location"), None);
    assert_eq!(answer.header("link"), None);
    assert_eq!(answer.json()["location"], Value::Null);
    assert_eq!(answer.member("state"), "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_layer_is_503_with_retry_after() {
    let (server, drain) = accepting_server(|operations| operations).await;
    drain.close();
    let mut client = server.http1().await;
    let answer = client.post("/reports", "four").await;
    answer.problem(503, "shutting-down");
    assert_eq!(answer.header("retry-after"), Some("1"));
    // Requests that pass through are still served.
    assert_eq!(client.get("/reports").await.text(), "done");
}

// ---- GET and HEAD of an operation ------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn every_state_is_200_with_the_operation() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for id in STATES {
        let answer = client.get(&format!("/operations/{id}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{id}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
        assert_eq!(answer.header("vary"), Some("Accept, Prefer"));
        etag(&answer);
        let retry_after = answer.header("retry-after");
        assert_eq!(retry_after, (!is_terminal(id)).then_some("1"), "{id}");

        let operation = answer.json();
        assert_eq!(operation["id"], id);
        let state = match id {
            "empty" => "succeeded",
            "refused" => "failed",
            id => id,
        };
        assert_eq!(operation["state"], state);
        let members = operation.as_object().unwrap();
        assert_eq!(members.contains_key("result"), id == "succeeded", "{id}");
        assert_eq!(members.contains_key("problem"), state == "failed", "{id}");
        assert_eq!(members.contains_key("expires_at"), is_terminal(id), "{id}");
        for time in ["created_at", "updated_at"] {
            let time = members[time].as_str().unwrap();
            assert!(time.len() >= 20 && time.ends_with('Z'), "{time}");
        }
        assert!(!members.contains_key("progress"), "{id}");
    }
    let succeeded = client.get("/operations/succeeded").await.json();
    assert_eq!(succeeded["result"], json!({ "pages": 5 }));
    let failed = client.get("/operations/failed").await.json();
    assert_eq!(failed["problem"]["type"], "urn:tower-operations:timed-out");
    assert_eq!(failed["problem"]["status"], 504);
    let refused = client.get("/operations/refused").await.json();
    assert_eq!(refused["problem"]["code"], "InvalidInput");
    assert_eq!(refused["problem"]["title"], "Report failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_the_fields_of_get_and_no_body() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut raw = polls.server.raw().await;
    for id in STATES.into_iter().chain(["none", "..%2f"]) {
        for path in [
            format!("/operations/{id}"),
            format!("/operations/{id}/result"),
            "/operations".into(),
        ] {
            let get = raw.ask(&format!("GET {path}")).await;
            raw.send(format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
                .await
                .unwrap();
            let head = raw.head_only().await;
            assert_eq!(head.status, get.status, "{path}");
            assert_eq!(fields(&head), fields(&get), "{path}");
            assert!(raw.has_nothing_yet(), "{path}");
        }
    }
    let mut client = polls.server.http2().await;
    let get = client.get("/operations/succeeded").await;
    let head = client.ask("HEAD /operations/succeeded", &[]).await;
    assert_eq!(head.body, "");
    let length = get.body.len().to_string();
    assert_eq!(head.header("content-length"), Some(length.as_str()));
    assert_eq!(etag(&head), etag(&get));
}

#[tokio::test(flavor = "multi_thread")]
async fn head_of_a_result_has_the_length_of_the_recorded_response() {
    let polls = Polls::new().await;
    polls
        .create_ended("none", outcome_of(Response::new("".into())))
        .await;
    polls
        .create_ended("some", outcome_of(Response::new("four".into())))
        .await;
    let mut no_content = Response::new(BufferedBody::default());
    *no_content.status_mut() = StatusCode::NO_CONTENT;
    polls
        .create_ended("no-content", outcome_of(no_content))
        .await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("abc"));
    let mut with_trailers = Response::new(BufferedBody::new("four".into(), Some(trailers)));
    let trailer_names = HeaderValue::from_static("x-checksum");
    with_trailers.headers_mut().insert("trailer", trailer_names);
    polls
        .create_ended("trailers", outcome_of(with_trailers))
        .await;

    let mut raw = polls.server.raw().await;
    for id in ["none", "some", "no-content", "trailers"] {
        let path = format!("/operations/{id}/result");
        let get = raw.ask(&format!("GET {path}")).await;
        raw.send(format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            .await
            .unwrap();
        let head = raw.head_only().await;
        assert_eq!(head.status, get.status, "{id}");
        let expected = fields(&get)
            .into_iter()
            // hyper sends no `trailer` field without a body.
            .filter(|(name, _)| name != "trailer");
        assert_eq!(fields(&head), expected.collect::<Vec<_>>(), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_shown_during_and_after_the_run() {
    let polls = Polls::new().await;
    let id = polls.create_running("q3").await;
    let mut client = polls.server.http1().await;
    let progress = Progress::from_count(2, 5)
        .with_unit("pages")
        .with_message("rendering");
    polls.report(&id, progress.clone()).await;
    let expected = serde_json::to_value(&progress).unwrap();
    let polled = client.get("/operations/q3").await.json();
    assert_eq!(polled["progress"], expected);
    polls.finish(&id, Outcome::Succeeded(None)).await;
    let polled = client.get("/operations/q3").await.json();
    assert_eq!(polled["progress"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_grows_with_the_age_of_the_operation() {
    let store = StoreFn::new(|id: OperationId| async move {
        let age = Duration::from_secs(id.to_string().parse().unwrap());
        let mut snapshot = Snapshot::<u32>::default();
        snapshot.metadata = snapshot
            .metadata
            .with_created_at(std::time::SystemTime::now() - age);
        Ok::<_, Infallible>(Some(snapshot))
    });
    let server = Server::hyper(nest(PollService::read_only(store))).await;
    let mut client = server.http1().await;
    let mut after = async |age: u64| -> u64 {
        let answer = client.get(&format!("/operations/{age}")).await;
        answer.header("retry-after").unwrap().parse().unwrap()
    };
    assert_eq!(after(0).await, 1);
    assert!((10..=12).contains(&after(40).await));
    assert_eq!(after(100_000).await, 30);
}

// ---- conditional requests --------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn the_etag_changes_with_every_version() {
    let polls = Polls::new().await;
    let mut client = polls.server.http1().await;
    let mut tags = Vec::new();
    let id = polls.create_pending("q3").await;
    tags.push(etag(&client.get("/operations/q3").await));
    polls
        .store
        .start(&id, holder_token(&polls.store, &id).await)
        .await
        .unwrap();
    tags.push(etag(&client.get("/operations/q3").await));
    polls.report(&id, Progress::from_count(1, 2)).await;
    tags.push(etag(&client.get("/operations/q3").await));
    polls.finish(&id, Outcome::Succeeded(None)).await;
    tags.push(etag(&client.get("/operations/q3").await));
    assert_eq!(etag(&client.get("/operations/q3").await), tags[3]);
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matching_if_none_match_is_304_with_its_fields_and_no_body() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for id in STATES {
        let uri = format!("/operations/{id}");
        let tag = etag(&client.get(&uri).await);
        let strong = tag.strip_prefix("W/").unwrap();
        for field in [
            tag.clone(),
            strong.to_owned(),
            format!("\"other\", {tag}"),
            format!("W/\"x\",{tag} , \"y\""),
            "*".into(),
        ] {
            for method in ["GET", "HEAD"] {
                let line = format!("{method} {uri}");
                let answer = client.ask(&line, &[("if-none-match", &field)]).await;
                assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{line} {field}");
                assert_eq!(etag(&answer), tag);
                assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
                assert_eq!(answer.header("vary"), Some("Accept, Prefer"));
                let retry_after = answer.header("retry-after");
                assert_eq!(retry_after, (!is_terminal(id)).then_some("1"), "{line}");
                assert_eq!(answer.body, "");
                assert_eq!(answer.header("content-type"), None);
            }
        }
        for field in ["\"other\"", "W/\"1\"", ""] {
            let line = format!("GET {uri}");
            let answer = client.ask(&line, &[("if-none-match", field)]).await;
            assert_eq!(answer.status, StatusCode::OK, "{line} {field}");
        }
        for field in ["garbage", "*, \"other\"", "\"other"] {
            let answer = client
                .ask(&format!("GET {uri}"), &[("if-none-match", field)])
                .await;
            answer.problem(400, "invalid-precondition");
        }
    }
    let line = "GET /operations/none";
    let answer = client.ask(line, &[("if-none-match", "*")]).await;
    answer.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_has_a_validator_of_its_own() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    let tag = etag(&client.get("/operations/succeeded").await);
    let line = "GET /operations/succeeded/result";
    let answer = client.ask(line, &[("if-none-match", &tag)]).await;
    assert_eq!(answer.status, StatusCode::OK);
    let own = answer.header("etag").unwrap().to_owned();
    assert!(own.starts_with('"') && own != tag, "{own}");
    let answer = client.ask(line, &[("if-none-match", &own)]).await;
    assert_eq!(answer.status, StatusCode::NOT_MODIFIED);
}

// ---- waiting ---------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_poll_is_held_until_the_end() {
    let polls = Polls::new().await;
    for (id, line, fields) in [
        ("a", "GET /operations/a?wait=20", &[][..]),
        ("b", "GET /operations/b", &[("prefer", "wait=20")]),
        (
            "c",
            "GET /operations/c",
            &[("prefer", "respond-async, WAIT=\"20\"; x=1")],
        ),
        ("d", "HEAD /operations/d?wait=20", &[]),
        (
            "e",
            "GET /operations/e/?x=1&wait=20",
            &[("prefer", "wait=0")],
        ),
    ] {
        let id = polls.create_pending(id).await;
        let poll = polls.hold(line, fields).await;
        // Changes before the end do not answer the poll.
        polls
            .store
            .start(&id, holder_token(&polls.store, &id).await)
            .await
            .unwrap();
        polls.report(&id, Progress::from_count(1, 2)).await;
        until("the poll waits again", || polls.store.waiters() == 1).await;
        assert!(!poll.is_finished(), "{line}");
        let start = Instant::now();
        polls.finish(&id, Outcome::Succeeded(None)).await;
        let answer = answer_of(poll).await;
        assert_eq!(answer.status, StatusCode::OK, "{line}");
        if line.starts_with("GET") {
            assert_eq!(answer.member("state"), "succeeded");
        }
        assert_eq!(answer.header("retry-after"), None);
        assert!(start.elapsed() < Duration::from_secs(10), "{line}");
        assert_eq!(polls.store.waiters(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_with_the_current_etag_is_held_until_the_next_version() {
    let polls = Polls::new().await;
    let id = polls.create_pending("q3").await;
    let mut client = polls.server.http1().await;
    let mut tag = etag(&client.get("/operations/q3").await);
    let requests = [
        ("GET /operations/q3?wait=20", None),
        ("GET /operations/q3", Some("wait=20")),
    ];
    for (round, (line, prefer)) in requests.into_iter().cycle().take(4).enumerate() {
        let mut fields = vec![("if-none-match", tag.as_str())];
        fields.extend(prefer.map(|prefer| ("prefer", prefer)));
        let poll = polls.hold(line, &fields).await;
        match round {
            0 => drop(
                polls
                    .store
                    .start(&id, holder_token(&polls.store, &id).await)
                    .await
                    .unwrap(),
            ),
            3 => polls.finish(&id, Outcome::Succeeded(None)).await,
            round => {
                polls
                    .report(&id, Progress::from_count(round as u64, 9))
                    .await;
            }
        }
        let answer = answer_of(poll).await;
        assert_eq!(answer.status, StatusCode::OK);
        let state = if round == 3 { "succeeded" } else { "running" };
        assert_eq!(answer.member("state"), state);
        assert_ne!(etag(&answer), tag);
        tag = etag(&answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_with_an_older_etag_is_answered_at_once() {
    let polls = Polls::new().await;
    let id = polls.create_pending("q3").await;
    let mut client = polls.server.http1().await;
    let tag = etag(&client.get("/operations/q3").await);
    polls
        .store
        .start(&id, holder_token(&polls.store, &id).await)
        .await
        .unwrap();
    let start = Instant::now();
    let fields = [("if-none-match", tag.as_str()), ("prefer", "wait=30")];
    let answer = client.ask("GET /operations/q3", &fields).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.member("state"), "running");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_of_a_terminal_operation_is_never_held() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    let start = Instant::now();
    for id in TERMINAL {
        let uri = format!("GET /operations/{id}?wait=30");
        let answer = client.ask(&uri, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{id}");
        let tag = etag(&answer);
        let answer = client.ask(&uri, &[("if-none-match", &tag)]).await;
        assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{id}");
        client
            .get(&format!("/operations/{id}/result?wait=30"))
            .await;
    }
    client
        .get("/operations/none?wait=30")
        .await
        .problem(404, "not-found");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_whose_wait_is_over_is_answered_like_one_without_a_wait() {
    let polls = Polls::new().await;
    polls.create_running("q3").await;
    let mut client = polls.server.http1().await;
    let start = Instant::now();
    let answer = client.get("/operations/q3?wait=1").await;
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.member("state"), "running");
    assert!(answer.header("retry-after").is_some());

    let tag = etag(&answer);
    let start = Instant::now();
    let fields = [("if-none-match", tag.as_str()), ("prefer", "wait=1")];
    let answer = client.ask("GET /operations/q3", &fields).await;
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(answer.status, StatusCode::NOT_MODIFIED);
    assert_eq!(etag(&answer), tag);

    let start = Instant::now();
    let answer = client.get("/operations/q3/result?wait=1").await;
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(answer.status, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_is_held_at_most_for_the_maximum_wait() {
    let polls = Polls::with_polls(|polls| polls.max_wait(Duration::from_millis(50))).await;
    polls.create_running("q3").await;
    let mut client = polls.server.http1().await;
    let start = Instant::now();
    for wait in ["1000", "99999999999999999999999999"] {
        let answer = client.get(&format!("/operations/q3?wait={wait}")).await;
        assert_eq!(answer.member("state"), "running");
        let prefer = format!("wait={wait}");
        let answer = client
            .ask("GET /operations/q3", &[("prefer", &prefer)])
            .await;
        assert_eq!(answer.member("state"), "running");
    }
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_beyond_the_bound_on_held_polls_are_answered_at_once() {
    let polls = Polls::with_polls(|polls| polls.max_held(1)).await;
    let id = polls.create_running("q3").await;
    let poll = polls.hold("GET /operations/q3?wait=20", &[]).await;
    let mut client = polls.server.http1().await;
    let start = Instant::now();
    for _ in 0..5 {
        let answer = client.get("/operations/q3?wait=20").await;
        assert_eq!(answer.member("state"), "running");
        let answer = client.get("/operations/q3/result?wait=20").await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
    }
    assert!(start.elapsed() < Duration::from_secs(10));
    polls.finish(&id, Outcome::Succeeded(None)).await;
    assert_eq!(answer_of(poll).await.member("state"), "succeeded");
    // The permit of the first poll is free again.
    let id = polls.create_running("q4").await;
    let poll = polls.hold("GET /operations/q4?wait=20", &[]).await;
    polls.finish(&id, Outcome::Succeeded(None)).await;
    answer_of(poll).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_of_zero_is_no_wait_and_an_invalid_one_is_400() {
    let polls = Polls::new().await;
    polls.create_running("q3").await;
    let mut client = polls.server.http1().await;
    let start = Instant::now();
    for (line, prefer) in [
        ("GET /operations/q3?wait=0", ""),
        ("GET /operations/q3?wait=00", "wait=30"),
        ("GET /operations/q3", "wait=0"),
        ("GET /operations/q3", "wait=x"),
        ("GET /operations/q3", "wait"),
        ("GET /operations/q3", "handling=lenient"),
    ] {
        let answer = client.ask(line, &[("prefer", prefer)]).await;
        assert_eq!(answer.member("state"), "running", "{line} {prefer}");
    }
    for wait in ["", "x", "-1", "1.5", "%zz", "1s", "+1"] {
        let answer = client.get(&format!("/operations/q3?wait={wait}")).await;
        answer.problem(400, "invalid-wait");
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn held_polls_are_answered_at_the_close() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (polls, drain) = (operations.poll_service(), operations.drain_handle());
    let polls = Polls {
        server: Server::hyper(nest(polls)).await,
        store,
    };
    polls.create_running("q3").await;
    let mut client = polls.server.http1().await;
    let tag = etag(&client.get("/operations/q3").await);
    let start = Instant::now();
    let held_polls = [
        polls.hold("GET /operations/q3?wait=30", &[]).await,
        polls
            .hold("GET /operations/q3?wait=30", &[("if-none-match", &tag)])
            .await,
        polls.hold("GET /operations/q3/result?wait=30", &[]).await,
    ];
    drain.close();
    for (poll, status) in held_polls.into_iter().zip([200, 304, 202]) {
        assert_eq!(answer_of(poll).await.status, status);
    }
    // No further poll is held.
    let answer = client.get("/operations/q3?wait=30").await;
    assert_eq!(answer.member("state"), "running");
    assert!(start.elapsed() < Duration::from_secs(15));
    assert_eq!(polls.store.waiters(), 0);
}

// ---- results ----------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_result_before_the_end_is_202() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for id in ["pending", "running"] {
        let answer = client.get(&format!("/operations/{id}/result")).await;
        assert_eq!(answer.accepted(), format!("/operations/{id}"));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("operation-result"), None);
        assert!(answer.header("cache-control").unwrap().contains("no-store"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_poll_of_the_result_is_held_until_the_end() {
    let polls = Polls::new().await;
    for (id, line, prefer) in [
        ("a", "GET /operations/a/result?wait=20", ""),
        ("b", "GET /operations/b/result", "wait=20"),
    ] {
        let id = polls.create_pending(id).await;
        let poll = polls.hold(line, &[("prefer", prefer)]).await;
        polls
            .store
            .start(&id, holder_token(&polls.store, &id).await)
            .await
            .unwrap();
        until("the poll waits again", || polls.store.waiters() == 1).await;
        polls
            .finish(&id, outcome_of(Response::new("done".into())))
            .await;
        let answer = answer_of(poll).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.text(), "done");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_response_is_replayed_byte_for_byte() {
    let polls = Polls::new().await;
    let odd: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for (id, status, body) in [
        ("a", 200, odd.clone()),
        ("b", 201, b"created".to_vec()),
        ("c", 204, Vec::new()),
        ("d", 303, Vec::new()),
        ("e", 404, b"no such report".to_vec()),
        ("f", 500, odd),
    ] {
        let response = Response::builder()
            .status(status)
            .header("x-own", "kept")
            .header("location", "/elsewhere")
            .header("content-type", "application/x-odd")
            .body(BufferedBody::from(body.clone()))
            .unwrap();
        polls.create_ended(id, outcome_of(response)).await;
        for mut client in [polls.server.http1().await, polls.server.http2().await] {
            let answer = client.get(&format!("/operations/{id}/result")).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.body, body);
            assert_eq!(answer.header("x-own"), Some("kept"));
            assert_eq!(answer.header("location"), Some("/elsewhere"));
            assert_eq!(answer.header("content-type"), Some("application/x-odd"));
            assert_eq!(answer.header("cache-control"), Some("private, no-store"));
            let result = status.to_string();
            assert_eq!(answer.header("operation-result"), Some(result.as_str()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_404_differs_from_a_404_of_the_poll_service() {
    let polls = Polls::new().await;
    let mut response = Response::new("no such report".into());
    *response.status_mut() = StatusCode::NOT_FOUND;
    polls.create_ended("q3", outcome_of(response)).await;
    let mut client = polls.server.http1().await;
    let replayed = client.get("/operations/q3/result").await;
    assert_eq!(replayed.status, StatusCode::NOT_FOUND);
    assert_eq!(replayed.header("operation-result"), Some("404"));
    let direct = client.get("/operations/none/result").await;
    direct.problem(404, "not-found");
    assert_eq!(direct.header("operation-result"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_without_a_response_is_its_problem_with_its_status() {
    let polls = Polls::new().await;
    let mut client = polls.server.http1().await;
    for (kind, status) in [
        (FailureKind::InnerError, 502),
        (FailureKind::Panicked, 500),
        (FailureKind::TimedOut, 504),
        (FailureKind::ResultTooLarge, 500),
        (FailureKind::Interrupted, 503),
        (FailureKind::AttemptsExhausted, 500),
        (FailureKind::NotDispatched, 503),
    ] {
        let code = kind.urn().strip_prefix("urn:tower-operations:").unwrap();
        polls.create_ended(code, Outcome::failed(kind)).await;
        let polled = client.get(&format!("/operations/{code}")).await.json();
        let answer = client.get(&format!("/operations/{code}/result")).await;
        assert_eq!(answer.problem(status, code), polled["problem"]);
        assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    }
    let problem = Problem::new(StatusCode::PAYMENT_REQUIRED).with("balance", 30);
    polls.create_ended("own", Outcome::failed(problem)).await;
    let answer = client.get("/operations/own/result").await;
    assert_eq!(answer.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(answer.json()["balance"], 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_a_canceled_operation_is_410() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    let answer = client.get("/operations/canceled/result").await;
    answer.problem(410, "canceled");
    assert_eq!(answer.header("operation-result"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_result_is_sent_with_its_length() {
    let polls = Polls::new().await;
    let response = Response::builder()
        .header("accept-ranges", "none")
        .header("etag", "\"own\"")
        .body(BufferedBody::from("0123456789"))
        .unwrap();
    polls.create_ended("q3", outcome_of(response)).await;
    let mut client = polls.server.http1().await;
    for (fields, status, text) in [
        (&[("range", "bytes=2-3")][..], 206, "23"),
        (
            &[("range", "bytes=0-0"), ("if-range", "\"own\"")],
            200,
            "0123456789",
        ),
    ] {
        let answer = client.ask("GET /operations/q3/result", fields).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.text(), text);
        assert_eq!(
            answer.header("content-length"),
            Some(&*text.len().to_string())
        );
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    }
    let outside = [("range", "bytes=100-")];
    let answer = client.ask("GET /operations/q3/result", &outside).await;
    answer.problem(416, "range-not-satisfiable");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_a_custom_type_are_json() {
    let store = MemoryStore::<Vec<u32>>::with_weigher(|_| 0);
    let server = Server::hyper(nest(PollService::new(store.clone()))).await;
    let mut client = server.http1().await;
    for (id, outcome) in [
        ("some", Outcome::Succeeded(Some(vec![1, 2]))),
        ("none", Outcome::Succeeded(None)),
        (
            "failed",
            Outcome::failed(Problem::new(StatusCode::CONFLICT)),
        ),
    ] {
        let id: OperationId = id.parse().unwrap();
        store.create(NewOperation::new(id.clone())).await.unwrap();
        store
            .start(&id, holder_token(&store, &id).await)
            .await
            .unwrap();
        store
            .finish(&id, holder_token(&store, &id).await, outcome, None)
            .await
            .unwrap();
    }
    let polled = client.get("/operations/some").await;
    assert_eq!(polled.json()["result"], json!([1, 2]));
    let result = client.get("/operations/some/result").await;
    assert_eq!(result.status, StatusCode::OK);
    assert_eq!(result.text(), "[1,2]");
    assert_eq!(result.header("content-type"), Some("application/json"));
    assert_eq!(result.header("cache-control"), Some("private, no-store"));
    let result = client.get("/operations/none/result").await;
    assert_eq!(result.status, StatusCode::NO_CONTENT);
    assert_eq!(result.body, "");
    let result = client.get("/operations/failed/result").await;
    assert_eq!(result.status, StatusCode::CONFLICT);
}

// ---- embedded results -------------------------------------------------------

fn with_type(media_type: &str, body: impl Into<Bytes>) -> Response<BufferedBody> {
    Response::builder()
        .header("content-type", media_type)
        .body(BufferedBody::from(body.into()))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_embedded_verbatim_and_text_as_a_string() {
    let polls = Polls::new().await;
    let mut client = polls.server.http1().await;
    let odd = r#"{"b" : 1.0000000000000000000001, "a":[ ], "a":"ü" }"#;
    for (id, media_type) in [
        ("a", "application/json"),
        ("b", "application/vnd.report+json; charset=utf-8"),
    ] {
        polls
            .create_ended(id, outcome_of(with_type(media_type, odd)))
            .await;
        let answer = client.get(&format!("/operations/{id}")).await;
        assert!(
            answer.text().contains(&format!("\"result\":{odd},")),
            "{answer:?}"
        );
        assert_eq!(answer.json()["state"], "succeeded");
    }
    let text = "grün, \"quoted\"\n\\ and \u{1}";
    for (id, media_type) in [("c", "text/plain"), ("d", "text/csv; charset=UTF-8")] {
        polls
            .create_ended(id, outcome_of(with_type(media_type, text)))
            .await;
        let answer = client.get(&format!("/operations/{id}")).await;
        assert_eq!(answer.json()["result"], text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_results_are_available_only_from_the_result_resource() {
    let polls = Polls::with_polls(|polls| polls.inline_limit(10)).await;
    let mut gzip_response = with_type("application/json", "{}");
    let encoding = HeaderValue::from_static("gzip");
    gzip_response
        .headers_mut()
        .insert("content-encoding", encoding);
    let mut client = polls.server.http1().await;
    for (id, response) in [
        ("pdf", with_type("application/pdf", "%PDF")),
        ("zipped", gzip_response),
        ("no-type", Response::new("text".into())),
        ("no-json", with_type("application/json", "{\"a\":")),
        ("latin", with_type("text/plain; charset=iso-8859-1", "a")),
        ("no-text", with_type("text/plain", &b"\xff\xfe"[..])),
        ("long-json", with_type("application/json", "[1,2,3,4,5]")),
        ("long-text", with_type("text/plain", "01234567890")),
    ] {
        let body = response.body().data().clone();
        polls.create_ended(id, outcome_of(response)).await;
        let polled = client.get(&format!("/operations/{id}")).await.json();
        assert_eq!(polled["state"], "succeeded", "{id}");
        assert!(!polled.as_object().unwrap().contains_key("result"), "{id}");
        let result = client.get(&format!("/operations/{id}/result")).await;
        assert_eq!(result.body, body, "{id}");
    }
    for (id, response) in [
        ("json", with_type("application/json", "[1,2,3,45]")),
        ("text", with_type("text/plain", "0123456789")),
    ] {
        polls.create_ended(id, outcome_of(response)).await;
        let polled = client.get(&format!("/operations/{id}")).await.json();
        assert!(polled.as_object().unwrap().contains_key("result"), "{id}");
    }
}

// ---- DELETE ----------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_cancels_a_live_operation_and_is_idempotent() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for id in ["pending", "running"] {
        let line = format!("DELETE /operations/{id}");
        let first = client.ask(&line, &[]).await;
        assert_eq!(first.status, StatusCode::OK);
        assert_eq!(first.member("id"), id);
        assert_eq!(first.member("state"), "canceled");
        let second = client.ask(&line, &[]).await;
        assert_eq!(second.status, StatusCode::OK);
        assert_eq!(second.body, first.body);
        assert_eq!(etag(&second), etag(&first));
        let polled = client.get(&format!("/operations/{id}")).await;
        assert_eq!(polled.body, first.body);
        assert_eq!(etag(&polled), etag(&first));
        client
            .get(&format!("/operations/{id}/result"))
            .await
            .problem(410, "canceled");
    }
    // A late holder changes nothing.
    let id: OperationId = "running".parse().unwrap();
    polls.finish(&id, Outcome::Succeeded(None)).await;
    assert_eq!(
        client.get("/operations/running").await.member("state"),
        "canceled"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_stops_the_run() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let drops = Arc::new(AtomicUsize::new(0));
    let (begin, mut begin_receiver) = tokio::sync::mpsc::unbounded_channel();
    struct OnDrop(Arc<AtomicUsize>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let guard = Arc::clone(&drops);
    let inner = service_fn(move |_: Request<_>| {
        let guard = OnDrop(Arc::clone(&guard));
        let begin = begin.clone();
        async move {
            let _guard = guard;
            begin.send(()).unwrap();
            std::future::pending::<Result<Response<BufferedBody>, Infallible>>().await
        }
    });
    let service = tower::ServiceBuilder::new().layer(layer).service(inner);
    let app = Router::new()
        .route("/reports", post_service(service))
        .nest_service("/operations", PollService::new(store.clone()));
    let server = Server::hyper(app).await;
    let mut client = server.http1().await;
    let location = client.post("/reports", "").await.accepted();
    soon(begin_receiver.recv()).await.unwrap();
    let answer = client.ask(&format!("DELETE {location}"), &[]).await;
    assert_eq!(answer.member("state"), "canceled");
    until("the work is dropped", || drops.load(SeqCst) == 1).await;
    let report = soon(drain.drain(Duration::from_secs(10))).await;
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_of_an_ended_operation_is_409_and_changes_nothing() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for id in ["succeeded", "empty", "failed", "refused"] {
        let uri = format!("/operations/{id}");
        let before = client.get(&uri).await;
        let answer = client.ask(&format!("DELETE {uri}"), &[]).await;
        answer.problem(409, "already-finished");
        assert_eq!(client.get(&uri).await.body, before.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_with_the_current_etag_deletes_an_ended_operation() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for id in ["succeeded", "empty", "failed", "refused"] {
        let uri = format!("/operations/{id}");
        let tag = etag(&client.get(&uri).await);
        let answer = client
            .ask(&format!("DELETE {uri}"), &[("if-match", &tag)])
            .await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{id}");
        assert_eq!(answer.body, "");
        for line in [
            format!("GET {uri}"),
            format!("GET {uri}/result"),
            format!("DELETE {uri}"),
        ] {
            client.ask(&line, &[]).await.problem(404, "not-found");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_with_another_etag_is_412_and_changes_nothing() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for id in STATES {
        let uri = format!("/operations/{id}");
        let before = client.get(&uri).await;
        for other in ["W/\"1-0\"", "\"other\""] {
            let answer = client
                .ask(&format!("DELETE {uri}"), &[("if-match", other)])
                .await;
            answer.problem(412, "precondition-failed");
        }
        let after = client.get(&uri).await;
        assert_eq!(after.body, before.body);
        assert_eq!(etag(&after), etag(&before));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_with_the_current_etag_cancels_a_live_operation() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    let tag = etag(&client.get("/operations/running").await);
    let answer = client
        .ask("DELETE /operations/running", &[("if-match", &tag)])
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.member("state"), "canceled");
    // The operation has another version now.
    let answer = client
        .ask("DELETE /operations/running", &[("if-match", &tag)])
        .await;
    answer.problem(412, "precondition-failed");
}

// ---- invalid requests -------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_id_is_400() {
    let polls = Polls::new().await;
    let mut client = polls.server.http1().await;
    for uri in [
        "/operations",
        "/operations/",
        "/operations?id=",
        "/operations/?id=",
        "/operations/?other=1",
        "/operations/result",
    ] {
        client.get(uri).await.problem(400, "missing-id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_read_from_the_query() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for uri in [
        "/operations?id=succeeded",
        "/operations/?id=succee%64ed&x=1",
    ] {
        assert_eq!(client.get(uri).await.member("id"), "succeeded");
    }
    let result = client.get("/operations/result?id=succeeded").await;
    assert_eq!(result.text(), r#"{"pages":5}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trailing_slash_is_ignored() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    let polled = client.get("/operations/succeeded/").await;
    assert_eq!(polled.member("id"), "succeeded");
    let result = client.get("/operations/succeeded/result/").await;
    assert_eq!(result.text(), r#"{"pages":5}"#);
    let canceled = client.ask("DELETE /operations/running/", &[]).await;
    assert_eq!(canceled.member("state"), "canceled");
    for uri in ["/operations/succeeded//", "/operations/succeeded/result//"] {
        let answer = client.get(uri).await;
        let refused = [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND];
        assert!(refused.contains(&answer.status), "{uri}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_operation_is_404_for_every_request() {
    let polls = Polls::new().await;
    let mut client = polls.server.http1().await;
    for line in [
        "GET /operations/none",
        "GET /operations/none?wait=30",
        "GET /operations/none/result",
        "DELETE /operations/none",
    ] {
        client.ask(line, &[]).await.problem(404, "not-found");
    }
    let answer = client
        .ask("DELETE /operations/none", &[("if-match", "*")])
        .await;
    answer.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_operation_is_404() {
    let store = MemoryStore::new().ttl(Duration::ZERO);
    let polls = PollService::new(store.clone());
    let polls = Polls {
        server: Server::hyper(nest(polls)).await,
        store,
    };
    let id = polls.create_running("q3").await;
    let mut client = polls.server.http1().await;
    assert_eq!(client.get("/operations/q3").await.status, StatusCode::OK);
    polls.finish(&id, Outcome::Succeeded(None)).await;
    client.get("/operations/q3").await.problem(404, "not-found");
}

/// The parts of an answer, with its id replaced.
fn without_id(answer: &Answer, id: &str) -> (StatusCode, Vec<(String, String)>, String) {
    (
        answer.status,
        fields(answer),
        answer.text().replace(id, "ID"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_of_another_owner_is_the_404_of_an_unknown_one() {
    let polls = Polls::new().await;
    for id in ["theirs-1", "theirs-2"] {
        let id: OperationId = id.parse().unwrap();
        let new = NewOperation::new(id.clone()).with_owner(Some(owner()));
        polls.store.create(new).await.unwrap();
    }
    let id: OperationId = "theirs-2".parse().unwrap();
    polls
        .store
        .start(&id, holder_token(&polls.store, &id).await)
        .await
        .unwrap();
    polls.finish(&id, Outcome::Succeeded(None)).await;
    let mut client = polls.server.http1().await;
    for method in ["GET", "HEAD", "DELETE"] {
        for (suffix, fields) in [
            ("", &[][..]),
            ("?wait=30", &[]),
            ("", &[("if-match", "*")]),
            ("", &[("if-none-match", "*"), ("prefer", "wait=30")]),
            ("/result", &[]),
            ("/result?wait=30", &[]),
        ] {
            let mut ask = async |id: &str| {
                let line = format!("{method} /operations/{id}{suffix}");
                let answer = client.ask(&line, fields).await;
                without_id(&answer, id)
            };
            let unknown = ask("nobodys1").await;
            assert_eq!(ask("theirs-1").await, unknown, "{method} {suffix}");
            assert_eq!(ask("theirs-2").await, unknown, "{method} {suffix}");
        }
    }
    // The operations are unchanged.
    let record = polls.store.get(&"theirs-1".parse().unwrap()).await.unwrap();
    assert_eq!(record.unwrap().operation().state().as_str(), "pending");
}

fn owner() -> Owner {
    Owner::new("tenant")
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_405_and_options_is_204_with_allow() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for (uri, allow) in [
        ("/operations/succeeded", "GET, HEAD, DELETE, OPTIONS"),
        ("/operations/none", "GET, HEAD, DELETE, OPTIONS"),
        ("/operations/succeeded/result", "GET, HEAD, OPTIONS"),
    ] {
        assert_methods(&mut client, uri, allow).await;
    }
    let answer = client.ask("DELETE /operations/succeeded/result", &[]).await;
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
}

async fn assert_methods(client: &mut Client, uri: &str, allow: &str) {
    for method in ["POST", "PUT", "PATCH", "TRACE", "PROPFIND"] {
        let answer = client.ask(&format!("{method} {uri}"), &[]).await;
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {uri}");
    }
    let answer = client.ask(&format!("OPTIONS {uri}"), &[]).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{uri}");
    assert_eq!(answer.header("allow"), Some(allow), "{uri}");
    assert_eq!(answer.body, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_service_neither_cancels_nor_allows_delete() {
    let store = MemoryStore::new();
    let polls = PollService::read_only(store.clone());
    let polls = Polls {
        server: Server::hyper(nest(polls)).await,
        store,
    };
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    let answer = client.ask("DELETE /operations/running", &[]).await;
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    for uri in ["/operations/running", "/operations/running/result"] {
        assert_methods(&mut client, uri, "GET, HEAD, OPTIONS").await;
    }
    // The service gets no notice of changes, so it holds no poll.
    let start = Instant::now();
    let answer = client.get("/operations/running?wait=30").await;
    assert_eq!(answer.member("state"), "running");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(
        client.get("/operations/succeeded/result").await.text(),
        r#"{"pages":5}"#
    );
}

// ---- failing stores ---------------------------------------------------------

const SECRET: &str = "postgres://admin:hunter2@db";

#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_store_is_503_without_its_error_text() {
    type MakeError = fn() -> StoreError;
    let errors: [MakeError; 2] = [
        || StoreError::unavailable(SECRET),
        || StoreError::refused(SECRET),
    ];
    for error in errors {
        let read = move |_: OperationId| async move { Err::<Option<Record<u32>>, _>(error()) };
        let write = move |_: Change<u32>| async move { Err::<bool, _>(error()) };
        let store = Polling::new(RepositoryFn::new(read, write), Duration::from_millis(10));
        let server = Server::hyper(nest(PollService::new(store))).await;
        let mut client = server.http1().await;
        for line in [
            "GET /operations/q3",
            "GET /operations/q3?wait=30",
            "GET /operations/q3/result",
            "DELETE /operations/q3",
        ] {
            let answer = client.ask(line, &[]).await;
            answer.problem(503, "unavailable");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            assert!(!answer.text().contains("hunter2"), "{answer:?}");
        }
    }
    // The text of an error that is not the store's own is hidden too.
    let store = StoreFn::new(|_| async { Err::<Option<Snapshot<u32>>, _>(SECRET) });
    let server = Server::hyper(nest(PollService::read_only(store))).await;
    let answer = server.http1().await.get("/operations/q3").await;
    answer.problem(503, "unavailable");
    assert!(!answer.text().contains("hunter2"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_during_a_held_poll_is_503() {
    let rows = Arc::new(Mutex::new(Some(HashMap::<OperationId, Record<u32>>::new())));
    let table = Arc::clone(&rows);
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reads);
    let read = move |id: OperationId| {
        counter.fetch_add(1, SeqCst);
        let table = table.lock().unwrap();
        let row = table.as_ref().map(|rows| rows.get(&id).cloned());
        async move { row.ok_or("down") }
    };
    let table = Arc::clone(&rows);
    let write = move |change: Change<u32>| {
        let mut table = table.lock().unwrap();
        let rows = table.as_mut().unwrap();
        rows.insert(change.id, change.record.unwrap());
        async move { Ok::<_, Infallible>(true) }
    };
    let store = Polling::new(RepositoryFn::new(read, write), Duration::from_millis(1));
    let id: OperationId = "q3".parse().unwrap();
    store.create(NewOperation::new(id)).await.unwrap();
    let server = Server::hyper(nest(PollService::new(store))).await;
    let mut client = server.http1().await;
    let poll = tokio::spawn(async move { client.get("/operations/q3?wait=30").await });
    let before = reads.load(SeqCst);
    until("the poll is held", || reads.load(SeqCst) > before + 3).await;
    rows.lock().unwrap().take();
    let answer = answer_of(poll).await;
    answer.problem(503, "unavailable");
}

// ---- settings of the application --------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn the_application_extracts_the_id() {
    let polls = Polls::with_polls(|polls| {
        polls.operation_id(|parts| {
            let id = parts.headers.get("x-operation")?;
            id.to_str().ok().map(Into::into)
        })
    })
    .await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    let id_field = [("x-operation", "succeeded")];
    for uri in ["/operations", "/operations/", "/operations/none"] {
        let answer = client.ask(&format!("GET {uri}"), &id_field).await;
        assert_eq!(answer.member("id"), "succeeded", "{uri}");
    }
    let answer = client.ask("GET /operations/result", &id_field).await;
    assert_eq!(answer.text(), r#"{"pages":5}"#);
    let answer = client
        .ask(
            "DELETE /operations/succeeded",
            &[("x-operation", "running")],
        )
        .await;
    assert_eq!(answer.member("id"), "running");
    assert_eq!(answer.member("state"), "canceled");
    client
        .get("/operations/succeeded")
        .await
        .problem(400, "missing-id");
    for (id, status, code) in [
        ("", 400, "missing-id"),
        ("../x", 400, "invalid-id"),
        // The operation may be older than the reserved word.
        ("result", 404, "not-found"),
        ("none", 404, "not-found"),
    ] {
        let answer = client
            .ask("GET /operations/succeeded", &[("x-operation", id)])
            .await;
        answer.problem(status, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_writes_the_errors() {
    let polls = Polls::with_polls(|polls| {
        polls
            .operation_id(|parts| Some(parts.uri.path().trim_matches('/').into()))
            .error_writer(|fault: &ApiError| {
                let text = format!("<error code=\"{}\"/>", fault.code());
                Response::builder()
                    .status(fault.status())
                    .header("content-type", "application/xml")
                    .body(BufferedBody::from(text))
                    .unwrap()
            })
    })
    .await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for (line, status, code) in [
        ("GET /operations", 400, "missing-id"),
        ("GET /operations/%00", 400, "invalid-id"),
        ("GET /operations/running?wait=x", 400, "invalid-wait"),
        ("GET /operations/none", 404, "not-found"),
        ("DELETE /operations/none", 404, "not-found"),
        ("DELETE /operations/succeeded", 409, "already-finished"),
        ("POST /operations/succeeded", 405, "method-not-allowed"),
    ] {
        let answer = client.ask(line, &[]).await;
        assert_eq!(answer.status, status, "{line}");
        assert_eq!(answer.text(), format!("<error code=\"{code}\"/>"), "{line}");
        assert_eq!(answer.header("content-type"), Some("application/xml"));
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{line}");
        let allow = (status == 405).then_some("GET, HEAD, DELETE, OPTIONS");
        assert_eq!(answer.header("allow"), allow, "{line}");
    }
    let answer = client
        .ask("DELETE /operations/succeeded", &[("if-match", "\"x\"")])
        .await;
    assert_eq!(answer.text(), "<error code=\"precondition-failed\"/>");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_writes_the_410_of_a_canceled_result_too() {
    let polls = Polls::with_polls(|polls| {
        polls.error_writer(|fault: &ApiError| {
            let mut response = Response::new(BufferedBody::from(fault.code()));
            *response.status_mut() = fault.status();
            response
        })
    })
    .await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    let answer = client.get("/operations/canceled/result").await;
    assert_eq!(answer.status, StatusCode::GONE);
    assert_eq!(answer.text(), "canceled");
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_of_unfinished_operations_are_202_on_request() {
    let polls = Polls::from_operations(|operations| {
        let operations = operations.dialect(Plain::default().accepted_while_unfinished());
        let operations = operations.public_url("https://api.example.com");
        operations.unwrap().poll_service()
    })
    .await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for id in STATES {
        let answer = client.get(&format!("/operations/{id}")).await;
        if is_terminal(id) {
            assert_eq!(answer.status, StatusCode::OK, "{id}");
            assert_eq!(answer.header("location"), None);
            continue;
        }
        let location = format!("https://api.example.com/operations/{id}");
        assert_eq!(answer.accepted(), location);
        assert_eq!(answer.member("state"), id);
        assert_eq!(answer.header("retry-after"), Some("1"));
        let tag = etag(&answer);
        let line = format!("GET /operations/{id}");
        let second = client.ask(&line, &[("if-none-match", &tag)]).await;
        assert_eq!(second.status, StatusCode::NOT_MODIFIED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_mount_path_distinguishes_its_root_from_an_id() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone()).public_path("/v1/jobs");
    let polls = operations.poll_service().mounted_at("/v1/jobs/");
    let polls = Polls {
        server: Server::hyper(polls).await,
        store,
    };
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    for uri in ["/v1/jobs", "/v1/jobs/"] {
        client.get(uri).await.problem(400, "missing-id");
    }
    let answer = client.get("/v1/jobs/running").await;
    assert_eq!(answer.member("id"), "running");
    let answer = client.get("/v1/jobs/running/result").await;
    assert_eq!(answer.accepted(), "/v1/jobs/running");
    let answer = client.get("/v1/jobs?id=succeeded").await;
    assert_eq!(answer.member("id"), "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_with_a_body_is_answered_too() {
    let polls = Polls::new().await;
    polls.create_one_of_each().await;
    let mut client = polls.server.http1().await;
    let request = Request::delete("/operations/running")
        .body(chunked("{}", None))
        .unwrap();
    assert_eq!(client.send(request).await.member("state"), "canceled");
    let request = Request::get("/operations/running")
        .body(full("{}"))
        .unwrap();
    assert_eq!(client.send(request).await.member("state"), "canceled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_its_handler_and_its_response_the_client() {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone());
    let inner = service_fn(|request: Request<RequestBody<AxumBody>>| async move {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let response = Response::builder()
            .status(201)
            .header("x-method", parts.method.as_str())
            .header("x-target", parts.uri.to_string())
            .header("x-sent", &parts.headers["x-sent"])
            .body(full(body));
        Ok::<_, Infallible>(response.unwrap())
    });
    let service = tower::ServiceBuilder::new().layer(layer).service(inner);
    let app = Router::new()
        .route("/reports", any_service(service))
        .nest_service("/operations", PollService::new(store));
    let server = Server::hyper(app).await;
    let mut client = server.http1().await;
    let request = Request::put("/reports?year=2026")
        .header("x-sent", "kept")
        .body(chunked(vec![7; 50_000], None))
        .unwrap();
    let location = client.send(request).await.accepted();
    let answer = client.get(&format!("{location}/result?wait=20")).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.header("x-method"), Some("PUT"));
    assert_eq!(answer.header("x-target"), Some("/reports?year=2026"));
    assert_eq!(answer.header("x-sent"), Some("kept"));
    assert_eq!(answer.body, vec![7; 50_000]);
    assert_eq!(client.get(&location).await.member("state"), "succeeded");
}
