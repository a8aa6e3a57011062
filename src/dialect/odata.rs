use http::{HeaderName, Method, Response, StatusCode};

use super::{
    Action, Answer, ApiError, Context, Dialect, OnTerminal, PollRequest, RequestView,
    answers::{AnswerExt, empty, replayed},
    error::ErrorWords,
    routes::{ResourcePart, no_list, parse_request, refuse},
};
use crate::operation::{BufferedBody, OperationId, OperationView, State};

/// The dialect of OData services (OData 4.01, part 1, section 11.6 *Asynchronous
/// Requests*).
///
/// | request | answer |
/// | --- | --- |
/// | a request with `Prefer: respond-async` | 202 without a body, `Location` |
/// | any other request | the response of the service: the request is not accepted |
/// | `GET …/{id}` | 202 and `Location`; once the operation has ended, 200, the recorded response, and its status in `AsyncResult` |
/// | `DELETE …/{id}` | 204, and the operation is no longer found; 410 once it has succeeded or failed |
///
/// Repeating a request whose operation was canceled, with the same
/// [idempotency key](crate::Idempotency), is 410 `OperationDeleted`.
///
/// Errors are `{"error":{"code","message"}}`. System query options, such as `$filter`, are
/// `400`. The `application/http` response for 4.0 clients is not supported, and no
/// `callback` is called.
#[derive(Debug, Clone, Copy, Default)]
pub struct OData {}

/// Query options of resources (OData 4.01, part 1, section 11.2.1), which operations do not
/// support.
const SYSTEM_QUERY_OPTIONS: [&str; 12] = [
    "$filter",
    "$select",
    "$expand",
    "$orderby",
    "$top",
    "$skip",
    "$skiptoken",
    "$deltatoken",
    "$count",
    "$search",
    "$compute",
    "$apply",
];

const ASYNC_RESULT: HeaderName = HeaderName::from_static("asyncresult");

const PARTS: &[ResourcePart] = &[ResourcePart {
    name: "",
    allow: "GET, HEAD, DELETE, OPTIONS",
    asks: &[
        (Method::GET, Action::Result),
        (Method::DELETE, Action::Cancel(OnTerminal::Refuse)),
    ],
}];

impl Dialect for OData {
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
        refuse(request, &SYSTEM_QUERY_OPTIONS)?;
        parse_request(request, PARTS, no_list)
    }

    fn needs_preference(&self) -> bool {
        true
    }

    fn accepted(&self, _: &OperationView<'_>, context: &Context<'_>) -> Response<BufferedBody> {
        empty(StatusCode::ACCEPTED)
            .no_store()
            .location(context)
            .retry_after(context)
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        self.result(operation, context)
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let id = operation.id();
        match operation.state() {
            State::Pending | State::Running => {
                let response = empty(StatusCode::ACCEPTED).private();
                return Ok(response.location(context).retry_after(context));
            }
            State::Canceled => return Err(ApiError::NotFound { id: id.clone() }),
            State::Succeeded | State::Failed => {}
        }
        let mut response = match (
            replayed(operation, context)?,
            ErrorWords::from_operation(operation),
        ) {
            (Some(response), _) => response,
            (None, Some(words)) => words.response(words.status).private(),
            (None, None) => return Err(ApiError::Unpresentable),
        };
        let status = response.status().as_str().to_owned();
        *response.status_mut() = StatusCode::OK;
        Ok(response.put(ASYNC_RESULT, Some(status)))
    }

    fn ended(&self, _: &OperationView<'_>, _: &Context<'_>) -> Answer {
        Ok(empty(StatusCode::NO_CONTENT))
    }

    fn deleted(&self, _: &OperationId) -> Response<BufferedBody> {
        empty(StatusCode::NO_CONTENT)
    }

    fn redirects_results(&self) -> bool {
        false
    }

    fn error(&self, fault: &ApiError) -> Response<BufferedBody> {
        let problem = fault.problem();
        let status = match fault {
            ApiError::AlreadyFinished { .. } => StatusCode::GONE,
            fault => fault.status(),
        };
        ErrorWords::of_fault(fault, &problem).response(status)
    }
}
