//! The last look at everything.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_operations_conformance::checker::{CallAnswer, CallRequest};

use super::{
    customer::{Customer, TENANTS},
    world::World,
};

/// How long all that was accepted may take once everything is healed.
const LAST: Duration = Duration::from_secs(120);
/// How many look after it at a time.
const READERS: usize = 32;
/// How often a list is asked for.
const TRIES: usize = 20;

/// Polls all that was accepted until it has ended, and reads its result; then reads the
/// list of each tenant.
pub(crate) async fn confirm(world: &Arc<World>) {
    let begun = Instant::now();
    let left = Arc::new(Mutex::new(world.left()));
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

impl Customer {
    async fn confirm(&mut self, operation: String, begun: Instant) {
        // Whatever becomes of it, it is excused.
        let tries = self.world.is_damaged(&operation).then_some(1);
        for _ in 0..tries.unwrap_or(usize::MAX) {
            let poll = CallRequest::Poll {
                operation: operation.clone(),
                wait: Some(2_000),
                since: None,
            };
            let told = self.ask_anywhere(poll, None).await;
            let ended = match told.answer {
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
