//! What a client wants of a node, as a request; and what its answer says.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tower_operations::{FailureKind, State};
use tower_operations_conformance::checker::{CallAnswer, CallRequest, SeenResult, Sighting};

/// What is asked, and what goes with it.
pub(crate) struct Wish<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) ask: CallRequest,
    /// Of a post.
    pub(crate) body: Bytes,
    /// How long a post may be held.
    pub(crate) held: Duration,
    /// The whole entity tag, where there is a version that is known: of a poll, which
    /// has it already; of what is to be forgotten.
    pub(crate) known: Option<&'a str>,
}

impl Wish<'_> {
    pub(crate) fn hold(&self) -> Duration {
        match self.ask {
            CallRequest::Poll {
                wait: Some(wait), ..
            } => Duration::from_millis(wait),
            _ => self.held,
        }
    }

    pub(crate) fn request(&self, url: &str) -> Request<Bytes> {
        let (method, path) = match &self.ask {
            CallRequest::Post { .. } => (Method::POST, "/reports".into()),
            CallRequest::Poll { operation, .. } => (Method::GET, at(operation)),
            CallRequest::Result { operation } => (Method::GET, at(operation) + "/result"),
            CallRequest::Cancel { operation } | CallRequest::Forget { operation } => {
                (Method::DELETE, at(operation))
            }
            CallRequest::List => (Method::GET, "/operations/".into()),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{url}{path}"))
            .header("x-tenant", self.tenant);
        if let CallRequest::Post { key, id, .. } = &self.ask {
            if let Some(key) = key {
                request = request.header("idempotency-key", format!("\"{key}\""));
            }
            if let Some(id) = id {
                request = request.header("operation-id", id_of(id));
            }
        }
        let hold = self.hold().as_secs();
        if hold > 0 {
            request = request.header("prefer", format!("wait={hold}"));
        }
        if let Some(known) = self.known {
            let condition = match self.ask {
                CallRequest::Forget { .. } => header::IF_MATCH,
                _ => header::IF_NONE_MATCH,
            };
            request = request.header(condition, known);
        }
        request.body(self.body.clone()).unwrap()
    }
}

fn at(operation: &str) -> String {
    format!("/operations/{}", id_of(operation))
}

/// The id of what the log calls an operation.
pub(crate) fn id_of(operation: &str) -> &str {
    operation.split_once('#').map_or(operation, |(id, _)| id)
}

/// What an answer says.
pub(crate) fn answer(
    ask: &CallRequest,
    status: StatusCode,
    headers: &HeaderMap,
    body: &Bytes,
) -> CallAnswer {
    let is_of_result = matches!(ask, CallRequest::Result { .. });
    if is_of_result && (headers.contains_key("operation-result") || is_failure(body)) {
        return CallAnswer::Result(outcome(body));
    }
    match (ask, status) {
        (CallRequest::Post { id: chosen, .. }, StatusCode::ACCEPTED) => {
            let id = id(headers);
            let chosen = chosen.as_ref().filter(|chosen| id_of(chosen) == id);
            let operation = chosen.cloned().unwrap_or(id);
            CallAnswer::Accepted { operation }
        }
        (CallRequest::Post { .. }, StatusCode::OK) => CallAnswer::Result(outcome(body)),
        (CallRequest::Forget { .. }, StatusCode::NO_CONTENT) => CallAnswer::Forgotten,
        (CallRequest::Result { .. }, StatusCode::ACCEPTED) => CallAnswer::Unfinished,
        (
            CallRequest::Poll { .. } | CallRequest::Cancel { .. } | CallRequest::Forget { .. },
            StatusCode::OK,
        ) => CallAnswer::Operation(sighting(headers, body)),
        (CallRequest::Poll { .. }, StatusCode::NOT_MODIFIED) => CallAnswer::Unchanged {
            version: version(text(headers, "etag").expect("a 304 has its tag")),
        },
        (CallRequest::Cancel { .. }, StatusCode::CONFLICT) => CallAnswer::Finished,
        (CallRequest::Post { .. } | CallRequest::List, _) => refused(status),
        (_, StatusCode::NOT_FOUND) => CallAnswer::Absent,
        _ => refused(status),
    }
}

pub(crate) fn refused(status: StatusCode) -> CallAnswer {
    let status = status.as_u16();
    CallAnswer::Refused { status }
}

#[derive(Deserialize)]
struct Shown<'a> {
    state: State,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

fn sighting(headers: &HeaderMap, body: &[u8]) -> Sighting {
    let shown: Shown<'_> = serde_json::from_slice(body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)));
    let etag = text(headers, "etag").expect("an operation has its tag");
    Sighting {
        version: version(etag),
        state: shown.state,
        // The tag has the time of the change: it is of the content.
        content: format!("{etag} {}", digest(body)),
        result: shown.result.map(|result| outcome(result.get().as_bytes())),
    }
}

fn outcome(body: &[u8]) -> SeenResult {
    #[derive(Deserialize)]
    struct Named {
        title: Option<String>,
        /// Problems have a title as well.
        pages: Option<u32>,
        r#type: Option<String>,
    }
    let named: Option<Named> = serde_json::from_slice(body).ok();
    let (title, failure) = match named {
        Some(named) if named.pages.is_some() => (named.title, None),
        Some(problem) => (None, problem.r#type),
        None => (None, None),
    };
    SeenResult {
        digest: digest(body),
        title,
        failure,
    }
}

/// Whether this is the problem of an operation that has ended, and not one of
/// the asking.
fn is_failure(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    let ours = [
        FailureKind::InnerError.urn(),
        FailureKind::Panicked.urn(),
        FailureKind::TimedOut.urn(),
        FailureKind::ResultTooLarge.urn(),
        FailureKind::Interrupted.urn(),
        FailureKind::AttemptsExhausted.urn(),
        FailureKind::NotDispatched.urn(),
        "urn:tower-operations:canceled",
    ];
    let typed: Result<Typed, _> = serde_json::from_slice(body);
    typed.is_ok_and(|typed| ours.contains(&&*typed.r#type))
}

fn id(headers: &HeaderMap) -> String {
    let location = text(headers, "location").expect("what is accepted is somewhere");
    let id = location.rsplit('/').next();
    id.unwrap_or_default().to_owned()
}

/// The number in `W/"7-19f0c2a3b44"`.
fn version(etag: &str) -> u64 {
    let number = etag.trim_start_matches("W/\"").split('-').next();
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no version in {etag}"))
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .take(16)
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
