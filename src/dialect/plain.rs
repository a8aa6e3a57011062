use std::{borrow::Cow, time::Duration};

use http::{HeaderName, Method, Response, StatusCode, header::LINK};

use super::{
    Accepted, Action, Answer, ApiError, Context, Dialect, Event, ListPage, ListParams, OnTerminal,
    PollRequest, Preferences, RequestView,
    accept::prefers_events,
    answers::{AnswerExt, JSON, empty, replayed, typed, unpresentable},
    prefer::delta_seconds,
    query::{self, MalformedParameter},
    routes::{
        ONE_OR_MORE, READ, RESULT, ResourcePart, RouteRequest, asked, parameter, refuse_foreign,
        states, states_again,
    },
};
use crate::operation::{BufferedBody, OperationId, OperationView, State, push_string};

/// The default dialect.
///
/// | request | answer |
/// | --- | --- |
/// | the accepted one | 202, `{"id","state","location"}` |
/// | `GET …/{id}` | 200 and the operation, also when it failed |
/// | `GET …/{id}/result` | the recorded response; 202 while there is none |
/// | `GET …/{id}/events`, or an `Accept` that likes `text/event-stream` better than JSON | an event for what it is, then one whenever it has changed |
/// | `GET …/`, where lists are on | `{"operations","next"}`; `state` (several, repeated or with commas in between), `limit`, `cursor` |
/// | the same, canceled | 410 |
/// | `DELETE …/{id}`, with an `If-Match` that names its `ETag`, once it has ended | 204, and it is forgotten |
/// | `DELETE …/{id}` | cancels; 200 and the operation, or 409 |
///
/// An operation has `id`, `state`, its [name](crate::AsyncAcceptLayer::operation_name), `result`
/// or `problem`, `progress` and its times, each where there is one; once it has succeeded
/// or failed also `links`, of which `result` is the URL of its result. What is going on,
/// or was canceled, has no links.
///
/// A replayed result carries `Operation-Result` with its status, which tells a
/// recorded 404 from one of the poll itself.
///
/// The id is the last segment of the path (or the one before `result` or
/// `events`), else
/// the query parameter `id`. One trailing slash is ignored. `Prefer: wait=N`
/// (RFC 7240, section 4.3) or `?wait=N`, in seconds, holds a `GET`.
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
    /// Answers polls of unfinished operations with `202` and `Location` instead
    /// of `200`, for pollers that judge by the status alone.
    #[must_use]
    pub fn accepted_while_unfinished(self) -> Self {
        Self {
            unfinished: StatusCode::ACCEPTED,
        }
    }

    /// The operation in JSON.
    fn operation(
        &self,
        status: StatusCode,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Answer {
        let text = text(operation, context)?;
        let mut response = typed(status, JSON, text);
        // A response is large: what has ended is not moved for what it does not have.
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
        let (id, action) = match asked(request, PARTS)? {
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

    /// `{"operations":[…],"next":"…"}`, with a `Link` to the next page (RFC
    /// 8288), which is relative to this one.
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
            // A string into a Vec: neither can fail.
            let _ = serde_json::to_writer(&mut text, next);
        }
        text.push(b'}');
        let response = typed(StatusCode::OK, JSON, text).private();
        Ok(response.put(LINK, next_page(page, "state", State::as_str)))
    }

    /// The operation as a `GET` gives it, under the name of its state.
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

/// The operation in JSON, with its links.
fn text(operation: &OperationView<'_>, context: &Context<'_>) -> Result<Vec<u8>, ApiError> {
    let links = match has_result(operation) {
        true => LINKS.len() + context.urls.length() + LINKS_END.len(),
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

/// Whether the result resource has what the operation led to, and not its state.
fn has_result(operation: &OperationView<'_>) -> bool {
    matches!(operation.state(), State::Succeeded | State::Failed)
}

/// Puts `links` at the end of an operation's JSON, which begins at `begin`, if there is
/// something to link to.
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
        // The object goes on, and has its id at its beginning.
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

/// A link to the next page, relative to this one. The parameter `states` has the states, by
/// the words of the dialect.
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

/// How long the client is willing to wait: what the URL says, else what
/// `Prefer` says.
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
