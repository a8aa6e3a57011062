//! Keys before there is an operation.

use std::time::Duration;

use super::{MemoryStore, keys::KeyEntry, writing::PURGED_PER_END};
use crate::{
    operation::Payload,
    store::{FencingToken, Key, Keys, Owner, Reservation, StoreError},
};

impl<T: Payload> Keys for MemoryStore<T> {
    async fn reserve(
        &self,
        key: &Key,
        owner: Option<&Owner>,
        token: FencingToken,
        term: Duration,
    ) -> Result<Reservation<T>, StoreError> {
        let now = self.now().tick;
        let entry = KeyEntry::reserved(key, owner, token, now.plus(term));
        let (room, weight) = (&self.shared.room, entry.weight());
        let mut keyring = self.lock_key(&key.name);
        if let Some(before) = keyring.get(&key.name)
            && before.is_reserved_by(token, now)
        {
            // In its own room.
            keyring.put(&key.name, entry, room);
            return Ok(Reservation::Reserved(token));
        }
        drop(keyring);
        // Before the lock: what goes for it may hang on keys itself.
        let has_room = self.make_room(|| room.has_bytes(&self.limits, weight), weight, now);
        let mut keyring = self.lock_key(&key.name);
        if let Some(before) = keyring.get(&key.name)
            && let Some(held) = before.look_up(key, owner, now, |id| self.made_by(&key.name, id))
        {
            return Ok(held);
        }
        keyring.purge(now, PURGED_PER_END, room);
        if !has_room {
            return Err(StoreError::Full);
        }
        keyring.put(&key.name, entry, room);
        Ok(Reservation::Reserved(token))
    }

    async fn settle(&self, key: &Key, token: FencingToken, answer: T) -> Result<bool, StoreError> {
        let now = self.now().tick;
        let mut keyring = self.lock_key(&key.name);
        let entry = keyring.get(&key.name);
        if entry.is_some_and(|entry| entry.is_settled_by(token, now)) {
            return Ok(true);
        }
        let entry = entry.filter(|entry| entry.is_reserved_by(token, now));
        let bytes = size_of::<T>() + self.limits.heap_bytes(&answer);
        let settled =
            entry.map(|entry| entry.settled(answer, bytes, now, now.plus(self.limits.ttl)));
        Ok(settled
            .map(|settled| keyring.put(&key.name, settled, &self.shared.room))
            .is_some())
    }

    async fn release_key(&self, key: &Key, token: FencingToken) -> Result<bool, StoreError> {
        let now = self.now().tick;
        let mut keyring = self.lock_key(&key.name);
        let reserved = keyring
            .get(&key.name)
            .is_some_and(|entry| entry.is_reserved_by(token, now));
        if reserved {
            keyring.remove(&key.name, &self.shared.room);
        }
        Ok(reserved)
    }
}
