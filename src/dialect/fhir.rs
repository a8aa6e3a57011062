use http::{
    HeaderName, Method, Response, StatusCode,
    header::{CONTENT_LOCATION, EXPIRES},
};

use super::{
    Action, Answer, ApiError, Context, Dialect, OnTerminal, PollRequest, RequestView,
    answers::{AnswerExt, empty, replayed},
    error::ErrorWords,
    object::Object,
    routes::{ResourcePart, no_list, parse_request},
};
use crate::{
    codec::http_date,
    operation::{BufferedBody, OperationId, OperationView, RecordedResponse, State, essence},
};

/// The dialect of FHIR servers (HL7 FHIR, *Asynchronous Request Pattern* and Bulk Data
/// Access).
///
/// | request | answer |
/// | --- | --- |
/// | a request with `Prefer: respond-async` | 202 without a body, `Content-Location` |
/// | any other request | the response of the service: the request is not accepted |
/// | `GET …/{id}` | 202 and `X-Progress`; once the operation has succeeded, 200 and the recorded response, with `Expires`; once it has failed, 4xx and an `OperationOutcome` |
/// | `DELETE …/{id}` | 202, and the operation is no longer found |
///
/// Repeating a request whose operation was canceled, with the same
/// [idempotency key](crate::Idempotency), is 410.
///
/// A failure with a status of 408, 429, or 500 and above is sent as `422`, since FHIR
/// clients repeat a poll with one of those statuses. Errors are an `OperationOutcome`, the
/// service's own if its response is one. A kick-off request with `GET` must be allowed by
/// [`accept_if`](crate::AsyncAcceptLayer::accept_if).
///
/// FHIR clients need absolute URLs: set a [base URL](crate::Operations::public_url).
#[derive(Debug, Clone, Copy, Default)]
pub struct Fhir {}

const X_PROGRESS: HeaderName = HeaderName::from_static("x-progress");
const FHIR_JSON: &str = "application/fhir+json";

const PARTS: &[ResourcePart] = &[ResourcePart {
    name: "",
    allow: "GET, HEAD, DELETE, OPTIONS",
    asks: &[
        (Method::GET, Action::Result),
        (Method::DELETE, Action::Cancel(OnTerminal::Delete)),
    ],
}];

/// Returns an `OperationOutcome` with one issue.
fn outcome(status: StatusCode, words: &ErrorWords<'_>) -> Response<BufferedBody> {
    Object::new()
        .value("resourceType", "OperationOutcome")
        .objects("issue", [words], |issue, words| {
            issue
                .value("severity", "error")
                .value("code", issue_type(words.status))
                .object("details", |details| details.value("text", words.message))
                .value("diagnostics", format!("{}: {}", words.code, words.message))
        })
        .into_error(status, FHIR_JSON)
        .no_store()
}

/// Returns FHIR's issue type for a status.
fn issue_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "invalid",
        401 => "login",
        403 => "forbidden",
        404 => "not-found",
        405 | 501 => "not-supported",
        408 | 504 => "timeout",
        409 | 412 => "conflict",
        410 => "deleted",
        413 => "too-long",
        429 => "throttled",
        502 | 503 => "transient",
        _ if status.is_client_error() => "processing",
        _ => "exception",
    }
}

/// Returns a short text, such as `40% complete`.
fn progress(operation: &OperationView<'_>) -> String {
    let progress = operation.metadata().progress();
    let text = progress.and_then(|progress| {
        let percent = progress.percent();
        let percent = percent.map(|percent| format!("{percent:.0}% complete"));
        percent.or_else(|| progress.message().map(str::to_owned))
    });
    let text = text.unwrap_or_else(|| match operation.state() {
        State::Pending => "accepted".into(),
        _ => "in progress".into(),
    });
    // The standard allows 100 characters.
    let visible = text.chars().filter(|letter| (' '..='~').contains(letter));
    let text: String = visible.take(100).collect();
    match text.trim().is_empty() {
        true => "in progress".into(),
        false => text,
    }
}

/// Sets the status of a replayed response and removes `Content-Location`, which clients
/// would follow.
fn with_status(status: StatusCode, mut response: Response<BufferedBody>) -> Response<BufferedBody> {
    response.headers_mut().remove(CONTENT_LOCATION);
    *response.status_mut() = status;
    response
}

impl Dialect for Fhir {
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
        parse_request(request, PARTS, no_list)
    }

    fn needs_preference(&self) -> bool {
        true
    }

    fn accepted(&self, _: &OperationView<'_>, context: &Context<'_>) -> Response<BufferedBody> {
        empty(StatusCode::ACCEPTED)
            .no_store()
            .put(CONTENT_LOCATION, context.urls.status())
            .retry_after(context)
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        self.result(operation, context)
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        match (operation.state(), ErrorWords::from_operation(operation)) {
            (State::Pending | State::Running, _) => Ok(empty(StatusCode::ACCEPTED)
                .private()
                .put(X_PROGRESS, Some(progress(operation)))
                .retry_after(context)),
            (State::Canceled, _) => {
                let id = operation.id().clone();
                Err(ApiError::NotFound { id })
            }
            (State::Failed, Some(words)) => {
                let status = words.lasting_status();
                let is_outcome = |recorded: &RecordedResponse| {
                    let media_type = recorded.media_type().map(str::as_bytes);
                    media_type.map(essence) == Some(FHIR_JSON.as_bytes())
                };
                match operation.recorded().filter(|recorded| is_outcome(recorded)) {
                    Some(recorded) => Ok(with_status(status, context.replay.response(recorded))),
                    None => Ok(outcome(status, &words).private()),
                }
            }
            (State::Failed | State::Succeeded, _) => {
                let expires = operation.metadata().expires_at().map(http_date);
                let response = replayed(operation, context)?.ok_or(ApiError::Unpresentable)?;
                // Clients treat no other status as final.
                Ok(with_status(StatusCode::OK, response).put(EXPIRES, expires))
            }
        }
    }

    fn ended(&self, _: &OperationView<'_>, _: &Context<'_>) -> Answer {
        Ok(empty(StatusCode::ACCEPTED))
    }

    fn deleted(&self, _: &OperationId) -> Response<BufferedBody> {
        empty(StatusCode::ACCEPTED)
    }

    fn redirects_results(&self) -> bool {
        false
    }

    fn error(&self, fault: &ApiError) -> Response<BufferedBody> {
        outcome(
            fault.status(),
            &ErrorWords::of_fault(fault, &fault.problem()),
        )
    }
}
