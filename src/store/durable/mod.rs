//! A store on an engine that outlives the process.

mod browsing;
mod cursors;
mod engine;
pub(crate) mod head;
mod held;
mod hub;
mod leasing;
mod reading;
mod reserving;
#[cfg(all(test, feature = "conformance", feature = "postgres", feature = "redis"))]
mod skew;
#[cfg(test)]
mod tests;
mod together;
mod writing;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, SystemTime},
};

use crate::operation::RecordedResponse;

pub(crate) use engine::{
    Cell, CellReader, Engine, Inserted, KeyCell, LapsedCell, LeaseChange, ListCells, ListedCell,
    NewCell, NextCell, Notice, ReclaimFilter, Replaced, Stamp, StandsFor,
};
pub(crate) use hub::Hub;

/// A store on an engine that outlives the process: in a file, in PostgreSQL or in Redis.
///
/// The type alias of each engine is `RedbStore`, `PostgresStore` or `RedisStore`. Clones
/// are handles to the same operations. Results are [`RecordedResponse`]s, or of any type
/// that serde can serialize and deserialize. Changes require a tokio runtime.
pub struct EngineStore<E, T = RecordedResponse> {
    shared: Arc<EngineShared<E, T>>,
    ttl: Duration,
    /// How far the clock of this node is ahead, for tests.
    #[cfg(test)]
    ahead: Duration,
}

struct EngineShared<E, T> {
    engine: E,
    hub: Arc<Hub>,
    held: held::LiveRecords<T>,
    cursors: cursors::Cursors,
    /// The number of abandoned cells that the last look could neither reclaim nor put
    /// aside.
    stuck: AtomicUsize,
}

/// The default time an operation is kept after it ended.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

const LONGEST_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl<E: Engine, T> EngineStore<E, T> {
    /// Returns a store on `engine`, which reports changes on other nodes to `hub`.
    pub(crate) fn on(engine: E, hub: Arc<Hub>) -> Self {
        Self {
            shared: Arc::new(EngineShared {
                engine,
                hub,
                held: held::LiveRecords::new(),
                cursors: cursors::Cursors::default(),
                stuck: AtomicUsize::new(0),
            }),
            ttl: TTL,
            #[cfg(test)]
            ahead: Duration::ZERO,
        }
    }

    /// Sets how long an operation is kept after it ended; 24 hours by default, at most 100
    /// years.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        // A terminal operation always has an expiry, because engines rely on it.
        self.ttl = ttl.min(LONGEST_TTL);
        self
    }

    #[cfg(feature = "redb")]
    pub(crate) fn engine(&self) -> &E {
        &self.shared.engine
    }

    /// Returns the current time of this node. The engine measures the terms of leases.
    fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        #[cfg(test)]
        let now = now + self.ahead;
        now
    }
}

impl<E, T> Clone for EngineStore<E, T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            ttl: self.ttl,
            #[cfg(test)]
            ahead: self.ahead,
        }
    }
}

impl<E: fmt::Debug, T> fmt::Debug for EngineStore<E, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineStore")
            .field("engine", &self.shared.engine)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}
