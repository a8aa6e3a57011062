//! The stores under a world.

use std::{fmt, sync::Arc};

use test_customers::Random;
use tower_operations::{
    MemoryStore, RecordedResponse,
    engine::{EngineStore, Notifier},
    store::AnyStore,
    testing::{Environment, TaskGroup},
};

use crate::{
    Mutant,
    bug::PlantedBug,
    engine::{Database, Network, NetworkFaults, SimulatedEngine},
    journal::Journal,
};

/// The kind of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// The simulated engine.
    Engine,
    /// A [`MemoryStore`] that all nodes share.
    Memory,
}

/// The store that all nodes of a world share.
pub(crate) struct Stores {
    shared: Shared,
    network: Arc<Network>,
    mutant: Option<Mutant>,
}

enum Shared {
    Engine(Arc<Database>),
    Memory(MemoryStore<RecordedResponse>),
}

impl Stores {
    /// Creates an empty store.
    pub(crate) fn new(
        kind: StoreKind,
        nodes: usize,
        faults: NetworkFaults,
        journal: &Arc<Journal>,
        mutant: Option<Mutant>,
        random: &mut Random,
    ) -> Self {
        let network = Network::new(nodes, faults, Random::new(random.next_u64()));
        let bug = PlantedBug::new(mutant, Random::new(random.next_u64()));
        let environment = Environment::new().seed(random.next_u64());
        let _entered = environment.enter();
        let shared = match kind {
            StoreKind::Engine => {
                let secret = tower_operations::engine::new_secret();
                Shared::Engine(Database::new(secret, Arc::clone(journal), bug))
            }
            StoreKind::Memory => Shared::Memory(MemoryStore::new()),
        };
        Self {
            shared,
            network,
            mutant,
        }
    }

    /// Opens the store for a process of a node.
    pub(crate) fn open(&self, node: usize, tasks: &TaskGroup) -> AnyStore {
        match &self.shared {
            Shared::Engine(database) => match self.mutant {
                Some(Mutant::NoticesLost) => self.on_engine::<false>(database, node, tasks),
                _ => self.on_engine::<true>(database, node, tasks),
            },
            Shared::Memory(store) => AnyStore::new(store.clone()),
        }
    }

    fn on_engine<const POLLS: bool>(
        &self,
        database: &Arc<Database>,
        node: usize,
        tasks: &TaskGroup,
    ) -> AnyStore {
        let network = &self.network;
        let engine = SimulatedEngine::<POLLS>::new(database, network, node, tasks.clone());
        let notifier = Arc::<Notifier>::default();
        network.connect(node, &notifier);
        AnyStore::new(EngineStore::<_, RecordedResponse>::with_notifier(
            engine, notifier,
        ))
    }

    /// Returns the network between the nodes and the store.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Returns the broken invariants of the store so far, and forgets them.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        match &self.shared {
            Shared::Engine(database) => database.take_violations(),
            Shared::Memory(_) => Vec::new(),
        }
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").finish_non_exhaustive()
    }
}
