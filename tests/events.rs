//! Event streams of operations, and the cost of progress. The clock is paused,
//! except over sockets whose clients disconnect.

use test_support::hooked;
use test_support::server;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use hooked::{Call, Hooked, When};
use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::Value;
use server::Server;
use tokio::time::{Instant, timeout};
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, FailureKind, MemoryStore, OperationHandle, OperationId,
    Operations, Outcome, PollService, Progress, RecordedResponse, RequestBody,
    poll::PollBody,
    store::{Created, FencingToken, NewOperation, Repository, Store, StoreError, Written},
};

/// An operation that a test starts, reports on and ends.
struct TestOperation {
    store: MemoryStore,
    id: OperationId,
    token: FencingToken,
}

impl TestOperation {
    async fn begin(store: &MemoryStore) -> Self {
        let id = OperationId::new();
        let new = NewOperation::new(id.clone());
        let Created::New(record) = store.create(new).await.unwrap() else {
            panic!("the id is new")
        };
        Self {
            store: store.clone(),
            id,
            token: record.token(),
        }
    }

    async fn start(&self) {
        assert_written(self.store.start(&self.id, self.token).await);
    }

    async fn report(&self, percent: f64) {
        let progress = Progress::from_percent(percent);
        assert_written(self.store.report(&self.id, self.token, progress).await);
    }

    async fn end(&self, outcome: Outcome<RecordedResponse>) {
        assert_written(self.store.finish(&self.id, self.token, outcome, None).await);
    }

    async fn succeed(&self, body: &'static str) {
        let response = Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .body(BufferedBody::from(body));
        let recorded = RecordedResponse::new(response.unwrap());
        self.end(recorded.into_outcome()).await;
    }

    fn get(&self) -> http::request::Builder {
        Request::get(format!("/{}", self.id))
    }

    fn follow(&self) -> http::request::Builder {
        Request::get(format!("/{}/events", self.id))
    }
}

fn assert_written(write: Result<Written<RecordedResponse>, StoreError>) {
    assert!(matches!(write.unwrap(), Written::Done(_)));
}

async fn ask<S: Store>(
    polls: &PollService<S>,
    request: http::request::Builder,
) -> Response<PollBody> {
    polls
        .clone()
        .oneshot(request.body(()).unwrap())
        .await
        .unwrap()
}

