//! Which operations expire next, of one shard and of all.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    SHARDS,
    shard::{Slot, Tick},
};

/// When the soonest operation of each shard expires, to be looked at without its lock.
///
/// It is changed under that lock, and may be another by the time it is believed: whoever
/// looked takes the lock, and looks again.
#[derive(Clone)]
pub(super) struct Soonest(Arc<[AtomicU64; SHARDS]>);

impl Soonest {
    pub(super) fn new() -> Self {
        let never = || AtomicU64::new(Tick::NEVER.get());
        Self(Arc::new(std::array::from_fn(|_| never())))
    }

    /// The shard whose operation expires soonest of all, when that is, and when the
    /// soonest of another shard does; `None` if none expires.
    pub(super) fn shard(&self) -> Option<(usize, Tick, Tick)> {
        let (mut shard, mut soonest, mut second) = (0, u64::MAX, u64::MAX);
        for (index, expires) in self.0.iter().enumerate() {
            let expires = expires.load(Relaxed);
            if expires >= second {
                continue; // as most, after one comparison
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

/// The terminal operations of a shard by the moment they expire.
pub(super) struct Expiring {
    order: BTreeSet<(Tick, Slot)>,
    soonest: Soonest,
    shard: usize,
}

impl Expiring {
    pub(super) fn of(shard: usize, soonest: Soonest) -> Self {
        Self {
            order: BTreeSet::new(),
            soonest,
            shard,
        }
    }

    pub(super) fn first(&self) -> Option<(Tick, Slot)> {
        self.order.first().copied()
    }

    pub(super) fn insert(&mut self, expires: Tick, slot: Slot) {
        self.order.insert((expires, slot));
        self.tell();
    }

    pub(super) fn remove(&mut self, expires: Tick, slot: Slot) {
        if self.order.remove(&(expires, slot)) {
            self.tell();
        }
    }

    pub(super) fn pop_first(&mut self) -> Option<Slot> {
        let (_, slot) = self.order.pop_first()?;
        self.tell();
        Some(slot)
    }

    fn tell(&self) {
        let first = self.first().map_or(Tick::NEVER, |(expires, _)| expires);
        self.soonest.0[self.shard].store(first.get(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soonest_shard_is_known_and_when_the_next_one_comes() {
        let soonest = Soonest::new();
        let mut shards: Vec<_> = (0..3).map(|n| Expiring::of(n, soonest.clone())).collect();
        assert_eq!(soonest.shard(), None);
        for (shard, expires, slot) in [(1, 5, 0), (2, 3, 1), (0, 9, 2), (2, 4, 3)] {
            shards[shard].insert(Tick::at(expires), slot);
        }
        assert_eq!(soonest.shard(), Some((2, Tick::at(3), Tick::at(5))));
        assert_eq!(shards[2].pop_first(), Some(1));
        assert_eq!(soonest.shard(), Some((2, Tick::at(4), Tick::at(5))));
        shards[2].remove(Tick::at(4), 3);
        assert_eq!(soonest.shard(), Some((1, Tick::at(5), Tick::at(9))));
    }
}
