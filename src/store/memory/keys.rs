//! The keys of requests, so that a repetition finds what the first one made.
//!
//! A key's lock is taken before that of an operation's shard, never after it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::shard::Tick;
use crate::{
    operation::OperationId,
    store::{FencingToken, Key, Owner, Record, Reservation},
};

pub(super) struct KeyTable<T> {
    shards: Box<[Mutex<Keyring<T>>]>,
    /// No token is given twice: a released key must not let its old holder in.
    tokens: AtomicU64,
}

const SHARDS: usize = 64;

/// Keys are chosen by clients, so they are hashed with a secret of the process.
pub(super) type Keyring<T> = HashMap<Arc<str>, KeyEntry<T>>;

pub(super) struct KeyEntry<T> {
    owner: Option<Owner>,
    fingerprint: [u8; 32],
    token: FencingToken,
    bound: Bound<T>,
    deadline: Tick,
}

/// What a key stands for.
enum Bound<T> {
    /// A request that is being answered.
    Request,
    /// An operation, as long as it is there.
    Operation(OperationId),
    /// An operation that was removed before its time.
    Forgotten(Arc<Record<T>>),
    /// An early answer.
    Answer(Arc<T>),
}

impl<T> KeyTable<T> {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            tokens: AtomicU64::new(FencingToken::FIRST.get()),
        }
    }

    pub(super) fn next_token(&self) -> FencingToken {
        FencingToken::from_number(self.tokens.fetch_add(1, Relaxed))
    }

    pub(super) fn lock(&self, name: &str, hash: u64) -> MutexGuard<'_, Keyring<T>> {
        debug_assert!(!name.is_empty(), "an empty key is none");
        self.shards[hash as usize % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes at most `limit` keys whose time is over.
    pub(super) fn purge(&self, now: Tick, limit: usize) {
        for keyring in &self.shards {
            let mut keyring = keyring.lock().unwrap_or_else(PoisonError::into_inner);
            let over: Vec<Arc<str>> = keyring
                .iter()
                .filter(|(_, entry)| entry.deadline <= now)
                .map(|(name, _)| Arc::clone(name))
                .take(limit)
                .collect();
            for name in over {
                keyring.remove(&name);
            }
        }
    }
}

impl<T> KeyEntry<T> {
    fn new(key: &Key, owner: Option<&Owner>, bound: Bound<T>, deadline: Tick) -> Self {
        Self {
            owner: owner.cloned(),
            fingerprint: key.fingerprint,
            token: FencingToken::FIRST,
            bound,
            deadline,
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

    /// Whether the key stands for this operation.
    pub(super) fn is_of(&self, operation: &OperationId) -> bool {
        matches!(&self.bound, Bound::Operation(id) if id == operation)
    }

    /// Whether `token` reserved it, and it has not lapsed.
    pub(super) fn is_reserved_by(&self, token: FencingToken, now: Tick) -> bool {
        matches!(self.bound, Bound::Request) && self.token == token && now < self.deadline
    }

    /// Keeps an early answer until `deadline`.
    pub(super) fn settle(&mut self, answer: T, deadline: Tick) {
        self.bound = Bound::Answer(Arc::new(answer));
        self.deadline = deadline;
    }

    /// Keeps the record of an operation that was removed, until `deadline`.
    pub(super) fn forget(&mut self, record: &Arc<Record<T>>, deadline: Tick) {
        if self.is_of(record.operation().id()) {
            self.bound = Bound::Forgotten(Arc::clone(record));
            self.deadline = deadline;
        }
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
