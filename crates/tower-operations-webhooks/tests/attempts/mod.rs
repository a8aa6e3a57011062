//! What the tests of attempts share.

use std::time::Duration;

use tower_operations_webhooks::{AttemptOutcome, FailureReason, WebhookId};

pub(crate) fn id() -> WebhookId {
    "op_1".parse().unwrap()
}

/// Returns the status, the delay and the reason of a failure.
pub(crate) fn failure(outcome: AttemptOutcome) -> (Option<u16>, Option<Duration>, FailureReason) {
    match outcome {
        AttemptOutcome::Failed {
            status,
            retry_after,
            reason,
            ..
        } => (status.map(|status| status.as_u16()), retry_after, reason),
        other => panic!("{other:?}"),
    }
}
