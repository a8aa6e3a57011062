//! Failures of the inner service and of stored data, with their log lines.

use crate::{
    BoxError,
    operation::{Failure, FailureKind, OperationId, Outcome, Problem, RecordedResponse},
    store::StoreError,
};

/// Returns the outcome of a response above the limit.
#[cold]
pub(super) fn too_large(
    id: &OperationId,
    limit: u64,
    has_results: bool,
) -> Outcome<RecordedResponse> {
    tracing::error!(%id, limit, "response above the limit, not recorded");
    let remedy = match has_results {
        true => "The application can raise its result limit.",
        false => "The application can raise its result limit, or set a result store.",
    };
    too_large_because(format!("The limit is {limit} bytes. {remedy}"))
}

/// Returns the outcome of a response that the store of operations refuses for good.
#[cold]
pub(super) fn refused_by_store(error: &StoreError, has_results: bool) -> Outcome<RecordedResponse> {
    let reason = match error {
        StoreError::TooLarge { limit, .. } => {
            format!("The store of operations takes at most {limit} bytes as one value.")
        }
        _ => "The store of operations refused it.".into(),
    };
    let remedy = match has_results {
        true => "The application can lower its result threshold.",
        false => "The application can set a result store.",
    };
    too_large_because(format!("{reason} {remedy}"))
}

fn too_large_because(detail: String) -> Outcome<RecordedResponse> {
    let kind = FailureKind::ResultTooLarge;
    let problem = Problem::from(kind).with_detail(detail);
    Outcome::Failed(Failure::from(problem).with_kind(Some(kind)))
}

/// Returns the outcome of a response that the result store does not take.
#[cold]
pub(super) fn not_stored(id: &OperationId, error: &StoreError) -> Outcome<RecordedResponse> {
    tracing::error!(%id, error = error.report(), "result not stored");
    Outcome::failed(FailureKind::ResultNotStored)
}

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
