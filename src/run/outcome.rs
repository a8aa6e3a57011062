//! What a response comes to.

use http::Response;

use crate::operation::{Outcome, RecordedResponse, WholeBody};

/// The outcome of a run whose service gave this response.
pub(super) fn outcome_of(response: Response<WholeBody>) -> Outcome<RecordedResponse> {
    let recorded = RecordedResponse::new(response);
    if !recorded.is_final() {
        let status = recorded.status().as_u16();
        tracing::error!(status, "the inner service gave no final response");
    }
    recorded.into_outcome()
}
