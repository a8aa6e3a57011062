//! Failures of the inner service and of stored data, with their log lines.

use crate::{
    BoxError,
    operation::{FailureKind, OperationId, Outcome, RecordedResponse},
    store::StoreError,
};

/// Logs that the stored data of a running operation is damaged. The operation is not
/// retried, since the store would refuse it again.
#[cold]
pub(super) fn unreadable(id: &OperationId, error: &StoreError) {
    tracing::error!(%id, error = error.report(), "running operation not read");
}

/// Returns the outcome of a service error. The id is in the span of the run as well.
pub(super) fn inner_error(id: &OperationId, error: &BoxError) -> Outcome<RecordedResponse> {
    tracing::error!(
        %id,
        error = &**error as &dyn std::error::Error,
        "the inner service returned an error"
    );
    Outcome::failed(FailureKind::InnerError)
}
