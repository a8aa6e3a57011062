//! Admits requests up to the bound of the node and the shares of owners.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use super::InFlight;
use crate::{run::owner_quotas::OwnerPermit, store::Owner};

/// The reason why a request is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdmissionError {
    Full,
    /// The owner has reached the bound on its requests in flight.
    FullForOwner,
    Closed,
}

impl InFlight {
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, SeqCst);
    }

    /// Sets how many requests of one owner may be in flight.
    pub(crate) fn set_max_per_owner(&self, max: usize) {
        self.shares.set(max);
    }

    /// Admits a request, if there is room and no drain has begun.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<AdmissionPermit, AdmissionError> {
        let before = self.admitted.fetch_add(1, SeqCst);
        let admitted = AdmissionPermit::to(self);
        // Checked after the count, since a drain closes first and then reads the count.
        if self.is_closed() {
            return Err(AdmissionError::Closed);
        }
        if before >= self.max.load(SeqCst) {
            return Err(AdmissionError::Full);
        }
        Ok(admitted)
    }

    /// Admits a request of this owner, if the owner's share is not exhausted.
    pub(crate) fn admit_for(
        self: &Arc<Self>,
        owner: Option<Owner>,
    ) -> Result<AdmissionPermit, AdmissionError> {
        let mut admitted = self.admit()?;
        let share = self.shares.take(owner, self.max.load(SeqCst));
        let share = share.ok_or(AdmissionError::FullForOwner)?;
        admitted.share = Some(Box::new(share));
        Ok(admitted)
    }

    /// Admits a request without regard to the bound, since it was admitted elsewhere.
    pub(crate) fn admit_anyway(self: &Arc<Self>) -> AdmissionPermit {
        self.admitted.fetch_add(1, SeqCst);
        AdmissionPermit::to(self)
    }

    /// Returns how many more requests would be admitted now.
    pub(crate) fn room(&self) -> usize {
        if self.bytes.is_used_up() {
            return 0;
        }
        self.max.load(SeqCst).saturating_sub(self.admitted())
    }

    pub(crate) fn admitted(&self) -> usize {
        self.admitted.load(SeqCst)
    }
}

/// A place in flight, held until it is dropped.
#[derive(Debug)]
pub(crate) struct AdmissionPermit {
    in_flight: Arc<InFlight>,
    /// The place in the share of the owner, where the owner is known.
    share: Option<Box<OwnerPermit>>,
}

impl AdmissionPermit {
    fn to(in_flight: &Arc<InFlight>) -> Self {
        Self {
            in_flight: Arc::clone(in_flight),
            share: None,
        }
    }
}

impl Drop for AdmissionPermit {
    fn drop(&mut self) {
        self.in_flight.left(&self.in_flight.admitted);
    }
}
