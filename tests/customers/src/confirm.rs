//! The confirmation of all operations at the end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_operations_conformance::checker::{CallAnswer, CallRequest};

use crate::{Accepted, CHOSEN, Cluster, Customer, Log, TENANTS, World, id_of};

/// The time for accepted operations to end once all faults are healed.
const LAST: Duration = Duration::from_secs(120);
/// The number of concurrent readers.
const READERS: usize = 32;
/// The number of tries to read a list.
const TRIES: usize = 20;

/// Polls each accepted operation until it has ended, and reads its result. Reads the list of
/// each tenant afterwards.
pub async fn confirm<C: Cluster, L: Log>(world: &Arc<World<C, L>>) {
    let begun = Instant::now();
    let left = Arc::new(Mutex::new(world.to_confirm()));
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
        reader.expect("a reader does not panic");
    }
    let mut customer = Customer::new(Arc::clone(world), usize::MAX / 2 + READERS);
    for number in 0..TENANTS {
        customer.tenant = format!("tenant-{number}");
        for _ in 0..TRIES {
            if customer.list().await {
                break;
            }
            sleep(Duration::from_millis(250)).await;
        }
    }
}

/// Polls the operations that have not ended, again and again: their ends are seen before they
/// expire. Never returns.
pub async fn look_after<C: Cluster, L: Log>(world: Arc<World<C, L>>, interval: Duration) {
    let mut customer = Customer::new(Arc::clone(&world), usize::MAX / 2 + READERS + 1);
    loop {
        sleep(interval).await;
        for Accepted { operation, tenant } in world.open() {
            // Another operation may have a chosen id by now, unless this is the last one.
            if operation.starts_with(CHOSEN) && id_of(&operation) == operation {
                continue;
            }
            customer.tenant = tenant;
            let poll = CallRequest::Poll {
                operation,
                wait: None,
                since: None,
            };
            customer.ask_anywhere(poll, None).await;
        }
    }
}

impl<C: Cluster, L: Log> Customer<C, L> {
    async fn confirm(&mut self, operation: String, begun: Instant) {
        // A damaged operation may have any state, so one poll is enough.
        let tries = self.world.is_damaged(&operation).then_some(1);
        for _ in 0..tries.unwrap_or(usize::MAX) {
            let poll = CallRequest::Poll {
                operation: operation.clone(),
                wait: Some(2_000),
                since: None,
            };
            let reply = self.ask_anywhere(poll, None).await;
            let ended = match reply.answer {
                CallAnswer::Operation(sighting) => sighting.state.is_terminal(),
                CallAnswer::Absent => true,
                _ => false,
            };
            if ended || begun.elapsed() > LAST {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.ask_anywhere(CallRequest::Result { operation }, None)
            .await;
    }
}
