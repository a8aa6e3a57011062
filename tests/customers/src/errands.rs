//! Occasional requests of customers.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use tower_operations::State;
use tower_operations_conformance::checker::{CallAnswer, CallRequest};

use crate::{
    Accepted, CHOSEN, Cluster, Customer, Log, TENANTS,
    order::{Order, long_report},
};

/// The time for which a post may be held.
const MAX_HOLD: Duration = Duration::from_secs(20);
/// The maximum number of tries of a request.
const TRIES: usize = 20;

impl<C: Cluster, L: Log> Customer<C, L> {
    /// Chooses the id of an operation, cancels the running operation, deletes it, and reuses
    /// the id for another operation. The second run has to begin while the first handler may
    /// still be cleaning up.
    pub(crate) async fn choose_id(&mut self, number: usize) {
        let id = format!("{CHOSEN}{:x}-{number}", self.world.seed);
        let first = Order {
            key: Some(self.key(number)),
            id: Some(id.clone()),
            ..Order::new(&format!("report {number}"), &long_report())
        };
        let node = self.node();
        if self.post_until_accepted(&first, node).await.is_none() {
            return;
        }
        let first = self.accepted(id.clone());
        self.wait_until_running(&first).await;
        let Some(etag) = self.cancel(&first).await else {
            return self.follow(&first, false).await;
        };
        if !self.delete(&first, etag).await {
            return;
        }
        let second = Order {
            key: Some(format!("{} again", self.key(number))),
            id: Some(format!("{id}#2")),
            ..Order::new(&format!("report {number}, again"), &self.report())
        };
        // Mostly at the node whose first handler may still run.
        let node = if self.random.one_in(3) {
            self.node()
        } else {
            node
        };
        if let Some(operation) = self.post_until_accepted(&second, node).await {
            let accepted = self.accepted(operation);
            self.follow(&accepted, false).await;
            self.repeat_reads(&second, &accepted).await;
        }
    }

    async fn wait_until_running(&mut self, accepted: &Accepted) {
        for _ in 0..TRIES {
            let reply = self.poll(accepted).await;
            let is_pending =
                matches!(&reply.0, CallAnswer::Operation(it) if it.state == State::Pending);
            if !is_pending && reply.0 != CallAnswer::Nothing {
                return;
            }
            sleep(Duration::from_millis(self.random.between(5, 50))).await;
        }
    }

    /// Cancels an operation, and returns the entity tag of the canceled version.
    async fn cancel(&mut self, accepted: &Accepted) -> Option<String> {
        for _ in 0..TRIES {
            let operation = accepted.operation.clone();
            let reply = self
                .ask_anywhere(CallRequest::Cancel { operation }, None)
                .await;
            match reply.answer {
                CallAnswer::Operation(_) => return reply.etag,
                CallAnswer::Refused { .. } | CallAnswer::Nothing => {}
                _ => return None,
            }
            sleep(Duration::from_millis(self.random.between(50, 250))).await;
        }
        None
    }

    /// Deletes an ended operation at the version of this tag. Returns false if the operation
    /// may still exist.
    async fn delete(&mut self, accepted: &Accepted, etag: String) -> bool {
        for _ in 0..TRIES {
            let operation = accepted.operation.clone();
            let delete = CallRequest::Delete { operation };
            match self.ask_anywhere(delete, Some(&etag)).await.answer {
                // The operation is absent if an earlier answer was lost.
                CallAnswer::Deleted | CallAnswer::Absent => {
                    self.world.record_deleted(accepted);
                    return true;
                }
                CallAnswer::Refused { .. } | CallAnswer::Nothing => {}
                _ => break,
            }
            sleep(Duration::from_millis(self.random.between(50, 250))).await;
        }
        false
    }

