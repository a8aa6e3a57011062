//! The share of each owner in a bound, such as one of places or of bytes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::store::Owner;

/// The amount that each owner has taken. Requests without an owner count as those of one owner.
///
/// The map has an entry for each owner that has taken anything.
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

    /// Sets the amount that an owner may have, instead of a quarter of all.
    pub(crate) fn set(&self, amount: usize) {
        self.most.store(amount.min(UNSAID - 1), Relaxed);
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
            amount: 1,
        })
    }

    /// Returns a permit for nothing yet.
    pub(crate) fn none_for(self: &Arc<Self>, owner: Option<Owner>) -> OwnerPermit {
        OwnerPermit {
            shares: Arc::clone(self),
            owner,
            amount: 0,
        }
    }

    /// Returns the bound for each owner, where the bound for all is `all`.
    fn most(&self, all: usize) -> usize {
        match self.most.load(Relaxed) {
            UNSAID => all.div_ceil(4),
            most => most,
        }
    }

    /// Returns whether an owner may take so much now.
    pub(crate) fn fits(&self, owner: &Option<Owner>, amount: usize, all: usize) -> bool {
        let taken = self.in_use().get(owner).copied().unwrap_or_default();
        taken == 0 || taken.saturating_add(amount) <= self.most(all)
    }

    fn give_back(&self, owner: &Option<Owner>, amount: usize) {
        let mut taken = self.in_use();
        if let Some(left) = taken.get_mut(owner) {
            *left = left.saturating_sub(amount);
            if *left == 0 {
                taken.remove(owner);
            }
        }
    }

    fn in_use(&self) -> MutexGuard<'_, HashMap<Option<Owner>, usize>> {
        // A critical section never panics halfway through a change.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The amount that an owner has taken at one place, until the permit is dropped.
#[derive(Debug)]
pub(crate) struct OwnerPermit {
    shares: Arc<OwnerQuotas>,
    owner: Option<Owner>,
    amount: usize,
}

impl OwnerPermit {
    /// Takes `more`, where the bound for all is `all`. Returns false if the owner has reached its
    /// bound and has taken something elsewhere.
    pub(crate) fn take_more(&mut self, more: usize, all: usize) -> bool {
        let most = self.shares.most(all);
        let mut all_taken = self.shares.in_use();
        let taken = all_taken.get(&self.owner).copied().unwrap_or_default();
        let after = taken.saturating_add(more);
        let is_alone = taken == self.amount;
        let fits = is_alone || after <= most;
        if fits && more > 0 {
            all_taken.insert(self.owner.clone(), after);
            self.amount += more;
        }
        fits
    }

    /// Gives back a part of the amount.
    pub(crate) fn give_back(&mut self, part: usize) {
        self.amount -= part;
        self.shares.give_back(&self.owner, part);
    }
}

impl Drop for OwnerPermit {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.shares.give_back(&self.owner, self.amount);
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
