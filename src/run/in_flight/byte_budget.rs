//! Bounds the bytes of request bodies and results that are in memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::{
    operation::{BodyGuard, BufferedBody},
    run::owner_quotas::{OwnerPermit, OwnerQuotas},
    store::Owner,
};

/// The length in bytes up to which a body does not count: even ten thousand such bodies take no
/// more than 10 MiB.
pub(crate) const UNCOUNTED: usize = 1024;

/// The bytes that are in memory now, and their bounds.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    bodies: AtomicUsize,
    results: AtomicUsize,
    max: AtomicUsize,
    /// The bytes of bodies by owner, where owners are known.
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
            bodies: AtomicUsize::new(0),
            results: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            owners: Arc::new(OwnerQuotas::new()),
        }
    }

    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Sets how many bytes the bodies of one owner may have, instead of a quarter of all.
    pub(crate) fn set_max_per_owner(&self, max: usize) {
        self.owners.set(max);
    }

    /// Returns the bytes of bodies and results.
    pub(super) fn used(&self) -> usize {
        self.bodies.load(Relaxed) + self.results.load(Relaxed)
    }

    /// Returns whether no further body has room.
    pub(super) fn is_used_up(&self) -> bool {
        !self.has_room(self.bodies.load(Relaxed), 1)
    }

    /// Returns whether `more` bytes have room beside those of other bodies. Results take at most
    /// half of the room: they cannot be refused, and may be those of one owner.
    fn has_room(&self, bodies: usize, more: usize) -> bool {
        let max = self.max.load(Relaxed);
        let results = self.results.load(Relaxed).min(max / 2);
        bodies.saturating_add(more).saturating_add(results) <= max
    }

    /// Returns whether a body of this length would have room now. A body without other bodies has
    /// room in any case: otherwise one above the bound would never be accepted.
    pub(crate) fn fits(
        &self,
        length: u64,
        owner: Option<&Option<Owner>>,
    ) -> Result<(), BytesExceeded> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let bodies = self.bodies.load(Relaxed);
        if bodies == 0 || length <= UNCOUNTED {
            return Ok(());
        }
        let max = self.max.load(Relaxed);
        if owner.is_some_and(|owner| !self.owners.fits(owner, length, max)) {
            return Err(BytesExceeded::ForOwner);
        }
        match self.has_room(bodies, length) {
            true => Ok(()),
            false => Err(BytesExceeded::ForAll),
        }
    }

    /// Returns no bytes yet, for a body of this owner, if owners are known.
    pub(crate) fn body_bytes(self: &Arc<Self>, owner: Option<Option<Owner>>) -> BodyBytes {
        BodyBytes {
            budget: Arc::clone(self),
            bytes: 0,
            of_owner: owner.map(|owner| Box::new(self.owners.none_for(owner))),
        }
    }

    /// Counts so many bytes for a body that was admitted elsewhere, until its bytes are read. The
    /// body may still be without its bytes.
    pub(crate) fn count_body(self: &Arc<Self>, body: BufferedBody, length: u64) -> BufferedBody {
        let mut counted = self.body_bytes(None);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > UNCOUNTED {
            counted.bytes = length;
            self.bodies.fetch_add(length, Relaxed);
        }
        counted.hold_until_read(body)
    }

    /// Counts so many bytes of a result.
    pub(crate) fn result_bytes(&self, bytes: usize) -> ResultBytes<'_> {
        let mut counted = ResultBytes {
            budget: self,
            bytes: 0,
        };
        counted.add(bytes);
        counted
    }
}

/// The bytes of a request body, which count until they are dropped.
#[derive(Debug)]
pub(crate) struct BodyBytes {
    budget: Arc<ByteBudget>,
    bytes: usize,
    of_owner: Option<Box<OwnerPermit>>,
}

impl BodyBytes {
    /// Counts `length` bytes from now on, unless this would exceed a bound. Without other bodies
    /// they count in any case.
    pub(crate) fn grow_to(&mut self, length: usize) -> Result<(), BytesExceeded> {
        let (budget, own) = (&self.budget, self.bytes);
        let more = length.saturating_sub(own);
        if more == 0 {
            return Ok(());
        }
        let max = budget.max.load(Relaxed);
        if let Some(of_owner) = &mut self.of_owner
            && !of_owner.take_more(more, max)
        {
            return Err(BytesExceeded::ForOwner);
        }
        let grown = budget.bodies.fetch_update(Relaxed, Relaxed, |bodies| {
            let is_alone = bodies == own;
            (is_alone || budget.has_room(bodies, more)).then_some(bodies.saturating_add(more))
        });
        if grown.is_err() {
            if let Some(of_owner) = &mut self.of_owner {
                of_owner.give_back(more);
            }
            return Err(BytesExceeded::ForAll);
        }
        self.bytes = length;
        Ok(())
    }

    /// Returns the body, whose bytes count until they are read.
    pub(crate) fn hold_until_read(self, body: BufferedBody) -> BufferedBody {
        match self.bytes {
            0 => body,
            _ => body.with_guard(Arc::new(self)),
        }
    }
}

impl BodyGuard for BodyBytes {}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        self.budget.bodies.fetch_sub(self.bytes, Relaxed);
    }
}

