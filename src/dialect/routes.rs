//! Routing: parses a request by a table of resources.

mod foreign;

use std::borrow::Cow;

pub(super) use foreign::refuse_foreign;
use http::Method;

use super::{
    Action, ApiError, ListParams, OnTerminal, PollRequest, Preferences, RequestView, part_of,
    url::query::{self, MalformedParameter},
};
use crate::operation::{InvalidId, OperationId, State, StateSet};

/// A resource of an operation, and the actions of its methods.
pub(super) struct ResourcePart {
    /// The segment after the id, or the verb that follows the id, such as `:cancel`; empty
    /// for the operation itself.
    pub(super) name: &'static str,
    /// The methods, as in `Allow`.
    pub(super) allow: &'static str,
    pub(super) asks: &'static [(Method, Action)],
}

impl ResourcePart {
    /// Returns the action of a method.
    fn action(&self, method: &Method) -> Option<Action> {
        let mut asks = self.asks.iter().filter(|(asks, _)| asks == method);
        asks.next().map(|(_, action)| *action)
    }
}

/// The operation itself, read-only.
pub(super) const STATUS: ResourcePart = ResourcePart {
    name: "",
    allow: READ,
    asks: &[(Method::GET, Action::Status)],
};

/// The result.
pub(super) const RESULT: ResourcePart = ResourcePart {
    name: "result",
    allow: READ,
    asks: &[(Method::GET, Action::Result)],
};

/// The verb that cancels.
pub(super) const CANCEL: ResourcePart = ResourcePart {
    name: ":cancel",
    allow: POST,
    asks: &[(Method::POST, Action::Cancel(OnTerminal::Refuse))],
};

/// Parses a request by these resources; `list` parses the parameters of a list. The wait is
/// that of `Prefer`.
pub(super) fn parse_request(
    request: &RequestView<'_>,
    parts: &[ResourcePart],
    list: impl FnOnce(&RequestView<'_>) -> Result<ListParams, ApiError>,
) -> Result<PollRequest, ApiError> {
    match find_route(request, parts)? {
        RouteRequest::About(id, action) => Ok(PollRequest::Operation {
            id,
            action,
            wait: Preferences::from_headers(request.headers).wait(),
            reason: None,
        }),
        RouteRequest::List => list(request).map(PollRequest::List),
    }
}

/// Parses the states of a list request, by the names that `word` returns. The parameter may
/// be repeated, and may have several names separated by commas. The default is every state.
pub(super) fn states(
    request: &RequestView<'_>,
    parameter: &'static str,
    word: fn(State) -> &'static str,
) -> Result<StateSet, ApiError> {
    states_or(request, parameter, word, &[])
}

/// Parses the states like [`states`], for a dialect that has further states. The names in
/// `no_state` match no operation.
pub(super) fn states_or(
    request: &RequestView<'_>,
    parameter: &'static str,
    word: fn(State) -> &'static str,
    no_state: &[&str],
) -> Result<StateSet, ApiError> {
    let mut values = query::values(request.query, parameter).peekable();
    if values.peek().is_none() {
        return Ok(StateSet::ALL);
    }
    let mut states = Vec::new();
    for value in values {
        let value = value.map_err(|malformed| malformed.fault(parameter))?;
        for text in value.split(',') {
            match State::ALL.iter().find(|state| word(**state) == text) {
                Some(state) => states.push(*state),
                None if no_state.contains(&text) => {}
                None => {
                    let words = State::ALL.map(word).join(", ");
                    return Err(ApiError::invalid_query(parameter, text, &words));
                }
            }
        }
    }
    Ok(states.into_iter().collect())
}

/// Returns the states as parameters `name`, each after an ampersand; empty for all states.
pub(super) fn states_again(
    states: StateSet,
    name: &str,
    word: fn(State) -> &'static str,
) -> String {
    let words = states.iter().filter(|_| !states.is_all());
    words
        .map(|state| format!("&{name}={}", word(state)))
        .collect()
}

/// The allowed values of a limit.
pub(super) const ONE_OR_MORE: &str = "a whole number from 1";

/// Parses the maximum number of operations, at least one.
pub(super) fn limit(text: &str, parameter: &'static str) -> Result<usize, ApiError> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| ApiError::invalid_query(parameter, text, ONE_OR_MORE))
}

/// Returns a parameter of the query.
pub(super) fn parameter<'a>(
    request: &RequestView<'a>,
    name: &'static str,
) -> Result<Option<Cow<'a, str>>, ApiError> {
    query::parameter(request.query, name).map_err(|malformed| malformed.fault(name))
}

/// Returns a parameter that has several names: the name that was used, and the value.
pub(super) fn parameter_named<'a>(
    request: &RequestView<'a>,
    names: &[&'static str],
) -> Result<Option<(&'static str, Cow<'a, str>)>, ApiError> {
    let mut found = None;
    for name in names {
        if let Some(value) = parameter(request, name)?
            && found.replace((*name, value)).is_some()
        {
            return Err(ApiError::RepeatedParameter { parameter: name });
        }
    }
    Ok(found)
}

/// Refuses parameters that the dialect defines and this service does not support.
pub(super) fn refuse(request: &RequestView<'_>, names: &[&'static str]) -> Result<(), ApiError> {
    if request.query.is_none() {
        return Ok(());
    }
    let is_there = |name: &str| query::values(request.query, name).next().is_some();
    match names.iter().find(|name| is_there(name)) {
        Some(parameter) => Err(ApiError::UnsupportedParameter { parameter }),
        None => Ok(()),
    }
}

