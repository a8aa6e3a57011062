//! Asking a store until it answers.

use std::{future::Future, pin::pin, time::Duration};

use tokio_util::sync::CancellationToken;
use tower::{
    retry::backoff::{Backoff, ExponentialBackoffMaker, MakeBackoff},
    util::rng::HasherRng,
};

use super::{Node, at_most::AtMost, at_once::at_once, catch_panic::CatchPanic};
use crate::store::{Repository, StoreError};

/// A store that has not answered by then is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the store until it answers or refuses. A store that is silent or panics
/// counts as unavailable. A transient error is the last one before the node is
/// abandoned.
pub(crate) async fn until_answered<R, T, F>(
    node: &Node<R>,
    mut ask: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    R: Repository,
    F: Future<Output = Result<T, StoreError>>,
{
    if node.store.never_waits()
        && let Some(Ok(answer)) = at_once(CatchPanic::new(ask()))
        && !is_transient(&answer)
    {
        return answer;
    }
    // On the heap, as what waits longer than that takes.
    Box::pin(ask_until_answered(node.in_flight.abandoned(), ask)).await
}

fn is_transient<T>(answer: &Result<T, StoreError>) -> bool {
    answer.as_ref().is_err_and(StoreError::is_transient)
}

async fn ask_until_answered<T, F>(
    abandoned: &CancellationToken,
    mut ask: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pauses = None;
    let mut last = None;
    loop {
        let answer = {
            let answer = pin!(AtMost::new(PATIENCE, CatchPanic::new(ask())));
            tokio::select! {
                biased;
                answer = answer => answer,
                () = abandoned.cancelled() => break,
            }
        };
        let error = match answer {
            Ok(Ok(Err(error))) if error.is_transient() => error,
            Ok(Ok(answer)) => return answer,
            Ok(Err(panicked)) => {
                panicked.forget();
                StoreError::unavailable("it panicked")
            }
            Err(_) => StoreError::unavailable("it did not answer in time"),
        };
        tracing::warn!(
            error = error.chain(),
            "the store did not answer; trying again"
        );
        last = Some(error);
        let pauses = pauses.get_or_insert_with(pauses_between_tries);
        tokio::select! {
            biased;
            () = pauses.next_backoff() => {}
            () = abandoned.cancelled() => break,
        }
    }
    Err(last.unwrap_or_else(|| StoreError::unavailable("it was not asked any more")))
}

/// From 20 ms to 5 s, doubling, spread by half so that nodes do not march in
/// step.
fn pauses_between_tries() -> impl Backoff<Future = tokio::time::Sleep> {
    let (shortest, longest) = (Duration::from_millis(20), Duration::from_secs(5));
    ExponentialBackoffMaker::new(shortest, longest, 0.5, HasherRng::default())
        .unwrap_or_default()
        .make_backoff()
}
