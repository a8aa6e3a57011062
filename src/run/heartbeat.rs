//! Renewing the leases on what a node runs, and hearing of what it lost.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::Node;
use crate::store::{Held, Lease, StoreError};

/// Starts the heartbeat of `node`, if it has none.
///
/// It ends by itself once nothing has been live for an interval, or when the
/// node is drained or gone.
pub(super) fn ensure<R: Lease>(node: &Arc<Node<R>>) {
    if node.in_flight.needs_heartbeat() {
        tokio::spawn(beat(Arc::downgrade(node), Arc::clone(node)));
    }
}

async fn beat<R: Lease>(weak: Weak<Node<R>>, first: Arc<Node<R>>) {
    let abandoned = first.in_flight.abandoned().clone();
    drop(first);
    let rounds = async {
        while let Some(node) = weak.upgrade() {
            if let Err(error) = round(&node).await {
                tracing::warn!(error = error.chain(), "leases could not be renewed");
                sleep(Duration::from_secs(1).min(node.lease.term / 10)).await;
            }
            if node.in_flight.rest() {
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
async fn round<R: Lease>(node: &Node<R>) -> Result<(), StoreError> {
    let interval = node.lease.term / 3;
    let until = Instant::now() + interval;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let recalled = node.store.recalled(&node.lease.node, left).await?;
        if recalled.is_empty() {
            break;
        }
        // A recall is a rumour; what renewal says is true.
        renew(node, &node.in_flight.held_among(&recalled)).await?;
    }
    renew(node, &node.in_flight.held()).await
}

async fn renew<R: Lease>(node: &Node<R>, held: &[Held]) -> Result<(), StoreError> {
    if !held.is_empty() {
        let lost = node.store.renew(&node.lease, held).await?;
        node.in_flight.recall(&lost);
    }
    Ok(())
}
