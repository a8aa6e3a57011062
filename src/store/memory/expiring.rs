//! Which operations expire next, of one shard and of all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use slab::Slab;

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

/// The terminal operations of a shard by the moment they expire: a line of them for each
/// time to live.
///
/// Whatever is kept for the same time expires in the order in which it ended, so it joins
/// its line at the end. The lines lead through the entries themselves: none of this takes
/// memory of its own.
pub(super) struct Expiring {
    /// Handles with different times to live are rare: mostly there is one.
    lines: Vec<Line>,
    soonest: Soonest,
    shard: usize,
}

/// What is kept for the same time.
struct Line {
    ttl: Duration,
    first: Slot,
    last: Slot,
}

/// When an operation expires, and its place in its line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub(super) expires: Tick,
    before: Slot,
    after: Slot,
}

impl Due {
    /// Not before it has ended.
    pub(super) const NEVER: Self = Self {
        expires: Tick::NEVER,
        before: NO_SLOT,
        after: NO_SLOT,
    };
}

/// What stands in a line, once it has ended.
pub(super) trait Expires {
    fn due(&self) -> &Due;
    fn due_mut(&mut self) -> &mut Due;
}

/// No slab of slots this large fits into memory.
const NO_SLOT: Slot = Slot::MAX;

impl Expiring {
    pub(super) fn of(shard: usize, soonest: Soonest) -> Self {
        Self {
            lines: Vec::new(),
            soonest,
            shard,
        }
    }

    /// What expires first, and when.
    pub(super) fn first<E: Expires>(&self, entries: &Slab<E>) -> Option<(Tick, Slot)> {
        let first = |line: &Line| (entries[line.first as usize].due().expires, line.first);
        self.lines.iter().map(first).min()
    }

    /// Whether something has expired: to be asked before the entries are.
    pub(super) fn is_due(&self, now: Tick) -> bool {
        self.soonest.0[self.shard].load(Relaxed) <= now.get()
    }

    /// It expires then, and is kept for `ttl`.
    pub(super) fn insert<E: Expires>(
        &mut self,
        entries: &mut Slab<E>,
        slot: Slot,
        expires: Tick,
        ttl: Duration,
    ) {
        let line = self.lines.iter_mut().find(|line| line.ttl == ttl);
        let before = line.as_ref().map_or(NO_SLOT, |line| {
            // Mostly the last one: whose clock was read first is not always here first.
            let mut before = line.last;
            while let Some(entry) = entries.get(before as usize)
                && entry.due().expires > expires
            {
                before = entry.due().before;
            }
            before
        });
        let after = match (entries.get(before as usize), &line) {
            (Some(entry), _) => entry.due().after,
            (None, Some(line)) => line.first,
            (None, None) => NO_SLOT,
        };
        *entries[slot as usize].due_mut() = Due {
            expires,
            before,
            after,
        };
        let (mut first, mut last) = (slot, slot);
        if let Some(before) = entries.get_mut(before as usize) {
            before.due_mut().after = slot;
            first = line.as_ref().map_or(slot, |line| line.first);
        }
        if let Some(after) = entries.get_mut(after as usize) {
            after.due_mut().before = slot;
            last = line.as_ref().map_or(slot, |line| line.last);
        }
        match line {
            Some(line) => (line.first, line.last) = (first, last),
            None => self.lines.push(Line { ttl, first, last }),
        }
        if first == slot {
            self.tell(entries);
        }
    }

    /// Takes it out of its line, if it is in one.
    pub(super) fn remove<E: Expires>(&mut self, entries: &mut Slab<E>, slot: Slot) {
        let due = std::mem::replace(entries[slot as usize].due_mut(), Due::NEVER);
        let is_at_an_end = |line: &Line| line.first == slot || line.last == slot;
        let line = match due.before == NO_SLOT || due.after == NO_SLOT {
            true => self.lines.iter().position(is_at_an_end),
            false => None,
        };
        if let Some(before) = entries.get_mut(due.before as usize) {
            before.due_mut().after = due.after;
        }
        if let Some(after) = entries.get_mut(due.after as usize) {
            after.due_mut().before = due.before;
        }
        let Some(index) = line else { return };
        let line = &mut self.lines[index];
        if line.first == slot && line.last == slot {
            self.lines.swap_remove(index);
        } else if line.first == slot {
            line.first = due.after;
        } else {
            line.last = due.before;
            return;
        }
        self.tell(entries);
    }

    fn tell<E: Expires>(&self, entries: &Slab<E>) {
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

    impl Expires for Due {
        fn due(&self) -> &Due {
            self
        }

        fn due_mut(&mut self) -> &mut Due {
            self
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn the_soonest_shard_is_known_and_when_the_next_one_comes() {
        let soonest = Soonest::new();
        let mut shards: Vec<_> = (0..3)
            .map(|n| (Expiring::of(n, soonest.clone()), Slab::new()))
            .collect();
        assert_eq!(soonest.shard(), None);
        for (shard, expires) in [(1, 5), (0, 9), (2, 4), (2, 3)] {
            let (expiring, entries) = &mut shards[shard];
            let slot = entries.insert(Due::NEVER) as Slot;
            expiring.insert(entries, slot, Tick::at(expires), DAY);
        }
        assert_eq!(soonest.shard(), Some((2, Tick::at(3), Tick::at(5))));
        let (expiring, entries) = &mut shards[2];
        expiring.remove(entries, 1);
        assert_eq!(soonest.shard(), Some((2, Tick::at(4), Tick::at(5))));
        expiring.remove(entries, 0);
        assert_eq!(soonest.shard(), Some((1, Tick::at(5), Tick::at(9))));
    }

    proptest! {
        /// Whatever comes and goes, what is first is what expires first.
        #[test]
        fn is_in_the_order_of_expiry(
            steps in prop::collection::vec((0..3_u8, 0..50_u64, any::<bool>()), 0..60),
        ) {
            let soonest = Soonest::new();
            let (mut expiring, mut entries) = (Expiring::of(0, soonest.clone()), Slab::new());
            let mut there: Vec<(Tick, Slot)> = Vec::new();
            for (step, number, is_kept_long) in steps {
                if step > 0 || there.is_empty() {
                    let slot = entries.insert(Due::NEVER) as Slot;
                    let ttl = if is_kept_long { DAY } else { HOUR };
                    expiring.insert(&mut entries, slot, Tick::at(number), ttl);
                    there.push((Tick::at(number), slot));
                } else {
                    let (_, slot) = there.swap_remove(number as usize % there.len());
                    expiring.remove(&mut entries, slot);
                    entries.remove(slot as usize);
                }
                let first = there.iter().map(|(expires, _)| *expires).min();
                prop_assert_eq!(expiring.first(&entries).map(|(expires, _)| expires), first);
                prop_assert_eq!(soonest.shard().map(|(_, expires, _)| expires), first);
                prop_assert_eq!(expiring.is_due(Tick::at(25)), first.is_some_and(|it| it <= Tick::at(25)));
            }
            // And then the next, to the last.
            there.sort();
            for (expires, _) in there {
                let (first, slot) = expiring.first(&entries).unwrap();
                prop_assert_eq!(first, expires);
                expiring.remove(&mut entries, slot);
            }
            prop_assert!(expiring.lines.is_empty());
        }
    }
}
