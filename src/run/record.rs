//! The one place where an outcome is recorded.

use std::{future::Future, time::Duration};

use tokio_util::sync::CancellationToken;
use tower::{
    retry::backoff::{Backoff, ExponentialBackoffMaker, MakeBackoff},
    util::rng::HasherRng,
};

use super::{Node, Ran, work::Work};
use crate::{
    operation::{Outcome, RecordedResponse},
    store::{Repository, StoreError, Write},
};

/// Writes the outcome until the store has answered or the node is abandoned.
pub(super) async fn record<R>(
    node: &Node<R>,
    work: &Work,
    outcome: Outcome<RecordedResponse>,
) -> Result<Ran, StoreError>
where
    R: Repository<Output = RecordedResponse>,
{
    let progress = work.unwritten_report().map(|(progress, _)| progress);
    let (id, token) = (&work.id, work.token);
    let written = until_answered(node.in_flight.abandoned(), || {
        node.store
            .finish(id, token, outcome.clone(), progress.clone())
    });
    match written.await {
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

/// Asks the store until it answers. An error is the last one before
/// `abandoned`.
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
            Ok(answer) => return Ok(answer),
            Err(error) => error,
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
