use std::{sync::Arc, time::Duration};

use http::{Method, Response, StatusCode};

use super::{
    Action, Answer, ApiError, Context, Dialect, ListPage, ListParams, OnTerminal, PollRequest,
    Preferences, RequestView,
    answers::{AnswerExt, JSON, replayed, typed},
    error::ErrorWords,
    object::Object,
    routes::{
        POST, RESULT, ResourcePart, RouteRequest, find_route, non_empty_parameter, parameter_named,
        refuse_foreign,
    },
};
use crate::operation::{
    BufferedBody, OperationId, OperationView, Progress, RecordedResponse, State, StateSet,
};

/// The dialect of Google (AIP-151, `google.longrunning.Operations` over HTTP and JSON), for
/// google-api-core.
///
/// | request | answer |
/// | --- | --- |
/// | an accepted request | 200 and an `Operation` that is not `done` |
/// | `GET …/{id}` | 200 and the `Operation` |
/// | `GET …/{id}/result` | the recorded response, for a result that cannot be embedded |
/// | `GET …/`, if lists are on | `operations`, `nextPageToken`; `pageSize`, `pageToken`, or `page_size`, `page_token` |
/// | `POST …/{id}:cancel` | `{}`, also if the operation has ended |
/// | `POST …/{id}:wait` | the `Operation` once it is `done`, or after `timeout` (`10s`) in the query; a body is not read |
/// | `DELETE …/{id}` | `{}`, and the operation is deleted; 400 if it has not ended |
///
/// An `Operation` has only the members `name`, `metadata`, `done`, and `response` or
/// `error`. `metadata` and a `response` that is a JSON object are `google.protobuf.Struct`,
/// any other JSON `google.protobuf.Value`. For a result that cannot be embedded, `response`
/// is a `Struct` with its location: `uri`, and `contentType`. A canceled operation has an
/// `error` with code 1. Errors of a request are `{"error":{"code","message","status"}}`. A
/// `filter` is `501`.
#[derive(Debug, Clone, Default)]
pub struct Google {
    /// The parent with a trailing slash; `None` without a parent.
    parent: Option<Arc<str>>,
}

impl Google {
    /// Sets a parent for the names of operations, as in `projects/p/operations/{id}`. By default
    /// there is no parent.
    #[must_use]
    pub fn parent(self, parent: &str) -> Self {
        let parent = parent.trim_matches('/');
        Self {
            parent: (!parent.is_empty()).then(|| format!("{parent}/").into()),
        }
    }

    fn fill(&self, object: Object, operation: &OperationView<'_>, context: &Context<'_>) -> Object {
        let parent = self.parent.as_deref().unwrap_or_default();
        let object = object
            .value(
                "name",
                format_args!("{parent}operations/{}", operation.id()),
            )
            .object("metadata", |any| {
                any_struct(any, |value| metadata(value, operation))
            })
            .value("done", operation.state().is_terminal());
        match (operation.state(), ErrorWords::from_operation(operation)) {
            (State::Succeeded, _) => response(object, operation, context),
            (_, Some(words)) => object.object("error", |error| status(error, operation, &words)),
            (_, None) => object,
        }
    }
}

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
        name: ":cancel",
        allow: POST,
        asks: &[(Method::POST, Action::Cancel(OnTerminal::Same))],
    },
    ResourcePart {
        name: ":wait",
        allow: POST,
        asks: &[(Method::POST, Action::Status)],
    },
];

/// A wait without a limit in practice: the service limits how long it holds a poll.
const ANY_TIME: Duration = Duration::from_secs(24 * 60 * 60);

fn any_struct(any: Object, fill: impl FnOnce(Object) -> Object) -> Object {
    any.value("@type", "type.googleapis.com/google.protobuf.Struct")
        .object("value", fill)
}

fn metadata(object: Object, operation: &OperationView<'_>) -> Object {
    let metadata = operation.metadata();
    let progress = metadata.progress();
    object
        .value("state", operation.state())
        .some("kind", metadata.name())
        .time("createTime", metadata.created_at())
        .time("startTime", metadata.started_at())
        .time("updateTime", metadata.updated_at())
        .time("endTime", metadata.finished_at())
        .time("expireTime", metadata.expires_at())
        .some("progressPercent", progress.and_then(Progress::percent))
        .some("statusMessage", progress.and_then(Progress::message))
}

fn response(object: Object, operation: &OperationView<'_>, context: &Context<'_>) -> Object {
    let mut text = Vec::new();
    match operation.write_result(context.inline_limit, &mut text) {
        Ok(true) => {
            let kind = match text.trim_ascii_start().first() {
                Some(b'{') => "type.googleapis.com/google.protobuf.Struct",
                _ => "type.googleapis.com/google.protobuf.Value",
            };
            return object.object("response", |any| {
                any.value("@type", kind).raw("value", &text)
            });
        }
        Ok(false) => {}
        Err(error) => return object.failed(error),
    }
    let recorded = operation.recorded();
    let media_type = recorded.and_then(RecordedResponse::media_type);
    object.object("response", |any| {
        any_struct(any, |elsewhere| {
            elsewhere
                .some("uri", recorded.and(context.urls.below("result")))
                .some("contentType", media_type)
        })
    })
}

