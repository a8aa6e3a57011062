//! What customers do.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower_operations_conformance::checker::{CallAnswer, CallRequest};

use super::{
    client::Told,
    random::Random,
    wish::Wish,
    world::{Accepted, World},
};

/// How long a customer looks after an order; what has not ended by then is
/// looked after at the end.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often the same is posted, where it may be that it is never accepted.
const INSISTENCE: usize = 80;

/// Some share what is theirs.
pub(crate) const TENANTS: usize = 5;

pub(crate) struct Customer {
    pub(super) world: Arc<World>,
    pub(super) random: Random,
    pub(super) tenant: String,
}

/// A version that was seen.
struct Known {
    version: u64,
    etag: String,
}

/// What is ordered.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    pub(super) title: String,
    pub(super) body: Bytes,
    pub(super) key: Option<String>,
    /// What the log calls the operation, where the customer chooses its id.
    pub(super) id: Option<String>,
    /// How long the answer may be held.
    pub(super) held: Duration,
}

impl Order {
    pub(super) fn of(title: &str, wanted: &Value) -> Self {
        let mut body = wanted.clone();
        body["title"] = title.into();
        Self {
            title: title.into(),
            body: body.to_string().into(),
            ..Self::default()
        }
    }
}

/// A report that takes 3 s.
pub(super) fn long() -> Value {
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

    /// Another of the same tenant.
    pub(super) fn another(&mut self) -> Self {
        Self {
            world: Arc::clone(&self.world),
            random: Random::new(self.random.next()),
            tenant: self.tenant.clone(),
        }
    }

    /// Orders until there are no more orders.
    pub(crate) async fn shop(mut self) {
        while let Some(number) = self.world.next() {
            match self.random.below(16) {
                0 | 1 => self.chooses_an_id(number).await,
                2 => self.meets_another_tenant(number).await,
                3 => self.holds_on(number).await,
                _ => self.shop_once(number).await,
            }
            if self.random.one_in(400) {
                self.list().await;
            }
            self.world.done();
        }
    }

    pub(super) async fn shop_once(&mut self, number: usize) {
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
        self.look_again(&order, &accepted).await;
        if self.random.one_in(8) {
            self.has_it_forgotten(&order, &accepted).await;
        }
    }

    pub(super) fn accepted(&self, operation: String) -> Accepted {
        Accepted {
            operation,
            tenant: self.tenant.clone(),
        }
    }

    /// Posts until there is a 202. Without a key, each try is another order.
    async fn order(&mut self, number: usize) -> (Order, String) {
        let keyed = self.random.one_in(2);
        let wanted = self.report();
        for again in 0_u32.. {
            let title = match (keyed, again) {
                (true, _) | (_, 0) => format!("report {number}"),
                (false, _) => format!("report {number}, order {again}"),
            };
            let order = Order {
                key: keyed.then(|| self.key(number)),
                ..Order::of(&title, &wanted)
            };
            let told = match keyed && self.random.one_in(3) {
                // At the same moment, perhaps at two nodes.
                true => {
                    let (one, other) = (self.node(), self.node());
                    let (one, other) =
                        tokio::join!(self.post(&order, one), self.post(&order, other));
                    vec![one, other]
                }
                false => vec![self.post_anywhere(&order).await],
            };
            if let Some(operation) = told.into_iter().flatten().next() {
                return (order, operation);
            }
            sleep(Duration::from_millis(self.random.between(50, 250))).await;
        }
        unreachable!("customers are patient");
    }

    pub(super) fn key(&self, number: usize) -> String {
        format!("{:016x}-{number}", self.world.seed)
    }

    /// Posts the same until there is a 202, or there have been too many tries.
    pub(super) async fn insist(&mut self, order: &Order, node: usize) -> Option<String> {
        for again in 0..INSISTENCE {
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

    /// What is ordered, without its title.
    pub(super) fn report(&mut self) -> Value {
        let pages = self.random.between(1, 4);
        let page_ms = self.random.between(0, 150);
        match self.random.below(20) {
            0 => json!({ "pages": pages, "page_ms": page_ms, "outcome": "problem" }),
            1 => json!({ "pages": pages, "page_ms": page_ms, "outcome": "error" }),
            2 => json!({ "pages": pages, "page_ms": page_ms, "outcome": "panic" }),
            3 | 4 => json!({ "format": "pdf", "bytes": self.random.below(50_000) }),
            5 | 6 => long(),
            // Larger than what any store here takes.
            7 if self.random.one_in(2) => json!({ "format": "pdf", "bytes": 1_200_000 }),
            _ => json!({ "pages": pages, "page_ms": page_ms }),
        }
    }

    /// Reads an operation in every way until it has ended, and perhaps cancels
    /// it meanwhile.
    pub(super) async fn follow(&mut self, accepted: &Accepted, cancels: bool) {
        let begun = Instant::now();
        let mut known: Option<Known> = None;
        let mut cancels_at = cancels.then(|| self.random.below(4));
        while begun.elapsed() < PATIENCE && !self.world.is_damaged(&accepted.operation) {
            let operation = accepted.operation.clone();
            let held = self.random.between(1, 3) * 1_000;
            let (wait, since) = match self.random.below(4) {
                0 | 1 => (Some(held), None),
                2 => (Some(held), known.as_ref()),
                _ => (None, known.as_ref()),
            };
            let ask = match cancels_at {
                Some(0) => CallRequest::Cancel { operation },
                _ if self.random.one_in(4) => CallRequest::Result { operation },
                _ => CallRequest::Poll {
                    operation,
                    wait,
                    since: since.map(|known| known.version),
                },
            };
            cancels_at = match cancels_at {
                Some(0) | None => None,
                Some(left) => Some(left - 1),
            };
            let etag = match &ask {
                CallRequest::Poll { .. } => since.map(|known| known.etag.clone()),
                _ => None,
            };
            let told = self.ask_anywhere(ask, etag.as_deref()).await;
            match &told.answer {
                CallAnswer::Result(_) | CallAnswer::Absent => return,
                CallAnswer::Operation(sighting) if sighting.state.is_terminal() => return,
                CallAnswer::Operation(sighting) => {
                    known = told.etag.map(|etag| Known {
                        version: sighting.version,
                        etag,
                    });
                }
                _ => {}
            }
            sleep(Duration::from_millis(self.random.between(5, 60))).await;
        }
    }

    /// Asks again what was answered before, anywhere.
    pub(super) async fn look_again(&mut self, order: &Order, accepted: &Accepted) {
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

    /// Posts an order, and gives the operation that it is accepted as.
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
        let wish = Wish {
            tenant: &self.tenant,
            ask,
            body: order.body.clone(),
            held: order.held,
            known: None,
        };
        let told = self.wish(node, wish).await;
        if let CallAnswer::Accepted { operation } = &told.answer {
            self.world.accepts(self.accepted(operation.clone()));
        }
        told.answer
    }

    pub(super) async fn ask_anywhere(&mut self, ask: CallRequest, known: Option<&str>) -> Told {
        let node = self.node();
        self.ask(node, ask, known).await
    }

    /// Reads all that is the tenant's, each page at another node.
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

    pub(super) async fn ask(&self, node: usize, ask: CallRequest, known: Option<&str>) -> Told {
        let wish = Wish {
            tenant: &self.tenant,
            ask,
            body: Bytes::new(),
            held: Duration::ZERO,
            known,
        };
        self.wish(node, wish).await
    }

    async fn wish(&self, node: usize, wish: Wish<'_>) -> Told {
        let World {
            client,
            cluster,
            record,
            ..
        } = &*self.world;
        let operation = match &wish.ask {
            CallRequest::Poll { operation, .. } | CallRequest::Result { operation } => {
                Some(operation.clone())
            }
            _ => None,
        };
        let told = client.ask(&cluster.nodes[node], wish, record).await;
        if let Some(operation) = operation {
            let accepted = self.accepted(operation);
            self.world.saw(&accepted, &told.answer);
        }
        told
    }

    pub(super) fn node(&mut self) -> usize {
        self.random.below(self.world.cluster.nodes.len())
    }
}
