use super::{
    Metadata, Operation, OperationId, Payload, PayloadView, Problem, State, json,
    recorded::RecordedResponse,
};

/// A borrowed operation whose result type is out of sight: what a
/// [`Dialect`](crate::dialect::Dialect) turns into words.
#[derive(Debug, Clone, Copy)]
pub struct OperationView<'a> {
    id: &'a OperationId,
    state: State,
    problem: Option<&'a Problem>,
    response: Option<PayloadView<'a>>,
    metadata: &'a Metadata,
}

impl<'a> OperationView<'a> {
    pub(super) fn new<T: Payload>(operation: &'a Operation<T>) -> Self {
        Self {
            id: operation.id(),
            state: operation.state(),
            problem: operation.problem(),
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

    /// What [`write_json`](Self::write_json) appends, in a buffer of its own.
    pub(crate) fn json(&self, inline_limit: usize) -> Result<Vec<u8>, serde_json::Error> {
        json::whole(self, inline_limit)
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
