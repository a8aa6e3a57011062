//! What customers do.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_operations::checker::{Answer, Ask};

use super::{
    client::Told,
    scenario::{Accepted, World},
    wish::Wish,
};

/// How long a customer looks after an order; what has not ended by then is
/// looked after at the end.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long all that was accepted may take once everything is healed.
const LAST: Duration = Duration::from_secs(120);
/// How many look after it at a time.
const READERS: usize = 32;

/// `SplitMix64`: small, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }
}

pub(crate) struct Customer {
    world: Arc<World>,
    random: Random,
    tenant: String,
}

/// A version that was seen.
struct Known {
    version: u64,
    etag: String,
}

/// What is ordered.
struct Order {
    title: String,
    body: Bytes,
    key: Option<String>,
}

impl Customer {
    pub(crate) fn new(world: Arc<World>, number: usize) -> Self {
        let mut seeds = Random::new(world.seed.wrapping_add(number as u64 + 1));
        Self {
            random: Random::new(seeds.next()),
            // Some share what is theirs.
            tenant: format!("tenant-{}", number % 5),
            world,
        }
    }

    /// Orders until there are no more orders.
    pub(crate) async fn shop(mut self) {
        while let Some(number) = self.world.next() {
            let (order, operation) = self.order(number).await;
            let accepted = Accepted {
                operation,
                tenant: self.tenant.clone(),
            };
            let cancels = self.random.one_in(8);
            if self.random.one_in(4) {
                let mut spectator = Self {
                    world: Arc::clone(&self.world),
                    random: Random::new(self.random.next()),
                    tenant: self.tenant.clone(),
                };
                tokio::join!(
                    self.follow(&accepted, cancels),
                    spectator.follow(&accepted, false)
                );
            } else {
                self.follow(&accepted, cancels).await;
            }
            self.look_again(&order, &accepted).await;
            self.world.done();
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
            let mut body = wanted.clone();
            body["title"] = title.as_str().into();
            let order = Order {
                title,
                body: body.to_string().into(),
                key: keyed.then(|| format!("{:016x}-{number}", self.world.seed)),
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

    async fn post_anywhere(&mut self, order: &Order) -> Option<String> {
        let node = self.node();
        self.post(order, node).await
    }

    /// What is ordered, without its title.
    fn report(&mut self) -> Value {
        let pages = self.random.between(1, 4);
        let page_ms = self.random.between(0, 150);
        match self.random.below(20) {
            0 => json!({ "pages": pages, "page_ms": page_ms, "outcome": "problem" }),
            1 => json!({ "pages": pages, "page_ms": page_ms, "outcome": "error" }),
            2 => json!({ "pages": pages, "page_ms": page_ms, "outcome": "panic" }),
            3 | 4 => json!({ "format": "pdf", "bytes": self.random.below(50_000) }),
            5 | 6 => json!({ "pages": 15, "page_ms": 200 }),
            _ => json!({ "pages": pages, "page_ms": page_ms }),
        }
    }

    /// Reads an operation in every way until it has ended, and perhaps cancels
    /// it meanwhile.
    async fn follow(&mut self, accepted: &Accepted, cancels: bool) {
        let begun = Instant::now();
        let mut known: Option<Known> = None;
        let mut cancels_at = cancels.then(|| self.random.below(4));
        while begun.elapsed() < PATIENCE {
            let operation = accepted.operation.clone();
            let held = self.random.between(1, 3) * 1_000;
            let (wait, since) = match self.random.below(4) {
                0 | 1 => (Some(held), None),
                2 => (Some(held), known.as_ref()),
                _ => (None, known.as_ref()),
            };
            let ask = match cancels_at {
                Some(0) => Ask::Cancel { operation },
                _ if self.random.one_in(4) => Ask::Result { operation },
                _ => Ask::Poll {
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
                Ask::Poll { .. } => since.map(|known| known.etag.clone()),
                _ => None,
            };
            let told = self.ask_anywhere(ask, etag).await;
            match &told.answer {
                Answer::Result(_) | Answer::Absent => return,
                Answer::Operation(sighting) if sighting.state.is_terminal() => return,
                Answer::Operation(sighting) => {
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
    async fn look_again(&mut self, order: &Order, accepted: &Accepted) {
        let operation = || accepted.operation.clone();
        let poll = Ask::Poll {
            operation: operation(),
            wait: None,
            since: None,
        };
        self.ask_anywhere(poll, None).await;
        let result = Ask::Result {
            operation: operation(),
        };
        self.ask_anywhere(result, None).await;
        if order.key.is_some() && self.random.one_in(2) {
            self.post_anywhere(order).await;
        }
    }

    /// Posts an order, and gives the operation that it is accepted as.
    async fn post(&self, order: &Order, node: usize) -> Option<String> {
        let ask = Ask::Post {
            title: order.title.clone(),
            key: order.key.clone(),
        };
        let told = self.ask(node, ask, order.body.clone(), None).await;
        let Answer::Accepted { operation } = told.answer else {
            return None;
        };
        let accepted = Accepted {
            operation: operation.clone(),
            tenant: self.tenant.clone(),
        };
        let mut all = self.world.accepted.lock().unwrap();
        all.insert(accepted);
        Some(operation)
    }

    async fn ask_anywhere(&mut self, ask: Ask, known: Option<String>) -> Told {
        let node = self.node();
        self.ask(node, ask, Bytes::new(), known).await
    }

    async fn ask(&self, node: usize, ask: Ask, body: Bytes, known: Option<String>) -> Told {
        let World {
            client,
            cluster,
            record,
            ..
        } = &*self.world;
        let tenant = &self.tenant;
        let wish = Wish {
            tenant,
            ask,
            body,
            known: known.as_deref(),
        };
        client.ask(&cluster.nodes[node], wish, record).await
    }

    fn node(&mut self) -> usize {
        self.random.below(self.world.cluster.nodes.len())
    }
}

/// Polls all that was accepted until it has ended, and reads its result.
pub(crate) async fn confirm(world: &Arc<World>) {
    let begun = Instant::now();
    let left: Vec<_> = world.accepted.lock().unwrap().iter().cloned().collect();
    let left = Arc::new(Mutex::new(left));
    let mut readers = JoinSet::new();
    for number in 0..READERS {
        let left = Arc::clone(&left);
        let mut customer = Customer::new(Arc::clone(world), usize::MAX / 2 + number);
        readers.spawn(async move {
            loop {
                let next = left.lock().unwrap().pop();
                let Some(accepted) = next else { return };
                customer.tenant.clone_from(&accepted.tenant);
                customer.confirm(accepted.operation, begun).await;
            }
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader.expect("a reader goes on");
    }
}

impl Customer {
    async fn confirm(&mut self, operation: String, begun: Instant) {
        loop {
            let poll = Ask::Poll {
                operation: operation.clone(),
                wait: Some(2_000),
                since: None,
            };
            let told = self.ask_anywhere(poll, None).await;
            let ended = match told.answer {
                Answer::Operation(sighting) => sighting.state.is_terminal(),
                Answer::Absent => true,
                _ => false,
            };
            if ended || begun.elapsed() > LAST {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.ask_anywhere(Ask::Result { operation }, None).await;
    }
}
