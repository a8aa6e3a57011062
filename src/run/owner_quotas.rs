//! The share of each owner in a bounded number of places.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::store::Owner;

/// The number of places that each owner has taken. Requests without an owner count as those of
/// one owner.
///
/// The map has an entry for each owner with a taken place.
#[derive(Debug)]
pub(crate) struct OwnerQuotas {
    taken: Mutex<HashMap<Option<Owner>, usize>>,
    /// The bound for each owner, or `UNSAID`.
    most: AtomicUsize,
}

/// The value of a bound that was not set.
const UNSAID: usize = usize::MAX;

impl OwnerQuotas {
    pub(crate) fn new() -> Self {
        Self {
            taken: Mutex::default(),
            most: AtomicUsize::new(UNSAID),
        }
    }

    /// Sets how many places an owner may have, instead of a quarter of all places.
    pub(crate) fn set(&self, places: usize) {
        self.most.store(places.min(UNSAID - 1), Relaxed);
    }

    /// Takes one of `all` places for this owner, until the permit is dropped. Returns `None` if
    /// the owner has reached its bound.
    pub(crate) fn take(self: &Arc<Self>, owner: Option<Owner>, all: usize) -> Option<OwnerPermit> {
        let most = self.most(all);
        let mut all_taken = self.in_use();
        let taken = all_taken.get(&owner).copied().unwrap_or_default();
        if taken >= most {
            return None;
        }
        all_taken.insert(owner.clone(), taken + 1);
        drop(all_taken);
        Some(OwnerPermit {
            shares: Arc::clone(self),
            owner,
            places: 1,
        })
    }

    /// Returns a permit for no place.
    pub(crate) fn none_for(self: &Arc<Self>, owner: Option<Owner>) -> OwnerPermit {
        OwnerPermit {
            shares: Arc::clone(self),
            owner,
            places: 0,
        }
    }

    /// Returns the bound for each owner, of `all` places.
    fn most(&self, all: usize) -> usize {
        match self.most.load(Relaxed) {
            UNSAID => all.div_ceil(4),
            most => most,
        }
    }

    fn in_use(&self) -> MutexGuard<'_, HashMap<Option<Owner>, usize>> {
        // A critical section never panics halfway through a change.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The places that an owner has taken together, until the permit is dropped.
#[derive(Debug)]
pub(crate) struct OwnerPermit {
    shares: Arc<OwnerQuotas>,
    owner: Option<Owner>,
    places: usize,
}

impl OwnerPermit {
    /// Takes further places, of `all`. Returns false if the owner has reached its bound and other
    /// permits of the owner have places.
    pub(crate) fn take_more(&mut self, places: usize, all: usize) -> bool {
        let most = self.shares.most(all);
        let mut all_taken = self.shares.in_use();
        let taken = all_taken.get(&self.owner).copied().unwrap_or_default();
        let more = taken.saturating_add(places);
        let is_alone = taken == self.places;
        let fits = is_alone || more <= most;
        if fits && places > 0 {
            all_taken.insert(self.owner.clone(), more);
            self.places += places;
        }
        fits
    }
}

impl Drop for OwnerPermit {
    fn drop(&mut self) {
        if self.places == 0 {
            return;
        }
        let mut taken = self.shares.in_use();
        if let Entry::Occupied(mut entry) = taken.entry(self.owner.take()) {
            match entry.get().saturating_sub(self.places) {
                0 => drop(entry.remove()),
                left => *entry.get_mut() = left,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_a_quarter_by_default_and_leaves_no_entry() {
        let shares = Arc::new(OwnerQuotas::new());
        let take = |owner: Option<&str>| shares.take(owner.map(Owner::new), 8);
        let adas = [take(Some("ada")), take(Some("ada"))];
        assert!(adas.iter().all(Option::is_some));
        assert!(take(Some("ada")).is_none());
        assert!(take(Some("bob")).is_some() && take(None).is_some());
        shares.set(3);
        let third = take(Some("ada"));
        assert!(third.is_some() && take(Some("ada")).is_none());
        drop(third);
        assert!(take(Some("ada")).is_some());
        assert_eq!(shares.in_use().len(), 1);
        drop(adas);
        assert!(shares.in_use().is_empty());
        // The smallest share is one place, if there is any.
        let other = Arc::new(OwnerQuotas::new());
        assert!(other.take(None, 1).is_some() && other.take(None, 0).is_none());
    }
}
