//! The moment until which the sweep of a node's deadlines sleeps.

use std::sync::atomic::Ordering::SeqCst;

use super::{
    sync::{Arc, AtomicU64},
    wait::{WaitCell, Waiter},
};

/// Wakes the sweep for a deadline that is earlier than the end of its sleep. Moments are numbers,
/// in the order of time.
#[derive(Debug)]
pub(crate) struct SweepTimer {
    /// The end of the sleep; `AWAKE` while the sweep looks at the deadlines.
    sleeps_until: AtomicU64,
    earlier: Arc<WaitCell>,
}

/// Every deadline is earlier.
const AWAKE: u64 = u64::MAX;

impl SweepTimer {
    pub(crate) fn new() -> Self {
        Self {
            sleeps_until: AtomicU64::new(AWAKE),
            earlier: Arc::new(WaitCell::default()),
        }
    }

    /// Begins a look at the deadlines. The returned waiter completes once a deadline is set that
    /// the look may miss.
    pub(crate) fn begin(&self) -> Waiter {
        let earlier = Waiter::new(&self.earlier);
        self.sleeps_until.store(AWAKE, SeqCst);
        earlier
    }

    /// Ends the look: the sweep sleeps until this moment, or until the waiter completes.
    pub(crate) fn sleep_until(&self, at: u64) {
        self.sleeps_until.store(at, SeqCst);
    }

    /// Notes a deadline, after it was set.
    pub(crate) fn deadline_set(&self, at: u64) {
        if at < self.sleeps_until.load(SeqCst) {
            self.earlier.notify();
        }
    }
}
