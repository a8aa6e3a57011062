//! A node that is killed and restarted at once, before any lease expires.

use std::{sync::Arc, time::Duration};

use test_customers::{Accepted, Customer, Log};
use tokio::{task::JoinSet, time::sleep};
use tower_operations_conformance::checker::{CallAnswer, CallRequest};

use super::{
    cluster::Processes,
    database::Database,
    record::Record,
    scenario::{World, number},
};

/// The time-out of a wait for the end, since a rerun takes some time.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The number of restarts, and the pause between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Restarts {
    pub(crate) times: usize,
    pause: Duration,
}

impl Restarts {
    /// Returns the planned restarts: `CHAOS_RESTARTS`, or a few.
    pub(crate) fn planned() -> Self {
        let times = number("CHAOS_RESTARTS").unwrap_or(2);
        Self {
            times: usize::try_from(times).expect("a number of restarts"),
            pause: Duration::from_secs(2),
        }
    }
}

/// Kills the first node repeatedly while the customers are busy, and measures each time how
/// long open operations take to end. Returns the database once there are no more orders.
pub(crate) async fn run_restarts(
    world: Arc<World>,
    restarts: Restarts,
    database: Database,
) -> Database {
    let node = &world.cluster.nodes[0];
    let (mut slowest, mut open) = (Duration::ZERO, 0);
    for _ in 0..restarts.times {
        sleep(restarts.pause).await;
        let open_operations = world.open();
        open += open_operations.len();
        let mut state = node.disturb().await;
        let back = node.kill(&mut state, &world.log, async {}).await;
        let mut watchers = JoinSet::new();
        for (number, accepted) in open_operations.into_iter().enumerate() {
            let customer = Customer::new(Arc::clone(&world), number);
            watchers.spawn(time_to_end(customer, accepted, back));
        }
        for duration in watchers.join_all().await {
            slowest = slowest.max(duration);
        }
    }
    world.close();
    eprintln!(
        "{} restarts, {open} operations open at them; the last had ended {slowest:.1?} after its \
         node was back",
        restarts.times
    );
    database
}

/// Polls until an operation has ended, and returns the time since the node is back.
async fn time_to_end(
    mut customer: Customer<Processes, Record>,
    accepted: Accepted,
    back: u64,
) -> Duration {
    let Accepted { operation, tenant } = accepted;
    customer.tenant = tenant;
    loop {
        let poll = CallRequest::Poll {
            operation: operation.clone(),
            wait: None,
            since: None,
        };
        let reply = customer.ask_anywhere(poll, None).await;
        let after = Duration::from_millis(customer.world.log.now() - back);
        match reply.answer {
            CallAnswer::Operation(sighting) if !sighting.state.is_terminal() => {}
            CallAnswer::Operation(_) | CallAnswer::Absent => return after,
            _ => {}
        }
        if after > PATIENCE {
            return after;
        }
        sleep(Duration::from_millis(10)).await;
    }
}
