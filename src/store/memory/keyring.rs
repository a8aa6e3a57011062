//! A table of keys in parts, each under a lock of its own.
//!
//! It knows of a key only when its time is over, whether it may go, and what it weighs.

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

/// What a key stands for, as far as its place in the table goes.
pub(super) trait Keyed<N> {
    /// When its time is over.
    fn deadline(&self) -> Tick;

    /// Whether it may go for something new.
    fn may_go(&self, now: Tick, min_retention: Duration) -> bool;

    /// About how many bytes it takes.
    fn weight(&self) -> usize;

    /// Its owner has it from now on, under this name.
    fn enter(&self, name: &N, room: &Usage);

    /// Its owner has it no more.
    fn leave(&self, name: &N, room: &Usage);
}

/// The keys, by name.
pub(super) struct KeyTable<N, E> {
    rings: Box<[Mutex<Keyring<N, E>>]>,
}

/// The keys under one lock.
pub(super) struct Keyring<N, E> {
    /// Keys are chosen by clients, so they are hashed with a secret of the
    /// process.
    entries: HashMap<N, E>,
    /// Those whose time will be over, by when.
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

    /// Locks the ring that the name with this hash is on.
    pub(super) fn lock(&self, hash: u64) -> MutexGuard<'_, Keyring<N, E>> {
        lock(&self.rings[hash as usize % self.rings.len()])
    }

    /// Removes at most `limit` keys whose time is over, and says how many.
    pub(super) fn purge(&self, now: Tick, limit: usize, room: &Usage) -> usize {
        if !room.has_keys() {
            return 0; // without a look at each ring
        }
        let mut purged = 0;
        for ring in &self.rings {
            purged += lock(ring).purge(now, limit - purged, room);
        }
        purged
    }

    /// Removes the key that would end soonest of those that may go; false if there is none.
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
            // The name may stand for something else by now.
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

    /// Puts `entry` under `name`, in the place of what is there. So many bytes as are
    /// `paid` of its weight were counted before.
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

    /// Removes at most `limit` keys whose time is over, and says how many.
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

    /// The key that would end soonest of those that may go.
    fn soonest(&self, may_go: impl Fn(&E) -> bool) -> Option<(Tick, N)> {
        let may_go = |(_, name): &&(Tick, N)| self.entries.get(name).is_some_and(&may_go);
        self.ending.iter().find(may_go).cloned()
    }
}
