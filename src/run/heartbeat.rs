//! Renewing the leases on what a node runs, and hearing of what it lost.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    InFlight, Runtime, catch_panic::CatchPanic, operate::unreadable, run_context::RunContext,
};
use crate::{
    operation::OperationId,
    store::{Lease, LeaseHandle, StoreError},
};

/// Starts the heartbeat of `node`, if it has none.
///
/// It ends by itself once nothing has been live for an interval, or when the
/// node is drained or gone. If the runtime it is on goes before, what is still live on
/// another one starts it there.
pub(super) fn ensure<R: Lease>(node: &Arc<Runtime<R>>) {
    if node.in_flight.needs_heartbeat() {
        let beating = HeartbeatGuard {
            in_flight: Arc::clone(&node.in_flight),
            is_over: false,
        };
        tokio::spawn(beat(Arc::downgrade(node), Arc::clone(node), beating));
    }
}

/// Between two heartbeats that are begun for the same work.
const BETWEEN_BEGINNINGS: Duration = Duration::from_millis(250);

/// Waits for `waited_for`, and begins the heartbeat again whenever it is lost meanwhile.
/// Nothing else may wait for a signal of the work's at the same time.
pub(super) async fn beating_while<R: Lease, F: Future>(
    node: &Arc<Runtime<R>>,
    work: &RunContext,
    waited_for: F,
) -> F::Output {
    let mut waited_for = pin!(waited_for);
    loop {
        let begun = async {
            work.lost_heartbeat().await;
            begin_again(node).await;
        };
        tokio::select! {
            biased;
            output = waited_for.as_mut() => return output,
            () = begun => {}
        }
    }
}

/// Begins a heartbeat in the place of one that is lost. The next loss is heard of after a
/// while: a runtime that shuts down drops what is spawned on it at once, and goes only if
/// its tasks wait.
pub(super) async fn begin_again<R: Lease>(node: &Arc<Runtime<R>>) {
    ensure(node);
    sleep(BETWEEN_BEGINNINGS).await;
}

/// In the task that beats; dropped with it.
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
    let abandoned = first.in_flight.abandoned().clone();
    drop(first);
    let rounds = async {
        while let Some(node) = weak.upgrade() {
            // A store that panics is a store that is unavailable.
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
        () = rounds => {}
        () = abandoned.cancelled() => {}
    }
}

/// A third of the lease: listening for recalls, then renewing everything.
async fn round<R: Lease>(node: &Runtime<R>) {
    let until = Instant::now() + node.lease().term / 3;
    let mut listening = false;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // The first time only to be on the list: what was recalled before that
        // is found by renewing.
        let at_most = if listening { left } else { Duration::ZERO };
        let held = match recalled(node, at_most, left).await {
            Ok(_) if !listening => node.in_flight.held(),
            Ok(recalled) if recalled.is_empty() => {
                sleep_until(until).await;
                break;
            }
            // A recall is a rumour; what renewal says is true.
            Ok(recalled) => node.in_flight.held_among(&recalled),
            Err(error) => {
                tracing::warn!(error = error.chain(), "recalls cannot be heard");
                sleep_until(until).await;
                break;
            }
        };
        renew(node, &held).await;
        if listening {
            // However many rumours there are.
            sleep(BETWEEN_RECALLS.min(left)).await;
        }
        listening = true;
    }
    renew(node, &node.in_flight.held()).await;
}

/// The shortest time between two looks at what was recalled.
const BETWEEN_RECALLS: Duration = Duration::from_millis(10);

/// What was recalled. A store that is silent for longer than it may has nothing
/// to say.
async fn recalled<R: Lease>(
    node: &Runtime<R>,
    at_most: Duration,
    left: Duration,
) -> Result<Vec<OperationId>, StoreError> {
    let recalled = node.store.revoked(&node.lease().node, at_most);
    let recalled = timeout(left + BETWEEN_RECALLS, recalled).await;
    let recalled = recalled.unwrap_or_else(|_| Ok(Vec::new()))?;
    node.in_flight.told_of(&recalled);
    Ok(recalled)
}

/// How often a store is asked to find out which one it refuses: enough for one of
/// thousands, and little where it refuses all.
const ASKS: u32 = 64;

pub(super) async fn renew<R: Lease>(node: &Runtime<R>, held: &[LeaseHandle]) {
    // If the store refuses them together, one may be what it refuses: halves of them are
    // tried, so that it keeps no other from being renewed.
    let (mut parts, mut asks) = (vec![held], 0);
    while let Some(held) = parts.pop() {
        asks += 1;
        if held.is_empty() {
            continue;
        }
        let silent = |_| Err(StoreError::unavailable("it did not answer in time"));
        let renewed = timeout(node.lease().term / 3, node.store.renew(node.lease(), held));
        match renewed.await.unwrap_or_else(silent) {
            Ok(lost) => node.in_flight.recall(&lost),
            Err(error) if !error.is_transient() && held.len() > 1 && asks < ASKS => {
                let (some, others) = held.split_at(held.len() / 2);
                parts.extend([some, others]);
            }
            Err(error) => {
                let id = match held {
                    [one] => Some(&one.id),
                    _ => None,
                };
                if let (Some(id), false) = (id, error.is_transient()) {
                    unreadable(id, &error);
                } else {
                    let id = id.map(tracing::field::display);
                    tracing::warn!(id, error = error.chain(), "leases could not be renewed");
                }
            }
        }
    }
}
