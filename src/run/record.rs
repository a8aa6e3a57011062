//! The one place where an outcome is recorded.

use super::{Node, Ran, persist::until_answered, work::Work};
use crate::{
    operation::{FailureKind, Outcome, RecordedResponse},
    store::{Repository, StoreError, Write},
};

/// Writes the outcome until the store has answered or the node is abandoned.
///
/// An outcome that the store refuses for what it holds is not worth the
/// operation: it fails as `result-too-large`. That is tried until it is taken,
/// whatever the store says.
pub(super) async fn record<R>(
    node: &Node<R>,
    work: &Work,
    outcome: Outcome<RecordedResponse>,
) -> Result<Ran, StoreError>
where
    R: Repository<Output = RecordedResponse>,
{
    let id = &work.id;
    crash_point!("finishing");
    let written = match write(node, work, &outcome, |error| error).await {
        Err(error) if !error.is_transient() => {
            tracing::error!(%id, error = error.chain(), "the store refuses an outcome");
            let bare = Outcome::failed(FailureKind::ResultTooLarge);
            write(node, work, &bare, StoreError::unavailable).await
        }
        written => written,
    };
    match written {
        Ok(Write::Done(record)) => {
            crash_point!("finished");
            let state = record.operation().state();
            tracing::debug!(%id, %state, "recorded");
            work.recorded(record.operation());
            Ok(Ran::Recorded(state))
        }
        Ok(Write::Lost(record)) => {
            tracing::debug!(%id, "ended by somebody else");
            work.recorded(record.operation());
            Ok(Ran::Refused)
        }
        Ok(Write::Gone) => {
            work.recalled();
            Ok(Ran::Refused)
        }
        Err(error) => {
            tracing::error!(%id, error = error.chain(), "an outcome could not be recorded");
            Err(error)
        }
    }
}

async fn write<R>(
    node: &Node<R>,
    work: &Work,
    outcome: &Outcome<RecordedResponse>,
    error: impl Fn(StoreError) -> StoreError,
) -> Result<Write<RecordedResponse>, StoreError>
where
    R: Repository<Output = RecordedResponse>,
{
    let progress = work.unwritten_report().map(|(progress, _)| progress);
    until_answered(node.in_flight.abandoned(), || {
        let finish = node
            .store
            .finish(&work.id, work.token(), outcome.clone(), progress.clone());
        async { finish.await.map_err(&error) }
    })
    .await
}
