use http::{HeaderName, Method, Response, StatusCode};

use super::{
    Action, Answer, ApiError, Context, Dialect, ListPage, ListParams, OnTerminal, PollRequest,
    RequestView,
    answers::{AnswerExt, JSON, empty, replayed, typed},
    error::ErrorWords,
    object::{Object, list},
    query,
    routes::{
        POST, RESULT, ResourcePart, limit, non_empty_parameter, parameter, parse_request,
        refuse_foreign, states_or,
    },
};
use crate::operation::{BufferedBody, OperationId, OperationView, State, StateSet, cut};

/// The dialect of Azure Durable Functions (their HTTP API).
///
/// | request | answer |
/// | --- | --- |
/// | an accepted request | 202, `Location`, `id`, `statusQueryGetUri`, `terminatePostUri`, `purgeHistoryDeleteUri` |
/// | `GET …/{id}` | 202 until the operation has ended, then 200: `instanceId`, `runtimeStatus`, `output`, `customStatus` (the progress), `createdTime`, `lastUpdatedTime`; 500 for a failed operation if `returnInternalServerErrorOnFailure=true` |
/// | `GET …/{id}/result` | the recorded response, for a result that cannot be embedded |
/// | `POST …/{id}/terminate` | 202, and the `reason` becomes the `output`; 410 if the operation has ended, also by another termination |
/// | `DELETE …/{id}` | 200 `{"instancesDeleted":1}`, and the operation is deleted; 404 if it has not ended |
/// | `GET …/`, if lists are on | an array; `top`, `runtimeStatus`, and `x-ms-continuation-token` in request and response |
///
/// `runtimeStatus` is `Pending`, `Running`, `Completed`, `Failed` or `Terminated`. Events,
/// rewinding, suspending, resuming and restarting are `501`, and their URIs are left out.
/// Purging several instances at once, `createdTimeFrom`, `createdTimeTo` and
/// `instanceIdPrefix` are `501` too. `showHistory=true` and `showInput=true` are `400`;
/// `input` is `null`, since it is not stored. A `reason` is truncated to 1024 bytes.
///
/// Clients of Durable Functions need absolute URLs: set a
/// [base URL](crate::Operations::public_url).
#[derive(Debug, Clone, Copy, Default)]
pub struct DurableFunctions {}

const CONTINUATION_NAME: &str = "x-ms-continuation-token";
const CONTINUATION: HeaderName = HeaderName::from_static(CONTINUATION_NAME);

/// The length in bytes to which the reason of a termination is truncated.
const REASON: usize = 1024;

const PARTS: &[ResourcePart] = &[
    ResourcePart {
        name: "",
        allow: "GET, HEAD, DELETE, OPTIONS",
        asks: &[
            (Method::GET, Action::Status),
            (Method::DELETE, Action::Delete),
        ],
    },
    RESULT,
    ResourcePart {
        name: "terminate",
        allow: POST,
        asks: &[(Method::POST, Action::Cancel(OnTerminal::RefuseEnded))],
    },
];

/// Actions of Durable Functions that this crate does not support.
const UNSUPPORTED: [&str; 4] = ["rewind", "suspend", "resume", "restart"];

const UNSUPPORTED_FILTERS: [&str; 3] = ["createdTimeFrom", "createdTimeTo", "instanceIdPrefix"];

/// The switches of a poll, and whether each is supported. `showHistoryOutput` is ignored,
/// since there is no history that it could apply to.
const SWITCHES: [(&str, bool); 3] = [
    ("returnInternalServerErrorOnFailure", true),
    ("showHistory", false),
    ("showInput", false),
];

/// Values of `runtimeStatus` that no operation has.
const NEVER: [&str; 3] = ["Canceled", "ContinuedAsNew", "Suspended"];

fn word(state: State) -> &'static str {
    match state {
        State::Pending => "Pending",
        State::Running => "Running",
        State::Succeeded => "Completed",
        State::Failed => "Failed",
        State::Canceled => "Terminated",
    }
}

fn instance(object: Object, operation: &OperationView<'_>, context: &Context<'_>) -> Object {
    let metadata = operation.metadata();
    let null = None::<()>;
    let object = object
        .value("name", metadata.name().unwrap_or("operation"))
        .id("instanceId", operation.id())
        .value("runtimeStatus", word(operation.state()))
        .value("input", null)
        .value("customStatus", metadata.progress())
        .time("createdTime", metadata.created_at())
        .time("lastUpdatedTime", metadata.updated_at());
    match (operation.state(), ErrorWords::from_operation(operation)) {
        (State::Succeeded, _) if operation.response().is_some() => {
            match object.result("output", operation, context) {
                (object, true) => object,
                (object, false) => {
                    let uri = context.urls.below("result");
                    object.object("output", |output| output.some("uri", uri))
                }
            }
        }
        (State::Canceled, _) if operation.reason().is_some() => {
            object.some("output", operation.reason())
        }
        (_, Some(words)) => object.value("output", format!("{}: {}", words.code, words.message)),
        (_, None) => object.value("output", null),
    }
}

