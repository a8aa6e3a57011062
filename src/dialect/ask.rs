use std::time::Duration;

use http::{HeaderMap, Method};

use crate::operation::OperationId;

/// A request to the operations' resources, as far as a dialect sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Inquiry<'a> {
    /// The method; `GET` for a `HEAD`.
    pub method: &'a Method,
    /// The path below the operations' root, beginning with `/`; the root itself
    /// is `/`. Still percent-encoded.
    pub path: &'a str,
    /// The query, without the question mark.
    pub query: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The id, if the application finds it by itself.
    pub id: Option<&'a str>,
}

impl<'a> Inquiry<'a> {
    /// An inquiry without an id of the application's.
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
        }
    }
}

/// What a request asks of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// Which operation.
    pub id: OperationId,
    /// What about it.
    pub intent: Intent,
    /// How long the client is willing to wait for the answer.
    pub wait: Option<Duration>,
}

impl Ask {
    /// A question that wants its answer at once.
    #[must_use]
    pub fn new(id: OperationId, intent: Intent) -> Self {
        Self {
            id,
            intent,
            wait: None,
        }
    }

    /// Sets how long the client is willing to wait.
    #[must_use]
    pub fn wait(self, wait: Option<Duration>) -> Self {
        Self { wait, ..self }
    }
}

/// What is asked about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Intent {
    /// Where it stands.
    Status,
    /// Its result.
    Result,
    /// That it be canceled.
    Cancel(WhenFinished),
    /// That it be forgotten; refused while it is not terminal.
    Forget,
}

/// What a cancel does to an operation that has succeeded or failed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFinished {
    /// Nothing, and answers with the operation.
    Same,
    /// Nothing, and answers that it is too late.
    Refuse,
    /// It forgets the operation.
    Forget,
}
