use std::{
    fmt,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, SystemTime},
};

use super::{Engine, Notifier, cursors::CachedCursorKey, live_records::LiveRecords};
use crate::{environment, operation::RecordedResponse};

/// A store on an engine, with every capability and every law.
///
/// Clones are handles to the same operations. Results are [`RecordedResponse`]s, or of any
/// type that serde can serialize and deserialize. Changes require a tokio runtime.
pub struct EngineStore<E, T = RecordedResponse> {
    pub(super) shared: Arc<EngineShared<E, T>>,
    pub(super) ttl: Duration,
    clock: Clock,
}

pub(super) struct EngineShared<E, T> {
    pub(super) engine: E,
    pub(super) notifier: Arc<Notifier>,
    pub(super) live: LiveRecords<T>,
    pub(super) cursors: CachedCursorKey,
    /// The number of reclaimable cells that the last look could neither reclaim nor defer.
    pub(super) stuck: AtomicUsize,
}

/// The wall clock of a node.
#[derive(Clone)]
struct Clock(Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>);

/// The default time for which an operation is kept after it ended.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

const LONGEST_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl<E: Engine, T> EngineStore<E, T> {
    /// Creates a store on an engine that receives no notices of other nodes.
    #[must_use]
    pub fn new(engine: E) -> Self {
        Self::with_notifier(engine, Arc::default())
    }

    /// Creates a store on an engine that passes the notices of other nodes to `notifier`.
    #[must_use]
    pub fn with_notifier(engine: E, notifier: Arc<Notifier>) -> Self {
        Self {
            shared: Arc::new(EngineShared {
                engine,
                notifier,
                live: LiveRecords::default(),
                cursors: CachedCursorKey::default(),
                stuck: AtomicUsize::new(0),
            }),
            ttl: TTL,
            clock: Clock(None),
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

    /// Sets the wall clock of this handle, by which operations expire; that of the system by
    /// default. This setting is meant for tests. The engine measures the terms of leases by its
    /// own clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock(Some(Arc::new(clock)));
        self
    }

    /// Returns the engine.
    #[must_use]
    pub fn engine(&self) -> &E {
        &self.shared.engine
    }

    /// Returns the current time of this node.
    pub(super) fn now(&self) -> SystemTime {
        match &self.clock.0 {
            Some(clock) => clock(),
            None => environment::wall_clock(),
        }
    }
}

impl<E, T> Clone for EngineStore<E, T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            ttl: self.ttl,
            clock: self.clock.clone(),
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
