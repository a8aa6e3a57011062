//! The keys of requests, so that a repetition finds what the first one made.
//!
//! A key's lock is taken before that of an operation's shard, never after it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{limits::Room, shard::Tick};
use crate::{
    operation::OperationId,
    store::{FencingToken, Key, Owner, Record, Reservation},
};

pub(super) struct KeyTable<T> {
    shards: Box<[Mutex<Keyring<T>>]>,
}

const SHARDS: usize = 64;

/// The keys under one lock.
pub(super) struct Keyring<T> {
    /// Keys are chosen by clients, so they are hashed with a secret of the
    /// process.
    entries: HashMap<Arc<str>, KeyEntry<T>>,
    /// Those whose time will be over, by when.
    ending: BTreeSet<(Tick, Arc<str>)>,
}

pub(super) struct KeyEntry<T> {
    owner: Option<Owner>,
    fingerprint: [u8; 32],
    token: FencingToken,
    bound: Bound<T>,
    deadline: Tick,
    /// When it came to stand for that.
    since: Tick,
    /// About how many bytes it takes.
    weight: usize,
}

/// What a key stands for.
enum Bound<T> {
    /// A request that is being answered.
    Request,
    /// An operation, as long as it is there.
    Operation(OperationId),
    /// An operation that was removed before its time; without its result.
    Forgotten(Arc<Record<T>>),
    /// An early answer.
    Answer(Arc<T>),
}

impl<T> KeyTable<T> {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    pub(super) fn lock(&self, name: &str, hash: u64) -> MutexGuard<'_, Keyring<T>> {
        debug_assert!(!name.is_empty(), "an empty key is none");
        self.shards[hash as usize % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes at most `limit` keys whose time is over, and says how many.
    pub(super) fn purge(&self, now: Tick, limit: usize, room: &Room) -> usize {
        if !room.has_keys() {
            return 0; // without a look at each shard
        }
        let mut purged = 0;
        for keyring in &self.shards {
            let mut keyring = keyring.lock().unwrap_or_else(PoisonError::into_inner);
            purged += keyring.purge(now, limit - purged, room);
        }
        purged
    }

    /// Removes the key that would end soonest of those that stand for something
    /// past, and have done so for `min_retention`; false if there is none.
    pub(super) fn evict(&self, now: Tick, min_retention: Duration, room: &Room) -> bool {
        let lock = |keyring: &Mutex<Keyring<T>>| {
            keyring
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .soonest(now, min_retention)
        };
        let soonest = self
            .shards
            .iter()
            .enumerate()
            .filter_map(|(index, keyring)| {
                let (deadline, name) = lock(keyring)?;
                Some((deadline, index, name))
            });
        let Some((_, index, name)) = soonest.min() else {
            return false;
        };
        let mut keyring = self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        keyring.remove(&name, room);
        true
    }
}

impl<T> Default for Keyring<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            ending: BTreeSet::new(),
        }
    }
}

impl<T> Keyring<T> {
    pub(super) fn get(&self, name: &str) -> Option<&KeyEntry<T>> {
        self.entries.get(name)
    }

    /// Puts `entry` under `name`, in the place of what is there.
    pub(super) fn put(&mut self, name: &Arc<str>, entry: KeyEntry<T>, room: &Room) {
        let (deadline, weight) = (entry.deadline, entry.weight);
        let before = self.entries.insert(Arc::clone(name), entry);
        let freed = match before {
            Some(before) => {
                self.ending.remove(&(before.deadline, Arc::clone(name)));
                before.weight
            }
            None => {
                room.add_key();
                0
            }
        };
        if deadline != Tick::NEVER {
            self.ending.insert((deadline, Arc::clone(name)));
        }
        room.resize(freed, weight);
    }

    pub(super) fn remove(&mut self, name: &str, room: &Room) {
        if let Some((name, entry)) = self.entries.remove_entry(name) {
            self.ending.remove(&(entry.deadline, name));
            room.remove_key();
            room.resize(entry.weight, 0);
        }
    }

    /// Removes at most `limit` keys whose time is over, and says how many.
    pub(super) fn purge(&mut self, now: Tick, limit: usize, room: &Room) -> usize {
        let mut purged = 0;
        while purged < limit
            && let Some((_, name)) = self.ending.first().filter(|(deadline, _)| *deadline <= now)
        {
            let name = Arc::clone(name);
            self.remove(&name, room);
            purged += 1;
        }
        purged
    }
}

