//! Whose an operation is: it is there for its owner, and for everybody else it
//! is unknown, whatever they look at.

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

/// Who the request says it comes from, as a gateway in front of it would.
fn by_header(parts: &Parts) -> Option<Owner> {
    let user = parts.headers.get("x-user")?;
    Some(Owner::new(user.to_str().unwrap()))
}

/// The same as a type of the application's.
#[derive(Clone)]
struct ByHeader;

impl ExtractOwner for ByHeader {
    fn owner(&self, parts: &Parts) -> Option<Owner> {
        by_header(parts)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn of<B>(response: Response<B>) -> Self
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

    async fn to<S: Store>(polls: &PollService<S>, request: http::request::Builder) -> Self {
        let request = request.body(()).unwrap();
        Self::of(polls.clone().oneshot(request).await.unwrap()).await
    }

    /// The same with a placeholder in the place of the id.
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

fn from(user: Option<&str>, request: http::request::Builder) -> http::request::Builder {
    match user {
        Some(user) => request.header("x-user", user),
        None => request,
    }
}

/// A store that remembers what it was asked.
fn recorded(memory: &MemoryStore) -> (Hooked, Arc<Mutex<Vec<Call>>>) {
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

/// Every kind of question about one operation.
fn questions(id: &OperationId) -> Vec<(String, http::request::Builder)> {
    let mut questions = Vec::new();
    let mut ask = |method: Method, below: &str, fields: &[(&str, &str)]| {
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("/{id}{below}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        questions.push((format!("{method} {below} {fields:?}"), request));
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
    questions
}

#[tokio::test(start_paused = true)]
async fn somebody_else_s_operation_is_an_unknown_one_to_the_byte_and_to_the_call() {
    let memory = MemoryStore::new();
    let (store, calls) = recorded(&memory);
    let polls = Operations::new(store)
        .owner(by_header)
        .poll_service()
        .listing();
    // Nobody is a stranger to somebody, and the other way round.
    for (owner, asking) in [
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
            let pairs = questions(&foreign).into_iter().zip(questions(&unknown));
            for ((question, of_foreign), (_, of_unknown)) in pairs {
                let what = format!("{asking:?} of {owner:?}, {state}: {question}");
                let begun = Instant::now();
                let answer = Answer::to(&polls, from(asking, of_foreign)).await;
                let asked = take(&mut *calls.lock().unwrap());
                let expected = Answer::to(&polls, from(asking, of_unknown)).await;
                let expected_calls = take(&mut *calls.lock().unwrap());
                assert_eq!(begun.elapsed(), Duration::ZERO, "{what}");
                assert_eq!(
                    answer.without(&foreign),
                    expected.without(&unknown),
                    "{what}"
                );
                assert_eq!(asked, expected_calls, "{what}");
                assert!(asked.iter().all(|call| *call == Call::Get), "{what}");
            }
            assert_eq!(memory.get(&foreign).await.unwrap(), before);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_s_questions_are_answered_404_and_the_owner_s_are_answered() {
    let memory = MemoryStore::new();
    let polls = Operations::new(memory.clone())
        .owner(by_header)
        .poll_service();
    for owner in [Some("ada"), None] {
        let id = create(&memory, owner).await;
        for (question, request) in questions(&id) {
            let answer = Answer::to(&polls, from(Some("bob"), request)).await;
            let reads = question.starts_with("GET") || question.starts_with("HEAD");
            if reads || question.starts_with("DELETE") {
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{question}");
            }
        }
        let get = Request::get(format!("/{id}"));
        assert_eq!(
            Answer::to(&polls, from(owner, get)).await.status,
            StatusCode::OK
        );
        let delete = Request::delete(format!("/{id}"));
        assert_eq!(
            Answer::to(&polls, from(owner, delete)).await.status,
            StatusCode::OK
        );
        let events = Request::get(format!("/{id}/events"));
        let events = Answer::to(&polls, from(owner, events)).await;
        assert_eq!(events.headers["content-type"], "text/event-stream");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_without_owners_shows_nobody_s_operations_alone() {
    let memory = MemoryStore::new();
    let polls = PollService::new(memory.clone());
    let (ada, nobody) = (
        create(&memory, Some("ada")).await,
        create(&memory, None).await,
    );
    let status = async |id: &OperationId| {
        Answer::to(&polls, Request::get(format!("/{id}")))
            .await
            .status
    };
    assert_eq!(status(&ada).await, StatusCode::NOT_FOUND);
    assert_eq!(status(&nobody).await, StatusCode::OK);
}

#[tokio::test]
async fn a_list_costs_the_same_and_looks_the_same_whoever_else_has_operations() {
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
            let mut seen = Vec::new();
            for memory in [&some, &none] {
                let (store, calls) = recorded(memory);
                let polls = Operations::new(store)
                    .owner(by_header)
                    .poll_service()
                    .listing();
                let request = Request::builder().method(&method).uri(query);
                let answer = Answer::to(&polls, from(Some("bob"), request)).await;
                seen.push((answer, take(&mut *calls.lock().unwrap())));
            }
            assert_eq!(seen[0], seen[1], "{method} {query}");
            assert!(seen[0].1.len() <= 1, "{method} {query}");
        }
    }
}

/// An application whose operations have owners, and how often it has run.
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
        let mut request = from(user, Request::post("/"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(BufferedBody::from("Q3")).unwrap();
        Answer::of(service.oneshot(request).await.unwrap()).await
    }

    async fn get(&self, user: Option<&str>, uri: &str) -> Answer {
        Answer::to(&self.polls, from(user, Request::get(uri))).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_for_somebody_is_theirs() {
    for app in [App::with(by_header), App::with(ByHeader)] {
        for owner in [Some("ada"), None] {
            let accepted = app.post(owner, &[]).await;
            let uri = format!("{}?wait=30", accepted.location());
            for asking in [Some("ada"), None, Some("bob")] {
                let expected = match asking == owner {
                    true => StatusCode::OK,
                    false => StatusCode::NOT_FOUND,
                };
                assert_eq!(app.get(asking, &uri).await.status, expected, "{asking:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_of_somebody_else_is_taken_whoever_they_are() {
    let field = ("operation-id", "invoice-2026-11");
    for (first, second) in [
        (Some("ada"), Some("bob")),
        (Some("ada"), None),
        (None, Some("ada")),
    ] {
        let app = App::with(by_header);
        let accepted = app.post(first, &[field]).await;
        let location = accepted.location().to_owned();
        let taken = app.post(second, &[field]).await;
        assert_eq!(taken.status, StatusCode::CONFLICT, "{field:?}");
        // It says nothing of the operation that has it.
        assert!(!taken.headers.contains_key("location"));
        let said = String::from_utf8_lossy(&taken.body).into_owned();
        assert!(!said.contains(&location) && !said.contains("ada"), "{said}");
        // The same owner is given what they have.
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
async fn an_id_that_was_not_given_by_its_client_is_taken_too() {
    let app = App::with(by_header);
    let accepted = app.post(Some("ada"), &[]).await;
    let id = accepted.location().rsplit('/').next().unwrap().to_owned();
    let taken = app.post(Some("bob"), &[("operation-id", &id)]).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    assert!(!taken.headers.contains_key("location"));
}

#[tokio::test(start_paused = true)]
async fn keyed_owners_are_owners_and_no_store_knows_who_they_are() {
    let keyed = |keys: &[&str]| {
        let first = HmacOwner::new(keys[0], by_header);
        keys[1..].iter().fold(first, HmacOwner::previous_key)
    };
    let store = MemoryStore::new();
    let layer = Operations::new(store.clone())
        .owner(keyed(&["old"]))
        .layer();
    let service = layer.layer(service_fn(async |_| {
        Ok::<_, Infallible>(Response::new(BufferedBody::from("done")))
    }));
    let request = from(Some("ada"), Request::post("/"));
    let request = request.body(BufferedBody::default()).unwrap();
    let stored = Answer::of(service.oneshot(request).await.unwrap()).await;
    let stored_id: OperationId = stored
        .location()
        .rsplit('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let record = store.get(&stored_id).await.unwrap().unwrap();
    assert!(!record.owner().unwrap().as_str().contains("ada"));

    // A key that is replaced goes on to open what it has closed.
    for (keys, expected) in [
        (&["old"][..], StatusCode::OK),
        (&["new", "old"], StatusCode::OK),
        (&["new"], StatusCode::NOT_FOUND),
    ] {
        let polls = Operations::new(store.clone())
            .owner(keyed(keys))
            .poll_service();
        let get = || Request::get(stored.location());
        let answer = Answer::to(&polls, from(Some("ada"), get())).await;
        assert_eq!(answer.status, expected, "{keys:?}");
        for way in ["?wait=1", "/result", "/events"] {
            let get = Request::get(format!("{}{way}", stored.location()));
            let answer = Answer::to(&polls, from(Some("ada"), get)).await;
            assert_eq!(answer.status, expected, "{keys:?}{way}");
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            let expected = match (expected, way) {
                (StatusCode::OK, "/result") => "done",
                (StatusCode::OK, _) => "\"succeeded\"",
                _ => "not-found",
            };
            assert!(body.contains(expected), "{keys:?}{way}: {body}");
        }
        for stranger in [Some("bob"), None, Some(record.owner().unwrap().as_str())] {
            let answer = Answer::to(&polls, from(stranger, get())).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{stranger:?}");
        }
    }

    // A list knows only what was created under the first.
    for (keys, listed) in [(&["old", "new"][..], true), (&["new", "old"], false)] {
        let polls = Operations::new(store.clone())
            .owner(keyed(keys))
            .poll_service()
            .listing();
        let answer = Answer::to(&polls, from(Some("ada"), Request::get("/"))).await;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(
            body.contains(&stored_id.to_string()),
            listed,
            "{keys:?}: {body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_ends_when_another_owner_has_its_id() {
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
        .owner(by_header)
        .poll_service();
    let request = from(Some("ada"), Request::get(format!("/{id}/events")));
    let response = polls.oneshot(request.body(()).unwrap()).await.unwrap();
    let mut stream = response.into_body();
    assert!(stream.frame().await.is_some());
    let mut next = std::pin::pin!(stream.frame());
    assert!(poll_once(next.as_mut()).is_none());

    let version = record.version().unwrap();
    let canceled = store.force_finish(&id, version, Outcome::Canceled).await;
    let Written::Done(record) = canceled.unwrap() else {
        panic!("nobody else changes it");
    };
    store.delete(&id, record.version().unwrap()).await.unwrap();
    create("bob").await;
    assert!(next.await.is_none(), "bob's operation was shown to ada");
}

/// What is ready after one poll.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn no_question_has_the_store_read_what_may_be_for_another_owner() {
    let memory = MemoryStore::new();
    let store = Hooked::new(memory.clone(), |_, _| std::future::ready(Ok(())));
    let polls = Operations::new(store.clone())
        .owner(by_header)
        .poll_service();
    for owner in [Some("ada"), None] {
        for asking in [Some("ada"), Some("bob"), None] {
            for is_over in [false, true] {
                let id = create(&memory, owner).await;
                if is_over {
                    let token = memory.get(&id).await.unwrap().unwrap().token();
                    let secret = Response::new(BufferedBody::from("secret"));
                    let outcome = RecordedResponse::new(secret).into_outcome();
                    memory.finish(&id, token, outcome, None).await.unwrap();
                }
                for (question, request) in questions(&id) {
                    let request = from(asking, request).body(()).unwrap();
                    let response = polls.clone().oneshot(request).await.unwrap();
                    let events = response.into_body();
                    // A stream goes on until there is nothing new for a while.
                    let _ = tokio::time::timeout(Duration::from_secs(60), events.collect()).await;
                    let whole = store.whole_reads.load(SeqCst);
                    assert_eq!(whole, 0, "{asking:?} of {owner:?}: {question}");
                }
            }
        }
    }
}
