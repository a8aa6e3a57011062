//! Reservations of keys, before an operation exists.

use std::{sync::Arc, time::Duration};

use super::{
    MemoryStore,
    eviction::NeededRoom,
    keyring::Keyed,
    keys::{KeyEntry, StoredKeyring},
    shard::Tick,
    writing::PURGED_PER_END,
};
use crate::{
    operation::Payload,
    store::{FencingToken, IdempotencyKey, IdempotencyKeys, Reservation, StoreError},
};

impl<T: Payload> MemoryStore<T> {
    /// Returns the state of the key for a reservation under `token`, which may be that of
    /// `token` itself; `None` if the key is free.
    fn stands_for(
        &self,
        keyring: &StoredKeyring<T>,
        key: &IdempotencyKey,
        name: &Arc<str>,
        token: FencingToken,
        now: Tick,
    ) -> Option<Reservation<T>> {
        let entry = keyring.get(name)?;
        if entry.is_reserved_by(token, now) {
            return Some(Reservation::Reserved(token));
        }
        entry.look_up(key, now, |id| self.made_by(name, id, Clone::clone))
    }
}

impl<T: Payload> IdempotencyKeys for MemoryStore<T> {
    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
    ) -> Result<Reservation<T>, StoreError> {
        let (now, name) = (self.now().tick, key.scoped_name());
        let entry = KeyEntry::reserved(key, token, now.plus(term));
        let (room, weight) = (&self.shared.room, entry.weight());
        let has_room = || room.take_bytes(&self.limits, weight);
        let wanted = NeededRoom {
            owner: key.owner.as_ref(),
            weight,
        };
        if wanted.owner.is_some() {
            room.know_owners();
        }
        let mut has_taken = has_room();
        loop {
            let mut keyring = self.lock_key(&name);
            let there = self.stands_for(&keyring, key, &name, token, now);
            // A renewed reservation reuses its own room.
            let is_own = matches!(there, Some(Reservation::Reserved(_)));
            match there {
                Some(there) if !is_own => {
                    room.resize(if has_taken { weight } else { 0 }, 0);
                    return Ok(there);
                }
                None if !has_taken => {
                    // Without the lock, because eviction may lock keys itself. The key may
                    // stand for something by the next check.
                    drop(keyring);
                    has_taken = self.make_room(has_room, wanted, now);
                    if !has_taken {
                        return Err(StoreError::Full);
                    }
                }
                None if !self.has_bytes_in_share(wanted) => {
                    drop(keyring);
                    if !self.make_room_in_share(wanted, now) {
                        room.resize(weight, 0);
                        return Err(StoreError::FullForOwner);
                    }
                }
                _ => {
                    let paid = if has_taken { weight } else { 0 };
                    keyring.put(&name, entry, paid, room);
                    keyring.purge(now, PURGED_PER_END, room);
                    return Ok(Reservation::Reserved(token));
                }
            }
        }
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: T,
    ) -> Result<bool, StoreError> {
        let (now, name) = (self.now().tick, key.scoped_name());
        let mut keyring = self.lock_key(&name);
        let entry = keyring.get(&name);
        if entry.is_some_and(|entry| entry.is_settled_by(token, now)) {
            return Ok(true);
        }
        let entry = entry.filter(|entry| entry.is_reserved_by(token, now));
        let bytes = size_of::<T>() + self.limits.heap_bytes(&answer);
        let settled =
            entry.map(|entry| entry.settled(answer, bytes, now, now.plus(self.limits.ttl)));
        Ok(settled
            .map(|settled| keyring.put(&name, settled, 0, &self.shared.room))
            .is_some())
    }

    async fn release_reservation(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
    ) -> Result<bool, StoreError> {
        let (now, name) = (self.now().tick, key.scoped_name());
        let mut keyring = self.lock_key(&name);
        let reserved = keyring
            .get(&name)
            .is_some_and(|entry| entry.is_reserved_by(token, now));
        if reserved {
            keyring.remove(&name, &self.shared.room);
        }
        Ok(reserved)
    }
}
