//! What customers do now and then.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use tower_operations::State;
use tower_operations_conformance::checker::{CallAnswer, CallRequest};

use super::{
    customer::{Customer, Order, TENANTS, long},
    world::{Accepted, CHOSEN},
};

/// How long a post may be held.
const HELD: Duration = Duration::from_secs(20);
/// How often what may come to nothing is tried.
const TRIES: usize = 20;

impl Customer {
    /// Chooses the id of an operation, cancels it when it runs, has it forgotten, and
    /// chooses the same id for another one, whose run has to begin while the first
    /// handler may still be tidying up.
    pub(super) async fn chooses_an_id(&mut self, number: usize) {
        let id = format!("{CHOSEN}{:x}-{number}", self.world.seed);
        let first = Order {
            key: Some(self.key(number)),
            id: Some(id.clone()),
            ..Order::of(&format!("report {number}"), &long())
        };
        let node = self.node();
        if self.insist(&first, node).await.is_none() {
            return;
        }
        let first = self.accepted(id.clone());
        self.sees_it_run(&first).await;
        let Some(etag) = self.cancels(&first).await else {
            return self.follow(&first, false).await;
        };
        if !self.forgets(&first, etag).await {
            return;
        }
        let again = Order {
            key: Some(format!("{} again", self.key(number))),
            id: Some(format!("{id}#2")),
            ..Order::of(&format!("report {number}, again"), &self.report())
        };
        // Mostly where the first one may still be at work.
        let node = if self.random.one_in(3) {
            self.node()
        } else {
            node
        };
        if let Some(operation) = self.insist(&again, node).await {
            let accepted = self.accepted(operation);
            self.follow(&accepted, false).await;
            self.look_again(&again, &accepted).await;
        }
    }

    async fn sees_it_run(&mut self, accepted: &Accepted) {
        for _ in 0..TRIES {
            let told = self.poll(accepted).await;
            let is_pending =
                matches!(&told.0, CallAnswer::Operation(it) if it.state == State::Pending);
            if !is_pending && told.0 != CallAnswer::Nothing {
                return;
            }
            sleep(Duration::from_millis(self.random.between(5, 50))).await;
        }
    }

    /// Says at which version it is canceled.
    async fn cancels(&mut self, accepted: &Accepted) -> Option<String> {
        for _ in 0..TRIES {
            let operation = accepted.operation.clone();
            let told = self
                .ask_anywhere(CallRequest::Cancel { operation }, None)
                .await;
            match told.answer {
                CallAnswer::Operation(_) => return told.etag,
                CallAnswer::Refused { .. } | CallAnswer::Nothing => {}
                _ => return None,
            }
            sleep(Duration::from_millis(self.random.between(50, 250))).await;
        }
        None
    }

    /// Has forgotten what has ended at the version of this tag; false if it may still
    /// be there.
    async fn forgets(&mut self, accepted: &Accepted, etag: String) -> bool {
        for _ in 0..TRIES {
            let operation = accepted.operation.clone();
            let forget = CallRequest::Forget { operation };
            match self.ask_anywhere(forget, Some(&etag)).await.answer {
                // Absent, where the answer was lost.
                CallAnswer::Forgotten | CallAnswer::Absent => {
                    self.world.forgets(accepted);
                    return true;
                }
                CallAnswer::Refused { .. } | CallAnswer::Nothing => {}
                _ => break,
            }
            sleep(Duration::from_millis(self.random.between(50, 250))).await;
        }
        false
    }

    /// Has an operation forgotten that has ended, and asks for it once more, by its name
    /// and by its key.
    pub(super) async fn has_it_forgotten(&mut self, order: &Order, accepted: &Accepted) {
        let (CallAnswer::Operation(sighting), Some(etag)) = self.poll(accepted).await else {
            return;
        };
        if sighting.state.is_terminal() && self.forgets(accepted, etag).await {
            self.poll(accepted).await;
            if order.key.is_some() {
                let node = self.node();
                self.post(order, node).await;
            }
        }
    }

    async fn poll(&mut self, accepted: &Accepted) -> (CallAnswer, Option<String>) {
        let poll = CallRequest::Poll {
            operation: accepted.operation.clone(),
            wait: None,
            since: None,
        };
        let told = self.ask_anywhere(poll, None).await;
        (told.answer, told.etag)
    }

