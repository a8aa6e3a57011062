//! Orders of reports.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower_operations_conformance::checker::{CallAnswer, CallRequest};

use crate::{Cluster, Customer, Log, request::ClientRequest};

/// The maximum number of repeated posts of an order that may never be accepted.
const MAX_POSTS: usize = 80;

/// An order of a report.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// The title of the report.
    pub title: String,
    /// The body of the post.
    pub body: Bytes,
    /// The idempotency key.
    pub key: Option<String>,
    /// The name of the operation in the log, if the customer chooses the id.
    pub id: Option<String>,
    /// The time for which the answer may be held.
    pub max_hold: Duration,
}

impl Order {
    /// Returns an order of a report of this title, without a key, an id or a hold.
    pub fn new(title: &str, report: &Value) -> Self {
        let mut body = report.clone();
        body["title"] = title.into();
        Self {
            title: title.into(),
            body: body.to_string().into(),
            ..Self::default()
        }
    }
}

/// Returns a report that takes 3 s.
pub(crate) fn long_report() -> Value {
    json!({ "pages": 15, "page_ms": 200 })
}

impl<C: Cluster, L: Log> Customer<C, L> {
    /// Posts an order until the answer is a 202. Each post without a key is another order.
    pub(crate) async fn order(&mut self, number: usize) -> (Order, String) {
        let has_key = self.random.one_in(2);
        let report = self.report();
        for again in 0_u32.. {
            let title = match (has_key, again) {
                (true, _) | (_, 0) => format!("report {number}"),
                (false, _) => format!("report {number}, order {again}"),
            };
            let order = Order {
                key: has_key.then(|| self.key(number)),
                ..Order::new(&title, &report)
            };
            let replies = match has_key && self.random.one_in(3) {
                // At the same moment, perhaps at two nodes.
                true => {
                    let (one, other) = (self.node(), self.node());
                    let (one, other) =
                        tokio::join!(self.post(&order, one), self.post(&order, other));
                    vec![one, other]
                }
                false => vec![self.post_anywhere(&order).await],
            };
            if let Some(operation) = replies.into_iter().flatten().next() {
                return (order, operation);
            }
            sleep(Duration::from_millis(self.random.between(50, 250))).await;
        }
        unreachable!("a customer posts until the order is accepted");
    }

    /// Returns the idempotency key of an order.
    pub(crate) fn key(&self, number: usize) -> String {
        format!("{:016x}-{number}", self.world.seed)
    }

    /// Posts an order until the answer is a 202, first at this node and then at any. Returns
    /// `None` once there were too many tries.
    pub async fn post_until_accepted(&mut self, order: &Order, node: usize) -> Option<String> {
        for again in 0..MAX_POSTS {
            let node = if again == 0 { node } else { self.node() };
            if let Some(operation) = self.post(order, node).await {
                return Some(operation);
            }
            sleep(Duration::from_millis(self.random.between(50, 250))).await;
        }
        None
    }

    pub(crate) async fn post_anywhere(&mut self, order: &Order) -> Option<String> {
        let node = self.node();
        self.post(order, node).await
    }

    /// Returns a random report, without its title.
    pub(crate) fn report(&mut self) -> Value {
        let pages = self.random.between(1, 4);
        let page_ms = self.random.between(0, 150);
        match self.random.below(20) {
            0 => json!({ "pages": pages, "page_ms": page_ms, "outcome": "problem" }),
            1 => json!({ "pages": pages, "page_ms": page_ms, "outcome": "error" }),
            2 => json!({ "pages": pages, "page_ms": page_ms, "outcome": "panic" }),
            3 | 4 => json!({ "format": "pdf", "bytes": self.random.below(50_000) }),
            5 | 6 => long_report(),
            // Larger than any store accepts.
            7 if self.random.one_in(2) => json!({ "format": "pdf", "bytes": 1_200_000 }),
            _ => json!({ "pages": pages, "page_ms": page_ms }),
        }
    }

    /// Posts an order, and returns the accepted operation.
    pub(crate) async fn post(&self, order: &Order, node: usize) -> Option<String> {
        match self.try_post(order, node).await {
            CallAnswer::Accepted { operation } => Some(operation),
            _ => None,
        }
    }

    /// Posts an order, and returns the answer.
    pub async fn try_post(&self, order: &Order, node: usize) -> CallAnswer {
        let ask = CallRequest::Post {
            title: order.title.clone(),
            key: order.key.clone(),
            id: order.id.clone(),
            hold: (!order.max_hold.is_zero())
                .then(|| u64::try_from(order.max_hold.as_millis()).unwrap_or(u64::MAX)),
        };
        let request = ClientRequest {
            tenant: &self.tenant,
            ask,
            body: order.body.clone(),
            known: None,
        };
        let reply = self.send(node, request).await;
        if let CallAnswer::Accepted { operation } = &reply.answer {
            self.world.record_accepted(self.accepted(operation.clone()));
        }
        reply.answer
    }
}