impl<T> Keyring<T> {
    /// The key that would end soonest of those that may go.
    fn soonest(&self, now: Tick, min_retention: Duration) -> Option<(Tick, Arc<str>)> {
        let may_go = |(_, name): &&(Tick, Arc<str>)| {
            let entry = self.entries.get(name);
            entry.is_some_and(|entry| entry.is_past() && entry.since.plus(min_retention) <= now)
        };
        self.ending.iter().find(may_go).cloned()
    }
}

/// What a key takes besides its name and what it stands for: its slot in a map
/// at half load, its place in the index, and the counts of two `Arc`s.
const OVERHEAD: usize = 2 * 160 + 48 + 32;

impl<T> KeyEntry<T> {
    fn new(key: &Key, owner: Option<&Owner>, bound: Bound<T>, deadline: Tick) -> Self {
        Self {
            owner: owner.cloned(),
            fingerprint: key.fingerprint,
            token: FencingToken::NONE,
            bound,
            deadline,
            since: Tick::NEVER,
            weight: OVERHEAD + key.name.len() + owner.map_or(0, |owner| owner.as_str().len()),
        }
    }

    /// A key under which a request is being answered, until `deadline`.
    pub(super) fn reserved(
        key: &Key,
        owner: Option<&Owner>,
        token: FencingToken,
        deadline: Tick,
    ) -> Self {
        Self {
            token,
            ..Self::new(key, owner, Bound::Request, deadline)
        }
    }

    /// A key that made an operation.
    pub(super) fn of_operation(key: &Key, owner: Option<&Owner>, id: &OperationId) -> Self {
        Self::new(key, owner, Bound::Operation(id.clone()), Tick::NEVER)
    }

    /// The same key with an early answer of `bytes`, kept until `deadline`.
    pub(super) fn settled(&self, answer: T, bytes: usize, now: Tick, deadline: Tick) -> Self {
        self.standing_for(Bound::Answer(Arc::new(answer)), bytes, now, deadline)
    }

    /// The same key with what is left of its operation, which was removed before
    /// its time; kept until `deadline`.
    pub(super) fn forgotten(&self, record: &Record<T>, now: Tick, deadline: Tick) -> Self {
        let bound = Bound::Forgotten(Arc::new(record.without_result()));
        self.standing_for(bound, size_of::<Record<T>>(), now, deadline)
    }

    fn standing_for(&self, bound: Bound<T>, bytes: usize, since: Tick, deadline: Tick) -> Self {
        Self {
            owner: self.owner.clone(),
            fingerprint: self.fingerprint,
            token: self.token,
            bound,
            deadline,
            since,
            weight: self.weight + bytes,
        }
    }

    /// Whether it stands for something that is over: it may go for something new.
    fn is_past(&self) -> bool {
        matches!(self.bound, Bound::Answer(_) | Bound::Forgotten(_))
    }

    /// Whether an answer was kept under `token`.
    pub(super) fn is_settled_by(&self, token: FencingToken, now: Tick) -> bool {
        matches!(self.bound, Bound::Answer(_)) && self.token == token && now < self.deadline
    }

    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Whether the key stands for this operation.
    pub(super) fn is_of(&self, operation: &OperationId) -> bool {
        matches!(&self.bound, Bound::Operation(id) if id == operation)
    }

    /// Whether `token` reserved it, and it has not lapsed.
    pub(super) fn is_reserved_by(&self, token: FencingToken, now: Tick) -> bool {
        matches!(self.bound, Bound::Request) && self.token == token && now < self.deadline
    }

    /// What the key stands for to `owner` with this request; `None` if it is
    /// free.
    pub(super) fn look_up(
        &self,
        key: &Key,
        owner: Option<&Owner>,
        now: Tick,
        read: impl FnOnce(&OperationId) -> Option<Arc<Record<T>>>,
    ) -> Option<Reservation<T>> {
        if self.deadline <= now {
            return None;
        }
        let found = match &self.bound {
            Bound::Request => Reservation::InProgress,
            Bound::Operation(id) => Reservation::Operation(read(id)?),
            Bound::Forgotten(record) => Reservation::Operation(Arc::clone(record)),
            Bound::Answer(answer) => Reservation::Answered(Arc::clone(answer)),
        };
        Some(match () {
            () if self.owner.as_ref() != owner => Reservation::Taken,
            () if self.fingerprint != key.fingerprint => Reservation::Mismatch,
            () => found,
        })
    }
}
