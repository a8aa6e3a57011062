//! Owners of operations: an operation exists for its owner and is unknown to
//! everybody else.

use test_support::hooked;

use std::{
    convert::Infallible,
    mem::take,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use hooked::{Call, Hooked, When};
use http::{HeaderMap, Method, Request, Response, StatusCode, request::Parts};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, ExtractOwner, FailureKind, HmacOwner, Idempotency, MemoryStore,
    OperationId, Operations, Outcome, PollService, RecordedResponse,
    store::{Created, NewOperation, Owner, Repository, Store, Written},
};

/// Returns the user that a gateway in front of the service names in the request.
fn header_owner(parts: &Parts) -> Option<Owner> {
    let user = parts.headers.get("x-user")?;
    Some(Owner::new(user.to_str().unwrap()))
}

/// The same extraction as a type of the application.
#[derive(Clone)]
struct HeaderOwner;

impl ExtractOwner for HeaderOwner {
    fn owner(&self, parts: &Parts) -> Option<Owner> {
        header_owner(parts)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn from_response<B>(response: Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    async fn fetch<S: Store>(polls: &PollService<S>, request: http::request::Builder) -> Self {
        let request = request.body(()).unwrap();
        Self::from_response(polls.clone().oneshot(request).await.unwrap()).await
    }

    /// Replaces the id by a placeholder.
    fn without(mut self, id: &OperationId) -> Self {
        let text = String::from_utf8(self.body.to_vec()).unwrap();
        self.body = text.replace(&id.to_string(), "{id}").into();
        self
    }

    fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::ACCEPTED, "{self:?}");
        self.headers["location"].to_str().unwrap()
    }
}

fn with_user(user: Option<&str>, request: http::request::Builder) -> http::request::Builder {
    match user {
        Some(user) => request.header("x-user", user),
        None => request,
    }
}

/// A store that records its calls.
fn recording_store(memory: &MemoryStore) -> (Hooked, Arc<Mutex<Vec<Call>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&calls);
    let store = Hooked::new(memory.clone(), move |call, when| {
        if when == When::Before {
            log.lock().unwrap().push(call);
        }
        std::future::ready(Ok(()))
    });
    (store, calls)
}

async fn create(store: &MemoryStore, owner: Option<&str>) -> OperationId {
    let id = OperationId::new();
    let new = NewOperation::new(id.clone()).with_owner(owner.map(Owner::new));
    assert!(matches!(store.create(new).await, Ok(Created::New(_))));
    id
}

