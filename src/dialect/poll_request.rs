use std::time::Duration;

use http::{HeaderMap, Method};

use super::Context;
use crate::operation::{OperationId, OperationView, StateSet};

/// A request to the operations' resources, as far as a dialect sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RequestView<'a> {
    /// The method; `GET` for a `HEAD`.
    pub method: &'a Method,
    /// The path below the operations' root, beginning with `/`; the root itself
    /// is `/`. It is percent-encoded, but for what need not be (RFC 3986, section
    /// 6.2.2.2).
    pub path: &'a str,
    /// The query, without the question mark.
    pub query: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The id, if the application finds it by itself.
    pub id: Option<&'a str>,
    /// Whether the application lets operations be listed. Where it does not,
    /// the root of the operations is a request without an id.
    pub lists: bool,
}

impl<'a> RequestView<'a> {
    /// A request without an id of the application's.
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

/// What a request asks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PollRequest {
    /// Something about one operation.
    Operation {
        /// Which operation.
        id: OperationId,
        /// What about it.
        action: Action,
        /// How long the client is willing to wait for the answer.
        wait: Option<Duration>,
        /// Why it is to be canceled, if that is the question and the client says.
        reason: Option<Box<str>>,
    },
    /// Which operations there are.
    List(ListParams),
}

impl PollRequest {
    /// A question about an operation that wants its answer at once.
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

/// Which operations a client wants listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListParams {
    /// Only those in one of these states.
    pub states: StateSet,
    /// At most so many.
    pub limit: Option<usize>,
    /// Only what comes after the page that gave this cursor.
    pub cursor: Option<String>,
    /// The parameter that the cursor came by, or would have, for the error of one that no
    /// page gave; by default `cursor`.
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

/// A page of a list.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ListPage<'a> {
    /// The operations, newest first, each with its URLs.
    pub operations: &'a [(OperationView<'a>, Context<'a>)],
    /// The cursor of the next page.
    pub next: Option<&'a str>,
    /// What was asked for.
    pub params: &'a ListParams,
    /// How many operations a page has at the most.
    pub limit: usize,
}

/// What is asked about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Where it stands.
    Status,
    /// Its result.
    Result,
    /// What it is, and again whenever it has changed.
    Events,
    /// That it be canceled.
    Cancel(OnTerminal),
    /// That it be forgotten; refused while it is not terminal.
    Delete,
}

/// What a cancel does to an operation that has succeeded or failed already. One that was
/// canceled already is the answer to another cancel, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnTerminal {
    /// Nothing, and answers with the operation.
    Same,
    /// Nothing, and answers that it is too late.
    Refuse,
    /// The same, and to one that was canceled: a second cancel is too late.
    RefuseEnded,
    /// As [`Refuse`](Self::Refuse), unless the request names its current version by `If-Match`: then it
    /// forgets the operation, also one that was canceled.
    RefuseUnlessMatched,
    /// It forgets the operation, also one that was canceled before.
    Delete,
}
