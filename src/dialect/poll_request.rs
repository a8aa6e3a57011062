use std::time::Duration;

use http::{HeaderMap, Method};

use super::Context;
use crate::operation::{OperationId, OperationView, StateSet};

/// The parts of a request to the operations' resources that a dialect sees.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RequestView<'a> {
    /// The method; `GET` for a `HEAD`.
    pub method: &'a Method,
    /// The path below the operations' root, beginning with `/`; the root itself is `/`. The
    /// path is percent-encoded, except for characters that need no encoding (RFC 3986,
    /// section 6.2.2.2).
    pub path: &'a str,
    /// The query, without the question mark.
    pub query: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The operation id, if the application extracted the id.
    pub id: Option<&'a str>,
    /// Whether the application allows operations to be listed. If not, a request to the
    /// root is a request without an id.
    pub lists: bool,
}

impl<'a> RequestView<'a> {
    /// Creates a view of a request whose id the application did not extract.
    #[must_use]
    pub fn new(
        method: &'a Method,
        path: &'a str,
        query: Option<&'a str>,
        headers: &'a HeaderMap,
    ) -> Self {
        Self {
            method,
            path,
            query,
            headers,
            id: None,
            lists: false,
        }
    }
}

/// A parsed request to the operations' resources.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PollRequest {
    /// A request about one operation.
    Operation {
        /// The operation.
        id: OperationId,
        /// The requested action.
        action: Action,
        /// The longest time that the client is willing to wait for the response.
        wait: Option<Duration>,
        /// The reason for a cancellation, if the client gave one.
        reason: Option<Box<str>>,
    },
    /// A request for a list of operations.
    List(ListParams),
}

impl PollRequest {
    /// Creates a request about one operation that is answered without waiting.
    #[must_use]
    pub fn operation(id: OperationId, action: Action) -> Self {
        Self::Operation {
            id,
            action,
            wait: None,
            reason: None,
        }
    }
}

/// The parameters of a list request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListParams {
    /// The states to include.
    pub states: StateSet,
    /// The maximum number of operations on the page.
    pub limit: Option<usize>,
    /// The cursor of the previous page: the list continues after that page.
    pub cursor: Option<String>,
    /// The name of the cursor parameter, for the error about a cursor that no page
    /// returned. The default is `cursor`.
    pub cursor_parameter: &'static str,
}

impl Default for ListParams {
    fn default() -> Self {
        Self {
            states: StateSet::default(),
            limit: None,
            cursor: None,
            cursor_parameter: "cursor",
        }
    }
}

impl ListParams {
    /// Sets the states to include.
    #[must_use]
    pub fn with_states(self, states: StateSet) -> Self {
        Self { states, ..self }
    }

    /// Sets the maximum number of operations on the page.
    #[must_use]
    pub fn with_limit(self, limit: impl Into<Option<usize>>) -> Self {
        Self {
            limit: limit.into(),
            ..self
        }
    }

    /// Sets the cursor of the previous page, and the name of the parameter that contained it.
    #[must_use]
    pub fn with_cursor(self, parameter: &'static str, cursor: Option<String>) -> Self {
        Self {
            cursor,
            cursor_parameter: parameter,
            ..self
        }
    }
}

/// A page of operations.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ListPage<'a> {
    /// The operations, newest first, each with its URLs.
    pub operations: &'a [(OperationView<'a>, Context<'a>)],
    /// The cursor of the next page.
    pub next: Option<&'a str>,
    /// The parameters of the request.
    pub params: &'a ListParams,
    /// The maximum number of operations on a page.
    pub limit: usize,
}

/// The action that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Shows the operation.
    Status,
    /// Returns the result.
    Result,
    /// Streams the operation, now and after every change.
    Events,
    /// Cancels the operation.
    Cancel(OnTerminal),
    /// Deletes the operation; refused until the operation is terminal.
    Delete,
}

/// The effect of a cancellation on an operation that has already succeeded or failed. An
/// operation that was already canceled is the response to another cancellation, unless the
/// variant says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnTerminal {
    /// Changes nothing; the response is the operation.
    Same,
    /// Changes nothing; the response says that it is too late to cancel.
    Refuse,
    /// Refuses as [`Refuse`](Self::Refuse) does, also for an operation that was canceled: a
    /// second cancellation is too late.
    RefuseEnded,
    /// Refuses as [`Refuse`](Self::Refuse) does, unless the request names the current version of
    /// the operation in `If-Match`. The operation is deleted then, also if it was canceled.
    RefuseUnlessMatched,
    /// Deletes the operation, also one that was already canceled.
    Delete,
}