    /// Uses the same key as another tenant at the same moment, for the same or for
    /// another request; each is to have an operation, and none sees that of the other.
    pub(super) async fn meets_another_tenant(&mut self, number: usize) {
        let mut other = self.another();
        let next = self.random.between(1, TENANTS as u64 - 1);
        other.tenant = neighbour(&self.tenant, next);
        let wanted = self.report();
        let title = format!("report {number}");
        let mine = Order {
            key: Some(self.key(number)),
            ..Order::of(&title, &wanted)
        };
        let theirs = match self.random.one_in(2) {
            true => mine.clone(),
            false => Order {
                key: mine.key.clone(),
                ..Order::of(&format!("{title}, of another tenant"), &wanted)
            },
        };
        let nodes = self.world.cluster.nodes.len();
        let (here, there) = (self.node(), self.random.below(nodes));
        let (me, them) = tokio::join!(self.insist(&mine, here), other.insist(&theirs, there));
        let (Some(me), Some(them)) = (me, them) else {
            return;
        };
        let (me, them) = (self.accepted(me), other.accepted(them));
        // What is another's is not there, for whatever it is asked.
        self.poll(&them).await;
        let operation = them.operation.clone();
        match self.random.below(3) {
            0 => {
                self.ask_anywhere(CallRequest::Cancel { operation }, None)
                    .await
            }
            1 => {
                self.ask_anywhere(CallRequest::Result { operation }, None)
                    .await
            }
            _ => {
                self.ask_anywhere(CallRequest::Forget { operation }, Some("*"))
                    .await
            }
        };
        other.poll(&me).await;
        tokio::join!(self.follow(&me, false), other.follow(&them, false));
        self.look_again(&mine, &me).await;
        other.look_again(&theirs, &them).await;
    }

    /// Waits for the answer itself, and takes a 202 as well.
    pub(super) async fn holds_on(&mut self, number: usize) {
        let wanted = match self.random.one_in(2) {
            true => long(),
            false => self.report(),
        };
        let order = Order {
            held: HELD,
            ..Order::of(&format!("report {number}, held"), &wanted)
        };
        let node = self.node();
        match self.try_post(&order, node).await {
            CallAnswer::Accepted { operation } => {
                let accepted = self.accepted(operation);
                self.follow(&accepted, false).await;
                self.look_again(&order, &accepted).await;
            }
            CallAnswer::Result(_) => self.world.answered(),
            _ => self.shop_once(number).await,
        }
    }

    /// Orders what takes 8 s.
    pub(super) async fn orders_a_long_one(&mut self, node: usize, name: &str) -> Option<String> {
        let order = Order {
            key: Some(format!("{:016x}-{name}", self.world.seed)),
            ..Order::of(name, &json!({ "pages": 40, "page_ms": 200 }))
        };
        self.insist(&order, node).await
    }

    /// Holds on to a node that is about to be drained, by a post or by a poll.
    pub(super) async fn holds_on_to(&mut self, node: usize, name: &str) {
        // Some end while it drains, and some would only end after it.
        let pages = self.random.between(8, 40);
        let order = Order::of(name, &json!({ "pages": pages, "page_ms": 200 }));
        let polls = self.random.one_in(3);
        let held = if polls { Duration::ZERO } else { HELD };
        let told = self.try_post(&Order { held, ..order }, node).await;
        let CallAnswer::Accepted { operation } = told else {
            return;
        };
        let accepted = self.accepted(operation.clone());
        if polls {
            let wait = u64::try_from(HELD.as_millis()).ok();
            let poll = CallRequest::Poll {
                operation,
                wait,
                since: None,
            };
            self.ask(node, poll, None).await;
        }
        self.follow(&accepted, false).await;
    }
}

/// Another tenant, so many after this one.
fn neighbour(tenant: &str, next: u64) -> String {
    let number = tenant.rsplit('-').next().and_then(|it| it.parse().ok());
    let number: u64 = number.expect("tenants have numbers");
    format!("tenant-{}", (number + next) % TENANTS as u64)
}
