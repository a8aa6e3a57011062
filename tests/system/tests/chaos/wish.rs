//! Requests of clients, and the meaning of their answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tower_operations::{FailureKind, State};
use tower_operations_conformance::checker::{CallAnswer, CallRequest, SeenResult, Sighting};

/// A request of a client.
pub(crate) struct ClientRequest<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) ask: CallRequest,
    /// The body of a post.
    pub(crate) body: Bytes,
    /// The time for which a post may be held.
    pub(crate) max_hold: Duration,
    /// The entity tag of a known version, for a conditional poll or delete.
    pub(crate) etag: Option<&'a str>,
}

impl ClientRequest<'_> {
    pub(crate) fn hold(&self) -> Duration {
        match self.ask {
            CallRequest::Poll {
                wait: Some(wait), ..
            } => Duration::from_millis(wait),
            _ => self.max_hold,
        }
    }

    pub(crate) fn to_http(&self, url: &str) -> Request<Bytes> {
        let (method, path) = match &self.ask {
            CallRequest::Post { .. } => (Method::POST, "/reports".into()),
            CallRequest::Poll { operation, .. } => (Method::GET, path_of(operation)),
            CallRequest::Result { operation } => (Method::GET, path_of(operation) + "/result"),
            CallRequest::Cancel { operation } | CallRequest::Delete { operation } => {
                (Method::DELETE, path_of(operation))
            }
            CallRequest::List => (Method::GET, "/operations/".into()),
        };
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("{url}{path}"))
            .header("x-tenant", self.tenant);
        if let CallRequest::Post { key, id, .. } = &self.ask {
            if let Some(key) = key {
                builder = builder.header("idempotency-key", format!("\"{key}\""));
            }
            if let Some(id) = id {
                builder = builder.header("operation-id", id_of(id));
            }
        }
        let hold = self.hold().as_secs();
        if hold > 0 {
            builder = builder.header("prefer", format!("wait={hold}"));
        }
        if let Some(etag) = self.etag {
            let condition = match self.ask {
                CallRequest::Delete { .. } => header::IF_MATCH,
                _ => header::IF_NONE_MATCH,
            };
            builder = builder.header(condition, etag);
        }
        builder.body(self.body.clone()).unwrap()
    }
}

fn path_of(operation: &str) -> String {
    format!("/operations/{}", id_of(operation))
}

/// Returns the id of an operation from its name in the log.
pub(crate) fn id_of(operation: &str) -> &str {
    operation.split_once('#').map_or(operation, |(id, _)| id)
}

/// Interprets an answer.
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
        (CallRequest::Delete { .. }, StatusCode::NO_CONTENT) => CallAnswer::Deleted,
        (CallRequest::Result { .. }, StatusCode::ACCEPTED) => CallAnswer::Unfinished,
        (
            CallRequest::Poll { .. } | CallRequest::Cancel { .. } | CallRequest::Delete { .. },
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
struct Representation<'a> {
    state: State,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

fn sighting(headers: &HeaderMap, body: &[u8]) -> Sighting {
    let representation: Representation<'_> = serde_json::from_slice(body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)));
    let etag = text(headers, "etag").expect("an operation has its tag");
    Sighting {
        version: version(etag),
        state: representation.state,
        // The tag contains the time of the change, so it is part of the content.
        content: format!("{etag} {}", digest(body)),
        result: representation
            .result
            .map(|result| outcome(result.get().as_bytes())),
    }
}

fn outcome(body: &[u8]) -> SeenResult {
    #[derive(Deserialize)]
    struct ReportOrProblem {
        title: Option<String>,
        /// Problems have a title as well.
        pages: Option<u32>,
        r#type: Option<String>,
    }
    let parsed: Option<ReportOrProblem> = serde_json::from_slice(body).ok();
    let (title, failure) = match parsed {
        Some(report) if report.pages.is_some() => (report.title, None),
        Some(problem) => (None, problem.r#type),
        None => (None, None),
    };
    SeenResult {
        digest: digest(body),
        title,
        failure,
    }
}

/// Returns whether the body is the problem of an ended operation, and not of the request.
fn is_failure(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct ProblemType {
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
    let problem: Result<ProblemType, _> = serde_json::from_slice(body);
    problem.is_ok_and(|problem| ours.contains(&&*problem.r#type))
}

fn id(headers: &HeaderMap) -> String {
    let location = text(headers, "location").expect("a 202 has a location");
    let id = location.rsplit('/').next();
    id.unwrap_or_default().to_owned()
}

/// Returns the version in a tag: 7 in `W/"7-19f0c2a3b44"`.
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