async fn text(response: Response<PollBody>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

fn field<'a, B>(response: &'a Response<B>, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

/// A part of an event stream (HTML, section 9.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Event(Event),
    Comment,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Event {
    id: String,
    name: String,
    data: String,
}

impl Event {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Piece {
    /// Parses the text before an empty line.
    fn parse(text: &str) -> Self {
        let mut event = Event::default();
        let mut data = Vec::new();
        let mut is_comment = true;
        let lines = text.split(['\n', '\r']);
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            is_comment &= name.is_empty();
            match name {
                "" => {}
                "id" => event.id = value.into(),
                "event" => event.name = value.into(),
                "data" => data.push(value),
                other => panic!("no field of an event: {other:?} in {text:?}"),
            }
        }
        event.data = data.join("\n");
        match is_comment {
            true => Self::Comment,
            false => Self::Event(event),
        }
    }
}

/// The reading end of an event stream.
struct Events<B> {
    body: B,
    read: Vec<u8>,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> Events<B> {
    fn from_response(response: Response<B>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(field(&response, "content-type"), "text/event-stream");
        Self {
            body: response.into_body(),
            read: Vec::new(),
        }
    }

    /// Returns the next event or comment, or `None` at the end of the stream.
    async fn piece(&mut self) -> Option<Piece> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\n\n") {
                let piece: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(Piece::parse(std::str::from_utf8(&piece[..end]).unwrap()));
            }
            match self.body.frame().await {
                Some(frame) => {
                    let frame = frame.unwrap_or_else(|_| panic!("the stream broke off"));
                    self.read.extend(frame.into_data().unwrap_or_default());
                }
                None => {
                    assert!(self.read.is_empty(), "the stream ended within an event");
                    return None;
                }
            }
        }
    }

    /// Returns the next event. A comment fails the test.
    async fn event(&mut self) -> Event {
        match self.piece().await {
            Some(Piece::Event(event)) => event,
            other => panic!("no event, but {other:?}"),
        }
    }

    /// Returns whether nothing arrives for `time`.
    async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.piece()).await.is_err()
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_the_current_state_and_every_change_to_the_end() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    for by_accept in [true, false] {
        let operation = TestOperation::begin(&store).await;
        let request = match by_accept {
            true => operation.get().header("accept", "text/event-stream"),
            false => operation.follow(),
        };
        let response = ask(&polls, request).await;
        assert!(field(&response, "cache-control").contains("no-store"));
        assert_eq!(field(&response, "vary"), "Accept");
        let mut events = Events::from_response(response);
        let mut history = Vec::new();
        for step in 0..4 {
            match step {
                0 => {}
                1 => operation.start().await,
                2 => operation.report(40.0).await,
                _ => operation.succeed("{\"pages\": 3}").await,
            }
            let event = events.event().await;
            let state = ["pending", "running", "running", "succeeded"][step];
            assert_eq!(event.name, state);
            // The data of an event equals the body of a poll.
            let polled = text(ask(&polls, operation.get()).await).await;
            assert_eq!(event.data, polled);
            history.push(event);
        }
        assert_eq!(history[2].json()["progress"]["percent"], 40.0);
        assert_eq!(history[3].json()["result"]["pages"], 3);
        let mut ids: Vec<_> = history.iter().map(|event| &event.id).collect();
        ids.dedup();
        assert!(ids.len() == 4 && ids.iter().all(|id| !id.is_empty()));
        assert_eq!(events.piece().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn rapid_changes_are_one_event_each() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = TestOperation::begin(&store).await;
    let follow = |id: Option<&str>| {
        let request = operation.follow();
        ask(
            &polls,
            match id {
                Some(id) => request.header("last-event-id", id),
                None => request,
            },
        )
    };
    let mut events = Events::from_response(follow(None).await);
    let first = events.event().await;
    // The body of a poll after each change. The stream is not read meanwhile.
    let mut polled = Vec::new();
    for step in 0..5 {
        match step {
            0 => operation.start().await,
            4 => operation.succeed("1").await,
            step => operation.report(f64::from(step)).await,
        }
        polled.push(text(ask(&polls, operation.get()).await).await);
    }
    let mut streamed = Vec::new();
    for polled in &polled {
        let event = events.event().await;
        assert_eq!(event.data, *polled);
        streamed.push(event);
    }
    assert_eq!(events.piece().await, None);

    // A client that reconnects gets every event after its last one.
    let ids = [&first].into_iter().chain(&streamed).map(|event| &event.id);
    for (position, id) in ids.take(5).enumerate() {
        let mut events = Events::from_response(follow(Some(id)).await);
        for event in &streamed[position..] {
            assert_eq!(events.event().await, *event, "after {position}");
        }
        assert_eq!(events.piece().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_far_behind_gets_the_latest_changes() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = TestOperation::begin(&store).await;
    let mut events = Events::from_response(ask(&polls, operation.follow()).await);
    events.event().await;
    operation.start().await;
    for percent in 1..=60 {
        operation.report(f64::from(percent)).await;
    }
    let mut percents = Vec::new();
    while percents.last() != Some(&60.0) {
        let event = events.event().await;
        percents.push(event.json()["progress"]["percent"].as_f64().unwrap());
    }
    let latest: Vec<_> = (44..=60).map(f64::from).collect();
    assert_eq!(percents, latest);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_silent_without_changes() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = TestOperation::begin(&store).await;
    let mut events = Events::from_response(ask(&polls, operation.follow()).await);
    events.event().await;
    assert!(events.is_silent_for(Duration::from_secs(14)).await);
    operation.start().await;
    assert_eq!(events.event().await.name, "running");
    // The same progress again is no change.
    operation.report(1.0).await;
    assert_eq!(events.event().await.name, "running");
    operation.report(1.0).await;
    assert!(events.is_silent_for(Duration::from_secs(14)).await);
}

#[tokio::test(start_paused = true)]
async fn an_ended_operation_is_one_event() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = TestOperation::begin(&store).await;
    operation.succeed("1").await;
    let mut events = Events::from_response(ask(&polls, operation.follow()).await);
    assert_eq!(events.event().await.name, "succeeded");
    assert_eq!(events.piece().await, None);
}

#[tokio::test(start_paused = true)]
async fn two_clients_get_the_same_events() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = TestOperation::begin(&store).await;
    let mut one = Events::from_response(ask(&polls, operation.follow()).await);
    let mut other = Events::from_response(ask(&polls, operation.follow()).await);
    assert_eq!(one.event().await, other.event().await);
    let (first, ()) = tokio::join!(one.event(), operation.start());
    assert_eq!(first, other.event().await);
    operation.end(Outcome::Canceled).await;
    assert_eq!(one.event().await, other.event().await);
    assert_eq!((one.piece().await, other.piece().await), (None, None));
}

#[tokio::test(start_paused = true)]
async fn comments_keep_a_quiet_stream_alive() {
    let store = MemoryStore::new();
    for (polls, interval) in [
        (PollService::new(store.clone()), 15),
        (
            PollService::new(store.clone()).keep_alive(Duration::from_secs(2)),
            2,
        ),
    ] {
        let operation = TestOperation::begin(&store).await;
        let mut events = Events::from_response(ask(&polls, operation.follow()).await);
        events.event().await;
        let start = Instant::now();
        for round in 1..=3 {
            assert_eq!(events.piece().await, Some(Piece::Comment));
            assert_eq!(start.elapsed().as_secs(), round * interval);
        }
        operation.start().await;
        assert_eq!(events.event().await.name, "running");
        assert_eq!(start.elapsed().as_secs(), 3 * interval);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reconnecting_client_gets_only_new_events() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = TestOperation::begin(&store).await;
    let reconnect = |id: &str| ask(&polls, operation.follow().header("last-event-id", id));
    let pending = Events::from_response(ask(&polls, operation.follow()).await)
        .event()
        .await;

    // The event is the latest, and nothing has changed since.
    let mut events = Events::from_response(reconnect(&pending.id).await);
    assert!(events.is_silent_for(Duration::from_secs(10)).await);
    operation.start().await;
    let running = events.event().await;
    assert_eq!(running.name, "running");
    assert_ne!(running.id, pending.id);

    // The operation has changed since, or the id is unknown.
    for id in [
        pending.id.as_str(),
        "",
        "0",
        "999-0",
        "x\u{e9}",
        &"9".repeat(99),
    ] {
        let event = Events::from_response(reconnect(id).await).event().await;
        assert_eq!(event, running, "{id:?}");
    }

    operation.succeed("1").await;
    let ended = events.event().await;
    assert_eq!(
        Events::from_response(reconnect(&running.id).await)
            .event()
            .await,
        ended,
        "the end is new after an earlier event"
    );
    // A client that has seen the end gets 204, which stops it from reconnecting.
    let response = reconnect(&ended.id).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert!(text(response).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_end_of_any_kind_ends_the_stream() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let failed = Outcome::failed(FailureKind::InnerError);
    for (outcome, name) in [(failed, "failed"), (Outcome::Canceled, "canceled")] {
        let operation = TestOperation::begin(&store).await;
        let mut events = Events::from_response(ask(&polls, operation.follow()).await);
        events.event().await;
        let (event, ()) = tokio::join!(events.event(), operation.end(outcome));
        assert_eq!(
            (event.name.as_str(), &event.json()["state"]),
            (name, &name.into())
        );
        assert_eq!(events.piece().await, None);
    }

    // A cancel by a client ends the stream too.
    let operation = TestOperation::begin(&store).await;
    operation.start().await;
    let mut events = Events::from_response(ask(&polls, operation.follow()).await);
    events.event().await;
    let delete = Request::delete(format!("/{}", operation.id));
    assert_eq!(ask(&polls, delete).await.status(), StatusCode::OK);
    assert_eq!(events.event().await.name, "canceled");
    assert_eq!(events.piece().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_or_expired_operation_ends_the_stream() {
    let store = MemoryStore::new().ttl(Duration::from_secs(60));
    let polls = PollService::new(store.clone());
    for is_deleted in [true, false] {
        let operation = TestOperation::begin(&store).await;
        let mut events = Events::from_response(ask(&polls, operation.follow()).await);
        events.event().await;
        // The client is slow: it reads on after the operation is gone.
        operation.succeed("1").await;
        match is_deleted {
            true => {
                let record = store.get(&operation.id).await.unwrap().unwrap();
                let stamp = record.stamp().unwrap();
                assert_written(store.delete(&operation.id, stamp).await);
            }
            false => tokio::time::advance(Duration::from_secs(61)).await,
        }
        assert_eq!(events.piece().await, None);
        assert_eq!(
            ask(&polls, operation.follow()).await.status(),
            StatusCode::NOT_FOUND
        );
    }
}

#[tokio::test(start_paused = true)]
async fn data_of_several_lines_arrives_complete() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = TestOperation::begin(&store).await;
    operation
        .succeed("{\r\n  \"a\": 1,\r  \"b\": [\n\n  ]\n}\r\n")
        .await;
    let event = Events::from_response(ask(&polls, operation.follow()).await)
        .event()
        .await;
    assert_eq!(event.name, "succeeded");
    assert!(event.data.contains('\n'));
    assert_eq!(event.json()["result"], serde_json::json!({"a": 1, "b": []}));
}

#[tokio::test(start_paused = true)]
async fn the_bound_on_streams_is_released_at_the_end_of_a_stream() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).max_streams(2);
    let operation = TestOperation::begin(&store).await;
    let first = Events::from_response(ask(&polls, operation.follow()).await);
    let mut second = Events::from_response(ask(&polls.clone(), operation.follow()).await);
    let refused = ask(&polls, operation.follow()).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(field(&refused, "retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(field(&refused, "content-type"), "application/problem+json");
    // The bound does not apply to polls.
    assert_eq!(ask(&polls, operation.get()).await.status(), StatusCode::OK);

    drop(first);
    let _third = Events::from_response(ask(&polls, operation.follow()).await);
    second.event().await;
    operation.succeed("1").await;
    second.event().await;
    assert_eq!(second.piece().await, None);
    // The second stream is read to its end, but not dropped.
    let _fourth = Events::from_response(ask(&polls, operation.follow()).await);
    assert_eq!(
        ask(&polls, operation.follow()).await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    drop(second);
    assert_eq!(
        ask(&polls, operation.follow()).await.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "a permit is released once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_leaves_no_waiter() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).max_streams(1);
    let operation = TestOperation::begin(&store).await;
    let mut events = Events::from_response(ask(&polls, operation.follow()).await);
    events.event().await;
    assert!(events.is_silent_for(Duration::from_secs(1)).await);
    assert_eq!(store.waiters(), 1);
    drop(events);
    assert_eq!(store.waiters(), 0);
    Events::from_response(ask(&polls, operation.follow()).await);
}

#[tokio::test]
async fn a_disconnect_ends_the_stream() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone())
        .mounted_at("/operations")
        .max_streams(1);
    let server = Server::hyper(polls).await;
    let operation = TestOperation::begin(&store).await;
    for is_http2 in [false, true] {
        for _ in 0..3 {
            let mut client = match is_http2 {
                true => server.http2().await,
                false => server.http1().await,
            };
            let uri = format!("/operations/{}/events", operation.id);
            let response = client
                .open(Request::get(&uri).body(server::empty()).unwrap())
                .await
                .unwrap();
            let mut events = Events::from_response(response);
            assert_eq!(server::soon(events.event()).await.name, "pending");
            server::until("the stream waits", || store.waiters() == 1).await;
            // HTTP/2 resets only the stream, HTTP/1.1 closes the connection.
            drop(events);
            if !is_http2 {
                drop(client);
            }
            server::until("the stream is dropped", || store.waiters() == 0).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn events_arrive_one_by_one_over_a_socket() {
    let store = MemoryStore::new();
    let server = Server::hyper(PollService::new(store.clone()).mounted_at("/operations")).await;
    for is_http2 in [false, true] {
        let operation = TestOperation::begin(&store).await;
        let mut client = match is_http2 {
            true => server.http2().await,
            false => server.http1().await,
        };
        let uri = format!("/operations/{}", operation.id);
        let request = Request::get(&uri).header("accept", "text/event-stream");
        let response = client.open(request.body(server::empty()).unwrap()).await;
        let mut events = Events::from_response(response.unwrap());
        assert_eq!(server::soon(events.event()).await.name, "pending");
        operation.start().await;
        assert_eq!(server::soon(events.event()).await.name, "running");
        operation.succeed("1").await;
        assert_eq!(server::soon(events.event()).await.name, "succeeded");
        assert_eq!(server::soon(events.piece()).await, None);
        // The stream has ended and the connection has not.
        assert_eq!(client.get(&uri).await.status, StatusCode::OK);
    }
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_streams() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (polls, drain) = (operations.poll_service(), operations.drain_handle());
    let operation = TestOperation::begin(&store).await;
    let mut events = Events::from_response(ask(&polls, operation.follow()).await);
    events.event().await;
    assert!(events.is_silent_for(Duration::from_secs(1)).await);
    let start = Instant::now();
    drain.close();
    assert_eq!(events.piece().await, None);
    assert_eq!(start.elapsed(), Duration::ZERO);
    // A new stream has one event with the current state.
    let mut events = Events::from_response(ask(&polls, operation.follow()).await);
    assert_eq!(events.event().await.name, "pending");
    assert_eq!(events.piece().await, None);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_streams_of_runs_that_report_all_the_time() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (polls, drain) = (operations.poll_service(), operations.drain_handle());
    let operation = TestOperation::begin(&store).await;
    operation.start().await;
    let mut events = Events::from_response(ask(&polls, operation.follow()).await);
    events.event().await;
    drain.close();
    // There is news whenever the stream looks. It ends after the first that it sees.
    operation.report(10.0).await;
    assert_eq!(events.event().await.name, "running");
    operation.report(20.0).await;
    assert_eq!(events.piece().await, None);
}

#[tokio::test(start_paused = true)]
async fn head_has_the_fields_and_takes_no_permit() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).max_streams(1);
    let operation = TestOperation::begin(&store).await;
    for _ in 0..3 {
        for request in [
            Request::head(format!("/{}/events", operation.id)),
            Request::head(format!("/{}", operation.id)).header("accept", "text/event-stream"),
        ] {
            let response = ask(&polls, request).await;
            let fields = response.headers().clone();
            assert_eq!(response.status(), StatusCode::OK);
            assert!(response.body().is_end_stream());
            assert!(text(response).await.is_empty());
            // A stream has no known length.
            assert!(!fields.contains_key("content-length"));
            let get = ask(&polls, operation.follow()).await;
            assert_eq!(&fields, get.headers());
        }
    }
    assert_eq!(store.waiters(), 0);
}

#[tokio::test(start_paused = true)]
async fn other_methods_are_405_with_allow() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = TestOperation::begin(&store).await;
    for (method, status) in [
        ("OPTIONS", StatusCode::NO_CONTENT),
        ("POST", StatusCode::METHOD_NOT_ALLOWED),
        ("PUT", StatusCode::METHOD_NOT_ALLOWED),
        ("PATCH", StatusCode::METHOD_NOT_ALLOWED),
        ("DELETE", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(format!("/{}/events", operation.id));
        let response = ask(&polls, request).await;
        assert_eq!(response.status(), status, "{method}");
        assert_eq!(field(&response, "allow"), "GET, HEAD, OPTIONS", "{method}");
    }
    // The `DELETE` canceled nothing.
    let record = store.get(&operation.id).await.unwrap().unwrap();
    assert!(!record.operation().state().is_terminal());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_operation_has_no_stream() {
    let polls = PollService::new(MemoryStore::new());
    for (path, status) in [
        (format!("/{}/events", OperationId::new()), 404),
        ("/a b/events".replace(' ', "%20"), 400),
        ("/events".into(), 400),
    ] {
        let response = ask(&polls, Request::get(&path)).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(field(&response, "content-type"), "application/problem+json");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_only_service_answers_with_json() {
    let store = MemoryStore::new();
    let polls = PollService::read_only(store.clone());
    let operation = TestOperation::begin(&store).await;
    let by_accept = operation.get().header("accept", "text/event-stream");
    for request in [by_accept, operation.follow()] {
        let response = ask(&polls, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(field(&response, "content-type"), "application/json");
        let body: Value = serde_json::from_slice(&text(response).await).unwrap();
        assert_eq!(body["state"], "pending");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_ends_the_stream_without_details() {
    let memory = MemoryStore::new();
    let failing_store = Hooked::new(memory.clone(), async |call, when| match (call, when) {
        (Call::Changed, When::Before) => Err(StoreError::unavailable("the password is hunter2")),
        _ => Ok(()),
    });
    let polls = PollService::new(failing_store);
    let operation = TestOperation::begin(&memory).await;
    let mut events = Events::from_response(ask(&polls, operation.follow()).await);
    events.event().await;
    assert_eq!(events.piece().await, None);

    let failing_store = Hooked::new(memory, async |_, _| Err(StoreError::unavailable("hunter2")));
    let response = ask(&PollService::new(failing_store), operation.follow()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(field(&response, "retry-after").parse::<u64>().unwrap() >= 1);
    assert!(!String::from_utf8_lossy(&text(response).await).contains("hunter2"));
}

/// Reports progress 10,000 times in a second, once more with a message, and ends.
async fn report_often(request: Request<RequestBody<BufferedBody>>) -> Response<BufferedBody> {
    let operation = OperationHandle::from_extensions(request.extensions());
    operation.accept().await.unwrap();
    for report in 1..=10_000 {
        operation.progress(Progress::from_count(report, 10_000).with_unit("rows"));
        if report % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    operation.progress(Progress::from_count(10_000, 10_000).with_message("all of them"));
    Response::new(BufferedBody::from("done"))
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_reports_a_second_are_a_few_writes_and_events() {
    for is_signaled in [false, true] {
        for status in [StatusCode::OK, StatusCode::BAD_GATEWAY] {
            let memory = MemoryStore::new();
            let writes = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&writes);
            let store = Hooked::new(memory.clone(), move |call, when| {
                let is_write = (call, when) == (Call::Report, When::Before);
                counter.fetch_add(usize::from(is_write), SeqCst);
                std::future::ready(Ok(()))
            });
            let layer = AsyncAcceptLayer::new(store);
            let layer = if is_signaled {
                layer.when_signaled()
            } else {
                layer
            };
            let service = layer.layer(service_fn(move |request| async move {
                let mut response = report_often(request).await;
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }));
            let request = Request::post("/").body(BufferedBody::default()).unwrap();
            let accepted = service.oneshot(request).await.unwrap();
            assert_eq!(accepted.status(), StatusCode::ACCEPTED);
            let location = field(&accepted, "location").to_owned();

            let polls = PollService::new(memory);
            let follow = Request::get(&location).header("accept", "text/event-stream");
            let mut events = Events::from_response(ask(&polls, follow).await);
            let start = Instant::now();
            let mut received = Vec::new();
            while let Some(piece) = events.piece().await {
                let Piece::Event(event) = piece else { continue };
                received.push(event);
            }
            let took = start.elapsed();
            assert!(took < Duration::from_secs(2), "{took:?}");
            let writes = writes.load(SeqCst);
            assert!((2..=8).contains(&writes), "{writes} writes in {took:?}");
            assert!(
                (3..=12).contains(&received.len()),
                "{} events",
                received.len()
            );
            let progress = &received.last().unwrap().json()["progress"];
            assert_eq!(progress["completed"], 10_000);
            assert_eq!(progress["message"], "all of them");
        }
    }
}
