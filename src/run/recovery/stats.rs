//! What a recovery has done.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::store::Health;

/// What a [`Recovery`](crate::Recovery) has done since it was made, and how it found its
/// store. Clones show the same.
#[derive(Debug, Clone, Default)]
pub struct RecoveryStats(Arc<RecoveryCounters>);

#[derive(Debug, Default)]
struct RecoveryCounters {
    taken_over: AtomicU64,
    run_again: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
    purged: AtomicU64,
    health: Mutex<Health>,
}

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident, $add:ident;)*) => {
        impl RecoveryStats {
            $(
                $(#[doc = $doc])+
                #[must_use]
                pub fn $name(&self) -> u64 {
                    self.0.$name.load(Relaxed)
                }

                pub(super) fn $add(&self, more: usize) {
                    self.0.$name.fetch_add(more as u64, Relaxed);
                }
            )*
        }
    };
}

counts! {
    /// How many operations it took over.
    taken_over, add_taken_over;
    /// How many of them it ran again, or put into the queue again.
    run_again, add_run_again;
    /// How many of them it ended as failed.
    ended, add_ended;
    /// How many of them the store refused to end. They were put aside, to be tried again
    /// after 20 terms of a lease.
    refused, add_refused;
    /// How many expired operations it deleted.
    purged, add_purged;
}

impl RecoveryStats {
    /// What was known against the store's durability when it was last looked at, which
    /// is once a term of the lease.
    #[must_use]
    pub fn health(&self) -> Health {
        let health = self.0.health.lock();
        health.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_health(&self, health: Health) {
        // A critical section only moves finished values.
        *self.0.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }
}