/// Requests of every kind about one operation, each with a label.
fn requests_about(id: &OperationId) -> Vec<(String, http::request::Builder)> {
    let mut requests = Vec::new();
    let mut ask = |method: Method, below: &str, fields: &[(&str, &str)]| {
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("/{id}{below}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        requests.push((format!("{method} {below} {fields:?}"), request));
    };
    for method in [Method::GET, Method::HEAD] {
        for below in ["", "/", "/result", "/events", "?wait=30", "/result?wait=30"] {
            ask(method.clone(), below, &[]);
        }
        ask(method.clone(), "", &[("accept", "text/event-stream")]);
        ask(method.clone(), "", &[("prefer", "wait=30")]);
        ask(method.clone(), "", &[("if-none-match", "*")]);
        ask(method.clone(), "?wait=30", &[("if-none-match", "*")]);
        ask(method.clone(), "/events", &[("last-event-id", "1-0")]);
    }
    ask(Method::DELETE, "", &[]);
    ask(Method::DELETE, "", &[("if-match", "*")]);
    ask(Method::DELETE, "", &[("if-match", "W/\"1-0\"")]);
    for method in [Method::OPTIONS, Method::POST] {
        ask(method.clone(), "", &[]);
        ask(method.clone(), "/events", &[]);
    }
    requests
}

#[tokio::test(start_paused = true)]
async fn an_operation_of_another_owner_is_like_an_unknown_one() {
    let memory = MemoryStore::new();
    let (store, calls) = recording_store(&memory);
    let polls = Operations::new(store)
        .owner(header_owner)
        .poll_service()
        .listing();
    // A request without an owner is a stranger to an owner, and vice versa.
    for (owner, user) in [
        (Some("ada"), Some("bob")),
        (Some("ada"), None),
        (None, Some("bob")),
        (Some(""), None),
        (None, Some("")),
    ] {
        for state in ["pending", "running", "succeeded", "failed", "canceled"] {
            let foreign = create(&memory, owner).await;
            let token = memory.get(&foreign).await.unwrap().unwrap().token();
            let outcome = match state {
                "succeeded" => {
                    let secret = Response::new(BufferedBody::from("secret"));
                    Some(RecordedResponse::new(secret).into_outcome())
                }
                "failed" => Some(Outcome::failed(FailureKind::InnerError)),
                "canceled" => Some(Outcome::Canceled),
                _ => None,
            };
            if state != "pending" {
                assert!(matches!(
                    memory.start(&foreign, token).await,
                    Ok(Written::Done(_))
                ));
            }
            if let Some(outcome) = outcome {
                let write = memory.finish(&foreign, token, outcome, None).await;
                assert!(matches!(write, Ok(Written::Done(_))));
            }
            let before = memory.get(&foreign).await.unwrap();

            let unknown = OperationId::new();
            let pairs = requests_about(&foreign)
                .into_iter()
                .zip(requests_about(&unknown));
            for ((label, foreign_request), (_, unknown_request)) in pairs {
                let case = format!("{user:?} of {owner:?}, {state}: {label}");
                let start = Instant::now();
                let answer = Answer::fetch(&polls, with_user(user, foreign_request)).await;
                let calls_of_foreign = take(&mut *calls.lock().unwrap());
                let expected = Answer::fetch(&polls, with_user(user, unknown_request)).await;
                let expected_calls = take(&mut *calls.lock().unwrap());
                assert_eq!(start.elapsed(), Duration::ZERO, "{case}");
                assert_eq!(
                    answer.without(&foreign),
                    expected.without(&unknown),
                    "{case}"
                );
                assert_eq!(calls_of_foreign, expected_calls, "{case}");
                assert!(
                    calls_of_foreign.iter().all(|call| *call == Call::Get),
                    "{case}"
                );
            }
            assert_eq!(memory.get(&foreign).await.unwrap(), before);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_stranger_are_404_and_requests_of_the_owner_are_answered() {
    let memory = MemoryStore::new();
    let polls = Operations::new(memory.clone())
        .owner(header_owner)
        .poll_service();
    for owner in [Some("ada"), None] {
        let id = create(&memory, owner).await;
        for (label, request) in requests_about(&id) {
            let answer = Answer::fetch(&polls, with_user(Some("bob"), request)).await;
            let reads = label.starts_with("GET") || label.starts_with("HEAD");
            if reads || label.starts_with("DELETE") {
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{label}");
            }
        }
        let get = Request::get(format!("/{id}"));
        assert_eq!(
            Answer::fetch(&polls, with_user(owner, get)).await.status,
            StatusCode::OK
        );
        let delete = Request::delete(format!("/{id}"));
        assert_eq!(
            Answer::fetch(&polls, with_user(owner, delete)).await.status,
            StatusCode::OK
        );
        let events = Request::get(format!("/{id}/events"));
        let events = Answer::fetch(&polls, with_user(owner, events)).await;
        assert_eq!(events.headers["content-type"], "text/event-stream");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_without_owners_shows_only_operations_without_an_owner() {
    let memory = MemoryStore::new();
    let polls = PollService::new(memory.clone());
    let (ada, ownerless) = (
        create(&memory, Some("ada")).await,
        create(&memory, None).await,
    );
    let status = async |id: &OperationId| {
        Answer::fetch(&polls, Request::get(format!("/{id}")))
            .await
            .status
    };
    assert_eq!(status(&ada).await, StatusCode::NOT_FOUND);
    assert_eq!(status(&ownerless).await, StatusCode::OK);
}

#[tokio::test]
async fn a_list_does_not_depend_on_operations_of_other_owners() {
    let (some, none) = (MemoryStore::new(), MemoryStore::new());
    for _ in 0..30 {
        create(&some, Some("ada")).await;
        create(&some, None).await;
    }
    for query in [
        "/",
        "/?limit=3",
        "/?state=pending",
        "/?state=done",
        "/?limit=0",
    ] {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE] {
            let mut observed = Vec::new();
            for memory in [&some, &none] {
                let (store, calls) = recording_store(memory);
                let polls = Operations::new(store)
                    .owner(header_owner)
                    .poll_service()
                    .listing();
                let request = Request::builder().method(&method).uri(query);
                let answer = Answer::fetch(&polls, with_user(Some("bob"), request)).await;
                observed.push((answer, take(&mut *calls.lock().unwrap())));
            }
            assert_eq!(observed[0], observed[1], "{method} {query}");
            assert!(observed[0].1.len() <= 1, "{method} {query}");
        }
    }
}

/// An application whose operations have owners, with a count of its runs.
struct App {
    layer: AsyncAcceptLayer<MemoryStore>,
    polls: PollService<MemoryStore>,
    runs: Arc<AtomicUsize>,
}

impl App {
    fn with(owner: impl ExtractOwner + Clone) -> Self {
        let store = MemoryStore::new();
        Self {
            layer: Operations::new(store.clone())
                .owner(owner.clone())
                .layer()
                .idempotency(Idempotency::optional().client_ids()),
            polls: Operations::new(store).owner(owner).poll_service().listing(),
            runs: Arc::default(),
        }
    }

    async fn post(&self, user: Option<&str>, fields: &[(&str, &str)]) -> Answer {
        let runs = Arc::clone(&self.runs);
        let service = self.layer.layer(service_fn(move |_| {
            runs.fetch_add(1, SeqCst);
            async { Ok::<_, Infallible>(Response::new(BufferedBody::from("done"))) }
        }));
        let mut request = with_user(user, Request::post("/"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(BufferedBody::from("Q3")).unwrap();
        Answer::from_response(service.oneshot(request).await.unwrap()).await
    }

    async fn get(&self, user: Option<&str>, uri: &str) -> Answer {
        Answer::fetch(&self.polls, with_user(user, Request::get(uri))).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_accepted_operation_belongs_to_the_owner_of_its_request() {
    for app in [App::with(header_owner), App::with(HeaderOwner)] {
        for owner in [Some("ada"), None] {
            let accepted = app.post(owner, &[]).await;
            let uri = format!("{}?wait=30", accepted.location());
            for user in [Some("ada"), None, Some("bob")] {
                let expected = match user == owner {
                    true => StatusCode::OK,
                    false => StatusCode::NOT_FOUND,
                };
                assert_eq!(app.get(user, &uri).await.status, expected, "{user:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_id_of_another_owner_is_409() {
    let field = ("operation-id", "invoice-2026-11");
    for (first, second) in [
        (Some("ada"), Some("bob")),
        (Some("ada"), None),
        (None, Some("ada")),
    ] {
        let app = App::with(header_owner);
        let accepted = app.post(first, &[field]).await;
        let location = accepted.location().to_owned();
        let conflict = app.post(second, &[field]).await;
        assert_eq!(conflict.status, StatusCode::CONFLICT, "{field:?}");
        // The answer reveals nothing about the operation with that id.
        assert!(!conflict.headers.contains_key("location"));
        let body = String::from_utf8_lossy(&conflict.body).into_owned();
        assert!(!body.contains(&location) && !body.contains("ada"), "{body}");
        // The same owner gets the first answer.
        assert_eq!(app.post(first, &[field]).await, accepted);
        app.get(first, &format!("{location}?wait=30")).await;
        assert_eq!(app.runs.load(SeqCst), 1);
        assert_eq!(
            app.get(second, &location).await.status,
            StatusCode::NOT_FOUND
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_generated_id_of_another_owner_is_409_too() {
    let app = App::with(header_owner);
    let accepted = app.post(Some("ada"), &[]).await;
    let id = accepted.location().rsplit('/').next().unwrap().to_owned();
    let conflict = app.post(Some("bob"), &[("operation-id", &id)]).await;
    assert_eq!(conflict.status, StatusCode::CONFLICT);
    assert!(!conflict.headers.contains_key("location"));
}

#[tokio::test(start_paused = true)]
async fn hmac_owners_are_owners_and_hidden_from_the_store() {
    let hmac_owner = |keys: &[&str]| {
        let first = HmacOwner::new(keys[0], header_owner);
        keys[1..].iter().fold(first, HmacOwner::previous_key)
    };
    let store = MemoryStore::new();
    let layer = Operations::new(store.clone())
        .owner(hmac_owner(&["old"]))
        .layer();
    let service = layer.layer(service_fn(async |_| {
        Ok::<_, Infallible>(Response::new(BufferedBody::from("done")))
    }));
    let request = with_user(Some("ada"), Request::post("/"));
    let request = request.body(BufferedBody::default()).unwrap();
    let stored = Answer::from_response(service.oneshot(request).await.unwrap()).await;
    let stored_id: OperationId = stored
        .location()
        .rsplit('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let record = store.get(&stored_id).await.unwrap().unwrap();
    assert!(!record.owner().unwrap().as_str().contains("ada"));

    // A replaced key still identifies the owners of earlier operations.
    for (keys, expected) in [
        (&["old"][..], StatusCode::OK),
        (&["new", "old"], StatusCode::OK),
        (&["new"], StatusCode::NOT_FOUND),
    ] {
        let polls = Operations::new(store.clone())
            .owner(hmac_owner(keys))
            .poll_service();
        let get = || Request::get(stored.location());
        let answer = Answer::fetch(&polls, with_user(Some("ada"), get())).await;
        assert_eq!(answer.status, expected, "{keys:?}");
        for suffix in ["?wait=1", "/result", "/events"] {
            let get = Request::get(format!("{}{suffix}", stored.location()));
            let answer = Answer::fetch(&polls, with_user(Some("ada"), get)).await;
            assert_eq!(answer.status, expected, "{keys:?}{suffix}");
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            let expected = match (expected, suffix) {
                (StatusCode::OK, "/result") => "done",
                (StatusCode::OK, _) => "\"succeeded\"",
                _ => "not-found",
            };
            assert!(body.contains(expected), "{keys:?}{suffix}: {body}");
        }
        for stranger in [Some("bob"), None, Some(record.owner().unwrap().as_str())] {
            let answer = Answer::fetch(&polls, with_user(stranger, get())).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{stranger:?}");
        }
    }

    // A list has only operations that were created under the first key.
    for (keys, is_listed) in [(&["old", "new"][..], true), (&["new", "old"], false)] {
        let polls = Operations::new(store.clone())
            .owner(hmac_owner(keys))
            .poll_service()
            .listing();
        let answer = Answer::fetch(&polls, with_user(Some("ada"), Request::get("/"))).await;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(
            body.contains(&stored_id.to_string()),
            is_listed,
            "{keys:?}: {body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_ends_when_its_id_passes_to_another_owner() {
    let store = MemoryStore::new();
    let id: OperationId = "invoice-2026-11".parse().unwrap();
    let create = async |owner: &str| {
        let new = NewOperation::new(id.clone()).with_owner(Some(Owner::new(owner)));
        match store.create(new).await.unwrap() {
            Created::New(record) => record,
            other => panic!("{other:?}"),
        }
    };
    let record = create("ada").await;
    let polls = Operations::new(store.clone())
        .owner(header_owner)
        .poll_service();
    let request = with_user(Some("ada"), Request::get(format!("/{id}/events")));
    let response = polls.oneshot(request.body(()).unwrap()).await.unwrap();
    let mut stream = response.into_body();
    assert!(stream.frame().await.is_some());
    let mut next = std::pin::pin!(stream.frame());
    assert!(poll_once(next.as_mut()).is_none());

    let stamp = record.stamp().unwrap();
    let canceled = store.force_finish(&id, stamp, Outcome::Canceled).await;
    let Written::Done(record) = canceled.unwrap() else {
        panic!("no other writer changes the operation");
    };
    store.delete(&id, record.stamp().unwrap()).await.unwrap();
    create("bob").await;
    assert!(next.await.is_none(), "bob's operation was shown to ada");
}

/// Between the read and the write of ada's request, another client of hers deletes the operation,
/// and she or bob uses its id. The later operation is at the same version then.
#[tokio::test]
async fn a_request_to_end_an_operation_does_not_hit_a_later_one_with_its_id() {
    for (call, next, expected) in [
        (Call::ForceFinish, "ada", StatusCode::NOT_FOUND),
        (Call::ForceFinish, "bob", StatusCode::NOT_FOUND),
        (Call::Delete, "ada", StatusCode::NO_CONTENT),
        (Call::Delete, "bob", StatusCode::NO_CONTENT),
    ] {
        let memory = MemoryStore::new();
        let id: OperationId = "invoice-2026-11".parse().unwrap();
        let has_ended = call == Call::Delete;
        create_for("ada", &memory, &id, has_ended).await;
        let asks = Arc::new(AtomicUsize::new(0));
        let hook = {
            let (memory, id) = (memory.clone(), id.clone());
            move |called, when| {
                let is_first =
                    (called, when) == (call, When::Before) && asks.fetch_add(1, SeqCst) == 0;
                let (memory, id) = (memory.clone(), id.clone());
                async move {
                    if is_first {
                        delete_whatever_it_is(&memory, &id).await;
                        // Operations of one owner differ by the time of their creation.
                        tokio::time::sleep(Duration::from_millis(3)).await;
                        create_for(next, &memory, &id, has_ended).await;
                    }
                    Ok(())
                }
            }
        };
        let polls = Operations::new(Hooked::new(memory.clone(), hook))
            .owner(header_owner)
            .poll_service();
        let seen = with_user(Some("ada"), Request::get(format!("/{id}")));
        let etag = Answer::fetch(&polls, seen).await.headers["etag"].clone();
        let mut request = with_user(Some("ada"), Request::delete(format!("/{id}")));
        if has_ended {
            request = request.header("if-match", etag);
        }
        assert_eq!(
            Answer::fetch(&polls, request).await.status,
            expected,
            "{call:?}"
        );
        let found = memory
            .get(&id)
            .await
            .unwrap()
            .expect("the later operation exists");
        assert_eq!(found.owner(), Some(&Owner::new(next)), "{call:?}");
        assert_eq!(
            found.operation().state().is_terminal(),
            has_ended,
            "{call:?}"
        );
    }
}

/// Creates an operation of an owner, which has already ended if `has_ended`.
async fn create_for(owner: &str, store: &MemoryStore, id: &OperationId, has_ended: bool) {
    let new = NewOperation::new(id.clone()).with_owner(Some(Owner::new(owner)));
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is free");
    };
    if has_ended {
        let ended = store.finish(id, record.token(), Outcome::Succeeded(None), None);
        assert!(matches!(ended.await, Ok(Written::Done(_))));
    }
}

/// Cancels an operation if it is live, and deletes it.
async fn delete_whatever_it_is(store: &MemoryStore, id: &OperationId) {
    let stamp = async || store.get(id).await.unwrap().unwrap().stamp().unwrap();
    let canceled = store.force_finish(id, stamp().await, Outcome::Canceled);
    canceled.await.unwrap();
    let deleted = store.delete(id, stamp().await).await;
    assert!(matches!(deleted, Ok(Written::Done(_))));
}

/// Polls once. Returns the output if it is ready.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_reads_a_whole_record_before_its_owner_is_checked() {
    let memory = MemoryStore::new();
    let store = Hooked::new(memory.clone(), |_, _| std::future::ready(Ok(())));
    let polls = Operations::new(store.clone())
        .owner(header_owner)
        .poll_service();
    for owner in [Some("ada"), None] {
        for user in [Some("ada"), Some("bob"), None] {
            for has_ended in [false, true] {
                let id = create(&memory, owner).await;
                if has_ended {
                    let token = memory.get(&id).await.unwrap().unwrap().token();
                    let secret = Response::new(BufferedBody::from("secret"));
                    let outcome = RecordedResponse::new(secret).into_outcome();
                    memory.finish(&id, token, outcome, None).await.unwrap();
                }
                for (label, request) in requests_about(&id) {
                    let request = with_user(user, request).body(()).unwrap();
                    let response = polls.clone().oneshot(request).await.unwrap();
                    let events = response.into_body();
                    // A stream stays open, so its collection is limited in time.
                    let _ = tokio::time::timeout(Duration::from_secs(60), events.collect()).await;
                    let whole = store.whole_reads.load(SeqCst);
                    assert_eq!(whole, 0, "{user:?} of {owner:?}: {label}");
                }
            }
        }
    }
}
