//! Recording outcomes.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

use super::{
    RunOutcome, Runtime, catch_panic::catch_panic, failures::refused_by_store,
    persist::retry_until_certain_for, run_context::RunContext, span::has_subscriber,
};
use crate::{
    operation::{OperationId, Outcome, RecordedResponse},
    store::{Lease, StoreError, Written},
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
    if record_now(node, work, &outcome) {
        return Ok(RunOutcome::Recorded(outcome.state()));
    }
    Box::pin(record_within(node, work, outcome, u32::MAX)).await
}

/// Records the outcome at once, where the operation was created at once. Returns whether it is
/// recorded.
fn record_now<R>(node: &Runtime<R>, work: &RunContext, outcome: &Outcome<RecordedResponse>) -> bool
where
    R: Lease<Output = RecordedResponse>,
{
    // A report that is unwritten is written with the outcome.
    let Some(placed) = work.placed.filter(|_| !work.signals.raised().has_report) else {
        return false;
    };
    crash_point!("finishing");
    let finish = || {
        node.store
            .finish_now(placed, &work.id, work.token(), outcome)
    };
    if !catch_panic(finish).unwrap_or(false) {
        return false;
    }
    crash_point!("finished");
    work.recorded_as(outcome);
    if has_subscriber() || node.hook.is_some() {
        ended_now(node, &work.id);
    }
    true
}

/// Returns the number of bytes of the recorded body that are in memory: none of a body that is in a
/// result store.
pub(super) fn bytes_in_memory(outcome: &Outcome<RecordedResponse>) -> usize {
    let response = match outcome {
        Outcome::Succeeded(response) => response.as_ref(),
        Outcome::Failed(failure) => failure.response.as_ref(),
        Outcome::Canceled | Outcome::CanceledFor(_) => None,
    };
    response
        .and_then(RecordedResponse::body)
        .map_or(0, <[u8]>::len)
}

/// Tells of the end of an operation in a store that answers at once.
#[cold]
fn ended_now<R: Lease>(node: &Runtime<R>, id: &OperationId) {
    if let Some(Some(Ok(Some(record)))) = catch_panic(|| node.store.get_now(id)) {
        node.ended(&record);
    }
}

/// Does the same as [`record`] with a bound: after this many refusals of both outcomes, the last
/// refusal is returned as an error.
pub(super) async fn record_within<R>(
    node: &Arc<Runtime<R>>,
    work: &RunContext,
    outcome: Outcome<RecordedResponse>,
    refusals: u32,
) -> Result<RunOutcome, StoreError>
where
    R: Lease<Output = RecordedResponse>,
{
    // The outcome stays in memory until the store has taken it, which may last during an outage.
    let _counted = node
        .in_flight
        .bytes()
        .result_bytes(bytes_in_memory(&outcome));
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
    // The outcome without its body, once the store has refused it. Each try has the same one.
    let bare = OnceLock::new();
    // Whether a bare outcome was tried whose result is unknown.
    let in_doubt = AtomicBool::new(false);
    // Boxed, since this is rarely needed.
    let finish_bare = |bare: &Outcome<RecordedResponse>| {
        let bare = bare.clone();
        Box::pin(async {
            in_doubt.store(true, Relaxed);
            let answer = finish(bare).await;
            in_doubt.store(
                matches!(&answer, Err(error) if error.is_transient()),
                Relaxed,
            );
            answer
        })
    };
    let written = retry_until_certain_for(node, work, || async {
        if let Some(bare) = bare.get().filter(|_| in_doubt.load(Relaxed)) {
            match finish_bare(bare).await {
                Err(error) if !error.is_transient() => {}
                answer => return answer,
            }
        }
        match finish(outcome.clone()).await {
            Err(error) if !error.is_transient() => {
                tracing::error!(%id, error = error.report(), "outcome refused by the store");
                let bare = bare.get_or_init(|| refused_by_store(&error, node.results.is_some()));
                let answer = finish_bare(bare).await;
                match refused.fetch_add(1, Relaxed) + 1 < refusals {
                    true => answer.map_err(StoreError::unavailable),
                    false => answer,
                }
            }
            answer => answer,
        }
    });
    match written.await {
        Ok(Written::Done(record)) => {
            crash_point!("finished");
            let state = record.operation().state();
            node.ended(&record);
            work.recorded(record.operation());
            Ok(RunOutcome::Recorded(state))
        }
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
