//! Places for repetitions that are looked up while nothing more may be in flight.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use super::{OwnerPermit, OwnerQuotas};
use crate::store::Owner;

/// So many are looked up at a time, and a quarter of that for one owner. None of them keeps
/// a body.
const LOOKUPS: usize = 64;

/// How many are being looked up.
#[derive(Debug)]
pub(crate) struct Lookups {
    taken: AtomicUsize,
    shares: Arc<OwnerQuotas>,
}

impl Lookups {
    pub(super) fn new() -> Self {
        Self {
            taken: AtomicUsize::new(0),
            shares: Arc::new(OwnerQuotas::new()),
        }
    }

    /// A place, if there is one; of this owner's, where owners are known.
    pub(crate) fn take(self: &Arc<Self>, owner: Option<Option<Owner>>) -> Option<LookupPermit> {
        let is_over = self.taken.fetch_add(1, SeqCst) >= LOOKUPS;
        let mut permit = LookupPermit {
            lookups: Arc::clone(self),
            _share: None,
        };
        if is_over {
            return None;
        }
        if let Some(owner) = owner {
            permit._share = Some(self.shares.take(owner, LOOKUPS)?);
        }
        Some(permit)
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct LookupPermit {
    lookups: Arc<Lookups>,
    _share: Option<OwnerPermit>,
}

impl Drop for LookupPermit {
    fn drop(&mut self) {
        self.lookups.taken.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_a_quarter_of_the_places_and_leaves_nothing() {
        let lookups = Arc::new(Lookups::new());
        let ada = || lookups.take(Some(Some(Owner::new("ada"))));
        let adas: Vec<_> = (0..16).map_while(|_| ada()).collect();
        assert_eq!(adas.len(), 16);
        assert!(ada().is_none());
        let others: Vec<_> = (0..48).map_while(|_| lookups.take(None)).collect();
        assert_eq!(others.len(), 48);
        assert!(lookups.take(None).is_none());
        drop(adas);
        assert!(ada().is_some() && lookups.take(Some(None)).is_some());
        drop(others);
        assert_eq!(lookups.taken.load(SeqCst), 0);
    }
}
