use std::{sync::Arc, time::Duration};

use test_customers::Random;
use tower_operations::{
    RecordedResponse,
    engine::{EngineStore, Notifier},
    testing::{Environment, TaskGroup},
};
use tower_operations_conformance::checker::Rules;

use super::{Database, Network, NetworkFaults, SimulatedEngine};
use crate::{bug::PlantedBug, journal::Journal};

#[tokio::test(start_paused = true)]
async fn the_engine_keeps_the_laws_of_a_store() {
    let journal = Arc::new(Journal::new(Rules::new(), false));
    let clock = Arc::clone(&journal);
    let environment = Environment::new().wall_clock(move || clock.wall_clock());
    let _entered = environment.enter();
    tower_operations_conformance::all(async |ttl: Duration| {
        let bug = PlantedBug::new(None, Random::new(1));
        let database = Database::new(
            [7; 32],
            std::time::Duration::ZERO,
            Arc::clone(&journal),
            bug,
        );
        let network = Network::new(1, NetworkFaults::none(), Random::new(2));
        let engine = SimulatedEngine::<true>::new(&database, &network, 0, TaskGroup::new());
        let notifier = Arc::<Notifier>::default();
        EngineStore::<_, RecordedResponse>::with_notifier(engine, notifier).ttl(ttl)
    })
    .await;
}
