//! Reads of an operation, until it has ended and afterwards.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tower_operations_conformance::checker::{CallAnswer, CallRequest};

use crate::{
    Accepted, Cluster, Customer, Log, answer::SeenEvent, order::Order, request::ClientRequest,
};

/// The time for which a customer follows an order; later ends are confirmed at the end of
/// the scenario.
const PATIENCE: Duration = Duration::from_secs(12);

/// A version that the customer has read.
struct ReadVersion {
    version: u64,
    etag: String,
}

impl<C: Cluster, L: Log> Customer<C, L> {
    /// Reads an operation in every way until it has ended. Cancels it before, if `cancels` is set.
    pub async fn follow(&mut self, accepted: &Accepted, cancels: bool) {
        let begun = Instant::now();
        let mut last_read: Option<ReadVersion> = None;
        let mut cancels_at = cancels.then(|| self.random.below(4));
        while begun.elapsed() < PATIENCE && !self.world.is_damaged(&accepted.operation) {
            if self.random.one_in(6) {
                if self.follow_events(accepted).await {
                    return;
                }
                continue;
            }
            let operation = accepted.operation.clone();
            let hold = self.random.between(1, 3) * 1_000;
            let (wait, since) = match self.random.below(4) {
                0 | 1 => (Some(hold), None),
                2 => (Some(hold), last_read.as_ref()),
                _ => (None, last_read.as_ref()),
            };
            let ask = match cancels_at {
                Some(0) => CallRequest::Cancel { operation },
                _ if self.random.one_in(4) => CallRequest::Result { operation },
                _ => CallRequest::Poll {
                    operation,
                    wait,
                    since: since.map(|read| read.version),
                },
            };
            cancels_at = match cancels_at {
                Some(0) | None => None,
                Some(left) => Some(left - 1),
            };
            let etag = match &ask {
                CallRequest::Poll { .. } => since.map(|read| read.etag.clone()),
                _ => None,
            };
            let reply = self.ask_anywhere(ask, etag.as_deref()).await;
            match &reply.answer {
                CallAnswer::Result(_) | CallAnswer::Absent => return,
                CallAnswer::Operation(sighting) if sighting.state.is_terminal() => return,
                CallAnswer::Operation(sighting) => {
                    last_read = reply.etag.map(|etag| ReadVersion {
                        version: sighting.version,
                        etag,
                    });
                }
                _ => {}
            }
            sleep(Duration::from_millis(self.random.between(5, 60))).await;
        }
    }

    /// Follows the events of an operation, and continues at any node after the last one where the
    /// stream ended. Returns whether the operation has ended.
    async fn follow_events(&mut self, accepted: &Accepted) -> bool {
        let mut last: Option<SeenEvent> = None;
        for _ in 0..=self.random.below(3) {
            let request = ClientRequest {
                tenant: &self.tenant,
                ask: CallRequest::Events {
                    operation: accepted.operation.clone(),
                    after: last.as_ref().map(|event| event.seen.version),
                },
                body: Bytes::new(),
                known: last.as_ref().map(|event| &*event.id),
            };
            let node = self.random.below(self.world.cluster.nodes());
            let patience = Duration::from_millis(self.random.between(20, 1_500));
            let event = self.world.follow_events(node, request, patience).await;
            last = event.or(last);
            if matches!(&last, Some(event) if event.seen.state.is_terminal()) {
                return true;
            }
        }
        false
    }

    /// Repeats reads and the post of an ended operation at any node.
    pub(crate) async fn repeat_reads(&mut self, order: &Order, accepted: &Accepted) {
        let operation = || accepted.operation.clone();
        let poll = CallRequest::Poll {
            operation: operation(),
            wait: None,
            since: None,
        };
        self.ask_anywhere(poll, None).await;
        let result = CallRequest::Result {
            operation: operation(),
        };
        self.ask_anywhere(result, None).await;
        if order.key.is_some() && self.random.one_in(2) {
            self.post_anywhere(order).await;
        }
    }
}
