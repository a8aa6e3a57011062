//! Idempotency keys in memory, so that a repeated request finds the result of the first.
//!
//! The lock of a key is acquired before that of an operation's shard, never after it.

use std::{sync::Arc, time::Duration};

use super::{
    keyring::{self, Keyed},
    ledger,
    limits::Usage,
    shard::Tick,
};
use crate::{
    operation::OperationId,
    store::{FencingToken, IdempotencyKey, Owner, Record, Reservation},
};

/// Keys by scoped name.
pub(super) type StoredKeys<T> = keyring::KeyTable<Arc<str>, KeyEntry<T>>;
pub(super) type StoredKeyring<T> = keyring::Keyring<Arc<str>, KeyEntry<T>>;

pub(super) struct KeyEntry<T> {
    owner: Option<Owner>,
    fingerprint: [u8; 32],
    token: FencingToken,
    bound: KeyBinding<T>,
    deadline: Tick,
    /// The time at which the key was bound.
    since: Tick,
    /// The approximate size in bytes.
    weight: usize,
}

/// The value that a key stands for.
enum KeyBinding<T> {
    /// A request that is being answered.
    Request,
    /// An operation, as long as it exists.
    Operation(OperationId),
    /// An operation that was deleted before it expired; without its result.
    Deleted(Box<Record<T>>),
    /// An early answer.
    Answer(Arc<T>),
}

impl<T> Keyed<Arc<str>> for KeyEntry<T> {
    fn deadline(&self) -> Tick {
        self.deadline
    }

    /// Returns whether the key has expired, or has been past for `min_retention`.
    fn may_go(&self, now: Tick, min_retention: Duration) -> bool {
        self.deadline <= now || self.is_past() && self.since.plus(min_retention) <= now
    }

    fn weight(&self) -> usize {
        self.weight
    }

    fn enter(&self, name: &Arc<str>, room: &Usage) {
        let past = self.past(name);
        room.ledger.enter(self.owner.as_ref(), self.weight, past);
    }

    fn leave(&self, name: &Arc<str>, room: &Usage) {
        let past = self.past(name);
        room.ledger.leave(self.owner.as_ref(), self.weight, past);
    }
}

/// The approximate size of a key besides its name and its binding: its slot in a map at
/// half load, its place in the index, and the counts of two `Arc`s.
const OVERHEAD: usize = 2 * 160 + 48 + 32;

impl<T> KeyEntry<T> {
    fn new(key: &IdempotencyKey, bound: KeyBinding<T>, deadline: Tick) -> Self {
        let owner = key.owner.as_ref();
        let of_owner = owner.map_or(0, |owner| owner.as_str().len() + 8);
        Self {
            owner: owner.cloned(),
            fingerprint: key.fingerprint,
            token: FencingToken::NONE,
            bound,
            deadline,
            since: Tick::NEVER,
            weight: OVERHEAD + key.name.len() + of_owner,
        }
    }

    /// Returns a key reserved for a request until `deadline`.
    pub(super) fn reserved(key: &IdempotencyKey, token: FencingToken, deadline: Tick) -> Self {
        Self {
            token,
            ..Self::new(key, KeyBinding::Request, deadline)
        }
    }

    /// Returns a key that created an operation.
    pub(super) fn of_operation(key: &IdempotencyKey, id: &OperationId) -> Self {
        Self::new(key, KeyBinding::Operation(id.clone()), Tick::NEVER)
    }

    /// Returns the same key with an early answer of `bytes`, kept until `deadline`.
    pub(super) fn settled(&self, answer: T, bytes: usize, now: Tick, deadline: Tick) -> Self {
        self.standing_for(KeyBinding::Answer(Arc::new(answer)), bytes, now, deadline)
    }

    /// Returns the same key for an operation that was deleted before it expired; kept until
    /// `deadline`.
    pub(super) fn deleted(&self, record: &Record<T>, now: Tick, deadline: Tick) -> Self {
        let bound = KeyBinding::Deleted(Box::new(record.without_result()));
        self.standing_for(bound, size_of::<Record<T>>(), now, deadline)
    }

    fn standing_for(
        &self,
        bound: KeyBinding<T>,
        bytes: usize,
        since: Tick,
        deadline: Tick,
    ) -> Self {
        Self {
            owner: self.owner.clone(),
            fingerprint: self.fingerprint,
            token: self.token,
            bound,
            deadline,
            since,
            weight: self.weight + bytes + ledger::OVERHEAD_OF_PAST,
        }
    }

    /// Returns whether the key is past: bound to an answer or a deleted operation, so it may be
    /// evicted.
    pub(super) fn is_past(&self) -> bool {
        matches!(self.bound, KeyBinding::Answer(_) | KeyBinding::Deleted(_))
    }

    /// Returns the key's entry in the account of its owner, if it is past.
    fn past(&self, name: &Arc<str>) -> Option<(Tick, Arc<str>)> {
        self.is_past().then(|| (self.since, Arc::clone(name)))
    }

    /// Returns whether an answer was stored under `token`.
    pub(super) fn is_settled_by(&self, token: FencingToken, now: Tick) -> bool {
        matches!(self.bound, KeyBinding::Answer(_)) && self.token == token && now < self.deadline
    }

    /// Returns whether the key stands for this operation.
    pub(super) fn is_of(&self, operation: &OperationId) -> bool {
        matches!(&self.bound, KeyBinding::Operation(id) if id == operation)
    }

    /// Returns whether `token` reserved the key, and the reservation has not expired.
    pub(super) fn is_reserved_by(&self, token: FencingToken, now: Tick) -> bool {
        matches!(self.bound, KeyBinding::Request) && self.token == token && now < self.deadline
    }
}

impl<T: Clone> KeyEntry<T> {
    /// Returns the state of the key for this request; `None` if it is free.
    pub(super) fn look_up(
        &self,
        key: &IdempotencyKey,
        now: Tick,
        read: impl FnOnce(&OperationId) -> Option<Record<T>>,
    ) -> Option<Reservation<T>> {
        if self.deadline <= now {
            return None;
        }
        let found = match &self.bound {
            KeyBinding::Request => Reservation::InProgress,
            KeyBinding::Operation(id) => Reservation::Operation(read(id)?),
            KeyBinding::Deleted(record) => Reservation::Deleted(Record::clone(record)),
            KeyBinding::Answer(answer) => Reservation::Answered(Arc::clone(answer)),
        };
        Some(match self.fingerprint == key.fingerprint {
            true => found,
            false => Reservation::Mismatch,
        })
    }
}