    /// Deletes an ended operation, and requests it once more by its id and by its key.
    pub(crate) async fn delete_and_repeat(&mut self, order: &Order, accepted: &Accepted) {
        let (CallAnswer::Operation(sighting), Some(etag)) = self.poll(accepted).await else {
            return;
        };
        if sighting.state.is_terminal() && self.delete(accepted, etag).await {
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
        let reply = self.ask_anywhere(poll, None).await;
        (reply.answer, reply.etag)
    }

    /// Uses the same key as another tenant at the same moment, for the same or for another
    /// request. Each tenant gets its own operation, and cannot read that of the other.
    pub(crate) async fn share_key(&mut self, number: usize) {
        let mut other = self.another();
        let next = self.random.between(1, TENANTS as u64 - 1);
        other.tenant = next_tenant(&self.tenant, next);
        let report = self.report();
        let title = format!("report {number}");
        let own_order = Order {
            key: Some(self.key(number)),
            ..Order::new(&title, &report)
        };
        let other_order = match self.random.one_in(2) {
            true => own_order.clone(),
            false => Order {
                key: own_order.key.clone(),
                ..Order::new(&format!("{title}, of another tenant"), &report)
            },
        };
        let nodes = self.world.cluster.nodes();
        let (here, there) = (self.node(), self.random.below(nodes));
        let (own, foreign) = tokio::join!(
            self.post_until_accepted(&own_order, here),
            other.post_until_accepted(&other_order, there)
        );
        let (Some(own), Some(foreign)) = (own, foreign) else {
            return;
        };
        let (own, foreign) = (self.accepted(own), other.accepted(foreign));
        // The operation of another tenant is absent for every request.
        self.poll(&foreign).await;
        let operation = foreign.operation.clone();
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
                self.ask_anywhere(CallRequest::Delete { operation }, Some("*"))
                    .await
            }
        };
        other.poll(&own).await;
        tokio::join!(self.follow(&own, false), other.follow(&foreign, false));
        self.repeat_reads(&own_order, &own).await;
        other.repeat_reads(&other_order, &foreign).await;
    }

    /// Posts an order with a long wait, and accepts a direct answer or a 202.
    pub(crate) async fn hold_post(&mut self, number: usize) {
        if self.random.one_in(2) {
            return self.hold_post_with_key(number).await;
        }
        let report = match self.random.one_in(2) {
            true => long_report(),
            false => self.report(),
        };
        let order = Order {
            max_hold: MAX_HOLD,
            ..Order::new(&format!("report {number}, held"), &report)
        };
        let node = self.node();
        match self.try_post(&order, node).await {
            CallAnswer::Accepted { operation } => {
                let accepted = self.accepted(operation);
                self.follow(&accepted, false).await;
                self.repeat_reads(&order, &accepted).await;
            }
            CallAnswer::Result(_) => self.world.record_direct_answer(),
            _ => self.order_and_follow(number).await,
        }
    }

    /// Posts an order with a key and a wait until there is a direct answer or a 202, and repeats
    /// it.
    async fn hold_post_with_key(&mut self, number: usize) {
        let (pages, page_ms) = (self.random.between(1, 10), self.random.between(0, 200));
        let report = json!({ "pages": pages, "page_ms": page_ms });
        let order = Order {
            key: Some(self.key(number)),
            max_hold: Duration::from_secs(self.random.between(1, 3)),
            ..Order::new(&format!("report {number}"), &report)
        };
        for _ in 0..TRIES {
            let node = self.node();
            match self.try_post(&order, node).await {
                CallAnswer::Accepted { operation } => {
                    let accepted = self.accepted(operation);
                    self.follow(&accepted, false).await;
                    return self.repeat_reads(&order, &accepted).await;
                }
                CallAnswer::Result(_) => {
                    self.world.record_direct_answer();
                    // Another run would be accepted at once.
                    let again = Order {
                        max_hold: Duration::ZERO,
                        ..order
                    };
                    let node = self.node();
                    self.try_post(&again, node).await;
                    return;
                }
                _ => sleep(Duration::from_millis(self.random.between(50, 250))).await,
            }
        }
    }

    /// Orders a report that takes 8 s.
    pub async fn order_long_report(&mut self, node: usize, name: &str) -> Option<String> {
        let order = Order {
            key: Some(format!("{:016x}-{name}", self.world.seed)),
            ..Order::new(name, &json!({ "pages": 40, "page_ms": 200 }))
        };
        self.post_until_accepted(&order, node).await
    }

    /// Holds a request at a node that is about to drain: a post or a poll.
    pub async fn hold_at(&mut self, node: usize, name: &str) {
        // Some reports end during the drain, and some would end after it.
        let pages = self.random.between(8, 40);
        let order = Order::new(name, &json!({ "pages": pages, "page_ms": 200 }));
        let polls = self.random.one_in(3);
        let max_hold = if polls { Duration::ZERO } else { MAX_HOLD };
        let reply = self.try_post(&Order { max_hold, ..order }, node).await;
        let CallAnswer::Accepted { operation } = reply else {
            return;
        };
        let accepted = self.accepted(operation.clone());
        if polls {
            let wait = u64::try_from(MAX_HOLD.as_millis()).ok();
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

/// Returns the tenant that is `next` numbers after this one.
fn next_tenant(tenant: &str, next: u64) -> String {
    let number = tenant.rsplit('-').next().and_then(|it| it.parse().ok());
    let number: u64 = number.expect("tenants have numbers");
    format!("tenant-{}", (number + next) % TENANTS as u64)
}