/// The bytes of a result, or of an upload to a result store, which count until they are dropped. They
/// are never refused.
#[derive(Debug)]
pub(crate) struct ResultBytes<'a> {
    budget: &'a ByteBudget,
    bytes: usize,
}

impl ResultBytes<'_> {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.budget.results.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
    }

    /// Sets the number of bytes that are in memory.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, 0);
        self.add(bytes);
        self.budget.results.fetch_sub(before, Relaxed);
    }
}

impl Drop for ResultBytes<'_> {
    fn drop(&mut self) {
        self.budget.results.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{BytesExceeded::*, *};

    fn budget(max: usize) -> Arc<ByteBudget> {
        Arc::new(ByteBudget::new(max))
    }

    #[test]
    fn bodies_are_counted_up_to_the_bound_until_they_are_dropped() {
        let budget = budget(10_000);
        let (mut one, mut other) = (budget.body_bytes(None), budget.body_bytes(None));
        assert_eq!(one.grow_to(6_000), Ok(()));
        assert_eq!(other.grow_to(4_000), Ok(()));
        assert_eq!(budget.fits(2_000, None), Err(ForAll));
        assert_eq!(budget.fits(1_024, None), Ok(()), "it would not count");
        assert_eq!(other.grow_to(4_001), Err(ForAll));
        assert_eq!(budget.used(), 10_000, "what is refused does not count");
        assert_eq!(other.grow_to(4_000), Ok(()));
        drop(other);
        assert_eq!(budget.used(), 6_000);
        assert_eq!(budget.fits(4_000, None), Ok(()));
        assert_eq!(budget.fits(4_001, None), Err(ForAll));
        drop(one);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_body_without_others_may_exceed_the_bound() {
        let budget = budget(10_000);
        assert_eq!(budget.fits(u64::MAX, Some(&None)), Ok(()));
        let mut alone = budget.body_bytes(Some(None));
        assert_eq!(alone.grow_to(9_000), Ok(()));
        assert_eq!(budget.body_bytes(None).grow_to(2_000), Err(ForAll));
        assert_eq!(alone.grow_to(18_000), Ok(()));
        assert_eq!(budget.body_bytes(None).grow_to(1), Err(ForAll));
        drop(alone);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn an_owner_has_a_quarter() {
        let budget = budget(40_000);
        let owner = |name: &str| Some(Owner::new(name));
        let bytes = |name: &str| budget.body_bytes(Some(owner(name)));
        let (mut one, mut other) = (bytes("ada"), bytes("ada"));
        assert_eq!((one.grow_to(6_000), other.grow_to(4_000)), (Ok(()), Ok(())));
        assert_eq!(bytes("ada").grow_to(1), Err(ForOwner));
        assert_eq!(budget.fits(2_000, Some(&owner("ada"))), Err(ForOwner));
        assert_eq!(budget.fits(2_000, Some(&owner("bob"))), Ok(()));
        assert_eq!(bytes("bob").grow_to(10_000), Ok(()));
        drop(one);
        assert_eq!(other.grow_to(10_000), Ok(()));
        drop(other);
        assert_eq!(budget.used(), 0);
        budget.set_max_per_owner(1);
        let mut bobs = bytes("bob");
        assert_eq!(
            (bobs.grow_to(1), bytes("bob").grow_to(1)),
            (Ok(()), Err(ForOwner))
        );
    }

    #[test]
    fn a_refused_body_leaves_the_share_of_its_owner() {
        let budget = budget(1_000);
        budget.set_max_per_owner(900);
        let mut others = budget.body_bytes(None);
        assert_eq!(others.grow_to(500), Ok(()));
        let mut adas = budget.body_bytes(Some(Some(Owner::new("ada"))));
        assert_eq!(adas.grow_to(600), Err(ForAll));
        assert_eq!(adas.grow_to(500), Ok(()));
        drop(others);
        assert_eq!(adas.grow_to(900), Ok(()));
    }

    #[test]
    fn results_leave_half_of_the_room() {
        let budget = budget(10_000);
        let mut result = budget.result_bytes(4_000);
        result.add(1_000_000);
        assert_eq!(budget.used(), 1_004_000);
        let (mut one, mut other) = (budget.body_bytes(None), budget.body_bytes(None));
        assert_eq!((one.grow_to(2_000), other.grow_to(3_000)), (Ok(()), Ok(())));
        assert_eq!(other.grow_to(3_001), Err(ForAll));
        assert!(budget.is_used_up());
        drop(result);
        assert_eq!((budget.used(), budget.is_used_up()), (5_000, false));
        assert_eq!(other.grow_to(8_000), Ok(()));
    }

    #[test]
    fn bytes_count_until_the_last_copy_of_a_body_is_read() {
        let budget = budget(10);
        let body = budget.count_body(BufferedBody::from(vec![b'x'; 2_000]), 2_000);
        assert_eq!(budget.used(), 2_000);
        let mut copy = body.clone();
        drop(body);
        assert_eq!(budget.used(), 2_000);
        let frame = copy.next_frame();
        assert_eq!((budget.used(), frame.is_some()), (0, true));
        drop(budget.count_body(BufferedBody::from("short"), 5));
        assert_eq!(budget.used(), 0);
    }
}
