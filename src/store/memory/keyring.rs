//! A table of keys in parts, each under a lock of its own.
//!
//! The table knows only the deadline of a key, whether it may be evicted, and its weight.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::PoisonError,
    time::Duration,
};

use super::{
    limits::Usage,
    shard::Tick,
    sync::{Mutex, MutexGuard},
};

/// The value of a key, as far as the table needs it.
pub(super) trait Keyed<N> {
    /// Returns when the key expires.
    fn deadline(&self) -> Tick;

    /// Returns whether the key may be evicted for a new entry.
    fn may_go(&self, now: Tick, min_retention: Duration) -> bool;

    /// Returns the approximate size in bytes.
    fn weight(&self) -> usize;

    /// Adds the key to the account of its owner, under this name.
    fn enter(&self, name: &N, room: &Usage);

    /// Removes the key from the account of its owner.
    fn leave(&self, name: &N, room: &Usage);
}

/// The keys, by name.
pub(super) struct KeyTable<N, E> {
    rings: Box<[Mutex<Keyring<N, E>>]>,
}

/// The keys under one lock.
pub(super) struct Keyring<N, E> {
    /// Clients choose the keys, so the hash is seeded with a secret of the process.
    entries: HashMap<N, E>,
    /// The keys with a deadline, in its order.
    ending: BTreeSet<(Tick, N)>,
}

impl<N: Clone + Hash + Ord, E: Keyed<N>> KeyTable<N, E> {
    pub(super) fn new(rings: usize) -> Self {
        let ring = || {
            Mutex::new(Keyring {
                entries: HashMap::new(),
                ending: BTreeSet::new(),
            })
        };
        Self {
            rings: std::iter::repeat_with(ring).take(rings).collect(),
        }
    }

    /// Locks the ring for names with this hash.
    pub(super) fn lock(&self, hash: u64) -> MutexGuard<'_, Keyring<N, E>> {
        lock(&self.rings[hash as usize % self.rings.len()])
    }

    /// Deletes at most `limit` expired keys and returns how many it deleted.
    pub(super) fn purge(&self, now: Tick, limit: usize, room: &Usage) -> usize {
        if !room.has_keys() {
            return 0; // without locking each ring
        }
        let mut purged = 0;
        for ring in &self.rings {
            purged += lock(ring).purge(now, limit - purged, room);
        }
        purged
    }

    /// Evicts the key with the earliest deadline among those that may be evicted; false if
    /// there is none.
    pub(super) fn evict(&self, now: Tick, min_retention: Duration, room: &Usage) -> bool {
        let may_go = |entry: &E| entry.may_go(now, min_retention);
        loop {
            let soonest = self.rings.iter().enumerate().filter_map(|(index, ring)| {
                let (deadline, name) = lock(ring).soonest(may_go)?;
                Some((deadline, index, name))
            });
            let Some((_, index, name)) = soonest.min() else {
                return false;
            };
            let mut ring = lock(&self.rings[index]);
            // The name may have another value now.
            if ring.get(&name).is_some_and(may_go) {
                ring.remove(&name, room);
                return true;
            }
        }
    }
}

fn lock<N, E>(ring: &Mutex<Keyring<N, E>>) -> MutexGuard<'_, Keyring<N, E>> {
    // Nothing in a critical section panics halfway through a change.
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<N: Clone + Hash + Ord, E: Keyed<N>> Keyring<N, E> {
    pub(super) fn get(&self, name: &N) -> Option<&E> {
        self.entries.get(name)
    }

    /// Stores `entry` under `name`, replacing any other. `paid` bytes of its weight are
    /// already counted.
    pub(super) fn put(&mut self, name: &N, entry: E, paid: usize, room: &Usage) {
        let (deadline, weight) = (entry.deadline(), entry.weight());
        entry.enter(name, room);
        let before = self.entries.insert(name.clone(), entry);
        let freed = match before {
            Some(before) => {
                self.ending.remove(&(before.deadline(), name.clone()));
                before.leave(name, room);
                before.weight()
            }
            None => {
                room.add_key();
                0
            }
        };
        if deadline != Tick::NEVER {
            self.ending.insert((deadline, name.clone()));
        }
        room.resize(freed + paid, weight);
    }

    pub(super) fn remove(&mut self, name: &N, room: &Usage) {
        if let Some((name, entry)) = self.entries.remove_entry(name) {
            entry.leave(&name, room);
            self.ending.remove(&(entry.deadline(), name));
            room.remove_key();
            room.resize(entry.weight(), 0);
        }
    }

    /// Deletes at most `limit` expired keys and returns how many it deleted.
    pub(super) fn purge(&mut self, now: Tick, limit: usize, room: &Usage) -> usize {
        let mut purged = 0;
        while purged < limit
            && let Some((_, name)) = self.ending.first().filter(|(deadline, _)| *deadline <= now)
        {
            let name = name.clone();
            self.remove(&name, room);
            purged += 1;
        }
        purged
    }

    /// Returns the key with the earliest deadline among those that may be evicted.
    fn soonest(&self, may_go: impl Fn(&E) -> bool) -> Option<(Tick, N)> {
        let may_go = |(_, name): &&(Tick, N)| self.entries.get(name).is_some_and(&may_go);
        self.ending.iter().find(may_go).cloned()
    }
}
