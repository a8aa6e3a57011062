//! Bounds the bytes of request bodies and results that a node buffers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::{
    operation::BufferedBody,
    run::owner_quotas::{OwnerPermit, OwnerQuotas},
    store::Owner,
};

/// The bytes that are buffered now, and their bounds.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    used: AtomicUsize,
    max: AtomicUsize,
    /// The shares of known owners.
    owners: Arc<OwnerQuotas>,
}

/// The bound that further bytes would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BytesExceeded {
    ForAll,
    ForOwner,
}

impl ByteBudget {
    pub(super) fn new(max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            owners: Arc::new(OwnerQuotas::new()),
        }
    }

    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Sets how many bytes one owner may buffer, instead of a quarter of all.
    pub(crate) fn set_max_per_owner(&self, max: usize) {
        self.owners.set(max);
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Returns whether a body of this length fits now. Where nothing is buffered, any body fits:
    /// otherwise one above the bound would never be accepted.
    pub(crate) fn fits(&self, length: u64) -> bool {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let used = self.used();
        used == 0 || used.saturating_add(length) <= self.max.load(Relaxed)
    }

    /// Returns an empty share for a request body of this owner, if owners are known.
    pub(crate) fn share(self: &Arc<Self>, owner: Option<Option<Owner>>) -> BodyShare {
        let of_owner = owner.map(|owner| Box::new(self.owners.none_for(owner)));
        BodyShare {
            budget: Arc::clone(self),
            bytes: 0,
            of_owner,
        }
    }

    /// Counts a body that was admitted elsewhere, until its bytes are read.
    pub(crate) fn count_body(self: &Arc<Self>, body: BufferedBody) -> BufferedBody {
        let mut share = self.share(None);
        share.bytes = body.data().len();
        self.used.fetch_add(share.bytes, Relaxed);
        share.hold_until_read(body)
    }

    /// Returns an empty share for a result, which is never refused.
    pub(crate) fn result_share(&self) -> ResultShare<'_> {
        ResultShare {
            budget: self,
            bytes: 0,
        }
    }
}

/// The bytes that a request body takes, until the share is dropped.
#[derive(Debug)]
pub(crate) struct BodyShare {
    budget: Arc<ByteBudget>,
    bytes: usize,
    of_owner: Option<Box<OwnerPermit>>,
}

impl BodyShare {
    /// Counts `length` bytes in all, unless a bound would be exceeded. Where nobody else buffers
    /// anything, they are counted in any case. After an error the share is of no use.
    pub(crate) fn grow_to(&mut self, length: usize) -> Result<(), BytesExceeded> {
        let (budget, bytes) = (&self.budget, length.saturating_sub(self.bytes));
        let max = budget.max.load(Relaxed);
        if let Some(of_owner) = &mut self.of_owner
            && !of_owner.take_more(bytes, max)
        {
            return Err(BytesExceeded::ForOwner);
        }
        let used = budget.used.fetch_add(bytes, Relaxed);
        let others = used.saturating_sub(self.bytes);
        self.bytes += bytes;
        match others == 0 || used.saturating_add(bytes) <= max {
            true => Ok(()),
            false => Err(BytesExceeded::ForAll),
        }
    }

    /// Returns the body, whose bytes count until they are read.
    pub(crate) fn hold_until_read(self, body: BufferedBody) -> BufferedBody {
        match body.data().is_empty() {
            true => body,
            false => body.with_guard(Arc::new(self)),
        }
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// The bytes that a result takes, until the share is dropped.
#[derive(Debug)]
pub(crate) struct ResultShare<'a> {
    budget: &'a ByteBudget,
    bytes: usize,
}

impl ResultShare<'_> {
    /// Counts further bytes.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
    }
}

impl Drop for ResultShare<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(max: usize) -> Arc<ByteBudget> {
        Arc::new(ByteBudget::new(max))
    }

    #[test]
    fn bodies_are_counted_up_to_the_bound_until_their_shares_are_dropped() {
        let budget = budget(10);
        let (mut one, mut other) = (budget.share(None), budget.share(None));
        assert_eq!(one.grow_to(6), Ok(()));
        assert_eq!(other.grow_to(4), Ok(()));
        assert!(!budget.fits(1));
        assert_eq!(other.grow_to(5), Err(BytesExceeded::ForAll));
        drop(other);
        assert_eq!(budget.used(), 6);
        assert!(budget.fits(4) && !budget.fits(5));
        drop(one);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_body_without_others_may_exceed_the_bound() {
        let budget = budget(10);
        assert!(budget.fits(u64::MAX));
        let mut alone = budget.share(Some(None));
        assert_eq!(alone.grow_to(9), Ok(()));
        assert_eq!(alone.grow_to(18), Ok(()));
        assert_eq!(budget.share(None).grow_to(1), Err(BytesExceeded::ForAll));
        drop(alone);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn an_owner_has_a_quarter() {
        let budget = budget(40);
        let share = |name: &str| budget.share(Some(Some(Owner::new(name))));
        let (mut one, mut other) = (share("ada"), share("ada"));
        assert_eq!((one.grow_to(6), other.grow_to(4)), (Ok(()), Ok(())));
        assert_eq!(share("ada").grow_to(1), Err(BytesExceeded::ForOwner));
        assert_eq!(share("bob").grow_to(10), Ok(()));
        drop(one);
        assert_eq!(other.grow_to(10), Ok(()));
        drop(other);
        assert_eq!(budget.used(), 0);
        budget.set_max_per_owner(1);
        let mut bobs = share("bob");
        assert_eq!(
            (bobs.grow_to(1), share("bob").grow_to(1)),
            (Ok(()), Err(BytesExceeded::ForOwner))
        );
    }

    #[test]
    fn results_exceed_the_bound() {
        let budget = budget(10);
        let mut result = budget.result_share();
        result.count(11);
        assert!(!budget.fits(1));
        assert_eq!(budget.share(None).grow_to(1), Err(BytesExceeded::ForAll));
        drop(result);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn bytes_count_until_the_last_copy_of_a_body_is_read() {
        let budget = budget(10);
        let body = budget.count_body(BufferedBody::from("more than ten bytes"));
        assert_eq!(budget.used(), 19);
        let mut copy = body.clone();
        drop(body);
        assert_eq!(budget.used(), 19);
        let frame = copy.next_frame();
        assert_eq!((budget.used(), frame.is_some()), (0, true));
    }
}