impl Dialect for DurableFunctions {
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
        if let Some(what) = cannot(request) {
            return Err(ApiError::Unsupported { what });
        }
        for (parameter, is_supported) in SWITCHES {
            let is_on = switch(request.query, parameter);
            if is_on? && !is_supported {
                return Err(ApiError::UnsupportedParameter { parameter });
            }
        }
        let mut ask = parse_request(request, PARTS, listing)?;
        if let PollRequest::Operation {
            action: Action::Cancel(_),
            reason,
            ..
        } = &mut ask
        {
            *reason = non_empty_parameter(request, "reason")?.map(|text| cut(text.into(), REASON));
        }
        Ok(ask)
    }

    fn accepted(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Response<BufferedBody> {
        let terminate = context.urls.below("terminate");
        Object::new()
            .id("id", operation.id())
            .some("statusQueryGetUri", context.urls.status())
            .some("terminatePostUri", terminate.as_deref().map(with_reason))
            .some("purgeHistoryDeleteUri", context.urls.status())
            .into_error(StatusCode::ACCEPTED, JSON)
            .no_store()
            .location(context)
            .retry_after(context)
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let asks_for_500 = switch(context.query, "returnInternalServerErrorOnFailure") == Ok(true);
        let status = match operation.state() {
            State::Pending | State::Running => StatusCode::ACCEPTED,
            State::Failed if asks_for_500 => StatusCode::INTERNAL_SERVER_ERROR,
            State::Succeeded | State::Failed | State::Canceled => StatusCode::OK,
        };
        let response = instance(Object::begin_operation(operation), operation, context)
            .into_response(status, JSON)?;
        Ok(match status {
            StatusCode::ACCEPTED => response.location(context).retry_after(context),
            _ => response.private(),
        })
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        match operation.state() {
            State::Succeeded => replayed(operation, context)?.ok_or(ApiError::Unpresentable),
            _ => self.status(operation, context).map(AnswerExt::private),
        }
    }

    fn ended(&self, _: &OperationView<'_>, _: &Context<'_>) -> Answer {
        Ok(empty(StatusCode::ACCEPTED))
    }

    fn deleted(&self, _: &OperationId) -> Response<BufferedBody> {
        let text = b"{\"instancesDeleted\":1}".to_vec();
        typed(StatusCode::OK, JSON, text).private()
    }

    fn list(&self, page: &ListPage<'_>) -> Answer {
        let text = list(page.operations, |object, (operation, context)| {
            instance(object, operation, context)
        })?;
        let response = typed(StatusCode::OK, JSON, text).private();
        Ok(response.put(CONTINUATION, page.next))
    }

    fn error(&self, fault: &ApiError) -> Response<BufferedBody> {
        let problem = fault.problem();
        let words = ErrorWords::of_fault(fault, &problem);
        let status = match fault {
            ApiError::AlreadyFinished { .. } => StatusCode::GONE,
            // An operation that has not ended cannot be purged.
            ApiError::NotFinished { .. } => StatusCode::NOT_FOUND,
            fault => fault.status(),
        };
        Object::new()
            .value("Message", words.message)
            .value("ExceptionMessage", words.message)
            .value("Code", &words.code)
            .into_error(status, JSON)
            .no_store()
    }
}

/// Adds the template of a reason to a URL.
fn with_reason(url: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}reason={{text}}")
}

/// Returns the action of this request that Durable Functions support and this crate does
/// not.
fn cannot(request: &RequestView<'_>) -> Option<&'static str> {
    let path = request.path.trim_end_matches('/');
    match *request.method {
        Method::POST if path.contains("/raiseEvent/") => Some("raiseEvent"),
        Method::POST => {
            let last = path.rsplit('/').next().unwrap_or_default();
            UNSUPPORTED.into_iter().find(|verb| *verb == last)
        }
        Method::DELETE if path.is_empty() && request.id.is_none() => {
            Some("purging several instances at once")
        }
        _ => None,
    }
}

/// Returns whether a switch is on.
fn switch(query: Option<&str>, name: &'static str) -> Result<bool, ApiError> {
    let value = query::parameter(query, name).map_err(|malformed| malformed.fault(name))?;
    match value.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("true") => Ok(true),
        Some("false" | "") | None => Ok(false),
        Some(other) => Err(ApiError::invalid_query(name, other, "true, false")),
    }
}

fn listing(request: &RequestView<'_>) -> Result<ListParams, ApiError> {
    for name in UNSUPPORTED_FILTERS {
        if non_empty_parameter(request, name)?.is_some() {
            return Err(ApiError::Unsupported { what: name });
        }
    }
    refuse_foreign(
        request,
        ["runtimeStatus", "top", CONTINUATION_NAME],
        &UNSUPPORTED_FILTERS,
    )?;
    // Some clients send the parameter without a value.
    let states = match query::values(request.query, "runtimeStatus").any(|it| it != Ok("".into())) {
        true => states_or(request, "runtimeStatus", word, &NEVER)?,
        false => StateSet::ALL,
    };
    let limit = parameter(request, "top")?.map(|text| limit(&text, "top"));
    let parameter = CONTINUATION_NAME;
    let mut cursors = request.headers.get_all(&CONTINUATION).iter();
    let cursor = cursors.next().map(|cursor| cursor.to_str());
    let cursor = cursor.transpose();
    let no_text = |_| ApiError::invalid_query(parameter, "", "text of ASCII characters");
    let cursor = cursor.map_err(no_text)?;
    if cursors.next().is_some() {
        return Err(ApiError::RepeatedParameter { parameter });
    }
    Ok(ListParams {
        states,
        // Without a limit, the page has all operations: some clients read only the first page.
        limit: Some(limit.transpose()?.unwrap_or(usize::MAX)),
        cursor: cursor.filter(|it| !it.is_empty()).map(Into::into),
        cursor_parameter: CONTINUATION_NAME,
    })
}
