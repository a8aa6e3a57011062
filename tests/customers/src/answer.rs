//! The meaning of answers.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tower_operations::{FailureKind, State};
use tower_operations_conformance::checker::{CallAnswer, CallRequest, SeenResult, Sighting};

use crate::request::id_of;

/// Interprets an answer.
pub fn answer(
    ask: &CallRequest,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> CallAnswer {
    let is_of_result = matches!(ask, CallRequest::Result { .. });
    if is_of_result && (headers.contains_key("operation-result") || is_failure(body)) {
        return CallAnswer::Result(outcome(body));
    }
    if is_of_result && problem_type(body).as_deref() == Some(UNREADABLE) {
        return CallAnswer::Unreadable;
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
        (CallRequest::Events { .. }, StatusCode::OK) => CallAnswer::Events {
            seen: events(body).into_iter().map(|event| event.seen).collect(),
        },
        (
            CallRequest::Poll { .. } | CallRequest::Cancel { .. } | CallRequest::Delete { .. },
            StatusCode::OK,
        ) => {
            let etag = text(headers, "etag").expect("an operation has its tag");
            CallAnswer::Operation(sighting(etag, body))
        }
        (CallRequest::Poll { .. }, StatusCode::NOT_MODIFIED) => CallAnswer::Unchanged {
            version: version(text(headers, "etag").expect("a 304 has its tag")),
        },
        (CallRequest::Cancel { .. }, StatusCode::CONFLICT) => CallAnswer::Finished,
        (CallRequest::Post { .. } | CallRequest::List, _) => refused(status),
        (_, StatusCode::NOT_FOUND) => CallAnswer::Absent,
        _ => refused(status),
    }
}

/// Returns the answer that refuses a request with this status.
pub fn refused(status: StatusCode) -> CallAnswer {
    let status = status.as_u16();
    CallAnswer::Refused { status }
}

#[derive(Deserialize)]
struct Representation<'a> {
    state: State,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

/// An event of a stream.
pub(crate) struct SeenEvent {
    /// The id, for `Last-Event-ID`.
    pub(crate) id: String,
    pub(crate) seen: Sighting,
}

/// Returns the events of a stream, which may have broken off in the middle of one.
pub(crate) fn events(body: &[u8]) -> Vec<SeenEvent> {
    let body = String::from_utf8_lossy(body);
    let whole = body.rfind("\n\n").map_or("", |end| &body[..end]);
    let event = |block: &str| {
        let field = |name| block.lines().find_map(|line| line.strip_prefix(name));
        // A comment, which keeps the connection alive, has none.
        let (id, data) = (field("id: ")?, field("data: ")?);
        Some(SeenEvent {
            id: id.into(),
            seen: sighting(&format!("W/\"{id}\""), data.as_bytes()),
        })
    };
    whole.split("\n\n").filter_map(event).collect()
}

fn sighting(etag: &str, body: &[u8]) -> Sighting {
    let representation: Representation<'_> = serde_json::from_slice(body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)));
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

/// The type of the problem of a result that cannot be read.
const UNREADABLE: &str = "urn:tower-operations:result-unreadable";

/// Returns the type of a problem.
fn problem_type(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct ProblemType {
        r#type: String,
    }
    let problem: Option<ProblemType> = serde_json::from_slice(body).ok();
    problem.map(|problem| problem.r#type)
}

/// Returns whether the body is the problem of an ended operation, and not of the request.
fn is_failure(body: &[u8]) -> bool {
    let ours = [
        FailureKind::InnerError.urn(),
        FailureKind::Panicked.urn(),
        FailureKind::TimedOut.urn(),
        FailureKind::ResultTooLarge.urn(),
        FailureKind::ResultNotStored.urn(),
        FailureKind::Interrupted.urn(),
        FailureKind::AttemptsExhausted.urn(),
        FailureKind::NotDispatched.urn(),
        "urn:tower-operations:canceled",
    ];
    problem_type(body).is_some_and(|kind| ours.contains(&&*kind))
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

/// Returns the value of a header field, if it is text.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .take(16)
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
