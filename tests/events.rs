//! Following an operation as an event stream, and what progress costs. With a
//! paused clock, and over sockets where clients go away.

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

/// An operation that a test moves along.
struct Moved {
    store: MemoryStore,
    id: OperationId,
    token: FencingToken,
}

impl Moved {
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
        done(self.store.start(&self.id, self.token).await);
    }

    async fn report(&self, percent: f64) {
        let progress = Progress::from_percent(percent);
        done(self.store.report(&self.id, self.token, progress).await);
    }

    async fn end(&self, outcome: Outcome<RecordedResponse>) {
        done(self.store.finish(&self.id, self.token, outcome, None).await);
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

fn done(write: Result<Written<RecordedResponse>, StoreError>) {
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

/// What an event stream is made of (HTML, section 9.2.5).
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
    /// What lies before an empty line.
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
    fn of(response: Response<B>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(field(&response, "content-type"), "text/event-stream");
        Self {
            body: response.into_body(),
            read: Vec::new(),
        }
    }

    /// The next event or comment; `None` once the stream has ended.
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
                    assert!(self.read.is_empty(), "it ended within an event");
                    return None;
                }
            }
        }
    }

    /// The next event, which is not a comment.
    async fn event(&mut self) -> Event {
        match self.piece().await {
            Some(Piece::Event(event)) => event,
            other => panic!("no event, but {other:?}"),
        }
    }

    /// Whether there is nothing to read for this long.
    async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.piece()).await.is_err()
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_what_is_and_tells_every_change_to_the_end() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    for by_name in [true, false] {
        let operation = Moved::begin(&store).await;
        let request = match by_name {
            true => operation.get().header("accept", "text/event-stream"),
            false => operation.follow(),
        };
        let response = ask(&polls, request).await;
        assert!(field(&response, "cache-control").contains("no-store"));
        assert_eq!(field(&response, "vary"), "Accept");
        let mut events = Events::of(response);
        let mut seen = Vec::new();
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
            // It says what a poll says, to the byte.
            let polled = text(ask(&polls, operation.get()).await).await;
            assert_eq!(event.data, polled);
            seen.push(event);
        }
        assert_eq!(seen[2].json()["progress"]["percent"], 40.0);
        assert_eq!(seen[3].json()["result"]["pages"], 3);
        let mut ids: Vec<_> = seen.iter().map(|event| &event.id).collect();
        ids.dedup();
        assert!(ids.len() == 4 && ids.iter().all(|id| !id.is_empty()));
        assert_eq!(events.piece().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn changes_in_quick_succession_are_an_event_each() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = Moved::begin(&store).await;
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
    let mut events = Events::of(follow(None).await);
    let first = events.event().await;
    // What a poll says after each change, none of which is waited for.
    let mut polled = Vec::new();
    for step in 0..5 {
        match step {
            0 => operation.start().await,
            4 => operation.succeed("1").await,
            step => operation.report(f64::from(step)).await,
        }
        polled.push(text(ask(&polls, operation.get()).await).await);
    }
    let mut told = Vec::new();
    for polled in &polled {
        let event = events.event().await;
        assert_eq!(event.data, *polled);
        told.push(event);
    }
    assert_eq!(events.piece().await, None);

    // Who was away hears what it has missed, from wherever it left.
    let ids = [&first].into_iter().chain(&told).map(|event| &event.id);
    for (seen, id) in ids.take(5).enumerate() {
        let mut events = Events::of(follow(Some(id)).await);
        for event in &told[seen..] {
            assert_eq!(events.event().await, *event, "after {seen}");
        }
        assert_eq!(events.piece().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn who_falls_far_behind_hears_the_latest_changes() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = Moved::begin(&store).await;
    let mut events = Events::of(ask(&polls, operation.follow()).await);
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
async fn nothing_is_said_while_nothing_changes() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = Moved::begin(&store).await;
    let mut events = Events::of(ask(&polls, operation.follow()).await);
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
async fn what_has_ended_is_one_event() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = Moved::begin(&store).await;
    operation.succeed("1").await;
    let mut events = Events::of(ask(&polls, operation.follow()).await);
    assert_eq!(events.event().await.name, "succeeded");
    assert_eq!(events.piece().await, None);
}

#[tokio::test(start_paused = true)]
async fn two_who_follow_hear_the_same() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = Moved::begin(&store).await;
    let mut one = Events::of(ask(&polls, operation.follow()).await);
    let mut other = Events::of(ask(&polls, operation.follow()).await);
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
    for (polls, every) in [
        (PollService::new(store.clone()), 15),
        (
            PollService::new(store.clone()).keep_alive(Duration::from_secs(2)),
            2,
        ),
    ] {
        let operation = Moved::begin(&store).await;
        let mut events = Events::of(ask(&polls, operation.follow()).await);
        events.event().await;
        let begun = Instant::now();
        for round in 1..=3 {
            assert_eq!(events.piece().await, Some(Piece::Comment));
            assert_eq!(begun.elapsed().as_secs(), round * every);
        }
        operation.start().await;
        assert_eq!(events.event().await.name, "running");
        assert_eq!(begun.elapsed().as_secs(), 3 * every);
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_hears_only_what_is_new() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = Moved::begin(&store).await;
    let again = |id: &str| ask(&polls, operation.follow().header("last-event-id", id));
    let pending = Events::of(ask(&polls, operation.follow()).await)
        .event()
        .await;

    // Seen, and nothing has happened since.
    let mut events = Events::of(again(&pending.id).await);
    assert!(events.is_silent_for(Duration::from_secs(10)).await);
    operation.start().await;
    let running = events.event().await;
    assert_eq!(running.name, "running");
    assert_ne!(running.id, pending.id);

    // Something has happened since, or the id is none of ours.
    for id in [
        pending.id.as_str(),
        "",
        "0",
        "999-0",
        "x\u{e9}",
        &"9".repeat(99),
    ] {
        let event = Events::of(again(id).await).event().await;
        assert_eq!(event, running, "{id:?}");
    }

    operation.succeed("1").await;
    let ended = events.event().await;
    assert_eq!(
        Events::of(again(&running.id).await).event().await,
        ended,
        "the end is news to who saw only the middle"
    );
    // Who has seen the end is told not to come back.
    let response = again(&ended.id).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert!(text(response).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_end_of_any_kind_ends_the_stream() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let failed = Outcome::failed(FailureKind::InnerError);
    for (outcome, name) in [(failed, "failed"), (Outcome::Canceled, "canceled")] {
        let operation = Moved::begin(&store).await;
        let mut events = Events::of(ask(&polls, operation.follow()).await);
        events.event().await;
        let (event, ()) = tokio::join!(events.event(), operation.end(outcome));
        assert_eq!(
            (event.name.as_str(), &event.json()["state"]),
            (name, &name.into())
        );
        assert_eq!(events.piece().await, None);
    }

    // By somebody who asks for it.
    let operation = Moved::begin(&store).await;
    operation.start().await;
    let mut events = Events::of(ask(&polls, operation.follow()).await);
    events.event().await;
    let delete = Request::delete(format!("/{}", operation.id));
    assert_eq!(ask(&polls, delete).await.status(), StatusCode::OK);
    assert_eq!(events.event().await.name, "canceled");
    assert_eq!(events.piece().await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_ends_the_stream_too() {
    let store = MemoryStore::new().ttl(Duration::from_secs(60));
    let polls = PollService::new(store.clone());
    for forgotten in [true, false] {
        let operation = Moved::begin(&store).await;
        let mut events = Events::of(ask(&polls, operation.follow()).await);
        events.event().await;
        // This client is slow: it reads on when all is over.
        operation.succeed("1").await;
        match forgotten {
            true => {
                let record = store.get(&operation.id).await.unwrap().unwrap();
                let version = record.version().unwrap();
                done(store.delete(&operation.id, version).await);
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
async fn data_of_several_lines_comes_whole() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = Moved::begin(&store).await;
    operation
        .succeed("{\r\n  \"a\": 1,\r  \"b\": [\n\n  ]\n}\r\n")
        .await;
    let event = Events::of(ask(&polls, operation.follow()).await)
        .event()
        .await;
    assert_eq!(event.name, "succeeded");
    assert!(event.data.contains('\n'));
    assert_eq!(event.json()["result"], serde_json::json!({"a": 1, "b": []}));
}

#[tokio::test(start_paused = true)]
async fn streams_are_bounded_and_a_place_is_free_as_soon_as_its_stream_is_over() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).max_streams(2);
    let operation = Moved::begin(&store).await;
    let first = Events::of(ask(&polls, operation.follow()).await);
    let mut second = Events::of(ask(&polls.clone(), operation.follow()).await);
    let refused = ask(&polls, operation.follow()).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(field(&refused, "retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(field(&refused, "content-type"), "application/problem+json");
    // Polls are not bounded by it.
    assert_eq!(ask(&polls, operation.get()).await.status(), StatusCode::OK);

    drop(first);
    let _third = Events::of(ask(&polls, operation.follow()).await);
    second.event().await;
    operation.succeed("1").await;
    second.event().await;
    assert_eq!(second.piece().await, None);
    // It is read to its end, but not dropped.
    let _fourth = Events::of(ask(&polls, operation.follow()).await);
    assert_eq!(
        ask(&polls, operation.follow()).await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    drop(second);
    assert_eq!(
        ask(&polls, operation.follow()).await.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "a place is given back once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_waits_for_nothing_any_more() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).max_streams(1);
    let operation = Moved::begin(&store).await;
    let mut events = Events::of(ask(&polls, operation.follow()).await);
    events.event().await;
    assert!(events.is_silent_for(Duration::from_secs(1)).await);
    assert_eq!(store.waiters(), 1);
    drop(events);
    assert_eq!(store.waiters(), 0);
    Events::of(ask(&polls, operation.follow()).await);
}

#[tokio::test]
async fn a_client_that_goes_takes_its_stream_with_it() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone())
        .mounted_at("/operations")
        .max_streams(1);
    let server = Server::hyper(polls).await;
    let operation = Moved::begin(&store).await;
    for http2 in [false, true] {
        for _ in 0..3 {
            let mut client = match http2 {
                true => server.http2().await,
                false => server.http1().await,
            };
            let uri = format!("/operations/{}/events", operation.id);
            let response = client
                .open(Request::get(&uri).body(server::empty()).unwrap())
                .await
                .unwrap();
            let mut events = Events::of(response);
            assert_eq!(server::soon(events.event()).await.name, "pending");
            server::until("the stream waits", || store.waiters() == 1).await;
            // Only the stream, or the connection under it.
            drop(events);
            if !http2 {
                drop(client);
            }
            server::until("the stream is gone", || store.waiters() == 0).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn events_come_one_by_one_over_a_socket() {
    let store = MemoryStore::new();
    let server = Server::hyper(PollService::new(store.clone()).mounted_at("/operations")).await;
    for http2 in [false, true] {
        let operation = Moved::begin(&store).await;
        let mut client = match http2 {
            true => server.http2().await,
            false => server.http1().await,
        };
        let uri = format!("/operations/{}", operation.id);
        let request = Request::get(&uri).header("accept", "text/event-stream");
        let response = client.open(request.body(server::empty()).unwrap()).await;
        let mut events = Events::of(response.unwrap());
        assert_eq!(server::soon(events.event()).await.name, "pending");
        operation.start().await;
        assert_eq!(server::soon(events.event()).await.name, "running");
        operation.succeed("1").await;
        assert_eq!(server::soon(events.event()).await.name, "succeeded");
        assert_eq!(server::soon(events.piece()).await, None);
        // The stream has ended, the connection has not.
        assert_eq!(client.get(&uri).await.status, StatusCode::OK);
    }
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_shuts_down_ends_its_streams() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (polls, drain) = (operations.poll_service(), operations.drain_handle());
    let operation = Moved::begin(&store).await;
    let mut events = Events::of(ask(&polls, operation.follow()).await);
    events.event().await;
    assert!(events.is_silent_for(Duration::from_secs(1)).await);
    let begun = Instant::now();
    drain.close();
    assert_eq!(events.piece().await, None);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // One that begins now says what is, and no more.
    let mut events = Events::of(ask(&polls, operation.follow()).await);
    assert_eq!(events.event().await.name, "pending");
    assert_eq!(events.piece().await, None);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn head_gets_the_fields_and_takes_no_place() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).max_streams(1);
    let operation = Moved::begin(&store).await;
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
            // A stream has no length that could be said.
            assert!(!fields.contains_key("content-length"));
            let get = ask(&polls, operation.follow()).await;
            assert_eq!(&fields, get.headers());
        }
    }
    assert_eq!(store.waiters(), 0);
}

#[tokio::test(start_paused = true)]
async fn other_methods_are_told_which_there_are() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone());
    let operation = Moved::begin(&store).await;
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
    // Nothing was canceled by it.
    let record = store.get(&operation.id).await.unwrap().unwrap();
    assert!(!record.operation().state().is_terminal());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_has_no_stream() {
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
async fn a_service_that_only_reads_answers_plainly() {
    let store = MemoryStore::new();
    let polls = PollService::read_only(store.clone());
    let operation = Moved::begin(&store).await;
    let accepting = operation.get().header("accept", "text/event-stream");
    for request in [accepting, operation.follow()] {
        let response = ask(&polls, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(field(&response, "content-type"), "application/json");
        let said: Value = serde_json::from_slice(&text(response).await).unwrap();
        assert_eq!(said["state"], "pending");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_ends_the_stream_and_says_nothing_of_it() {
    let memory = MemoryStore::new();
    let failing = Hooked::new(memory.clone(), async |call, when| match (call, when) {
        (Call::Changed, When::Before) => Err(StoreError::unavailable("the password is hunter2")),
        _ => Ok(()),
    });
    let polls = PollService::new(failing);
    let operation = Moved::begin(&memory).await;
    let mut events = Events::of(ask(&polls, operation.follow()).await);
    events.event().await;
    assert_eq!(events.piece().await, None);

    let down = Hooked::new(memory, async |_, _| Err(StoreError::unavailable("hunter2")));
    let response = ask(&PollService::new(down), operation.follow()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(field(&response, "retry-after").parse::<u64>().unwrap() >= 1);
    assert!(!String::from_utf8_lossy(&text(response).await).contains("hunter2"));
}

/// Reports 10,000 times in a second, says that it is done, and ends.
async fn report_a_lot(request: Request<RequestBody<BufferedBody>>) -> Response<BufferedBody> {
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
async fn ten_thousand_reports_a_second_are_a_few_writes_and_events_and_the_last_is_there() {
    for signaled in [false, true] {
        for status in [StatusCode::OK, StatusCode::BAD_GATEWAY] {
            let memory = MemoryStore::new();
            let writes = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&writes);
            let store = Hooked::new(memory.clone(), move |call, when| {
                let is_write = (call, when) == (Call::Report, When::Before);
                counted.fetch_add(usize::from(is_write), SeqCst);
                std::future::ready(Ok(()))
            });
            let layer = AsyncAcceptLayer::new(store);
            let layer = if signaled {
                layer.when_signaled()
            } else {
                layer
            };
            let service = layer.layer(service_fn(move |request| async move {
                let mut response = report_a_lot(request).await;
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }));
            let request = Request::post("/").body(BufferedBody::default()).unwrap();
            let accepted = service.oneshot(request).await.unwrap();
            assert_eq!(accepted.status(), StatusCode::ACCEPTED);
            let location = field(&accepted, "location").to_owned();

            let polls = PollService::new(memory);
            let follow = Request::get(&location).header("accept", "text/event-stream");
            let mut events = Events::of(ask(&polls, follow).await);
            let begun = Instant::now();
            let mut heard = Vec::new();
            while let Some(piece) = events.piece().await {
                let Piece::Event(event) = piece else { continue };
                heard.push(event);
            }
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(2), "{took:?}");
            let writes = writes.load(SeqCst);
            assert!((2..=8).contains(&writes), "{writes} writes in {took:?}");
            assert!((3..=12).contains(&heard.len()), "{} events", heard.len());
            let progress = &heard.last().unwrap().json()["progress"];
            assert_eq!(progress["completed"], 10_000);
            assert_eq!(progress["message"], "all of them");
        }
    }
}
