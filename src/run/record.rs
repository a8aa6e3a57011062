//! Recording outcomes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

use super::{
    RunOutcome, Runtime, log_end,
    persist::{ask_in_place, retry_until_certain_for},
    run_context::RunContext,
};
use crate::{
    operation::{FailureKind, Outcome, RecordedResponse},
    store::{Lease, Record, StoreError, Written},
};

/// Writes the outcome until the store has answered or the node is abandoned.
///
/// If the store refuses an outcome but takes a bare one, the operation fails as
/// `result-too-large`. If the store refuses both, the size of the outcome is not the reason, and
/// the write is retried: no other node has the outcome.
pub(super) async fn record<R>(
    node: &Arc<Runtime<R>>,
    work: &RunContext,
    outcome: Outcome<RecordedResponse>,
) -> Result<RunOutcome, StoreError>
where
    R: Lease<Output = RecordedResponse>,
{
    crash_point!("finishing");
    let progress = work.signals.unwritten_report();
    let progress = progress.map(|(progress, _)| progress);
    // Most outcomes are written at the first try. Clones of an outcome share its result.
    let finish = (node.store).finish(&work.id, work.token(), outcome.clone(), progress);
    if let Some(Ok(Written::Done(record))) = ask_in_place(node, finish) {
        return Ok(recorded(work, &record));
    }
    Box::pin(record_within(node, work, outcome, u32::MAX)).await
}

/// Notes and logs the end of the operation.
fn recorded(work: &RunContext, record: &Record<RecordedResponse>) -> RunOutcome {
    crash_point!("finished");
    log_end(record);
    work.recorded(record.operation());
    RunOutcome::Recorded(record.operation().state())
}

/// Does the same with a bound: after this many refusals of both outcomes, the last refusal is
/// returned as an error.
pub(super) async fn record_within<R>(
    node: &Arc<Runtime<R>>,
    work: &RunContext,
    outcome: Outcome<RecordedResponse>,
    refusals: u32,
) -> Result<RunOutcome, StoreError>
where
    R: Lease<Output = RecordedResponse>,
{
    let refused = AtomicU32::new(0);
    let id = &work.id;
    crash_point!("finishing");
    let progress = work
        .signals
        .unwritten_report()
        .map(|(progress, _)| progress);
    let finish = |outcome: Outcome<RecordedResponse>| {
        (node.store).finish(id, work.token(), outcome, progress.clone())
    };
    // Whether a bare outcome was tried whose result is unknown.
    let in_doubt = AtomicBool::new(false);
    // Boxed, since this is rarely needed.
    let finish_bare = || {
        Box::pin(async {
            in_doubt.store(true, Relaxed);
            let answer = finish(Outcome::failed(FailureKind::ResultTooLarge)).await;
            in_doubt.store(
                matches!(&answer, Err(error) if error.is_transient()),
                Relaxed,
            );
            answer
        })
    };
    let written = retry_until_certain_for(node, work, || async {
        if in_doubt.load(Relaxed) {
            match finish_bare().await {
                Err(error) if !error.is_transient() => {}
                answer => return answer,
            }
        }
        match finish(outcome.clone()).await {
            Err(error) if !error.is_transient() => {
                tracing::error!(%id, error = error.report(), "outcome refused by the store");
                let bare = finish_bare().await;
                match refused.fetch_add(1, Relaxed) + 1 < refusals {
                    true => bare.map_err(StoreError::unavailable),
                    false => bare,
                }
            }
            answer => answer,
        }
    });
    match written.await {
        Ok(Written::Done(record)) => Ok(recorded(work, &record)),
        Ok(Written::Lost(record)) => {
            tracing::debug!(%id, "operation already ended, outcome dropped");
            work.recorded(record.operation());
            Ok(RunOutcome::Refused)
        }
        Ok(Written::Gone) => {
            work.missing_in_store();
            work.lease_lost();
            Ok(RunOutcome::Refused)
        }
        Err(error) => {
            tracing::error!(%id, error = error.report(), "outcome not recorded");
            Err(error)
        }
    }
}
