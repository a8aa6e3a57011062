//! The care of a node for its runs: renewing their leases, receiving revocations, and telling
//! the runs that are overdue.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    InFlight, Runtime, catch_panic::CatchPanic, failures::unreadable, run_context::RunContext,
};
use crate::{
    environment,
    operation::OperationId,
    store::{Lease, LeaseHandle, StoreError},
};

/// Starts the heartbeat of `node`, if none is running.
///
/// The heartbeat ends once no run has been live for an interval, or when the node is drained or
/// dropped. If the runtime of the heartbeat shuts down first, live runs on another runtime
/// restart the heartbeat there.
pub(super) fn ensure<R: Lease>(node: &Arc<Runtime<R>>) {
    if node.in_flight.needs_heartbeat() {
        let beating = HeartbeatGuard {
            in_flight: Arc::clone(&node.in_flight),
            is_over: false,
        };
        environment::spawn(beat(Arc::downgrade(node), Arc::clone(node), beating));
    }
}

/// The interval between two restarts of the heartbeat for the same run.
const BETWEEN_BEGINNINGS: Duration = Duration::from_millis(250);

/// Awaits `waited_for`, and restarts the heartbeat whenever it is lost meanwhile. No other
/// task may await a signal of this run at the same time.
pub(super) async fn beating_while<R: Lease, F: Future>(
    node: &Arc<Runtime<R>>,
    work: &RunContext,
    waited_for: F,
) -> F::Output {
    let mut waited_for = pin!(waited_for);
    loop {
        let begun = async {
            work.signals.lost_heartbeat().await;
            begin_again(node).await;
        };
        tokio::select! {
            biased;
            output = waited_for.as_mut() => return output,
            () = begun => {}
        }
    }
}

/// Restarts a lost heartbeat, and pauses before the next loss is awaited. A runtime that shuts
/// down drops spawned tasks at once, and completes its shutdown only if its tasks wait.
pub(super) async fn begin_again<R: Lease>(node: &Arc<Runtime<R>>) {
    ensure(node);
    sleep(BETWEEN_BEGINNINGS).await;
}

/// A guard in the heartbeat's task, dropped with the task.
struct HeartbeatGuard {
    in_flight: Arc<InFlight>,
    is_over: bool,
}

impl Drop for HeartbeatGuard {
    fn drop(&mut self) {
        if !self.is_over {
            self.in_flight.lost_heartbeat();
        }
    }
}

async fn beat<R: Lease>(
    weak: Weak<Runtime<R>>,
    first: Arc<Runtime<R>>,
    mut beating: HeartbeatGuard,
) {
    let in_flight = Arc::clone(&first.in_flight);
    let abandoned = in_flight.abandoned();
    drop(first);
    let rounds = async {
        while let Some(node) = weak.upgrade() {
            // A store that panics counts as unavailable.
            if let Err(panicked) = CatchPanic::new(round(&node)).await {
                panicked.forget();
                sleep(node.lease().term / 10).await;
            }
            if node.in_flight.rest() {
                beating.is_over = true;
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = rounds => {}
        () = in_flight.sweep() => {}
        () = abandoned.cancelled() => {}
    }
}

/// Runs for a third of the term: listens for revocations, then renews every lease. Repeats a
/// renewal that the store did not answer soon if a revocation caused it: the run may be wasted
/// work.
async fn round<R: Lease>(node: &Runtime<R>) {
    let until = Instant::now() + node.lease().term / 3;
    let mut listening = false;
    let mut unanswered = BTreeSet::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // The first call only subscribes: earlier revocations are found by the renewal.
        let at_most = match (listening, unanswered.is_empty()) {
            (false, _) => Duration::ZERO,
            (true, true) => left,
            (true, false) => left.min(BEFORE_REPETITION),
        };
        let held = match revocations(node, at_most, left).await {
            Ok(recalled) if !listening => {
                unanswered.extend(recalled);
                node.in_flight.lease_handles()
            }
            Ok(recalled) if recalled.is_empty() && unanswered.is_empty() => {
                sleep_until(until).await;
                break;
            }
            // Revocations are hints; renewal is authoritative.
            Ok(recalled) => {
                unanswered.extend(recalled);
                node.in_flight.held_among(&unanswered)
            }
            Err(error) => {
                tracing::warn!(error = error.report(), "revocations not received");
                if unanswered.is_empty() {
                    sleep_until(until).await;
                    break;
                }
                sleep(at_most).await;
                node.in_flight.held_among(&unanswered)
            }
        };
        if renew(node, &held).await {
            unanswered.clear();
        }
        if listening {
            // The pause bounds the number of renewals, however many hints come.
            sleep(BETWEEN_REVOCATIONS.min(left)).await;
        }
        listening = true;
    }
    renew(node, &node.in_flight.lease_handles()).await;
}

/// The pause before a renewal is repeated that the store did not answer.
const BEFORE_REPETITION: Duration = Duration::from_millis(250);

/// The shortest interval between two reads of revocations.
const BETWEEN_REVOCATIONS: Duration = Duration::from_millis(10);

/// Returns the revoked leases; none if the store is silent for too long.
async fn revocations<R: Lease>(
    node: &Runtime<R>,
    at_most: Duration,
    left: Duration,
) -> Result<Vec<OperationId>, StoreError> {
    let recalled = node.store.revoked(&node.lease().node, at_most);
    let recalled = timeout(left + BETWEEN_REVOCATIONS, recalled).await;
    let recalled = recalled.unwrap_or_else(|_| Ok(Vec::new()))?;
    node.in_flight.note_revocations(&recalled);
    Ok(recalled)
}

/// The bound on requests that search for a refused lease: enough for one lease among thousands,
/// and few where the store refuses all.
const ASKS: u32 = 64;

/// Renews leases. Returns false if the store has not answered for some of them.
pub(super) async fn renew<R: Lease>(node: &Runtime<R>, held: &[LeaseHandle]) -> bool {
    // If the store refuses a batch, a single lease may be the reason. Halves of the batch
    // are tried, so that this lease does not prevent the renewal of the others.
    let (mut parts, mut asks) = (vec![held], 0);
    let mut is_answered = true;
    while let Some(held) = parts.pop() {
        asks += 1;
        if held.is_empty() {
            continue;
        }
        let silent = |_| Err(StoreError::unavailable("no answer in time"));
        let renewed = timeout(node.lease().term / 3, node.store.renew(node.lease(), held));
        match renewed.await.unwrap_or_else(silent) {
            Ok(lost) => node.in_flight.stop_lost(&lost),
            Err(error) if !error.is_transient() && held.len() > 1 && asks < ASKS => {
                let (some, others) = held.split_at(held.len() / 2);
                parts.extend([some, others]);
            }
            Err(error) => {
                is_answered &= !error.is_transient();
                let id = match held {
                    [one] => Some(&one.id),
                    _ => None,
                };
                if let (Some(id), false) = (id, error.is_transient()) {
                    unreadable(id, &error);
                } else {
                    let id = id.map(tracing::field::display);
                    tracing::warn!(id, error = error.report(), "leases not renewed, retrying");
                }
            }
        }
    }
    is_answered
}
