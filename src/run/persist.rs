//! Retrying a store until it answers.

use std::{future::Future, ops::ControlFlow, pin::pin, sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Runtime,
    catch_panic::{CatchPanic, Panicked},
    heartbeat,
    run_context::RunContext,
    timeout::Timeout,
};
use crate::{
    operation::OperationId,
    pauses::Pauses,
    store::{Lease, StoreError},
};

/// The time after which a request to a silent store is repeated.
const PATIENCE: Duration = Duration::from_secs(30);

/// Retries a request to the store until the store answers or refuses. A store that is silent or
/// panics counts as unavailable. A transient error is returned only if the node is abandoned.
///
/// `about` is the operation that the request concerns, if there is one.
///
/// The request is boxed, since it may have to wait.
pub(crate) async fn retry_until_certain<R, T, F>(
    node: &Runtime<R>,
    about: Option<&OperationId>,
    ask: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    Box::pin(ask_until_certain(node.in_flight.abandoned(), about, ask)).await
}

/// Does the same for a live run, whose lease is renewed meanwhile.
pub(super) async fn retry_until_certain_for<R, T, F>(
    node: &Arc<Runtime<R>>,
    work: &RunContext,
    ask: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    R: Lease,
    F: Future<Output = Result<T, StoreError>>,
{
    let asked = ask_until_certain(node.in_flight.abandoned(), Some(&work.id), ask);
    Box::pin(heartbeat::beating_while(node, work, asked)).await
}

/// Returns the answer of the store if it is certain, or the error that requires a retry.
fn certain<T>(
    asked: Result<Result<T, StoreError>, Panicked>,
) -> ControlFlow<Result<T, StoreError>, StoreError> {
    match asked {
        Ok(Err(error)) if error.is_transient() => ControlFlow::Continue(error),
        Ok(answer) => ControlFlow::Break(answer),
        Err(panicked) => {
            panicked.forget();
            ControlFlow::Continue(StoreError::unavailable("the store panicked"))
        }
    }
}

/// Asks until the answer is certain.
async fn ask_until_certain<T, F>(
    abandoned: &CancellationToken,
    about: Option<&OperationId>,
    mut ask: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pauses = Pauses::default();
    let mut failed: Option<StoreError> = None;
    loop {
        if let Some(error) = &failed {
            tracing::warn!(
                id = about.map(tracing::field::display),
                error = error.report(),
                "store unavailable, retrying"
            );
            tokio::select! {
                biased;
                () = sleep(pauses.next()) => {}
                () = abandoned.cancelled() => break,
            }
        }
        let asked = {
            let asked = pin!(Timeout::new(PATIENCE, CatchPanic::new(ask())));
            tokio::select! {
                biased;
                asked = asked => asked,
                () = abandoned.cancelled() => break,
            }
        };
        failed = Some(match asked.map(certain) {
            Ok(ControlFlow::Break(answer)) => return answer,
            Ok(ControlFlow::Continue(error)) => error,
            Err(_) => StoreError::unavailable("no answer in time"),
        });
    }
    Err(failed.unwrap_or_else(|| StoreError::unavailable("the node was abandoned")))
}
