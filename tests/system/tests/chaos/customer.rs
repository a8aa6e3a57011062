//! The customers of a scenario.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower_operations_conformance::checker::{CallAnswer, CallRequest};

use super::{
    client::Reply,
    random::Random,
    wish::ClientRequest,
    world::{Accepted, World},
};

/// The time for which a customer follows an order; later ends are confirmed at the end of
/// the scenario.
const PATIENCE: Duration = Duration::from_secs(12);
/// The maximum number of repeated posts of an order that may never be accepted.
const MAX_POSTS: usize = 80;

/// The number of tenants; several customers share a tenant.
pub(crate) const TENANTS: usize = 5;

pub(crate) struct Customer {
    pub(super) world: Arc<World>,
    pub(super) random: Random,
    pub(super) tenant: String,
}

/// A version that the customer has read.
struct ReadVersion {
    version: u64,
    etag: String,
}

/// An order of a report.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    pub(super) title: String,
    pub(super) body: Bytes,
    pub(super) key: Option<String>,
    /// The name of the operation in the log, if the customer chooses the id.
    pub(super) id: Option<String>,
    /// The time for which the answer may be held.
    pub(super) max_hold: Duration,
}

impl Order {
    pub(super) fn new(title: &str, report: &Value) -> Self {
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
pub(super) fn long_report() -> Value {
    json!({ "pages": 15, "page_ms": 200 })
}

impl Customer {
    pub(crate) fn new(world: Arc<World>, number: usize) -> Self {
        let mut seeds = Random::new(world.seed.wrapping_add(number as u64 + 1));
        Self {
            random: Random::new(seeds.next()),
            tenant: format!("tenant-{}", number % TENANTS),
            world,
        }
    }

    /// Returns another customer of the same tenant.
    pub(super) fn another(&mut self) -> Self {
        Self {
            world: Arc::clone(&self.world),
            random: Random::new(self.random.next()),
            tenant: self.tenant.clone(),
        }
    }

    /// Places orders until there are no more.
    pub(crate) async fn place_orders(mut self) {
        while let Some(number) = self.world.next() {
            match self.random.below(16) {
                0 | 1 => self.choose_id(number).await,
                2 => self.share_key(number).await,
                3 => self.hold_post(number).await,
                _ => self.order_and_follow(number).await,
            }
            if self.random.one_in(400) {
                self.list().await;
            }
            self.world.complete_order();
        }
    }

    pub(super) async fn order_and_follow(&mut self, number: usize) {
        let (order, operation) = self.order(number).await;
        let accepted = self.accepted(operation);
        let cancels = self.random.one_in(8);
        if self.random.one_in(4) {
            let mut spectator = self.another();
            tokio::join!(
                self.follow(&accepted, cancels),
                spectator.follow(&accepted, false)
            );
        } else {
            self.follow(&accepted, cancels).await;
        }
        self.repeat_reads(&order, &accepted).await;
        if self.random.one_in(8) {
            self.delete_and_repeat(&order, &accepted).await;
        }
    }

    pub(super) fn accepted(&self, operation: String) -> Accepted {
        Accepted {
            operation,
            tenant: self.tenant.clone(),
        }
    }

    /// Posts an order until the answer is a 202. Each post without a key is another order.
    async fn order(&mut self, number: usize) -> (Order, String) {
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

    pub(super) fn key(&self, number: usize) -> String {
        format!("{:016x}-{number}", self.world.seed)
    }

    /// Posts an order until the answer is a 202, at most [`MAX_POSTS`] times.
    pub(super) async fn post_until_accepted(
        &mut self,
        order: &Order,
        node: usize,
    ) -> Option<String> {
        for again in 0..MAX_POSTS {
            let node = if again == 0 { node } else { self.node() };
            if let Some(operation) = self.post(order, node).await {
                return Some(operation);
            }
            sleep(Duration::from_millis(self.random.between(50, 250))).await;
        }
        None
    }

    pub(super) async fn post_anywhere(&mut self, order: &Order) -> Option<String> {
        let node = self.node();
        self.post(order, node).await
    }

    /// Returns a random report, without its title.
    pub(super) fn report(&mut self) -> Value {
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

    /// Reads an operation in every way until it has ended, and cancels it meanwhile if
    /// `cancels`.
    pub(super) async fn follow(&mut self, accepted: &Accepted, cancels: bool) {
        let begun = Instant::now();
        let mut last_read: Option<ReadVersion> = None;
        let mut cancels_at = cancels.then(|| self.random.below(4));
        while begun.elapsed() < PATIENCE && !self.world.is_damaged(&accepted.operation) {
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

    /// Repeats reads and the post of an ended operation at any node.
    pub(super) async fn repeat_reads(&mut self, order: &Order, accepted: &Accepted) {
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

    /// Posts an order, and returns the accepted operation.
    pub(super) async fn post(&self, order: &Order, node: usize) -> Option<String> {
        match self.try_post(order, node).await {
            CallAnswer::Accepted { operation } => Some(operation),
            _ => None,
        }
    }

    pub(super) async fn try_post(&self, order: &Order, node: usize) -> CallAnswer {
        let ask = CallRequest::Post {
            title: order.title.clone(),
            key: order.key.clone(),
            id: order.id.clone(),
        };
        let request = ClientRequest {
            tenant: &self.tenant,
            ask,
            body: order.body.clone(),
            max_hold: order.max_hold,
            etag: None,
        };
        let reply = self.send(node, request).await;
        if let CallAnswer::Accepted { operation } = &reply.answer {
            self.world.record_accepted(self.accepted(operation.clone()));
        }
        reply.answer
    }

    pub(super) async fn ask_anywhere(&mut self, ask: CallRequest, etag: Option<&str>) -> Reply {
        let node = self.node();
        self.ask(node, ask, etag).await
    }

    /// Reads the list of the tenant, each page at another node.
    pub(super) async fn list(&mut self) -> bool {
        let first = self.node();
        let World {
            client,
            cluster,
            record,
            ..
        } = &*self.world;
        let nodes = cluster.nodes.iter().cycle().skip(first);
        client.list(nodes, &self.tenant, record).await
    }

    pub(super) async fn ask(&self, node: usize, ask: CallRequest, etag: Option<&str>) -> Reply {
        let request = ClientRequest {
            tenant: &self.tenant,
            ask,
            body: Bytes::new(),
            max_hold: Duration::ZERO,
            etag,
        };
        self.send(node, request).await
    }

    async fn send(&self, node: usize, request: ClientRequest<'_>) -> Reply {
        let World {
            client,
            cluster,
            record,
            ..
        } = &*self.world;
        let operation = match &request.ask {
            CallRequest::Poll { operation, .. } | CallRequest::Result { operation } => {
                Some(operation.clone())
            }
            _ => None,
        };
        let reply = client.ask(&cluster.nodes[node], request, record).await;
        if let Some(operation) = operation {
            let accepted = self.accepted(operation);
            self.world.record_answer(&accepted, &reply.answer);
        }
        reply
    }

    pub(super) fn node(&mut self) -> usize {
        self.random.below(self.world.cluster.nodes.len())
    }
}
