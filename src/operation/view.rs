use std::borrow::Cow;

use http::StatusCode;

use super::{
    Failure, FailureKind, Metadata, Operation, OperationId, Payload, PayloadView, Problem, State,
    json,
    problem::{in_one_word, of_an_error},
    recorded::RecordedResponse,
};

/// A borrowed operation whose result type is out of sight: what a
/// [`Dialect`](crate::dialect::Dialect) turns into words.
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

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &'a OperationId {
        self.id
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What went wrong, if it failed.
    #[must_use]
    pub fn problem(&self) -> Option<&'a Problem> {
        self.problem
    }

    /// Which failure of this crate's it is; `None` if the service itself has failed.
    #[must_use]
    pub fn failure_kind(&self) -> Option<FailureKind> {
        self.failure_kind
    }

    /// The status that is sent for what has failed, 4xx or 5xx: that of the response that
    /// came with the failure, else that of the problem, and 500 where it has none, or none
    /// of an error. What the body of that response says of its status is advisory (RFC
    /// 9457, section 3.1.2).
    #[must_use]
    pub fn error_status(&self) -> Option<StatusCode> {
        let problem = self.problem?;
        Some(match self.recorded() {
            Some(recorded) => of_an_error(recorded.status()),
            None => problem.error_status(),
        })
    }

    /// A word for programs for what has failed: the `code` of its problem, or one made of
    /// the [`failure_kind`](Self::failure_kind) (`TimedOut`), or of the
    /// [`error_status`](Self::error_status) (`UnprocessableEntity`).
    #[must_use]
    pub fn error_code(&self) -> Option<Cow<'a, str>> {
        let problem = self.problem?;
        Some(match (problem.code(), self.failure_kind) {
            (None, Some(kind)) => in_one_word(kind.code()).into(),
            _ => problem.error_code_at(self.error_status()),
        })
    }

    /// Whether the same request can succeed another time: what the problem's extension
    /// member `retryable` says, or else the [`error_status`](Self::error_status), as in
    /// [`Problem::is_retryable`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        let failed = self.problem.zip(self.error_status());
        failed.is_some_and(|(problem, status)| problem.is_retryable_at(status))
    }

    /// Why it was canceled, if it was and somebody said.
    #[must_use]
    pub fn reason(&self) -> Option<&'a str> {
        self.reason
    }

    /// The result, or the response that came with a failure.
    #[must_use]
    pub fn response(&self) -> Option<PayloadView<'a>> {
        self.response
    }

    /// The recorded response, if that is what the result is.
    #[must_use]
    pub fn recorded(&self) -> Option<&'a RecordedResponse> {
        match self.response? {
            PayloadView::Response(recorded) => Some(recorded),
            PayloadView::Json(_) => None,
        }
    }

    /// Times, progress, method and name.
    #[must_use]
    pub fn metadata(&self) -> &'a Metadata {
        self.metadata
    }

    /// Appends the flat JSON of the operation to `out`. A result of more than
    /// `inline_limit` bytes is left to the result resource.
    ///
    /// # Errors
    /// What the result's own `Serialize` says.
    pub fn write_json(
        &self,
        inline_limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        json::write(self, inline_limit, out)
    }

    /// What [`write_json`](Self::write_json) appends, in a buffer of its own, which has
    /// room for `more` bytes.
    pub(crate) fn json(
        &self,
        inline_limit: usize,
        more: usize,
    ) -> Result<Vec<u8>, serde_json::Error> {
        json::whole(self, inline_limit, more)
    }

    /// Appends the JSON of the result alone, if there is one and it can be
    /// embedded; says whether it did.
    ///
    /// # Errors
    /// What the result's own `Serialize` says.
    pub fn write_result(
        &self,
        inline_limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, serde_json::Error> {
        json::write_result(self, inline_limit, out)
    }
}
