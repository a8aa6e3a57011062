//! Idempotency: repeated requests run once, in every mode and on any node.

use test_support::hooked;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use hooked::{Call, Hooked, When};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, request::Parts};
use http_body_util::BodyExt;
use serde_json::Value;
use sha2::Digest;
use tokio::{
    sync::{Barrier, Notify, Semaphore},
    time::{Instant, sleep, timeout},
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, Idempotency, MemoryStore, NotAccepted, OperationHandle,
    OperationId, Operations, PollService, RecordedResponse, RequestBody, State,
    dialect::{Dialect, Fhir, OData},
    store::{FencingToken, IdempotencyKey, IdempotencyKeys, Lease, Owner, Store, StoreError},
};

const KEY: (&str, &str) = (
    "idempotency-key",
    "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
);
const ID: (&str, &str) = ("operation-id", "invoice-2026-11");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Always,
    Preferred,
    After,
    Signaled,
}

const MODES: [Mode; 4] = [Mode::Always, Mode::Preferred, Mode::After, Mode::Signaled];

/// The modes in which an answer may come before there is an operation.
const EARLY: [Mode; 2] = [Mode::After, Mode::Signaled];

impl Mode {
    fn apply<R>(self, layer: AsyncAcceptLayer<R>) -> AsyncAcceptLayer<R> {
        match self {
            Self::Always => layer,
            Self::Preferred => layer.when_preferred(),
            Self::After => layer.after(Duration::from_secs(5)),
            Self::Signaled => layer.when_signaled(),
        }
    }

    /// A handler that becomes an operation and then takes a minute.
    fn slow_handler(self) -> Inner {
        Inner::new(move |_, operation| async move {
            if self == Self::Signaled {
                operation.accept().await.unwrap();
            }
            sleep(Duration::from_secs(60)).await;
            Ok(Response::new(BufferedBody::from("done")))
        })
    }
}

type ActFuture = Pin<Box<dyn Future<Output = io::Result<Response<BufferedBody>>> + Send>>;
type Act = dyn Fn(usize, OperationHandle) -> ActFuture + Send + Sync;

/// The inner service, with a count of its calls.
#[derive(Clone)]
struct Inner {
    runs: Arc<AtomicUsize>,
    act: Arc<Act>,
}

impl Inner {
    /// `act` receives the number of the call, from 1.
    fn new<F>(act: impl Fn(usize, OperationHandle) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Response<BufferedBody>>> + Send + 'static,
    {
        Self {
            runs: Arc::default(),
            act: Arc::new(move |run, operation| Box::pin(act(run, operation))),
        }
    }

    fn runs(&self) -> usize {
        self.runs.load(SeqCst)
    }

    async fn call(
        self,
        request: Request<RequestBody<BufferedBody>>,
    ) -> io::Result<Response<BufferedBody>> {
        let run = self.runs.fetch_add(1, SeqCst) + 1;
        let operation = OperationHandle::from_extensions(request.extensions());
        (self.act)(run, operation).await
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    async fn from_response<B>(response: Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        let (parts, body) = response.into_parts();
        let whole = body.collect().await.unwrap();
        Self {
            status: parts.status,
            headers: parts.headers,
            trailers: whole.trailers().cloned(),
            body: whole.to_bytes(),
        }
    }

    fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::ACCEPTED, "{self:?}");
        self.headers["location"].to_str().unwrap()
    }

    /// Asserts a problem of the crate with this status and code.
    fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["type"], format!("urn:tower-operations:{code}"));
        assert!(!self.headers.contains_key("location"));
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn detail(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        problem["detail"].as_str().unwrap_or_default().to_owned()
    }

    /// Asserts an answer of the handler.
    fn assert_text(&self, text: &str) {
        assert_eq!(
            (self.status, &self.body[..]),
            (StatusCode::OK, text.as_bytes())
        );
    }
}

