//! Turning a response into an outcome.

use crate::operation::{OperationId, Outcome, RecordedResponse};

/// Returns the outcome of a run whose service gave this response. `id` is the id of the operation.
pub(super) fn outcome_of(
    id: &OperationId,
    recorded: RecordedResponse,
) -> Outcome<RecordedResponse> {
    if !recorded.is_final() {
        let status = recorded.status().as_u16();
        tracing::error!(%id, status, "response is not final, request failed");
    }
    recorded.into_outcome()
}
