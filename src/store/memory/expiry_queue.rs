//! The next operations to expire, of one shard and of all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    SHARDS,
    shard::{Slot, Tick},
};
use crate::{
    deadline_lists::{DeadlineLists, ListEntry},
    slots::Slots,
};

/// An entry that expires.
pub(super) trait ExpiringEntry: ListEntry<Moment = Tick> {
    /// Returns whether the entry has an owner.
    fn is_owned(&self) -> bool;
}

/// The earliest expiry in each shard, readable without the shard's lock.
///
/// A value is written under the shard's lock and may be outdated when it is used. A reader
/// therefore takes the lock and checks again.
#[derive(Clone)]
pub(super) struct EarliestExpiry(Arc<[AtomicU64; SHARDS]>);

impl EarliestExpiry {
    pub(super) fn new() -> Self {
        let never = || AtomicU64::new(Tick::NEVER.get());
        Self(Arc::new(std::array::from_fn(|_| never())))
    }

    /// Returns the shard with the operation that expires soonest of all, its expiry, and
    /// the earliest expiry in the other shards; `None` if no operation expires.
    pub(super) fn shard(&self) -> Option<(usize, Tick, Tick)> {
        let (mut shard, mut soonest, mut second) = (0, u64::MAX, u64::MAX);
        for (index, expires) in self.0.iter().enumerate() {
            let expires = expires.load(Relaxed);
            if expires >= second {
                continue; // most shards need only this comparison
            }
            if expires < soonest {
                (shard, second, soonest) = (index, soonest, expires);
            } else {
                second = expires;
            }
        }
        (soonest != u64::MAX).then(|| (shard, Tick::at(soonest), Tick::at(second)))
    }
}

/// The terminal operations of a shard in the order of expiry.
pub(super) struct ExpiryQueue {
    /// The operations without and with an owner, by time to live.
    lines: [DeadlineLists; 2],
    soonest: EarliestExpiry,
    shard: usize,
}

impl ExpiryQueue {
    pub(super) fn new(shard: usize, soonest: EarliestExpiry) -> Self {
        Self {
            lines: Default::default(),
            soonest,
            shard,
        }
    }

    /// Returns the earliest expiry and its slot.
    pub(super) fn first<E: ExpiringEntry>(&self, entries: &Slots<E>) -> Option<(Tick, Slot)> {
        match (self.lines[0].first(entries), self.lines[1].first(entries)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Returns the earliest expiry of operations without an owner, and its slot.
    pub(super) fn unowned<E: ExpiringEntry>(&self, entries: &Slots<E>) -> Option<(Tick, Slot)> {
        self.lines[0].first(entries)
    }

    /// Returns whether an operation has expired. Check this before visiting the entries.
    pub(super) fn is_due(&self, now: Tick) -> bool {
        self.soonest.0[self.shard].load(Relaxed) <= now.get()
    }

    /// Inserts an operation that is kept for `ttl` from now on.
    pub(super) fn insert<E: ExpiringEntry>(
        &mut self,
        entries: &mut Slots<E>,
        slot: Slot,
        ttl: Duration,
    ) {
        let is_owned = entries[slot].is_owned();
        if self.lines[usize::from(is_owned)].insert(entries, slot, ttl) {
            self.tell(entries);
        }
    }

    /// Removes an operation from its list, if it is in one.
    pub(super) fn remove<E: ExpiringEntry>(&mut self, entries: &mut Slots<E>, slot: Slot) {
        let is_owned = entries[slot].is_owned();
        if self.lines[usize::from(is_owned)].remove(entries, slot) {
            self.tell(entries);
        }
    }

    fn tell<E: ExpiringEntry>(&self, entries: &Slots<E>) {
        let first = self
            .first(entries)
            .map_or(Tick::NEVER, |(expires, _)| expires);
        self.soonest.0[self.shard].store(first.get(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::deadline_lists::ListLinks;

    struct Entry(Tick, ListLinks, bool);

    impl ExpiringEntry for Entry {
        fn is_owned(&self) -> bool {
            self.2
        }
    }

    impl ListEntry for Entry {
        type Moment = Tick;

        fn at(&self) -> Tick {
            self.0
        }

        fn links(&self) -> ListLinks {
            self.1
        }

        fn links_mut(&mut self) -> &mut ListLinks {
            &mut self.1
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn the_shard_that_expires_soonest_is_found_with_the_next_expiry() {
        let soonest = EarliestExpiry::new();
        let mut shards: Vec<_> = (0..3)
            .map(|n| (ExpiryQueue::new(n, soonest.clone()), Slots::default()))
            .collect();
        assert_eq!(soonest.shard(), None);
        for (shard, expires) in [(1, 5), (0, 9), (2, 4), (2, 3)] {
            let (expiring, entries) = &mut shards[shard];
            let slot = entries.insert(Entry(Tick::at(expires), ListLinks::NONE, false));
            expiring.insert(entries, slot, DAY);
        }
        assert_eq!(soonest.shard(), Some((2, Tick::at(3), Tick::at(5))));
        let (expiring, entries) = &mut shards[2];
        expiring.remove(entries, 1);
        assert_eq!(soonest.shard(), Some((2, Tick::at(4), Tick::at(5))));
        expiring.remove(entries, 0);
        assert_eq!(soonest.shard(), Some((1, Tick::at(5), Tick::at(9))));
    }

    proptest! {
        /// The first entry is always the one that expires first, whatever is inserted and
        /// removed.
        #[test]
        fn operations_are_in_the_order_of_expiry(
            steps in prop::collection::vec((0..3_u8, 0..50_u64, any::<bool>()), 0..60),
        ) {
            let soonest = EarliestExpiry::new();
            let (mut expiring, mut entries) = (ExpiryQueue::new(0, soonest.clone()), Slots::default());
            let mut there: Vec<(Tick, Slot)> = Vec::new();
            for (step, number, is_kept_long) in steps {
                if step > 0 || there.is_empty() {
                    let slot = entries.insert(Entry(Tick::at(number), ListLinks::NONE, step == 2));
                    let ttl = if is_kept_long { DAY } else { HOUR };
                    expiring.insert(&mut entries, slot, ttl);
                    there.push((Tick::at(number), slot));
                } else {
                    let (_, slot) = there.swap_remove(number as usize % there.len());
                    expiring.remove(&mut entries, slot);
                    entries.remove(slot);
                }
                let first = there.iter().map(|(expires, _)| *expires).min();
                prop_assert_eq!(expiring.first(&entries).map(|(expires, _)| expires), first);
                let mut due: Vec<_> = expiring.lines.iter().flat_map(|lines| lines.until(&entries, Tick::at(25))).collect();
                let mut expected: Vec<_> =
                    there.iter().filter(|(at, _)| *at <= Tick::at(25)).map(|(_, slot)| *slot).collect();
                due.sort();
                expected.sort();
                prop_assert_eq!(due, expected);
                prop_assert_eq!(soonest.shard().map(|(_, expires, _)| expires), first);
                prop_assert_eq!(expiring.is_due(Tick::at(25)), first.is_some_and(|it| it <= Tick::at(25)));
            }
            // The remaining operations, in the order of expiry.
            there.sort();
            for (expires, _) in there {
                let (first, slot) = expiring.first(&entries).unwrap();
                prop_assert_eq!(first, expires);
                expiring.remove(&mut entries, slot);
            }
            prop_assert!(expiring.lines.iter().all(DeadlineLists::is_empty));
        }
    }
}
