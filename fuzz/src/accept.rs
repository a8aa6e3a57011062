//! A service behind the layer answers any request with valid HTTP. An operation with a 202
//! exists for its owner, and ends.
//!
//! The first line of an input has letters, and the rest is up to four requests with lines
//! of `===` between them. The fields of a request determine the answer of the service:
//! `x-sleep` (seconds), `x-status`, `x-fail`, `x-accept`, and each `x-r-NAME` becomes a
//! field `NAME`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_LOCATION, LOCATION},
};
use tokio::time::sleep;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, Idempotency, MemoryStore, OperationHandle, OperationId,
    Operations, RequestBody, store::Store,
};

use crate::{
    answer::{Answer, MARK},
    message,
    world::{self, Choice, owner, run_alone},
};

pub fn check(data: &[u8]) {
    let (letters, text) = message::split_line(data);
    let requests = split(text).map_while(message::request).take(4);
    let requests: Vec<_> = requests.collect();
    if !requests.is_empty() {
        run_alone(check_requests(Choice(letters), requests));
    }
}

const SEPARATOR: &[u8] = b"\n===\n";

fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut at = text.windows(SEPARATOR.len());
        let end = at.position(|window| window == SEPARATOR);
        rest = end.map(|end| &text[end + SEPARATOR.len()..]);
        Some(end.map_or(text, |end| &text[..end]))
    })
}

async fn serve(
    request: Request<RequestBody<BufferedBody>>,
) -> Result<Response<BufferedBody>, BoxError> {
    let (parts, body) = request.into_parts();
    let field = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let seconds = field("x-sleep").and_then(|text| text.parse().ok());
    sleep(Duration::from_secs(seconds.unwrap_or(0).min(7_200))).await;
    if parts.headers.contains_key("x-accept") {
        let _ = OperationHandle::from_extensions(&parts.extensions)
            .accept()
            .await;
        sleep(Duration::from_secs(1)).await;
    }
    if parts.headers.contains_key("x-fail") {
        return Err("as it was told".into());
    }
    let status = field("x-status").and_then(|text| text.parse().ok());
    let mut headers = HeaderMap::new();
    headers.insert(MARK, HeaderValue::from_static("yes"));
    for (name, value) in &parts.headers {
        if let Some(name) = name.as_str().strip_prefix("x-r-")
            && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
        {
            headers.append(name, value.clone());
        }
    }
    let body = Answer::read(Response::new(body)).await.body;
    let mut response = Response::new(BufferedBody::from(body));
    *response.status_mut() = status.unwrap_or(StatusCode::OK);
    *response.headers_mut() = headers;
    Ok(response)
}

/// Returns whether the handler answers this request with a final status (RFC 9110, section 15).
fn has_final_status(request: &Request<BufferedBody>) -> bool {
    let status = request.headers().get("x-status");
    let status = status.and_then(|status| status.to_str().ok()?.parse::<u16>().ok());
    status.is_none_or(|status| (200..600).contains(&status))
}

async fn check_requests(choice: Choice<'_>, requests: Vec<Request<BufferedBody>>) {
    let store = MemoryStore::new();
    let mut operations = world::operations(choice, &store);
    if choice.has(b'O') {
        operations = operations.owner(owner);
    }
    let calls = Arc::new(AtomicUsize::new(0));
    let call_count = Arc::clone(&calls);
    let service = layer(choice, &operations).layer(service_fn(move |request| {
        call_count.fetch_add(1, SeqCst);
        serve(request)
    }));
    let polls = operations.poll_service().mounted_at("/operations");

    let mut accepted: Vec<(HeaderMap, OperationId)> = Vec::new();
    for request in &requests {
        let Ok(response) = service.clone().oneshot(request.clone()).await else {
            // The error belongs to a request that passes through; an operation has no such error.
            assert!(request.headers().contains_key("x-fail"));
            continue;
        };
        if response.headers().contains_key(MARK) {
            continue;
        }
        let answer = Answer::read(response).await;
        let mut ends = Vec::new();
        // A signaled handler that never accepts is answered after its time-out.
        if choice.has(b'S') {
            ends.push(StatusCode::GATEWAY_TIMEOUT);
        }
        // A direct response that is not final is replaced.
        if !has_final_status(request) {
            ends.push(StatusCode::BAD_GATEWAY);
        }
        answer.check(request.method(), &ends);
        assert_ne!(answer.status, StatusCode::NOT_IMPLEMENTED, "{answer:?}");
        if !answer.status.is_success() {
            continue;
        }
        let id = id_of(&answer).unwrap_or_else(|| panic!("no operation in {answer:?}"));
        accepted.push((request.headers().clone(), id));
    }

    for (headers, id) in &accepted {
        end(&store, id).await;
        for path in ["", "/result", "/results"] {
            let mut poll = Request::get(format!("/operations/{id}{path}"));
            if let Some(owner) = headers.get("x-owner") {
                poll = poll.header("x-owner", owner);
            }
            let poll = poll.body(BufferedBody::default()).unwrap();
            let answer = Answer::read(polls.clone().oneshot(poll).await.unwrap()).await;
            check_poll(&store, id, &answer, path).await;
        }
    }

    // Equal requests with one key run once.
    let first = &requests[0];
    let is_same = |other: &Request<BufferedBody>| {
        other.method() == first.method()
            && other.uri() == first.uri()
            && other.headers() == first.headers()
            && other.body().data() == first.body().data()
    };
    let is_keyed = first.headers().contains_key("idempotency-key");
    let is_once = choice.has(b'K') && is_keyed && requests.iter().all(is_same);
    if is_once && accepted.len() == requests.len() {
        assert_eq!(calls.load(SeqCst), 1, "{requests:?}");
        assert!(
            accepted.iter().all(|(_, id)| *id == accepted[0].1),
            "{accepted:?}"
        );
    }
}