/// A request that a client of a service in this mode sends. `line` is `method uri`.
fn ask(
    mode: Mode,
    line: &str,
    body: &'static str,
    fields: &[(&str, &str)],
) -> Request<BufferedBody> {
    let (method, uri) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(uri);
    if mode == Mode::Preferred {
        request = request.header("prefer", "respond-async");
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(BufferedBody::from(body)).unwrap()
}

fn post(mode: Mode, fields: &[(&str, &str)]) -> Request<BufferedBody> {
    ask(mode, "POST /reports?year=2026", "Q3", fields)
}

async fn try_send<R>(
    layer: &AsyncAcceptLayer<R>,
    inner: &Inner,
    request: Request<BufferedBody>,
) -> io::Result<Answer>
where
    R: Lease<Output = RecordedResponse>,
{
    let inner = inner.clone();
    let service = layer.layer(service_fn(move |request| inner.clone().call(request)));
    Ok(Answer::from_response(service.oneshot(request).await?).await)
}

async fn send<R>(
    layer: &AsyncAcceptLayer<R>,
    inner: &Inner,
    request: Request<BufferedBody>,
) -> Answer
where
    R: Lease<Output = RecordedResponse>,
{
    try_send(layer, inner, request).await.unwrap()
}

/// Waits for the end of the operation at a `Location`.
async fn wait_for_end<S: Store + Clone>(polls: &PollService<S>, location: &str) -> Value {
    let request = Request::get(format!("{location}?wait=3600"))
        .body(())
        .unwrap();
    let answer = Answer::from_response(polls.clone().oneshot(request).await.unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

fn polls(store: &MemoryStore) -> PollService<MemoryStore> {
    PollService::new(store.clone()).max_wait(Duration::from_secs(3600))
}

/// A node over a store that all nodes share.
fn node<R>(mode: Mode, store: &R, rules: Idempotency) -> AsyncAcceptLayer<R>
where
    R: IdempotencyKeys<Output = RecordedResponse> + Lease + Clone,
{
    mode.apply(AsyncAcceptLayer::new(store.clone()).idempotency(rules))
}

/// A node that extracts owners.
fn node_with_owners<R>(mode: Mode, store: &R, rules: Idempotency) -> AsyncAcceptLayer<R>
where
    R: IdempotencyKeys<Output = RecordedResponse> + Lease + Clone,
{
    let operations = Operations::new(store.clone()).owner(header_owner);
    mode.apply(operations.layer().idempotency(rules))
}

fn header_owner(parts: &Parts) -> Option<Owner> {
    let user = parts.headers.get("x-user")?;
    Some(Owner::new(user.to_str().unwrap()))
}

/// Sends a hundred equal requests concurrently to ten nodes over one store.
async fn send_a_hundred_equal_requests<R>(
    mode: Mode,
    field: (&'static str, &'static str),
    store: &R,
    memory: &MemoryStore,
) where
    R: IdempotencyKeys<Output = RecordedResponse> + Lease + Clone,
{
    let may_finish = Arc::new(Semaphore::new(0));
    let inner = Inner::new({
        let may_finish = Arc::clone(&may_finish);
        move |_, operation| {
            let may_finish = Arc::clone(&may_finish);
            async move {
                if mode == Mode::Signaled {
                    operation.accept().await.unwrap();
                }
                let _ = may_finish.acquire().await;
                Ok(Response::new(BufferedBody::from("done")))
            }
        }
    });
    let nodes: Vec<_> = (0..10)
        .map(|_| {
            let node = node(mode, store, Idempotency::optional().client_ids());
            match mode {
                Mode::After => node.after(Duration::from_millis(1)),
                _ => node,
            }
        })
        .collect();
    let start = Arc::new(Barrier::new(100));
    let requests: Vec<_> = (0..100)
        .map(|index| {
            let (layer, inner) = (nodes[index % 10].clone(), inner.clone());
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                send(&layer, &inner, post(mode, &[field])).await
            })
        })
        .collect();
    let all_answers = timeout(Duration::from_secs(20), async {
        let mut answers = Vec::new();
        for request in requests {
            answers.push(request.await.unwrap());
        }
        answers
    });
    let answers = all_answers.await.expect("all are answered");
    let location = answers[0].location();
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{mode:?}: {answers:?}"
    );
    may_finish.close();
    let operation = wait_for_end(&polls(memory), location).await;
    assert_eq!(operation["state"], "succeeded", "{mode:?}");
    assert_eq!((inner.runs(), memory.len()), (1, 1), "{mode:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_equal_requests_run_once_on_several_threads() {
    for mode in MODES {
        for field in [KEY, ID] {
            let store = MemoryStore::new();
            send_a_hundred_equal_requests(mode, field, &store, &store).await;
        }
    }
}

/// One thread and a paused clock: each call of the store yields to the others, a
/// varying number of times.
#[tokio::test(start_paused = true)]
async fn a_hundred_equal_requests_run_once_in_varying_order() {
    for mode in MODES {
        for (field, seed) in [(KEY, 1), (KEY, 5), (ID, 2), (ID, 7)] {
            let memory = MemoryStore::new();
            let turns = Arc::new(AtomicUsize::new(seed));
            let store = Hooked::new(memory.clone(), move |_, _| {
                let turn = turns.fetch_add(seed, SeqCst);
                async move {
                    for _ in 0..turn % 5 {
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                }
            });
            send_a_hundred_equal_requests(mode, field, &store, &memory).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_repetition_gets_the_same_202_during_and_after_the_run() {
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let first_node = node(mode, &store, Idempotency::optional());
        let second_node = node(mode, &store, Idempotency::optional());
        let first = send(&first_node, &inner, post(mode, &[KEY])).await;
        let location = first.location().to_owned();
        for layer in [&first_node, &second_node] {
            assert_eq!(
                send(layer, &inner, post(mode, &[KEY])).await,
                first,
                "{mode:?}"
            );
        }
        assert_eq!(
            wait_for_end(&polls(&store), &location).await["state"],
            "succeeded"
        );
        for layer in [&first_node, &second_node] {
            let start = Instant::now();
            assert_eq!(
                send(layer, &inner, post(mode, &[KEY])).await,
                first,
                "{mode:?}"
            );
            assert_eq!(start.elapsed(), Duration::ZERO);
        }
        assert_eq!((inner.runs(), store.len()), (1, 1), "{mode:?}");
        // Another key, or none, is another request.
        let other = ("idempotency-key", "\"0123456789abcdef\"");
        let second = send(&first_node, &inner, post(mode, &[other])).await;
        let third = send(&first_node, &inner, post(mode, &[])).await;
        assert_ne!(second.location(), location);
        assert_ne!(third.location(), second.location());
        wait_for_end(&polls(&store), third.location()).await;
        assert_eq!(inner.runs(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_with_another_request_is_422() {
    for mode in MODES {
        for (field, is_id) in [(KEY, false), (ID, true)] {
            let store = MemoryStore::new();
            let inner = mode.slow_handler();
            let layer = node(mode, &store, Idempotency::optional().client_ids());
            let first = send(&layer, &inner, post(mode, &[field])).await;
            for (line, body) in [
                ("POST /reports?year=2026", "Q4"),
                ("POST /reports?year=2026", ""),
                ("POST /exports?year=2026", "Q3"),
                ("POST /reports?year=2025", "Q3"),
                ("POST /reports", "Q3"),
                ("PUT /reports?year=2026", "Q3"),
            ] {
                let answer = send(&layer, &inner, ask(mode, line, body, &[field])).await;
                assert_eq!(answer.status, 422, "{mode:?} {line} {body} {is_id}");
                answer.assert_problem(422, reused_code(field));
            }
            // Header fields are not part of a request's identity.
            let repetition = post(mode, &[field, ("x-request-id", "7")]);
            assert_eq!(send(&layer, &inner, repetition).await, first);
            wait_for_end(&polls(&store), first.location()).await;
            assert_eq!((inner.runs(), store.len()), (1, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_application_defines_the_fingerprint_of_a_request() {
    let digest_fingerprint = |parts: &Parts, _: &Bytes| {
        let digest = parts.headers.get("content-digest");
        digest.map_or_else(Vec::new, |digest| digest.as_bytes().to_vec())
    };
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let layer = node(
            mode,
            &store,
            Idempotency::optional().fingerprint(digest_fingerprint),
        );
        let form = |body, digest| {
            let line = "POST /upload";
            ask(mode, line, body, &[KEY, ("content-digest", digest)])
        };
        let first = send(&layer, &inner, form("--boundary-1\r\nQ3", "q3")).await;
        let repetition = send(&layer, &inner, form("--boundary-2\r\nQ3", "q3")).await;
        assert_eq!(repetition, first);
        assert_eq!(first.status, StatusCode::ACCEPTED);
        let other = send(&layer, &inner, form("--boundary-1\r\nQ3", "q4")).await;
        other.assert_problem(422, "idempotency-key-reused");
        assert_eq!(store.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_required_key_is_400() {
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let layer = node(mode, &store, Idempotency::required().client_ids());
        // An id is no key.
        for fields in [&[][..], &[ID]] {
            let answer = send(&layer, &inner, post(mode, fields)).await;
            answer.assert_problem(400, "idempotency-key-missing");
            let problem: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(problem["title"], "Idempotency-Key is missing");
        }
        assert_eq!((inner.runs(), store.len()), (0, 0));
        // A request that passes through needs no key.
        let get = ask(mode, "GET /reports", "", &[]);
        let inner = Inner::new(async |_, _| Ok(Response::new(BufferedBody::from("read"))));
        send(&layer, &inner, get).await.assert_text("read");
        assert_eq!(
            send(&layer, &mode.slow_handler(), post(mode, &[KEY]))
                .await
                .status,
            202
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_key_is_400() {
    let long = format!("\"{}\"", "x".repeat(256));
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        for rules in [Idempotency::optional(), Idempotency::required()] {
            let layer = node(mode, &store, rules);
            for key in [
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
                "\"8e03978e-40d5-43dd-bc93-6894a57f9324",
                "8e03978e-40d5-43dd-bc93-6894a57f9324\"",
                "\"8e03978e-40d5-43dd-bc93\" x",
                "\"0123456789abcdef\", \"0123456789abcdef\"",
                "\"0123456789\\abcdef\"",
                "\"\"",
                "",
                ":MDEyMzQ1Njc4OWFiY2RlZg==:",
                "1234567890123456",
                &long,
            ] {
                let answer = send(&layer, &inner, post(mode, &[("idempotency-key", key)])).await;
                assert_eq!(answer.status, 400, "{mode:?} {key}");
                answer.assert_problem(400, "idempotency-key-invalid");
            }
            let twice = post(mode, &[KEY, KEY]);
            send(&layer, &inner, twice)
                .await
                .assert_problem(400, "idempotency-key-invalid");
        }
        assert_eq!((inner.runs(), store.len()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bare_token_is_a_key_where_the_application_allows_it() {
    let store = MemoryStore::new();
    let inner = Mode::Always.slow_handler();
    let layer = node(Mode::Always, &store, Idempotency::optional().bare_tokens());
    let (_, quoted) = KEY;
    let bare = ("idempotency-key", quoted.trim_matches('"'));
    let first = send(&layer, &inner, post(Mode::Always, &[bare])).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    assert_eq!(
        send(&layer, &inner, post(Mode::Always, &[bare])).await,
        first
    );
    // The quoted token is the same key.
    assert_eq!(
        send(&layer, &inner, post(Mode::Always, &[KEY])).await,
        first
    );
    let spaced = ("idempotency-key", "8e03978e 40d5 43dd");
    let answer = send(&layer, &inner, post(Mode::Always, &[spaced])).await;
    answer.assert_problem(400, "idempotency-key-invalid");
}

#[tokio::test(start_paused = true)]
async fn a_key_without_an_owner_has_at_least_sixteen_characters() {
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let ownerless = node(mode, &store, Idempotency::optional());
        let short = ("idempotency-key", "\"0123456789abcde\"");
        let answer = send(&ownerless, &inner, post(mode, &[short])).await;
        answer.assert_problem(400, "idempotency-key-invalid");
        let enough = ("idempotency-key", "\"0123456789abcdef\"");
        assert_eq!(
            send(&ownerless, &inner, post(mode, &[enough])).await.status,
            202
        );
        // A key with an owner may be shorter.
        let with_owners = node_with_owners(mode, &store, Idempotency::optional());
        let short_key = ("idempotency-key", "\"1\"");
        let request = post(mode, &[short_key, ("x-user", "ada")]);
        assert_eq!(send(&with_owners, &inner, request).await.status, 202);
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_of_another_owner_is_409() {
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let rules = Idempotency::optional().client_ids();
        let layer = node_with_owners(mode, &store, rules);
        let ada = || post(mode, &[ID, ("x-user", "ada")]);
        let first = send(&layer, &inner, ada()).await;
        let bob = post(mode, &[ID, ("x-user", "bob")]);
        let with_key = post(mode, &[ID, KEY, ("x-user", "bob")]);
        for request in [bob, with_key, post(mode, &[ID])] {
            let conflict = send(&layer, &inner, request).await;
            conflict.assert_problem(409, "id-taken");
            let body = String::from_utf8_lossy(&conflict.body);
            assert!(body.contains(ID.1), "the id is not named: {body}");
        }
        // The answer does not reveal whether the request is the same.
        let other = ask(mode, "POST /", "Q4", &[ID, ("x-user", "bob")]);
        send(&layer, &inner, other)
            .await
            .assert_problem(409, "id-taken");
        assert_eq!(send(&layer, &inner, ada()).await, first);
        sleep(Duration::from_secs(61)).await;
        assert_eq!((inner.runs(), store.len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn equal_keys_of_different_owners_are_independent() {
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let rules = Idempotency::optional();
        let layer = node_with_owners(mode, &store, rules);
        let request_by = |user: Option<&'static str>, body| {
            let user = user.map(|user| ("x-user", user));
            let fields: Vec<_> = [KEY].into_iter().chain(user).collect();
            ask(mode, "POST /reports", body, &fields)
        };
        let users = [Some("ada"), Some("bob"), None];
        let mut answers = Vec::new();
        for user in users {
            answers.push(send(&layer, &inner, request_by(user, "Q3")).await);
        }
        for (index, answer) in answers.iter().enumerate() {
            let others = answers.iter().skip(index + 1);
            assert!(
                others
                    .into_iter()
                    .all(|other| other.location() != answer.location())
            );
        }
        for (user, first) in users.into_iter().zip(&answers) {
            assert_eq!(&send(&layer, &inner, request_by(user, "Q3")).await, first);
            let other = send(&layer, &inner, request_by(user, "Q4")).await;
            other.assert_problem(422, "idempotency-key-reused");
        }
        sleep(Duration::from_secs(61)).await;
        assert_eq!((inner.runs(), store.len()), (3, 3), "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_concurrent_owners_with_one_key_get_one_operation_each() {
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let rules = Idempotency::optional;
        let layers: Vec<_> = (0..4)
            .map(|_| node_with_owners(mode, &store, rules()))
            .collect();
        let requests = (0..20).map(|number| {
            let (layer, inner) = (layers[number % 4].clone(), inner.clone());
            let user = ["ada", "bob"][number / 4 % 2];
            tokio::spawn(async move {
                let request = post(mode, &[KEY, ("x-user", user)]);
                (user, send(&layer, &inner, request).await)
            })
        });
        let mut locations = std::collections::HashMap::new();
        for request in requests.collect::<Vec<_>>() {
            let (user, answer) = request.await.unwrap();
            let locations: &mut std::collections::HashSet<_> = locations.entry(user).or_default();
            locations.insert(answer.location().to_owned());
        }
        let (ada, bob) = (&locations["ada"], &locations["bob"]);
        assert_eq!((ada.len(), bob.len()), (1, 1), "{mode:?}");
        assert_ne!(ada, bob, "{mode:?}");
        sleep(Duration::from_secs(61)).await;
        assert_eq!((inner.runs(), store.len()), (2, 2), "{mode:?}");
    }
}

/// The other owner's key is used before, or not.
#[tokio::test(start_paused = true)]
async fn a_key_of_another_owner_affects_no_answer_and_no_call_of_the_store() {
    for mode in MODES {
        let mut observed = Vec::new();
        for is_used in [false, true] {
            let memory = MemoryStore::new();
            let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
            let log = Arc::clone(&calls);
            let store = Hooked::new(memory.clone(), move |call, when| {
                if when == When::Before {
                    log.lock().unwrap().push(call);
                }
                std::future::ready(Ok(()))
            });
            let inner = mode.slow_handler();
            let rules = Idempotency::optional();
            let layer = node_with_owners(mode, &store, rules);
            if is_used {
                let ada = post(mode, &[KEY, ("x-user", "ada")]);
                assert_eq!(send(&layer, &inner, ada).await.status, 202);
            }
            // The first operation has ended by then, so the calls are those of one request.
            sleep(Duration::from_secs(61)).await;
            calls.lock().unwrap().clear();
            let bob = || post(mode, &[KEY, ("x-user", "bob")]);
            let first = send(&layer, &inner, bob()).await;
            assert_eq!(first.status, 202);
            assert_eq!(send(&layer, &inner, bob()).await, first);
            // Renewals of leases are not part of a request.
            let is_of_request = |call: &&Call| !matches!(call, Call::Renew | Call::Revoked);
            let calls: Vec<Call> = calls
                .lock()
                .unwrap()
                .iter()
                .filter(is_of_request)
                .copied()
                .collect();
            let body = String::from_utf8_lossy(&first.body).into_owned();
            let id = first.location().rsplit('/').next().unwrap();
            observed.push((calls, body.replace(id, "ID")));
        }
        assert_eq!(observed[0], observed[1], "{mode:?}");
    }
}

/// A response that is hard to record: repeated fields, fields and bytes that are not
/// text, and trailers.
fn intricate(status: u16, run: usize) -> Response<BufferedBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let data = Bytes::from(format!("run {run}\r\n\0\u{e9}"));
    let mut response = Response::new(BufferedBody::new(data, Some(trailers)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let mut add = |name: &'static str, value: &[u8]| {
        let name = HeaderName::from_static(name);
        let value = HeaderValue::from_bytes(value).unwrap();
        response.headers_mut().append(name, value);
    };
    add("x-twice", b"b");
    add("x-latin", b"caf\xe9");
    add("x-twice", b"a");
    add("content-type", b"application/octet-stream");
    add("etag", b"\"q3\"");
    response
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_below_500_is_replayed_byte_for_byte() {
    for mode in EARLY {
        for status in [200, 201, 204, 303, 400, 404, 409, 422, 499] {
            let store = MemoryStore::new();
            let inner = Inner::new(move |run, _| async move {
                let mut response = intricate(status, run);
                let cookie = HeaderValue::from_static("session=1");
                response.headers_mut().insert("set-cookie", cookie);
                Ok(response)
            });
            let first_node = node(mode, &store, Idempotency::optional());
            let second_node = node(mode, &store, Idempotency::optional());
            let first = send(&first_node, &inner, post(mode, &[KEY])).await;
            assert_eq!(first.status, status);
            assert_eq!(first.body, intricate(status, 1).into_body().data());
            assert!(first.trailers.is_some());
            let twice: Vec<_> = first.headers.get_all("x-twice").iter().collect();
            assert_eq!(twice, ["b", "a"]);
            for layer in [&first_node, &second_node, &first_node] {
                let repetition = send(layer, &inner, post(mode, &[KEY])).await;
                assert_eq!(repetition, first, "{mode:?} {status}");
            }
            // A different request with the same key is refused.
            let other = ask(mode, "POST /reports?year=2026", "Q4", &[KEY]);
            let other = send(&second_node, &inner, other).await;
            other.assert_problem(422, "idempotency-key-reused");
            assert_eq!((inner.runs(), store.len()), (1, 0), "{mode:?} {status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_is_kept_for_the_ttl() {
    for mode in EARLY {
        let store = MemoryStore::new().ttl(Duration::from_secs(3600));
        let inner = Inner::new(async |run, _| Ok(intricate(200, run)));
        let layer = node(mode, &store, Idempotency::optional());
        send(&layer, &inner, post(mode, &[KEY])).await;
        sleep(Duration::from_secs(3599)).await;
        send(&layer, &inner, post(mode, &[KEY])).await;
        assert_eq!(inner.runs(), 1);
        sleep(Duration::from_secs(2)).await;
        send(&layer, &inner, post(mode, &[KEY])).await;
        assert_eq!(inner.runs(), 2);
    }
}

/// A service that fails on its first call and succeeds afterwards.
fn failing_first<F>(fail: impl Fn() -> F + Send + Sync + 'static) -> Inner
where
    F: Future<Output = io::Result<Response<BufferedBody>>> + Send + 'static,
{
    let fail = Arc::new(fail);
    Inner::new(move |run, _| {
        let fail = Arc::clone(&fail);
        async move {
            match run {
                1 => fail().await,
                _ => Ok(Response::new(BufferedBody::from("good"))),
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_of_500_or_above_releases_the_key() {
    for mode in EARLY {
        for status in [500, 503, 599] {
            let store = MemoryStore::new();
            let inner = failing_first(move || async move { Ok(intricate(status, 1)) });
            let layer = node(mode, &store, Idempotency::optional());
            let first = send(&layer, &inner, post(mode, &[KEY])).await;
            assert_eq!(
                (first.status.as_u16(), first.trailers.is_some()),
                (status, true)
            );
            let start = Instant::now();
            send(&layer, &inner, post(mode, &[KEY]))
                .await
                .assert_text("good");
            send(&layer, &inner, post(mode, &[KEY]))
                .await
                .assert_text("good");
            assert_eq!(inner.runs(), 2, "{mode:?} {status}");
            assert!(start.elapsed() < Duration::from_secs(1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_without_an_answer_of_the_store_is_retried_for_one_term() {
    let hook = |call, when| async move {
        match (call, when) {
            (Call::ReleaseKey, When::Before) => std::future::pending().await,
            _ => Ok(()),
        }
    };
    for mode in EARLY {
        let layer = mode.apply(AsyncAcceptLayer::new(Hooked::new(MemoryStore::new(), hook)));
        let layer = layer.idempotency(Idempotency::optional());
        let inner = Inner::new(|_, _| async { Ok(intricate(500, 1)) });
        let task_count = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        let before = task_count();
        let first = send(&layer, &inner, post(mode, &[KEY])).await;
        assert_eq!(first.status, StatusCode::INTERNAL_SERVER_ERROR);
        sleep(Duration::from_secs(29)).await;
        assert_eq!(
            task_count(),
            before + 1,
            "{mode:?}: the release is retried for a term"
        );
        sleep(Duration::from_secs(2)).await;
        assert_eq!(
            task_count(),
            before,
            "{mode:?}: the release is retried for ever"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_inner_service_releases_the_key() {
    for mode in EARLY {
        let store = MemoryStore::new();
        let inner = failing_first(async || Err(io::Error::other("gone")));
        let layer = node(mode, &store, Idempotency::optional());
        let first = try_send(&layer, &inner, post(mode, &[KEY])).await;
        assert_eq!(first.unwrap_err().to_string(), "gone");
        send(&layer, &inner, post(mode, &[KEY]))
            .await
            .assert_text("good");
        assert_eq!(inner.runs(), 2, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_releases_the_key() {
    for mode in EARLY {
        let store = MemoryStore::new();
        let inner = failing_first(async || panic!("a slip"));
        let layer = node(mode, &store, Idempotency::optional());
        let first = tokio::spawn({
            let (layer, inner) = (layer.clone(), inner.clone());
            async move { send(&layer, &inner, post(mode, &[KEY])).await }
        });
        assert!(first.await.unwrap_err().is_panic());
        send(&layer, &inner, post(mode, &[KEY]))
            .await
            .assert_text("good");
        assert_eq!(inner.runs(), 2, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_releases_the_key_to_a_waiting_request() {
    for mode in EARLY {
        let store = MemoryStore::new();
        let call_started = Arc::new(Notify::new());
        let inner = failing_first({
            let call_started = Arc::clone(&call_started);
            move || {
                call_started.notify_one();
                std::future::pending()
            }
        });
        let layer = node(mode, &store, Idempotency::optional());
        let first = tokio::spawn({
            let (layer, inner) = (layer.clone(), inner.clone());
            async move { send(&layer, &inner, post(mode, &[KEY])).await }
        });
        call_started.notified().await;
        let second = send(&layer, &inner, post(mode, &[KEY]));
        let disconnect = async {
            sleep(Duration::from_secs(2)).await;
            assert_eq!(inner.runs(), 1, "the second request waits for the first");
            first.abort();
        };
        let start = Instant::now();
        let (second, ()) = tokio::join!(second, disconnect);
        second.assert_text("good");
        assert!(start.elapsed() < Duration::from_secs(3), "{mode:?}");
        assert_eq!((inner.runs(), store.len()), (2, 0), "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_gets_the_answer_of_the_first_or_409() {
    for mode in EARLY {
        let store = MemoryStore::new();
        let inner = Inner::new(async |run, _| {
            sleep(Duration::from_secs(60)).await;
            Ok(intricate(200, run))
        });
        let node_with_wait = |seconds| {
            let rules = Idempotency::optional().max_wait(Duration::from_secs(seconds));
            let layer = node(mode, &store, rules);
            match mode {
                Mode::After => layer.after(Duration::from_secs(90)),
                _ => layer,
            }
        };
        let start = Instant::now();
        let first = tokio::spawn({
            let (layer, inner) = (node_with_wait(1), inner.clone());
            async move { send(&layer, &inner, post(mode, &[KEY])).await }
        });
        while inner.runs() == 0 {
            tokio::task::yield_now().await;
        }
        let none = send(&node_with_wait(0), &inner, post(mode, &[KEY])).await;
        none.assert_problem(409, "idempotency-key-in-use");
        assert_eq!(start.elapsed(), Duration::ZERO);

        // A different request is refused without waiting.
        let other = ask(mode, "POST /reports?year=2026", "Q4", &[KEY]);
        let other = send(&node_with_wait(5), &inner, other).await;
        other.assert_problem(422, "idempotency-key-reused");
        assert_eq!(start.elapsed(), Duration::ZERO);

        let timed_out = send(&node_with_wait(5), &inner, post(mode, &[KEY])).await;
        timed_out.assert_problem(409, "idempotency-key-in-use");
        let retry_after = timed_out.headers["retry-after"].to_str().unwrap();
        assert!(retry_after.parse::<u64>().unwrap() >= 1);
        let elapsed = start.elapsed();
        assert!((5_000..5_500).contains(&elapsed.as_millis()), "{elapsed:?}");

        let answer = send(&node_with_wait(300), &inner, post(mode, &[KEY])).await;
        let elapsed = start.elapsed();
        assert!(
            (60_000..60_500).contains(&elapsed.as_millis()),
            "{elapsed:?}"
        );
        assert_eq!(
            (first.await.unwrap(), inner.runs()),
            (answer, 1),
            "{mode:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_gets_the_202_of_the_first() {
    for mode in EARLY {
        let store = MemoryStore::new();
        let inner = Inner::new(move |_, operation| async move {
            if mode == Mode::Signaled {
                sleep(Duration::from_secs(5)).await;
                operation.accept().await.unwrap();
            }
            sleep(Duration::from_secs(60)).await;
            Ok(Response::new(BufferedBody::from("done")))
        });
        let first_node = node(mode, &store, Idempotency::optional());
        let second_node = node(mode, &store, Idempotency::optional());
        let start = Instant::now();
        let (first, second) = tokio::join!(
            send(&first_node, &inner, post(mode, &[KEY])),
            send(&second_node, &inner, post(mode, &[KEY]))
        );
        assert_eq!(first, second, "{mode:?}");
        let elapsed = start.elapsed();
        assert!((5_000..5_500).contains(&elapsed.as_millis()), "{elapsed:?}");
        wait_for_end(&polls(&store), first.location()).await;
        assert_eq!((inner.runs(), store.len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_call_keeps_its_key() {
    for mode in EARLY {
        let store = MemoryStore::new();
        let inner = Inner::new(async |run, _| {
            sleep(Duration::from_secs(50 * 60)).await;
            Ok(intricate(200, run))
        });
        let layer = node(mode, &store, Idempotency::optional());
        let layer = match mode {
            Mode::After => layer.after(Duration::from_secs(60 * 60)),
            _ => layer,
        };
        let first = send(&layer, &inner, post(mode, &[KEY]));
        let repetitions = async {
            for _ in 0..3 {
                sleep(Duration::from_secs(12 * 60)).await;
                let repetition = send(&layer, &inner, post(mode, &[KEY])).await;
                assert_eq!(inner.runs(), 1, "{mode:?}");
                repetition.assert_problem(409, "idempotency-key-in-use");
            }
        };
        let (first, ()) = tokio::join!(first, repetitions);
        let repetition = send(&layer, &inner, post(mode, &[KEY])).await;
        assert_eq!((repetition, inner.runs()), (first, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_key_of_a_dead_node_is_released_within_a_lease_term() {
    for mode in EARLY {
        let memory = MemoryStore::new();
        let dead = Arc::new(AtomicBool::new(false));
        let is_dead = Arc::clone(&dead);
        let dying_store = Hooked::new(memory.clone(), move |_, _| {
            let is_dead = is_dead.load(SeqCst);
            async move {
                if is_dead {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        let inner = Inner::new(async |_, _| std::future::pending().await);
        let with_long_after = |layer: AsyncAcceptLayer<_>| match mode {
            Mode::After => layer.after(Duration::from_secs(60 * 60)),
            _ => layer,
        };
        let first = with_long_after(node(mode, &dying_store, Idempotency::optional()));
        let hanging_request =
            tokio::spawn(async move { send(&first, &inner, post(mode, &[KEY])).await });
        sleep(Duration::from_secs(100)).await;
        let (live_node, inner) = (
            node(mode, &memory, Idempotency::optional()),
            healthy_service(),
        );
        let repeat = || send(&live_node, &inner, post(mode, &[KEY]));
        repeat().await.assert_problem(409, "idempotency-key-in-use");

        dead.store(true, SeqCst);
        let start = Instant::now();
        while inner.runs() == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "{mode:?}");
            repeat().await;
        }
        assert!(start.elapsed() > Duration::from_secs(15), "{mode:?}");
        assert_eq!(repeat().await.status, 200);
        assert_eq!(inner.runs(), 1);
        hanging_request.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_create_releases_its_key() {
    for mode in MODES {
        let memory = MemoryStore::new();
        let unavailable_store = Hooked::new(memory.clone(), |call, when| {
            std::future::ready(match (call, when) {
                (Call::Create, When::Before) => Err(StoreError::refused("down")),
                _ => Ok(()),
            })
        });
        let inner = Inner::new(move |run, operation| async move {
            if mode == Mode::Signaled
                && let Err(NotAccepted::Unavailable) = operation.accept().await
            {
                return Ok(intricate(503, run));
            }
            sleep(Duration::from_secs(60)).await;
            Ok(intricate(503, run))
        });
        let layer = node(mode, &unavailable_store, Idempotency::optional());
        let answer = send(&layer, &inner, post(mode, &[KEY])).await;
        assert_eq!(answer.status, 503, "{mode:?}");
        assert!(memory.is_empty());

        let working_node = node(mode, &memory, Idempotency::optional());
        let start = Instant::now();
        let accepted = send(&working_node, &mode.slow_handler(), post(mode, &[KEY])).await;
        assert_eq!(accepted.status, 202, "{mode:?}");
        assert!(start.elapsed() < Duration::from_secs(6));
    }
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_during_a_reservation_leaves_no_reservation() {
    for mode in EARLY {
        for point in [When::Before, When::After] {
            let memory = MemoryStore::new();
            let slow_store = Hooked::new(memory.clone(), move |call, when| async move {
                if (call, when) == (Call::Reserve, point) {
                    sleep(Duration::from_secs(2)).await;
                }
                Ok(())
            });
            let inner = Inner::new(async |_, _| Ok(Response::new(BufferedBody::from("good"))));
            let layer = node(mode, &slow_store, Idempotency::optional());
            let first = send(&layer, &inner, post(mode, &[KEY]));
            assert!(timeout(Duration::from_secs(1), first).await.is_err());
            assert_eq!(inner.runs(), 0);
            // The next request runs, on any node.
            let other_node = node(mode, &memory, Idempotency::optional());
            send(&other_node, &inner, post(mode, &[KEY]))
                .await
                .assert_text("good");
            assert_eq!(inner.runs(), 1, "{mode:?} {point:?}");
        }
    }
}

/// Deletes an operation as a client does.
async fn delete_operation<S: Store + Clone>(polls: &PollService<S>, location: &str) {
    let get = Request::get(location).body(()).unwrap();
    let polled = Answer::from_response(polls.clone().oneshot(get).await.unwrap()).await;
    let delete = Request::delete(location).header("if-match", &polled.headers["etag"]);
    let deleted = polls.clone().oneshot(delete.body(()).unwrap()).await;
    assert_eq!(deleted.unwrap().status(), StatusCode::NO_CONTENT);
    let get = Request::get(location).body(()).unwrap();
    let polled = polls.clone().oneshot(get).await.unwrap();
    assert_eq!(polled.status(), StatusCode::NOT_FOUND);
}

/// The code of the problem of a different request with this field.
fn reused_code((field, _): (&str, &str)) -> &'static str {
    match field {
        "operation-id" => "operation-id-reused",
        _ => "idempotency-key-reused",
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_header_and_its_value() {
    let (_, key) = KEY;
    let key = key.trim_matches('"');
    for mode in MODES {
        for (field, value, other) in [
            (KEY, format!("Idempotency-Key \"{key}\""), "Operation-Id"),
            (ID, format!("Operation-Id \"{}\"", ID.1), "Idempotency-Key"),
        ] {
            let store = MemoryStore::new().ttl(Duration::from_secs(3600));
            let inner = mode.slow_handler();
            let layer = node(mode, &store, Idempotency::optional().client_ids());
            let first = send(&layer, &inner, post(mode, &[field])).await;
            let location = first.location().to_owned();
            let another = || ask(mode, "POST /reports?year=2026", "Q4", &[field]);

            let answer = send(&layer, &inner, another()).await;
            answer.assert_problem(422, reused_code(field));
            assert!(answer.detail().contains(&value), "{answer:?}");
            assert!(!answer.text().contains(other), "{answer:?}");

            wait_for_end(&polls(&store), &location).await;
            delete_operation(&polls(&store), &location).await;
            let answer = send(&layer, &inner, post(mode, &[field])).await;
            answer.assert_problem(410, "operation-deleted");
            let (name, _) = value.split_once(' ').unwrap();
            assert!(answer.detail().contains(&format!("Another {name}")));
            assert!(!answer.text().contains(other), "{answer:?}");
        }

        // The id belongs to another request, and the key is free.
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let layer = node(mode, &store, Idempotency::optional().client_ids());
        send(&layer, &inner, post(mode, &[ID])).await.location();
        let answer = send(&layer, &inner, post(mode, &[ID, KEY])).await;
        answer.assert_problem(422, "operation-id-reused");
        assert!(answer.detail().contains(ID.1), "{answer:?}");

        let required = node(mode, &store, Idempotency::required().client_ids());
        let answer = send(&required, &inner, post(mode, &[])).await;
        answer.assert_problem(400, "idempotency-key-missing");
        assert!(answer.detail().contains("Idempotency-Key"), "{answer:?}");
        let short = ("idempotency-key", "\"abc\"");
        let answer = send(&layer, &inner, post(mode, &[short])).await;
        answer.assert_problem(400, "idempotency-key-invalid");
        for word in ["Idempotency-Key", "abc", "16"] {
            assert!(answer.detail().contains(word), "{word}: {answer:?}");
        }
        for (ids, value) in [
            (&["a b"][..], "\"a b\""),
            (&[""], "\"\""),
            (&["q3", "q4"], "\"q3, q4\""),
            (&["result"], "\"result\""),
        ] {
            let fields: Vec<_> = ids.iter().map(|id| ("operation-id", *id)).collect();
            let answer = send(&layer, &inner, post(mode, &fields)).await;
            answer.assert_problem(400, "invalid-id");
            let prefix = format!("Operation-Id is {value}: ");
            assert!(answer.detail().starts_with(&prefix), "{answer:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_409_for_a_running_request_names_its_key_or_id() {
    for mode in EARLY {
        for (field, kind) in [(KEY, "idempotency-key-in-use"), (ID, "operation-id-in-use")] {
            let store = MemoryStore::new();
            let inner = Inner::new(|_, _| async {
                sleep(Duration::from_secs(3)).await;
                Ok(Response::new(BufferedBody::from("early")))
            });
            let rules = Idempotency::optional()
                .client_ids()
                .max_wait(Duration::ZERO);
            let layer = node(mode, &store, rules);
            let first = send(&layer, &inner, post(mode, &[field]));
            let second = async {
                sleep(Duration::from_secs(1)).await;
                send(&layer, &inner, post(mode, &[field])).await
            };
            let (first, second) = tokio::join!(first, second);
            first.assert_text("early");
            second.assert_problem(409, kind);
            let (_, value) = field;
            assert!(
                second.detail().contains(value.trim_matches('"')),
                "{second:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_key_of_a_deleted_operation_is_410_until_the_expiry() {
    for mode in MODES {
        for field in [KEY, ID] {
            let store = MemoryStore::new().ttl(Duration::from_secs(3600));
            let inner = mode.slow_handler();
            let layer = node(mode, &store, Idempotency::optional().client_ids());
            let first = send(&layer, &inner, post(mode, &[field])).await;
            let location = first.location().to_owned();
            wait_for_end(&polls(&store), &location).await;
            delete_operation(&polls(&store), &location).await;

            sleep(Duration::from_secs(3000)).await;
            for _ in 0..2 {
                let repetition = send(&layer, &inner, post(mode, &[field])).await;
                repetition.assert_problem(410, "operation-deleted");
                let body = String::from_utf8_lossy(&repetition.body);
                assert!(
                    body.contains(location.rsplit('/').next().unwrap()),
                    "{body}"
                );
            }
            let other = ask(mode, "POST /reports?year=2026", "Q4", &[field]);
            let other = send(&layer, &inner, other).await;
            other.assert_problem(422, reused_code(field));
            assert_eq!((inner.runs(), store.len()), (1, 0), "{mode:?}");

            // The key is free after the expiry.
            sleep(Duration::from_secs(601)).await;
            let third = send(&layer, &inner, post(mode, &[field])).await;
            assert_eq!(third.status, 202);
            wait_for_end(&polls(&store), third.location()).await;
            assert_eq!(inner.runs(), 2, "{mode:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_repetition_never_points_at_an_operation_that_its_dialect_hides() {
    let dialects: [(Arc<dyn Dialect>, &str); 2] = [
        (Arc::new(OData::default()), "location"),
        (Arc::new(Fhir::default()), "content-location"),
    ];
    for mode in MODES {
        for (dialect, field) in &dialects {
            for name in [KEY, ID] {
                let store = MemoryStore::new();
                let inner = mode.slow_handler();
                let operations = Operations::new(store.clone()).dialect(Arc::clone(dialect));
                let rules = Idempotency::optional().client_ids();
                let layer = mode.apply(operations.layer().idempotency(rules));
                let polls = operations.poll_service();
                let fields = [name, ("prefer", "respond-async")];
                let first = send(&layer, &inner, post(mode, &fields)).await;
                assert_eq!(first.status, 202, "{mode:?} {dialect:?}");
                let location = first.headers[*field].to_str().unwrap().to_owned();
                let repetition = send(&layer, &inner, post(mode, &fields)).await;
                assert_eq!(repetition, first, "{mode:?} {dialect:?}");

                let delete = Request::delete(&location).body(()).unwrap();
                let deleted = polls.clone().oneshot(delete).await.unwrap();
                assert!(deleted.status().is_success());
                let get = Request::get(&location).body(()).unwrap();
                let poll = polls.clone().oneshot(get).await.unwrap();
                assert_eq!(poll.status(), StatusCode::NOT_FOUND);

                let repetition = send(&layer, &inner, post(mode, &fields)).await;
                assert_eq!(
                    repetition.status, 410,
                    "{mode:?} {dialect:?}: {repetition:?}"
                );
                assert!(!repetition.headers.contains_key(*field), "{repetition:?}");
                let body = String::from_utf8_lossy(&repetition.body);
                assert!(body.contains("OperationDeleted"), "{body}");
                // The operation may be canceled before it starts.
                assert!(inner.runs() <= 1, "{mode:?} {dialect:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_repetition_gets_a_canceled_operation_that_its_dialect_shows() {
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let layer = node(mode, &store, Idempotency::optional());
        let first = send(&layer, &inner, post(mode, &[KEY])).await;
        let delete = Request::delete(first.location()).body(()).unwrap();
        let canceled = polls(&store).oneshot(delete).await.unwrap();
        assert_eq!(canceled.status(), StatusCode::OK);
        let repetition = send(&layer, &inner, post(mode, &[KEY])).await;
        assert_eq!(repetition, first, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_did_not_happen_is_not_in_preference_applied() {
    for mode in [Mode::Always, Mode::Preferred, Mode::After] {
        for name in [KEY, ID] {
            let store = MemoryStore::new();
            let inner = mode.slow_handler();
            let layer = node(mode, &store, Idempotency::optional().client_ids());
            let fields = [name, ("prefer", "wait=4, respond-async")];
            let ask = || ask(Mode::Always, "POST /reports", "Q3", &fields);
            let first = send(&layer, &inner, ask()).await;
            assert_eq!(first.status, 202, "{mode:?}");
            let applied = |answer: &Answer| answer.headers["preference-applied"].clone();
            assert_eq!(applied(&first), "respond-async, wait=4", "{mode:?}");
            for _ in 0..2 {
                let start = Instant::now();
                let repetition = send(&layer, &inner, ask()).await;
                assert_eq!(
                    (repetition.status.as_u16(), start.elapsed()),
                    (202, Duration::ZERO)
                );
                assert_eq!(applied(&repetition), "respond-async", "{mode:?}");
                wait_for_end(&polls(&store), repetition.location()).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stored_answer_is_replayed_without_a_wait() {
    let store = MemoryStore::new();
    let inner = Inner::new(|_, _| async { Ok(Response::new(BufferedBody::from("early"))) });
    let layer = node(Mode::After, &store, Idempotency::optional());
    let fields = [KEY, ("prefer", "wait=4")];
    let first = send(&layer, &inner, post(Mode::After, &fields)).await;
    assert_eq!(first.headers["preference-applied"], "wait=4");
    let repetition = send(&layer, &inner, post(Mode::After, &fields)).await;
    repetition.assert_text("early");
    assert!(
        !repetition.headers.contains_key("preference-applied"),
        "{repetition:?}"
    );
    assert_eq!(inner.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_id_is_the_id_of_its_operation() {
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let layer = node(mode, &store, Idempotency::optional().client_ids());
        let (_, id) = ID;
        let first = send(&layer, &inner, post(mode, &[ID])).await;
        assert_eq!(first.location(), format!("/operations/{id}"), "{mode:?}");
        assert_eq!(send(&layer, &inner, post(mode, &[ID])).await, first);
        let operation = wait_for_end(&polls(&store), first.location()).await;
        assert_eq!(
            (&operation["id"], &operation["state"]),
            (&id.into(), &"succeeded".into())
        );
        assert_eq!(send(&layer, &inner, post(mode, &[ID])).await, first);
        assert_eq!((inner.runs(), store.len()), (1, 1));
        // The id counts beside a key too.
        let both = [KEY, ("operation-id", "invoice-2026-12")];
        let first = send(&layer, &inner, post(mode, &both)).await;
        assert_eq!(first.location(), "/operations/invoice-2026-12");
        assert_eq!(send(&layer, &inner, post(mode, &both)).await, first);
        // The id is ignored without `client_ids`.
        let without_client_ids = node(mode, &store, Idempotency::optional());
        let other = ("operation-id", "invoice-2026-13");
        let answer = send(&without_client_ids, &inner, post(mode, &[other])).await;
        assert!(!answer.location().contains("invoice"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_id_is_400() {
    let long = "x".repeat(129);
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let layer = node(mode, &store, Idempotency::optional().client_ids());
        for id in [
            "", "a/b", "../q3", ".", "..", "result", "events", "a b", "a?b", "\u{e9}", &long,
        ] {
            let value = HeaderValue::from_bytes(id.as_bytes()).unwrap();
            let mut request = post(mode, &[]);
            request.headers_mut().insert("operation-id", value);
            let answer = send(&layer, &inner, request).await;
            assert_eq!(answer.status, 400, "{mode:?} {id:?}");
            answer.assert_problem(400, "invalid-id");
        }
        let twice = send(&layer, &inner, post(mode, &[ID, ID])).await;
        twice.assert_problem(400, "invalid-id");
        assert_eq!((inner.runs(), store.len()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_of_another_request_is_never_a_repetition() {
    for mode in MODES {
        let store = MemoryStore::new();
        let inner = mode.slow_handler();
        let layer = node(mode, &store, Idempotency::optional().client_ids());
        // One operation has a generated id and no key, the other one a client id and a key.
        let unkeyed = send(&layer, &inner, post(mode, &[])).await;
        let unkeyed = unkeyed.location().rsplit('/').next().unwrap().to_owned();
        let keyed = send(&layer, &inner, post(mode, &[KEY, ID])).await;
        let (_, keyed) = (keyed.location(), ID.1);
        let key = ("idempotency-key", "\"another key of this client\"");
        for id in [unkeyed.as_str(), keyed] {
            for fields in [&[("operation-id", id)][..], &[("operation-id", id), key]] {
                let other = ask(mode, "POST /reports?year=2026", "Q4", fields);
                let answer = send(&layer, &inner, other).await;
                assert!(
                    matches!(answer.status.as_u16(), 409 | 422),
                    "{mode:?} {fields:?}: {answer:?}"
                );
            }
        }
        sleep(Duration::from_secs(100)).await;
        assert_eq!((inner.runs(), store.len()), (2, 2), "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_uncertain_create_runs_with_any_key_and_id() {
    for mode in MODES {
        for fields in [&[][..], &[KEY], &[ID], &[KEY, ID]] {
            let memory = MemoryStore::new();
            let answers = AtomicUsize::new(0);
            let store = Hooked::new(memory.clone(), move |call, when| {
                let is_lost = (call, when) == (Call::Create, When::After)
                    && answers.fetch_add(1, SeqCst) == 0;
                std::future::ready(match is_lost {
                    true => Err(StoreError::unavailable("the connection was lost")),
                    false => Ok(()),
                })
            });
            let inner = mode.slow_handler();
            let layer = node(mode, &store, Idempotency::optional().client_ids());
            let accepted = send(&layer, &inner, post(mode, fields)).await;
            assert_eq!(accepted.status, 202, "{mode:?} {fields:?}");
            let operation = wait_for_end(&polls(&memory), accepted.location()).await;
            assert_eq!(operation["state"], "succeeded", "{mode:?} {fields:?}");
            assert_eq!((inner.runs(), memory.len()), (1, 1), "{mode:?} {fields:?}");
        }
    }
}

/// A store that is silent from its first create on, until `back` is closed. The create
/// takes effect, and its answer is lost.
fn silent_store(memory: &MemoryStore, back: &Arc<Semaphore>) -> Hooked {
    let (has_created, back) = (AtomicBool::new(false), Arc::clone(back));
    Hooked::new(memory.clone(), move |call, when| {
        let is_lost = (call, when) == (Call::Create, When::After);
        let is_lost = is_lost && !has_created.swap(true, SeqCst);
        let (is_silent, back) = (has_created.load(SeqCst), Arc::clone(&back));
        async move {
            if is_lost {
                std::future::pending::<()>().await;
            }
            if is_silent {
                drop(back.acquire().await);
            }
            Ok(())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_repetition_of_an_uncertain_create_runs() {
    for mode in [Mode::Always, Mode::Preferred] {
        for fields in [&[KEY][..], &[ID], &[KEY, ID]] {
            for is_early in [false, true] {
                let memory = MemoryStore::new();
                let back = Arc::new(Semaphore::new(0));
                let store = silent_store(&memory, &back);
                let inner = mode.slow_handler();
                let layer = node(mode, &store, Idempotency::optional().client_ids());
                let refused = send(&layer, &inner, post(mode, fields)).await;
                refused.assert_problem(503, "unavailable");
                assert!(refused.headers.contains_key("retry-after"));

                let other = node(mode, &memory, Idempotency::optional().client_ids());
                if !is_early {
                    back.close();
                    sleep(Duration::from_secs(1)).await;
                }
                let accepted = send(&other, &inner, post(mode, fields)).await;
                back.close();
                let operation = wait_for_end(&polls(&memory), accepted.location()).await;
                let case = (mode, fields, is_early);
                assert_eq!(operation["state"], "succeeded", "{case:?}: {operation}");
                assert_eq!((inner.runs(), memory.len()), (1, 1), "{case:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_uncertain_create_acquires_a_new_lease_before_it_runs() {
    let memory = MemoryStore::new();
    let is_silent = Arc::new(AtomicBool::new(false));
    let store = Hooked::new(memory.clone(), {
        let is_silent = Arc::clone(&is_silent);
        move |call, when| {
            let waits = call == Call::Get || (call, when) == (Call::Create, When::After);
            let is_silent = Arc::clone(&is_silent);
            async move {
                while waits && is_silent.load(SeqCst) {
                    sleep(Duration::from_millis(100)).await;
                }
                Ok(())
            }
        }
    });
    // Another node looks for expired leases and can always reach the store.
    let recovery = Operations::new(memory.clone()).recovery();
    tokio::spawn(recovery.interval(Duration::from_millis(200)).run());
    let (mode, inner) = (Mode::Always, Mode::Always.slow_handler());
    let layer = node(mode, &store, Idempotency::optional());
    sleep(Duration::from_secs(35)).await;
    // The first request starts the heartbeat of the node, which renews every 10 seconds.
    let first = ("idempotency-key", "\"the first of two keys\"");
    assert_eq!(send(&layer, &inner, post(mode, &[first])).await.status, 202);
    sleep(Duration::from_secs(5)).await;

    is_silent.store(true, SeqCst);
    let refused = send(&layer, &inner, post(mode, &[KEY])).await;
    refused.assert_problem(503, "unavailable");
    // The lease is about to expire when the store is back.
    sleep(Duration::from_millis(24_500)).await;
    is_silent.store(false, SeqCst);
    let accepted = send(&layer, &inner, post(mode, &[KEY])).await;
    let operation = wait_for_end(&polls(&memory), accepted.location()).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(inner.runs(), 2);
}

/// A store whose calls of one kind fail `times` times, before or after their effect.
fn failing_store(store: &MemoryStore, call: Call, when: When, times: usize) -> Hooked {
    let turns = Arc::new(AtomicUsize::new(0));
    Hooked::new(store.clone(), move |now, at| {
        let fails = (now, at) == (call, when) && turns.fetch_add(1, SeqCst) < times;
        std::future::ready(match fails {
            true => Err(StoreError::unavailable("the connection is lost")),
            false => Ok(()),
        })
    })
}

fn healthy_service() -> Inner {
    Inner::new(|run, _| async move { Ok(intricate(200, run)) })
}

#[tokio::test(start_paused = true)]
async fn an_answer_stored_after_retries_is_the_only_one() {
    for mode in EARLY {
        for when in [When::Before, When::After] {
            let memory = MemoryStore::new();
            let store = failing_store(&memory, Call::Complete, when, 3);
            let (layer, inner) = (
                node(mode, &store, Idempotency::optional()),
                healthy_service(),
            );
            let first = send(&layer, &inner, post(mode, &[KEY])).await;
            let repetition = send(&layer, &inner, post(mode, &[KEY])).await;
            assert_eq!((repetition, inner.runs()), (first, 1), "{mode:?} {when:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_stored_does_not_rerun_the_call() {
    for mode in EARLY {
        let memory = MemoryStore::new();
        let store = failing_store(&memory, Call::Complete, When::Before, usize::MAX);
        let (layer, inner) = (
            node(mode, &store, Idempotency::optional()),
            healthy_service(),
        );
        assert_eq!(send(&layer, &inner, post(mode, &[KEY])).await.status, 200);
        let repetition = send(&layer, &inner, post(mode, &[KEY])).await;
        repetition.assert_problem(409, "idempotency-key-in-use");
        assert_eq!(inner.runs(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reservation_with_a_lost_answer_belongs_to_its_request() {
    for mode in EARLY {
        let memory = MemoryStore::new();
        let store = failing_store(&memory, Call::Reserve, When::After, 2);
        let (layer, inner) = (
            node(mode, &store, Idempotency::optional()),
            healthy_service(),
        );
        assert_eq!(send(&layer, &inner, post(mode, &[KEY])).await.status, 200);
        assert_eq!(inner.runs(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_silent_about_a_key_is_a_503_or_a_late_answer() {
    for silent_call in [Call::Reserve, Call::Complete] {
        let memory = MemoryStore::new();
        let store = Hooked::new(memory, move |call, _| async move {
            if call == silent_call {
                std::future::pending::<()>().await;
            }
            Ok(())
        });
        let layer = node(Mode::After, &store, Idempotency::optional());
        let start = Instant::now();
        let answer = send(&layer, &healthy_service(), post(Mode::After, &[KEY])).await;
        let expected = if silent_call == Call::Reserve {
            503
        } else {
            200
        };
        assert_eq!(answer.status, expected);
        assert!(
            start.elapsed() <= Duration::from_secs(6),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_being_stored_is_in_flight() {
    let memory = MemoryStore::new();
    let store = Hooked::new(memory, async |call, when| {
        if (call, when) == (Call::Complete, When::Before) {
            sleep(Duration::from_secs(3)).await;
        }
        Ok(())
    });
    let operations = Operations::new(store);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let layer = Mode::After.apply(layer.idempotency(Idempotency::optional()));
    let start = Instant::now();
    let answer =
        tokio::spawn(
            async move { send(&layer, &healthy_service(), post(Mode::After, &[KEY])).await },
        );
    tokio::task::yield_now().await;
    assert_eq!(drain.in_flight().operations, 1);
    assert!(drain.drain(Duration::from_secs(60)).await.is_clean());
    assert_eq!(start.elapsed().as_secs(), 3);
    assert_eq!(answer.await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn one_key_with_two_ids_is_two_requests() {
    let rules = Idempotency::optional().client_ids();
    let layer = node(Mode::Always, &MemoryStore::new(), rules);
    let inner = healthy_service();
    assert_eq!(
        send(&layer, &inner, post(Mode::Always, &[KEY, ID]))
            .await
            .status,
        202
    );
    let other = ("operation-id", "invoice-2026-12");
    let other = send(&layer, &inner, post(Mode::Always, &[KEY, other])).await;
    other.assert_problem(422, "idempotency-key-reused");
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_above_the_result_limit_is_sent_and_not_stored() {
    for mode in EARLY {
        let store = MemoryStore::new();
        let layer = node(mode, &store, Idempotency::optional()).result_limit(3);
        let inner = Inner::new(|_, _| async { Ok(Response::new(BufferedBody::from("four"))) });
        for runs in 1..=2 {
            let answer = send(&layer, &inner, post(mode, &[KEY])).await;
            assert_eq!(
                (answer.status.as_u16(), answer.body.as_ref()),
                (200, &b"four"[..])
            );
            assert_eq!(inner.runs(), runs, "{mode:?}");
        }
    }
}

/// The first request with the key is being answered, on another node. Meanwhile the repetition
/// holds no permit of the limit of the service.
#[tokio::test(start_paused = true)]
async fn a_repetition_that_waits_lets_other_requests_run() {
    let store = MemoryStore::new();
    let name = format!("key:{}", KEY.1.trim_matches('"'));
    let fingerprint = sha2::Sha256::digest(b"the same").into();
    let key = IdempotencyKey::new(None, name, fingerprint);
    let (token, term) = (FencingToken::random(), Duration::from_secs(5));
    store.reserve(&key, token, term).await.unwrap();

    let rules = Idempotency::optional().fingerprint(|_, _| b"the same".to_vec());
    let service = ServiceBuilder::new()
        .layer(AsyncAcceptLayer::new(store.clone()).idempotency(rules))
        .concurrency_limit(1)
        .service(service_fn(async |_: Request<RequestBody<BufferedBody>>| {
            Ok::<_, std::convert::Infallible>(Response::new(BufferedBody::from("done")))
        }));
    let request = |keyed: bool| {
        let request = Request::post("/");
        let request = match keyed {
            true => request.header(KEY.0, KEY.1),
            false => request,
        };
        request.body(BufferedBody::default()).unwrap()
    };
    let repetition = tokio::spawn(service.clone().oneshot(request(true)));
    sleep(Duration::from_secs(1)).await;
    assert!(!repetition.is_finished(), "it does not wait");
    let other = service.oneshot(request(false)).await.unwrap();
    let id = other.extensions().get::<OperationId>().unwrap();
    sleep(Duration::from_secs(1)).await;
    let record = store.get(id).await.unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Succeeded);
    // The reservation ends, and the repetition is the first request.
    let accepted = repetition.await.unwrap().unwrap();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    sleep(Duration::from_secs(1)).await;
    let id = accepted.extensions().get::<OperationId>().unwrap();
    let record = store.get(id).await.unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Succeeded);
}
