//! The steps of an operation.

use std::sync::Arc;

use super::{
    MemoryStore, eviction::NeededRoom, keyring::Keyed, keys::KeyEntry, shard::OperationEntry,
};
use crate::{
    operation::{OperationId, Outcome, Payload, Progress},
    store::{
        Created, FencingToken, NewOperation, Record, Repository, StoreError, Version, Written,
    },
};

impl<T: Payload> Repository for MemoryStore<T> {
    fn never_waits(&self) -> bool {
        true
    }

    async fn create(&self, new: NewOperation) -> Result<Created<T>, StoreError> {
        let now = self.now();
        let record = Arc::new(Record::create(&new, now.wall));
        let of_key = new
            .key
            .as_ref()
            .map_or(0, |key| KeyEntry::<T>::of_operation(key, &new.id).weight());
        let of_request = new.request.as_ref().map_or(0, bytes::Bytes::len);
        let of_operation = self.limits.weigh(&record, of_request);
        let weight = of_operation.bytes() + of_key;
        let wanted = NeededRoom {
            owner: new.owner.as_ref(),
            weight,
        };
        if new.owners_known || new.owner.is_some() {
            self.shared.room.know_owners();
        }
        let take = || self.shared.room.take(&self.limits, weight);
        let mut has_room = take();
        let mut was_made = false;
        let created = loop {
            let weights = (of_operation, of_key);
            match self.insert(&new, &record, weights, has_room, now) {
                // An operation that already exists needs no room.
                Err(StoreError::Full) if !was_made => {
                    was_made = true;
                    has_room = self.make_room(take, wanted, now.tick);
                }
                Err(StoreError::FullForOwner) if self.make_room_in_share(wanted, now.tick) => {}
                created => break created,
            }
        };
        if has_room && !matches!(created, Ok(Created::New(_))) {
            self.shared.room.free(weight);
        }
        created
    }

    async fn start(&self, id: &OperationId, token: FencingToken) -> Result<Written<T>, StoreError> {
        self.change(id, |entry, now| {
            entry.change(|record| record.start(token, now.wall))
        })
    }

    async fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> Result<Written<T>, StoreError> {
        self.change(id, |entry, now| {
            entry.change(|record| record.report(token, progress, now.wall))
        })
    }

    async fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<T>,
        progress: Option<Progress>,
    ) -> Result<Written<T>, StoreError> {
        let ttl = self.limits.ttl;
        self.change(id, |entry, now| {
            entry.change(|record| record.finish(token, outcome, progress, now.wall, ttl))
        })
    }

    async fn force_finish(
        &self,
        id: &OperationId,
        version: Version,
        outcome: Outcome<T>,
    ) -> Result<Written<T>, StoreError> {
        let ttl = self.limits.ttl;
        let write = self.change(id, |entry, now| {
            entry.change(|record| record.force_finish(version, outcome, now.wall, ttl))
        })?;
        if let Written::Done(record) = &write {
            self.notify_holder(id, record.node());
        }
        Ok(write)
    }

    async fn delete(&self, id: &OperationId, version: Version) -> Result<Written<T>, StoreError> {
        let now = self.now().tick;
        let hashed = self.hashed(id);
        let removed = loop {
            // The key is locked before the operation, and held to the end: in between, the
            // key would look free.
            let name_of = |entry: &OperationEntry<T>| entry.key().cloned();
            let Some(name) = self.lock(hashed.shard()).get(hashed, now).map(name_of) else {
                return Ok(Written::Gone);
            };
            let mut keyring = name.as_ref().map(|name| (name, self.lock_key(name)));
            let mut shard = self.lock(hashed.shard());
            let Some(entry) = shard.get(hashed, now) else {
                return Ok(Written::Gone);
            };
            if entry.key() != name.as_ref() {
                continue; // another operation has the id now
            }
            let record = &entry.record;
            if record.version() != Some(version) || !record.operation().state().is_terminal() {
                return Ok(Written::Lost(Arc::clone(record)));
            }
            let expires = entry.expires();
            let Some(entry) = shard.remove(hashed) else {
                return Ok(Written::Gone);
            };
            self.settle(std::slice::from_ref(&entry));
            if let Some((name, keyring)) = &mut keyring
                && let Some(key) = keyring.get(name).filter(|key| key.is_of(id))
            {
                let forgotten = key.forgotten(&entry.record, now, expires);
                keyring.put(name, forgotten, 0, &self.shared.room);
            }
            break entry;
        };
        self.shared.room.free(removed.weight.bytes());
        removed.wake();
        Ok(Written::Done(removed.record))
    }
}
