//! Turning a response into an outcome.

use http::{Response, uri::PathAndQuery};

use crate::operation::{BufferedBody, OperationId, Outcome, RecordedResponse, resolve_references};

/// Returns the outcome of a run whose service gave this response. References in the header are
/// resolved against `base`, so that they mean the same wherever the response is replayed. `id`
/// is the id of the operation.
pub(super) fn outcome_of(
    id: &OperationId,
    mut response: Response<BufferedBody>,
    base: &PathAndQuery,
) -> Outcome<RecordedResponse> {
    resolve_references(response.headers_mut(), base);
    let recorded = RecordedResponse::new(response);
    if !recorded.is_final() {
        let status = recorded.status().as_u16();
        tracing::error!(%id, status, "response is not final, request failed");
    }
    recorded.into_outcome()
}
