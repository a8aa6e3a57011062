use std::{borrow::Cow, time::Duration};

use http::{HeaderName, Method, Response, StatusCode, header::LINK};

use super::{
    Accepted, Action, Answer, ApiError, Context, Dialect, Event, ListPage, ListParams, OnTerminal,
    PollRequest, Preferences, RequestView,
    accept::prefers_events,
    answers::{AnswerExt, JSON, empty, replayed, typed, unpresentable},
    prefer::delta_seconds,
    routes::{
        ONE_OR_MORE, READ, RESULT, ResourcePart, RouteRequest, find_route, parameter,
        refuse_foreign, states, states_again,
    },
    url::query::{self, MalformedParameter},
};
use crate::{
    codec::push_string,
    operation::{BufferedBody, OperationId, OperationView, State},
};

/// The default dialect.
///
/// | request | answer |
/// | --- | --- |
/// | an accepted request | 202, `{"id","state","location"}` |
/// | `GET …/{id}` | 200 and the operation, also when it failed |
/// | `GET …/{id}/result` | the recorded response; 202 while there is none |
/// | `GET …/{id}/events`, or an `Accept` that prefers `text/event-stream` to JSON | an event with the operation, then one after every change |
/// | `GET …/`, if lists are on | `{"operations","next"}`; `state` (several, repeated or separated by commas), `limit`, `cursor` |
/// | `GET …/{id}/result` of a canceled operation | 410 |
/// | `DELETE …/{id}` of an operation that has ended, with its `ETag` in `If-Match` | 204; the operation is deleted |
/// | `DELETE …/{id}` | cancels; 200 and the operation, or 409 |
///
/// The JSON of an operation has `id`, `state`, the
/// [name](crate::AsyncAcceptLayer::operation_name), `result` or `problem`, `progress` and
/// times; absent values are left out. An operation that has succeeded or failed also has
/// `links`, where `result` is the URL of its result. An unfinished or canceled operation
/// has no links.
///
/// A replayed result carries its status in `Operation-Result`, which distinguishes a
/// recorded 404 from a 404 of the poll itself.
///
/// The id is the last segment of the path (or the one before `result` or `events`), else
/// the query parameter `id`. One trailing slash is ignored. `Prefer: wait=N` (RFC 7240,
/// section 4.3) or `?wait=N`, in seconds, holds a `GET`.
///
/// Errors are `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, Copy)]
pub struct Plain {
    unfinished: StatusCode,
}

impl Default for Plain {
    fn default() -> Self {
        Self {
            unfinished: StatusCode::OK,
        }
    }
}

static OPERATION_RESULT: HeaderName = HeaderName::from_static("operation-result");

const RESOURCE: &str = "GET, HEAD, DELETE, OPTIONS";

const PARTS: &[ResourcePart] = &[
    ResourcePart {
        name: "",
        allow: RESOURCE,
        asks: &[
            (Method::GET, Action::Status),
            (
                Method::DELETE,
                Action::Cancel(OnTerminal::RefuseUnlessMatched),
            ),
        ],
    },
    RESULT,
    ResourcePart {
        name: "events",
        allow: READ,
        asks: &[(Method::GET, Action::Events)],
    },
];

impl Plain {
    /// Responds to polls of unfinished operations with `202` and `Location` instead of
    /// `200`, for pollers that look only at the status.
    #[must_use]
    pub fn accepted_while_unfinished(self) -> Self {
        Self {
            unfinished: StatusCode::ACCEPTED,
        }
    }

    /// Returns the operation as a JSON response.
    fn operation(
        &self,
        status: StatusCode,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Answer {
        let text = text(operation, context)?;
        let mut response = typed(status, JSON, text);
        // A response is large, so it is moved only if there is a header to add.
        if context.retry_after.is_some() {
            response = response.retry_after(context);
        }
        if status == StatusCode::ACCEPTED {
            response = response.location(context);
        }
        Ok(response)
    }
}

impl Dialect for Plain {
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
        let (id, action) = match find_route(request, PARTS)? {
            RouteRequest::List => {
                refuse_foreign(request, ["state", "limit", "cursor"], &[])?;
                return Ok(PollRequest::List(listing(request)?));
            }
            RouteRequest::About(id, Action::Status) if prefers_events(request.headers) => {
                (id, Action::Events)
            }
            RouteRequest::About(id, action) => (id, action),
        };
        let wait = wait(request)?;
        Ok(PollRequest::Operation {
            id,
            action,
            wait,
            reason: None,
        })
    }

