//! The stores under a world.

use std::{fmt, sync::Arc, time::Duration};

use test_customers::Random;
use tokio::time::sleep;
use tower_operations::{
    MemoryStore, RecordedResponse,
    engine::{EngineStore, Notifier},
    store::AnyStore,
    testing::{Environment, TaskGroup},
};

use crate::{
    Mutant,
    bug::PlantedBug,
    disk::NodeDisk,
    engine::{Database, Network, NetworkFaults, SimulatedEngine},
    journal::Journal,
    world::Lifetime,
};

/// The kind of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// The simulated engine.
    Engine,
    /// A [`MemoryStore`] that all nodes share.
    Memory,
    /// The [`RedbStore`](tower_operations_redb::RedbStore) of a single node, on a disk whose power
    /// fails.
    Redb,
}

/// The store that all nodes of a world share.
pub(crate) struct Stores {
    shared: Shared,
    network: Arc<Network>,
    /// The time for which an operation is kept after its end.
    ttl: Duration,
    mutant: Option<Mutant>,
}

enum Shared {
    Engine(Arc<Database>),
    Memory(MemoryStore<RecordedResponse>),
    Redb(NodeDisk),
}

impl Stores {
    /// Creates an empty store.
    pub(crate) fn new(
        kind: StoreKind,
        nodes: usize,
        faults: NetworkFaults,
        lifetime: Lifetime,
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
                Shared::Engine(Database::new(
                    secret,
                    lifetime.skew,
                    Arc::clone(journal),
                    bug,
                ))
            }
            StoreKind::Memory => Shared::Memory(MemoryStore::new().ttl(lifetime.ttl)),
            StoreKind::Redb => {
                let syncs = mutant != Some(Mutant::SyncDelayed);
                Shared::Redb(NodeDisk::new(Random::new(random.next_u64()), syncs))
            }
        };
        Self {
            shared,
            network,
            ttl: lifetime.ttl,
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
            Shared::Redb(disk) => AnyStore::new(disk.open().ttl(self.ttl)),
        }
    }

    /// Ends a process at once.
    pub(crate) async fn crash(&self, tasks: &TaskGroup) {
        match &self.shared {
            Shared::Redb(disk) => disk.crash(tasks).await,
            Shared::Engine(_) | Shared::Memory(_) => tasks.abort(),
        }
    }

    /// Ends a process that was drained.
    pub(crate) async fn exit(&self, tasks: &TaskGroup) {
        match &self.shared {
            Shared::Redb(disk) => disk.exit(tasks).await,
            Shared::Engine(_) | Shared::Memory(_) => tasks.abort(),
        }
    }

    /// Lets the store be away for a while, or its disk fail.
    pub(crate) async fn fail(&self, pause: Duration) {
        match &self.shared {
            Shared::Redb(disk) => disk.fail(pause).await,
            Shared::Engine(_) | Shared::Memory(_) => {
                self.network.set_away(true);
                sleep(pause).await;
                self.network.set_away(false);
            }
        }
    }

    /// Returns the number of power failures.
    pub(crate) fn power_failures(&self) -> u64 {
        match &self.shared {
            Shared::Redb(disk) => disk.power_failures(),
            Shared::Engine(_) | Shared::Memory(_) => 0,
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
        let store = EngineStore::<_, RecordedResponse>::with_notifier(engine, notifier);
        AnyStore::new(store.ttl(self.ttl))
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
            Shared::Redb(disk) => disk.take_violations(),
        }
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").finish_non_exhaustive()
    }
}
