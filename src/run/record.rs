//! The one place where an outcome is recorded.

use std::{future::Future, time::Duration};

use tokio_util::sync::CancellationToken;
use tower::{
    retry::backoff::{Backoff, ExponentialBackoffMaker, MakeBackoff},
    util::rng::HasherRng,
};

use super::{Node, Ran, work::Work};
use crate::{
    operation::{FailureKind, Outcome, RecordedResponse},
    store::{Repository, StoreError, Write},
};

/// Writes the outcome until the store has answered or the node is abandoned.
///
/// An outcome that the store refuses for what it holds is not worth the
/// operation: it fails as `result-too-large`.
pub(super) async fn record<R>(
    node: &Node<R>,
    work: &Work,
    outcome: Outcome<RecordedResponse>,
) -> Result<Ran, StoreError>
where
    R: Repository<Output = RecordedResponse>,
{
    let id = &work.id;
    let written = match write(node, work, &outcome).await {
        Err(error) if !error.is_transient() => {
            tracing::error!(%id, error = error.chain(), "the store refuses an outcome");
            write(node, work, &Outcome::failed(FailureKind::ResultTooLarge)).await
        }
        written => written,
    };
    match written {
        Ok(Write::Done(record)) => {
            let state = record.operation().state();
            tracing::debug!(%id, %state, "recorded");
            Ok(Ran::Recorded(state))
        }
        Ok(Write::Lost(_) | Write::Gone) => {
            tracing::debug!(%id, "ended by somebody else");
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
) -> Result<Write<RecordedResponse>, StoreError>
where
    R: Repository<Output = RecordedResponse>,
{
    let progress = work.unwritten_report().map(|(progress, _)| progress);
    until_answered(node.in_flight.abandoned(), || {
        node.store
            .finish(&work.id, work.token, outcome.clone(), progress.clone())
    })
    .await
}

/// Asks the store until it answers or refuses. A transient error is the last
/// one before `abandoned`.
pub(crate) async fn until_answered<T, F>(
    abandoned: &CancellationToken,
    mut ask: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pauses = None;
    loop {
        let error = match ask().await {
            Err(error) if error.is_transient() => error,
            answer => return answer,
        };
        tracing::warn!(
            error = error.chain(),
            "the store did not answer; trying again"
        );
        let pause = pauses
            .get_or_insert_with(pauses_between_tries)
            .next_backoff();
        tokio::select! {
            () = pause => {}
            () = abandoned.cancelled() => return Err(error),
        }
    }
}

/// From 20 ms to 5 s, doubling, spread by half so that nodes do not march in
/// step.
fn pauses_between_tries() -> impl Backoff<Future = tokio::time::Sleep> {
    let (shortest, longest) = (Duration::from_millis(20), Duration::from_secs(5));
    ExponentialBackoffMaker::new(shortest, longest, 0.5, HasherRng::default())
        .unwrap_or_default()
        .make_backoff()
}
