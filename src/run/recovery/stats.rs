//! The counters of a recovery.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::store::Health;

/// The counters of a [`Recovery`](crate::Recovery) since its creation, and the health of its
/// store. Clones show the same counters.
#[derive(Debug, Clone, Default)]
pub struct RecoveryStats(Arc<RecoveryCounters>);

#[derive(Debug, Default)]
struct RecoveryCounters {
    reclaimed: AtomicU64,
    rerun: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
    purged: AtomicU64,
    swept: AtomicU64,
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
    /// The number of operations that were reclaimed.
    reclaimed, add_reclaimed;
    /// The number of reclaimed operations that were rerun, or dispatched again.
    rerun, add_rerun;
    /// The number of reclaimed operations that were ended as failed.
    ended, add_ended;
    /// The number of reclaimed operations that the store refused to end. Ending them is retried
    /// after 20 terms of a lease.
    refused, add_refused;
    /// The number of expired operations that were deleted.
    purged, add_purged;
    /// The number of uploads without an operation that were deleted from the result store.
    swept, add_swept;
}

impl RecoveryStats {
    /// Returns the reasons why the store is less durable now than when it was opened. They are
    /// those of the last check; a check takes place once a term of the lease.
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