/// Asserts that a poll finds the operation, and answers with its outcome at most.
async fn check_poll(store: &MemoryStore, id: &OperationId, answer: &Answer, path: &str) {
    let record = store
        .get(id)
        .await
        .unwrap()
        .expect("an operation is kept for a day");
    let operation = record.operation();
    let recorded = operation.response();
    let problem = operation.problem().and_then(|problem| problem.status());
    let ends = [recorded.map(|recorded| recorded.status()), problem];
    let ends: Vec<StatusCode> = ends.into_iter().flatten().collect();
    answer.check(&Method::GET, &ends);
    if path.is_empty() && !ends.contains(&StatusCode::NOT_FOUND) {
        assert_ne!(answer.status, StatusCode::NOT_FOUND, "{answer:?}");
    }
}

/// Waits at most three hours for the end of an operation.
async fn end(store: &MemoryStore, id: &OperationId) {
    for _ in 0..3 * 360 {
        let record = store
            .get(id)
            .await
            .unwrap()
            .expect("an accepted operation exists");
        if record.operation().state().is_terminal() {
            return;
        }
        sleep(Duration::from_secs(10)).await;
    }
    panic!("{id} does not end");
}

/// Returns the id of the operation in an answer.
fn id_of(answer: &Answer) -> Option<OperationId> {
    let fields = [
        LOCATION,
        CONTENT_LOCATION,
        HeaderName::from_static("azure-asyncoperation"),
    ];
    let header = fields.iter().find_map(|name| answer.headers.get(name));
    let header = header.or_else(|| answer.headers.get("operation-location"));
    let name = answer
        .json()
        .and_then(|json| json["name"].as_str().map(str::to_owned));
    let url = match header {
        Some(value) => value
            .to_str()
            .unwrap()
            .parse::<Uri>()
            .unwrap()
            .path()
            .to_owned(),
        None => name?,
    };
    let mut segments = url
        .rsplit('/')
        .filter(|segment| !matches!(*segment, "result" | "results"));
    segments.next()?.parse().ok()
}

fn layer(
    choice: Choice<'_>,
    operations: &Operations<MemoryStore>,
) -> AsyncAcceptLayer<MemoryStore> {
    let mut layer = operations.layer().operation_name("render");
    if choice.has(b'P') {
        layer = layer.when_preferred();
    }
    if choice.has(b'A') {
        layer = layer.after(Duration::from_secs(3));
    }
    if choice.has(b'S') {
        layer = layer.when_signaled();
    }
    if choice.has(b'K') || choice.has(b'C') || choice.has(b'N') {
        let mut rules = match choice.has(b'N') {
            true => Idempotency::required(),
            false => Idempotency::optional(),
        };
        if choice.has(b'C') {
            rules = rules.client_ids();
        }
        if choice.has(b'E') {
            rules = rules.bare_tokens();
        }
        layer = layer.idempotency(rules);
    }
    if choice.has(b'T') {
        layer = layer.body_limit(64).result_limit(128);
    }
    if choice.has(b'Y') {
        layer = layer.rerun_if(|_| true);
    }
    layer
}
