use http::{HeaderName, Response, StatusCode};

use super::{
    Answer, ApiError, Context, Dialect, PollRequest, RequestView,
    answers::{AnswerExt, JSON, empty, replayed},
    error::ErrorWords,
    object::Object,
    routes::{self, CANCEL, RESULT, ResourcePart, STATUS, no_list, refuse},
};
use crate::operation::{
    BufferedBody, OperationId, OperationView, Progress, RecordedResponse, State, essence,
};

/// The dialect of Azure's data plane (Microsoft Azure REST API Guidelines, *Long-Running
/// Operations & Jobs*), for the pollers of azure-core.
///
/// | request | answer |
/// | --- | --- |
/// | an accepted request | 202, `Operation-Location`, and the status monitor |
/// | `GET …/{id}` | 200 and the status monitor: `id`, `status`, `result` or `error`; `resourceLocation` if the result cannot be embedded |
/// | `GET …/{id}/result` | the recorded response, or an error |
/// | `POST …/{id}:cancel` | 200 and the status monitor; 409 once it has succeeded or failed |
///
/// `status` is `NotStarted`, `Running`, `Succeeded`, `Failed` or `Canceled`. Errors are
/// `{"error":{"code","message"}}`, with the code also in `x-ms-error-code`.
///
/// Azure clients need absolute URLs: set a [base URL](crate::Operations::public_url). A
/// client may choose the id by `Operation-Id` if the layer
/// [allows it](crate::Idempotency::client_ids).
#[derive(Debug, Clone, Copy, Default)]
pub struct Azure {}

const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");
const OPERATION_ID: HeaderName = HeaderName::from_static("operation-id");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// The resources of an operation in both Azure dialects.
const PARTS: &[ResourcePart] = &[STATUS, RESULT, CANCEL];

/// Parameters of lists, which these dialects do not support.
const OF_LISTS: [&str; 6] = ["$top", "$skip", "$filter", "top", "skip", "maxpagesize"];

/// Parses a request of either Azure dialect.
pub(super) fn parse_request(request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
    routes::parse_request(request, PARTS, no_list).map_err(|fault| match fault {
        ApiError::MissingId => refuse(request, &OF_LISTS).err().unwrap_or(fault),
        fault => fault,
    })
}

pub(super) fn status_word(state: State) -> &'static str {
    match state {
        State::Pending => "NotStarted",
        State::Running => "Running",
        State::Succeeded => "Succeeded",
        State::Failed => "Failed",
        State::Canceled => "Canceled",
    }
}

/// Returns `{"error":{"code","message"}}`, with the code also in a header.
fn error(status: StatusCode, words: &ErrorWords<'_>) -> Response<BufferedBody> {
    words.response(status).put(ERROR_CODE, Some(&words.code))
}

pub(super) fn percent(operation: &OperationView<'_>) -> Option<f64> {
    let progress = operation.metadata().progress();
    progress.and_then(Progress::percent)
}

pub(super) fn fault(fault: &ApiError) -> Response<BufferedBody> {
    let problem = fault.problem();
    let status = match fault {
        // The id was used with another request.
        ApiError::KeyReused { .. } => StatusCode::BAD_REQUEST,
        fault => fault.status(),
    };
    error(status, &ErrorWords::of_fault(fault, &problem))
}

fn monitor(operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
    let metadata = operation.metadata();
    let mut monitor = Object::begin_operation(operation)
        .id("id", operation.id())
        .some("kind", metadata.name())
        .value("status", status_word(operation.state()))
        .some("percentComplete", percent(operation))
        .time("createdDateTime", metadata.created_at())
        .time("lastUpdatedDateTime", metadata.updated_at());
    match operation.state() {
        State::Succeeded if operation.response().is_some() => {
            let (with_result, is_embedded) = monitor.result("result", operation, context);
            monitor = match is_embedded {
                true => with_result,
                false => with_result.some("resourceLocation", context.urls.below("result")),
            };
        }
        State::Failed => {
            if let Some(words) = ErrorWords::from_operation(operation) {
                monitor = monitor.object("error", |error| words.fill(error));
            }
        }
        State::Pending | State::Running | State::Succeeded | State::Canceled => {}
    }
    Ok(monitor
        .into_response(StatusCode::OK, JSON)?
        .retry_after(context))
}

impl Dialect for Azure {
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
        parse_request(request)
    }

    fn accepted(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Response<BufferedBody> {
        let id = operation.id().to_string();
        let mut response = monitor(operation, context).unwrap_or_else(|fault| self.error(&fault));
        *response.status_mut() = StatusCode::ACCEPTED;
        response
            .no_store()
            .put(OPERATION_LOCATION, context.urls.status())
            .put(OPERATION_ID, Some(id))
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        monitor(operation, context)
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        result(operation, context)
    }

    fn ended(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        monitor(operation, context).map(AnswerExt::private)
    }

    fn deleted(&self, _: &OperationId) -> Response<BufferedBody> {
        empty(StatusCode::NO_CONTENT)
    }

    fn error(&self, error: &ApiError) -> Response<BufferedBody> {
        fault(error)
    }
}

/// Changes a replayed response so that clients treat it as final: they follow a `Location`,
/// and poll again after a 202.
fn at_its_end(mut response: Response<BufferedBody>) -> Response<BufferedBody> {
    response.headers_mut().remove(http::header::LOCATION);
    if response.status() == StatusCode::ACCEPTED {
        *response.status_mut() = StatusCode::OK;
    }
    response
}

/// Returns the result of the operation; 202 until it has ended.
///
/// Clients read the code and message of a failure only from `error`, and repeat a poll
/// whose status is 500 or above. A problem is therefore converted to an `error`, and a
/// status of 500 or above to 422.
pub(super) fn result(operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
    if !operation.state().is_terminal() {
        let location = context.urls.below("result");
        return Ok(empty(StatusCode::ACCEPTED)
            .private()
            .put(http::header::LOCATION, location)
            .retry_after(context));
    }
    let Some(words) = ErrorWords::from_operation(operation) else {
        let response = replayed(operation, context)?.ok_or(ApiError::Unpresentable)?;
        return Ok(at_its_end(response));
    };
    let speaks_for_itself = |recorded: &RecordedResponse| {
        recorded.status().is_client_error()
            && recorded.media_type().map(str::as_bytes).map(essence) == Some(b"application/json")
    };
    if operation.recorded().is_some_and(speaks_for_itself)
        && let Some(response) = replayed(operation, context)?
    {
        return Ok(at_its_end(response));
    }
    Ok(error(words.lasting_status(), &words).private())
}
