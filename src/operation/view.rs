use std::borrow::Cow;

use http::StatusCode;

use super::{
    Failure, FailureKind, Metadata, Operation, OperationId, Payload, PayloadView, Problem, State,
    problem::{in_one_word, of_an_error},
    recorded::RecordedResponse,
};
use crate::codec::{operation_json, push_operation, push_result};

/// A borrowed operation with its result type erased, from which a
/// [`Dialect`](crate::dialect::Dialect) writes responses.
#[derive(Debug, Clone, Copy)]
pub struct OperationView<'a> {
    id: &'a OperationId,
    state: State,
    problem: Option<&'a Problem>,
    failure_kind: Option<FailureKind>,
    reason: Option<&'a str>,
    response: Option<PayloadView<'a>>,
    metadata: &'a Metadata,
}

impl<'a> OperationView<'a> {
    pub(super) fn new<T: Payload>(operation: &'a Operation<T>) -> Self {
        Self {
            id: operation.id(),
            state: operation.state(),
            problem: operation.problem(),
            failure_kind: operation.failure().and_then(Failure::kind),
            reason: operation.reason(),
            response: operation.response().map(Payload::view),
            metadata: operation.metadata(),
        }
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> &'a OperationId {
        self.id
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns the problem of a failed operation.
    #[must_use]
    pub fn problem(&self) -> Option<&'a Problem> {
        self.problem
    }

    /// Returns the kind of a failure that this crate raised; `None` if the operation has
    /// not failed, or the service itself failed.
    #[must_use]
    pub fn failure_kind(&self) -> Option<FailureKind> {
        self.failure_kind
    }

    /// Returns the status, 4xx or 5xx, that is sent for a failed operation: the status of
    /// the response that came with the failure, else the status of the problem. A status
    /// that is missing or not 4xx or 5xx becomes 500. A status in the body of that response
    /// is only advisory (RFC 9457, section 3.1.2).
    #[must_use]
    pub fn error_status(&self) -> Option<StatusCode> {
        let problem = self.problem?;
        Some(match self.recorded() {
            Some(recorded) => of_an_error(recorded.status()),
            None => problem.error_status(),
        })
    }

    /// Returns an error code for programs for a failed operation: the `code` of its
    /// problem, or one derived from the [`failure_kind`](Self::failure_kind) (`TimedOut`)
    /// or from the [`error_status`](Self::error_status) (`UnprocessableEntity`).
    #[must_use]
    pub fn error_code(&self) -> Option<Cow<'a, str>> {
        let problem = self.problem?;
        Some(match (problem.code(), self.failure_kind) {
            (None, Some(kind)) => in_one_word(kind.code()).into(),
            _ => problem.error_code_at(self.error_status()),
        })
    }

    /// Returns whether a retry of the same request can succeed: the value of the problem's
    /// extension member `retryable`, or else derived from the
    /// [`error_status`](Self::error_status), as in [`Problem::is_retryable`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        let failed = self.problem.zip(self.error_status());
        failed.is_some_and(|(problem, status)| problem.is_retryable_at(status))
    }

    /// Returns the reason for the cancellation, if one was given.
    #[must_use]
    pub fn reason(&self) -> Option<&'a str> {
        self.reason
    }

    /// Returns the result, or the response that came with a failure.
    #[must_use]
    pub fn response(&self) -> Option<PayloadView<'a>> {
        self.response
    }

    /// Returns the recorded response, if [`response`](Self::response) is one.
    #[must_use]
    pub fn recorded(&self) -> Option<&'a RecordedResponse> {
        match self.response? {
            PayloadView::Response(recorded) => Some(recorded),
            PayloadView::Json(_) => None,
        }
    }

    /// Returns times, progress, method and name.
    #[must_use]
    pub fn metadata(&self) -> &'a Metadata {
        self.metadata
    }

    /// Appends the flat JSON of the operation to `out`. A result of more than
    /// `inline_limit` bytes is left out; it is available from the result resource.
    ///
    /// # Errors
    /// The error of the result's `Serialize`.
    pub fn write_json(
        &self,
        inline_limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        push_operation(self, inline_limit, out)
    }

    /// Returns the JSON that [`write_json`](Self::write_json) appends, in a new buffer with
    /// room for `more` further bytes.
    pub(crate) fn json(
        &self,
        inline_limit: usize,
        more: usize,
    ) -> Result<Vec<u8>, serde_json::Error> {
        operation_json(self, inline_limit, more)
    }

    /// Appends the JSON of the result alone, if there is one and it can be embedded.
    /// Returns whether it was appended.
    ///
    /// # Errors
    /// The error of the result's `Serialize`.
    pub fn write_result(
        &self,
        inline_limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, serde_json::Error> {
        push_result(self, inline_limit, out)
    }
}
