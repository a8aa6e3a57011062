//! The customers.

use std::sync::Arc;

use bytes::Bytes;
use tower_operations_conformance::checker::CallRequest;

use crate::{Accepted, Cluster, Log, Random, Reply, World, request::ClientRequest};

/// The number of tenants; several customers share a tenant.
pub const TENANTS: usize = 5;

/// A customer of a tenant.
#[derive(Debug)]
pub struct Customer<C, L> {
    /// The world that all customers share.
    pub world: Arc<World<C, L>>,
    /// The tenant whose operations the customer orders.
    pub tenant: String,
    pub(crate) random: Random,
}

impl<C: Cluster, L: Log> Customer<C, L> {
    /// Returns a customer with random numbers of its own. Several numbers share a tenant.
    pub fn new(world: Arc<World<C, L>>, number: usize) -> Self {
        let mut seeds = Random::new(world.seed.wrapping_add(number as u64 + 1));
        Self {
            random: Random::new(seeds.next_u64()),
            tenant: format!("tenant-{}", number % TENANTS),
            world,
        }
    }

    /// Returns another customer of the same tenant.
    pub fn another(&mut self) -> Self {
        Self {
            world: Arc::clone(&self.world),
            random: Random::new(self.random.next_u64()),
            tenant: self.tenant.clone(),
        }
    }

    /// Places orders until there are no more.
    pub async fn place_orders(mut self) {
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

    pub(crate) async fn order_and_follow(&mut self, number: usize) {
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

    /// Returns an operation of the tenant.
    pub fn accepted(&self, operation: String) -> Accepted {
        Accepted {
            operation,
            tenant: self.tenant.clone(),
        }
    }

    /// Sends a request about an operation to a random node. The entity tag makes a poll or a
    /// delete conditional.
    pub async fn ask_anywhere(&mut self, ask: CallRequest, etag: Option<&str>) -> Reply {
        let node = self.node();
        self.ask(node, ask, etag).await
    }

    /// Reads the list of the tenant, each page at another node. Returns false if a page was not
    /// answered.
    pub async fn list(&mut self) -> bool {
        let first = self.node();
        self.world.list(first, &self.tenant).await
    }

    /// Sends a request about an operation to a node, as [`ask_anywhere`](Self::ask_anywhere)
    /// does.
    pub async fn ask(&self, node: usize, ask: CallRequest, etag: Option<&str>) -> Reply {
        let request = ClientRequest {
            tenant: &self.tenant,
            ask,
            body: Bytes::new(),
            known: etag,
        };
        self.send(node, request).await
    }

    /// Sends a request, and notes the end of an operation that was read.
    pub(crate) async fn send(&self, node: usize, request: ClientRequest<'_>) -> Reply {
        let operation = match &request.ask {
            CallRequest::Poll { operation, .. } | CallRequest::Result { operation } => {
                Some(operation.clone())
            }
            _ => None,
        };
        let reply = self.world.ask(node, request).await;
        if let Some(operation) = operation {
            let accepted = self.accepted(operation);
            self.world.record_answer(&accepted, &reply.answer);
        }
        reply
    }

    /// Returns a random node.
    pub fn node(&mut self) -> usize {
        self.random.below(self.world.cluster.nodes())
    }
}