/// A `google.rpc.Status`.
fn status(object: Object, operation: &OperationView<'_>, words: &ErrorWords<'_>) -> Object {
    let code = match operation.state() {
        State::Canceled => 1,
        _ => code(words.status).0,
    };
    object
        .value("code", code)
        .value("message", words.message)
        .objects("details", [words], |any, words| {
            any_struct(any, |details| {
                details
                    .value("reason", &words.code)
                    .value("retryable", words.retryable)
                    .value("httpStatus", words.status.as_u16())
                    .some("problem", operation.problem())
            })
        })
}

/// Returns the `google.rpc.Code` for an HTTP status, and its name.
fn code(status: StatusCode) -> (u32, &'static str) {
    match status.as_u16() {
        400 | 411 | 413 | 415 | 422 => (3, "INVALID_ARGUMENT"),
        401 => (16, "UNAUTHENTICATED"),
        403 => (7, "PERMISSION_DENIED"),
        404 | 410 => (5, "NOT_FOUND"),
        408 | 504 => (4, "DEADLINE_EXCEEDED"),
        409 => (10, "ABORTED"),
        412 => (9, "FAILED_PRECONDITION"),
        416 => (11, "OUT_OF_RANGE"),
        429 => (8, "RESOURCE_EXHAUSTED"),
        499 => (1, "CANCELLED"),
        405 | 501 => (12, "UNIMPLEMENTED"),
        502 | 503 => (14, "UNAVAILABLE"),
        400..500 => (9, "FAILED_PRECONDITION"),
        500..600 => (13, "INTERNAL"),
        _ => (2, "UNKNOWN"),
    }
}

impl Dialect for Google {
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
        match find_route(request, PARTS)? {
            RouteRequest::About(id, action) => {
                // A `POST` for the status is `:wait`.
                let wait = match (request.method, action) {
                    (&Method::POST, Action::Status) => {
                        let timeout = non_empty_parameter(request, "timeout")?.map(|text| {
                            let seconds = text.strip_suffix('s').unwrap_or(&text).parse().ok();
                            let wait = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
                            let allowed = "seconds, as 10s";
                            wait.ok_or_else(|| ApiError::invalid_query("timeout", &text, allowed))
                        });
                        Some(timeout.transpose()?.unwrap_or(ANY_TIME))
                    }
                    _ => Preferences::from_headers(request.headers).wait(),
                };
                Ok(PollRequest::Operation {
                    id,
                    action,
                    wait,
                    reason: None,
                })
            }
            RouteRequest::List => {
                if non_empty_parameter(request, "filter")?.is_some() {
                    return Err(ApiError::Unsupported { what: "filter" });
                }
                refuse_foreign(
                    request,
                    ["", "pageSize", "pageToken"],
                    &["filter", "page_size", "page_token"],
                )?;
                let limit = parameter_named(request, &["pageSize", "page_size"])?;
                let limit = limit.filter(|(_, text)| !text.is_empty());
                let limit = limit.map(|(name, text)| {
                    let invalid = |_| ApiError::invalid_query(name, &text, "a whole number");
                    text.parse().map_err(invalid)
                });
                let token = parameter_named(request, &["pageToken", "page_token"])?;
                let token = token.filter(|(_, text)| !text.is_empty());
                Ok(PollRequest::List(ListParams {
                    states: StateSet::ALL,
                    // Absent or 0 means that the service chooses.
                    limit: limit.transpose()?.filter(|limit| *limit > 0),
                    cursor_parameter: token.as_ref().map_or("pageToken", |(name, _)| *name),
                    cursor: token.map(|(_, text)| text.into_owned()),
                }))
            }
        }
    }

    fn accepted(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Response<BufferedBody> {
        self.fill(Object::new(), operation, context)
            .into_error(StatusCode::OK, JSON)
            .no_store()
            .retry_after(context)
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let object = self.fill(Object::begin_operation(operation), operation, context);
        let response = object.into_response(StatusCode::OK, JSON)?;
        Ok(response.retry_after(context))
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let is_success = operation.state() == State::Succeeded;
        match replayed(operation, context)? {
            Some(response) if is_success => Ok(response),
            _ => self.status(operation, context).map(AnswerExt::private),
        }
    }

    fn ended(&self, _: &OperationView<'_>, _: &Context<'_>) -> Answer {
        Ok(typed(StatusCode::OK, JSON, b"{}".to_vec()).private())
    }

    fn deleted(&self, _: &OperationId) -> Response<BufferedBody> {
        typed(StatusCode::OK, JSON, b"{}".to_vec()).private()
    }

    fn list(&self, page: &ListPage<'_>) -> Answer {
        let list = Object::new()
            .objects(
                "operations",
                page.operations,
                |object, (operation, context)| self.fill(object, operation, context),
            )
            .some("nextPageToken", page.next);
        Ok(list.into_response(StatusCode::OK, JSON)?.private())
    }

    fn error(&self, fault: &ApiError) -> Response<BufferedBody> {
        let problem = fault.problem();
        let words = ErrorWords::of_fault(fault, &problem);
        let (status, (_, name)) = match fault {
            ApiError::NotFinished { .. } => {
                let status = StatusCode::BAD_REQUEST;
                (status, (9, "FAILED_PRECONDITION"))
            }
            ApiError::IdTaken { .. } => (fault.status(), (6, "ALREADY_EXISTS")),
            fault => (fault.status(), code(fault.status())),
        };
        Object::new()
            .object("error", |error| {
                error
                    .value("code", status.as_u16())
                    .value("message", words.message)
                    .value("status", name)
            })
            .into_error(status, JSON)
            .no_store()
    }
}

#[cfg(test)]
mod tests;
