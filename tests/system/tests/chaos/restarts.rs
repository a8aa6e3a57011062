//! A node that is killed and started again at once, before any lease can be over.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::sleep};
use tower_operations_conformance::checker::{CallAnswer, CallRequest};

use super::{
    customer::Customer,
    database::Database,
    scenario::number,
    world::{Accepted, World},
};

/// How often, and how long it is left alone in between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Restarts {
    pub(crate) times: usize,
    pause: Duration,
}

impl Restarts {
    /// A few, unless somebody says otherwise.
    pub(crate) fn planned() -> Self {
        let times = number("CHAOS_RESTARTS").unwrap_or(2);
        Self {
            times: usize::try_from(times).expect("a number of restarts"),
            pause: Duration::from_secs(2),
        }
    }
}

/// Kills the first node while the customers are busy, and looks each time how long what
/// was open stays as it was. Gives the database back when there are no more orders.
pub(crate) async fn restart(world: Arc<World>, restarts: Restarts, database: Database) -> Database {
    let node = &world.cluster.nodes[0];
    let (mut slowest, mut open) = (Duration::ZERO, 0);
    for _ in 0..restarts.times {
        sleep(restarts.pause).await;
        let left = world.open();
        open += left.len();
        let mut state = node.disturb().await;
        let back = node.kill(&mut state, &world.record, async {}).await;
        let mut watching = JoinSet::new();
        for (number, accepted) in left.into_iter().enumerate() {
            let customer = Customer::new(Arc::clone(&world), number);
            watching.spawn(customer.sees_it_move(accepted, back));
        }
        for moved in watching.join_all().await {
            slowest = slowest.max(moved);
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

impl Customer {
    /// Polls until an operation has ended; says how long after that was.
    async fn sees_it_move(mut self, accepted: Accepted, back: u64) -> Duration {
        let Accepted { operation, tenant } = accepted;
        self.tenant = tenant;
        loop {
            let poll = CallRequest::Poll {
                operation: operation.clone(),
                wait: None,
                since: None,
            };
            let told = self.ask_anywhere(poll, None).await;
            let after = Duration::from_millis(self.world.record.now() - back);
            match told.answer {
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
}

/// What is run again takes its time.
const PATIENCE: Duration = Duration::from_millis(1_500);