    fn accepted(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Response<BufferedBody> {
        Accepted::new(operation.id())
            .of_operation(operation.state(), context.urls, context.retry_after)
            .into_response()
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let status = match operation.state().is_terminal() {
            true => StatusCode::OK,
            false => self.unfinished,
        };
        self.operation(status, operation, context)
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        match operation.state() {
            State::Pending | State::Running => {
                let unfinished = self.operation(StatusCode::ACCEPTED, operation, context)?;
                return Ok(unfinished.private());
            }
            State::Canceled => {
                let id = operation.id().clone();
                return Err(ApiError::Canceled { id });
            }
            State::Succeeded | State::Failed => {}
        }
        let response = match (replayed(operation, context)?, operation.problem()) {
            (Some(response), _) => response,
            (None, problem) => problem
                .cloned()
                .unwrap_or_default()
                .into_response()
                .private(),
        };
        let status = response.status().as_str().to_owned();
        Ok(response.put(OPERATION_RESULT.clone(), Some(status)))
    }

    fn ended(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        self.operation(StatusCode::OK, operation, context)
            .map(AnswerExt::private)
    }

    fn deleted(&self, _: &OperationId) -> Response<BufferedBody> {
        empty(StatusCode::NO_CONTENT)
    }

    fn lists_results(&self) -> bool {
        false
    }

    /// Returns `{"operations":[…],"next":"…"}`, with a `Link` to the next page (RFC 8288), which
    /// is relative to this page.
    fn list(&self, page: &ListPage<'_>) -> Answer {
        let mut text = b"{\"operations\":[".to_vec();
        for (index, (operation, context)) in page.operations.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            let begin = text.len();
            operation
                .write_json(0, &mut text)
                .map_err(|error| unpresentable(operation, &error))?;
            push_links(operation, context, begin, &mut text);
        }
        text.push(b']');
        if let Some(next) = page.next {
            text.extend_from_slice(b",\"next\":");
            // Writing a string to a `Vec` cannot fail.
            let _ = serde_json::to_writer(&mut text, next);
        }
        text.push(b'}');
        let response = typed(StatusCode::OK, JSON, text).private();
        Ok(response.put(LINK, next_page(page, "state", State::as_str)))
    }

    /// Returns an event with the JSON of a `GET`, and the state as its name.
    fn event(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Result<Event, ApiError> {
        let data = text(operation, context)?;
        let name = Some(operation.state().as_str());
        Ok(Event { name, data })
    }

    fn error(&self, fault: &ApiError) -> Response<BufferedBody> {
        fault.clone().into_response()
    }
}

/// Returns the JSON of the operation, with its links.
fn text(operation: &OperationView<'_>, context: &Context<'_>) -> Result<Vec<u8>, ApiError> {
    let links = match has_result(operation) {
        // The end of the JSON is replaced.
        true => LINKS.len() + context.urls.length() + LINKS_END.len() - 1,
        false => 0,
    };
    let text = operation.json(context.inline_limit, links);
    let mut text = text.map_err(|error| unpresentable(operation, &error))?;
    push_links(operation, context, 0, &mut text);
    Ok(text)
}

const ID: &[u8] = br#"{"id":""#;
const LINKS: &[u8] = br#","links":{"result":""#;
const LINKS_END: &[u8] = br#"/result"}}"#;

/// Returns whether the result resource returns a result rather than the state.
fn has_result(operation: &OperationView<'_>) -> bool {
    matches!(operation.state(), State::Succeeded | State::Failed)
}

/// Adds `links` at the end of an operation's JSON, which begins at `begin`, if the
/// operation has a result and a URL.
fn push_links(
    operation: &OperationView<'_>,
    context: &Context<'_>,
    begin: usize,
    text: &mut Vec<u8>,
) {
    if !has_result(operation) {
        return;
    }
    let id = operation.id();
    if let Some(root) = context.urls.before(id) {
        // Reopens the object, and copies the id from its beginning.
        text.pop();
        text.extend_from_slice(LINKS);
        text.extend_from_slice(root.as_bytes());
        let at = begin + ID.len();
        text.extend_from_within(at..at + id.text_len());
        text.extend_from_slice(LINKS_END);
    } else if let Some(result) = context.urls.below("result") {
        text.pop();
        text.extend_from_slice(&LINKS[..LINKS.len() - 1]);
        push_string(&result, text);
        text.extend_from_slice(b"}}");
    }
}

/// Returns a link to the next page, relative to this page. The parameter `states` repeats the
/// states, in the words of the dialect.
pub(super) fn next_page(
    page: &ListPage<'_>,
    states: &str,
    word: fn(State) -> &'static str,
) -> Option<String> {
    let mut query = format!("?cursor={}", query::encode(page.next?));
    query.push_str(&states_again(page.params.states, states, word));
    if let Some(limit) = page.params.limit {
        query.push_str(&format!("&limit={limit}"));
    }
    Some(format!("<{query}>; rel=\"next\""))
}

pub(super) fn listing(request: &RequestView<'_>) -> Result<ListParams, ApiError> {
    let limit = parameter(request, "limit")?
        .map(|text| {
            let number = delta_seconds(text.as_bytes()).filter(|number| *number > 0);
            number.ok_or_else(|| ApiError::invalid_query("limit", &text, ONE_OR_MORE))
        })
        .transpose()?
        .map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    Ok(ListParams {
        states: states(request, "state", State::as_str)?,
        limit,
        cursor: parameter(request, "cursor")?.map(Cow::into_owned),
        ..ListParams::default()
    })
}

/// Returns how long the client is willing to wait: by the URL, else by `Prefer`.
fn wait(request: &RequestView<'_>) -> Result<Option<Duration>, ApiError> {
    let parameter = query::parameter(request.query, "wait");
    let parameter = parameter.map_err(|malformed| match malformed {
        MalformedParameter::Encoding(text) => ApiError::invalid_wait(text),
        repeated @ MalformedParameter::Repeated => repeated.fault("wait"),
    });
    match parameter? {
        None => Ok(Preferences::from_headers(request.headers).wait()),
        Some(text) => delta_seconds(text.as_bytes())
            .map(|seconds| Some(Duration::from_secs(seconds)).filter(|wait| !wait.is_zero()))
            .ok_or_else(|| ApiError::invalid_wait(&text)),
    }
}

#[cfg(test)]
mod tests;