/// Returns a parameter, unless it is empty.
pub(super) fn non_empty_parameter<'a>(
    request: &RequestView<'a>,
    name: &'static str,
) -> Result<Option<Cow<'a, str>>, ApiError> {
    Ok(parameter(request, name)?.filter(|value| !value.is_empty()))
}

/// Refuses a list, for a dialect without lists.
pub(super) fn no_list(_: &RequestView<'_>) -> Result<ListParams, ApiError> {
    Err(ApiError::MissingId)
}

/// The target of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RouteRequest {
    About(OperationId, Action),
    List,
}

pub(super) const READ: &str = "GET, HEAD, OPTIONS";

pub(super) const POST: &str = "POST, OPTIONS";

/// Finds the resource that the path names, and the action of the method.
///
/// The id is the last segment, or the segment before the resource; else the query parameter
/// `id`. One trailing slash is ignored.
pub(super) fn find_route(
    request: &RequestView<'_>,
    parts: &[ResourcePart],
) -> Result<RouteRequest, ApiError> {
    let whole = || parts.iter().find(|part| part.name.is_empty());
    // Fast path: most requests name only an operation.
    if request.id.is_none()
        && let Some(part) = whole()
        && let Some(id) = OperationId::at_end_of(request.path)
    {
        return match part.action(request.method) {
            Some(action) => Ok(RouteRequest::About(id, action)),
            None => Err(ApiError::MethodNotAllowed { allow: part.allow }),
        };
    }
    let named = |name: &str| {
        let mut named = parts.iter().filter(|part| !part.name.is_empty());
        named.find(|part| part.name == name)
    };
    let path = request.path.strip_suffix('/').unwrap_or(request.path);
    if path.ends_with('/') && request.id.is_none() {
        return Err(empty_segment(request.path));
    }
    let slash = path.bytes().rposition(|byte| byte == b'/');
    let last = &path[slash.map_or(0, |slash| slash + 1)..];
    // A colon may be escaped.
    let decoded = match last.contains('%') {
        true => Cow::Owned(last.replace("%3A", ":").replace("%3a", ":")),
        false => Cow::Borrowed(last),
    };
    let verb = decoded.find(':').unwrap_or(decoded.len());
    let (segment, part) = match (named(last), named(&decoded[verb..])) {
        (Some(part), _) => {
            let before = &path[..path.len() - last.len()];
            let before = before.strip_suffix('/').unwrap_or(before);
            (before.rsplit('/').next().unwrap_or_default(), Some(part))
        }
        // Nothing before the verb was escaped.
        (None, Some(part)) => (&last[..verb], Some(part)),
        (None, None) => {
            if let Some(fault) = no_such_verb(request, parts, &decoded, verb) {
                return Err(fault);
            }
            (last, whole())
        }
    };
    let id = match (request.id, segment) {
        (Some(id), _) => Some(Cow::Borrowed(id)),
        (None, "") => query::parameter(request.query, "id")
            .map_err(|malformed| match malformed {
                MalformedParameter::Encoding(text) => {
                    ApiError::invalid_id(text, InvalidId::Character)
                }
                repeated @ MalformedParameter::Repeated => repeated.fault("id"),
            })?
            .filter(|id| !id.is_empty()),
        (None, segment) => Some(Cow::Borrowed(segment)),
    };
    let allow = part.map_or(READ, |part| part.allow);
    let is_whole = part.is_some_and(|part| part.name.is_empty());
    let action = part.and_then(|part| part.action(request.method));
    let id = id.map(|id| OperationId::named(&id).map_err(|why| ApiError::invalid_id(&id, why)));
    match (id.transpose()?, action) {
        (Some(id), Some(action)) => Ok(RouteRequest::About(id, action)),
        (Some(_), None) => Err(ApiError::MethodNotAllowed { allow }),
        // The path is the root of the operations.
        (None, Some(action)) if request.lists && is_whole => match action {
            Action::Status | Action::Result => Ok(RouteRequest::List),
            _ => Err(ApiError::MethodNotAllowed { allow: READ }),
        },
        (None, Some(_)) => Err(ApiError::MissingId),
        (None, None) if request.lists && is_whole => {
            Err(ApiError::MethodNotAllowed { allow: READ })
        }
        (None, None) => Err(ApiError::MethodNotAllowed { allow }),
    }
}

/// Returns the error for a path that ends with an empty segment, which is neither a
/// resource of an operation nor the root.
fn empty_segment(path: &str) -> ApiError {
    match part_of(path) {
        Some((id, name)) => ApiError::NoSubResource {
            id,
            name: name.into(),
        },
        None => ApiError::MissingId,
    }
}

/// Returns the error for an unknown verb after the id in the last segment, in a dialect
/// that has verbs.
fn no_such_verb(
    request: &RequestView<'_>,
    parts: &[ResourcePart],
    segment: &str,
    verb: usize,
) -> Option<ApiError> {
    let (id, name) = segment.split_at(verb);
    let has_verbs = || parts.iter().any(|part| part.name.starts_with(':'));
    if name.is_empty() || request.id.is_some() || !has_verbs() {
        return None;
    }
    let id = id.parse().ok()?;
    Some(ApiError::NoSubResource {
        id,
        name: name.into(),
    })
}
