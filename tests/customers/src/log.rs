use std::sync::Arc;

use tower_operations_conformance::checker::Entry;

/// The log of all requests, answers and faults.
pub trait Log: Send + Sync + 'static {
    /// Returns the time in milliseconds by a clock that never goes back.
    fn now(&self) -> u64;

    /// Adds an entry.
    fn add(&self, entry: &Entry);
}

impl<L: Log> Log for Arc<L> {
    fn now(&self) -> u64 {
        (**self).now()
    }

    fn add(&self, entry: &Entry) {
        (**self).add(entry);
    }
}
