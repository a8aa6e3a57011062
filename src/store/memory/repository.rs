//! The writes of an operation, and its deletion.

use super::{MemoryStore, shard::OperationEntry, writing::InsertedEntry};
use crate::{
    operation::{OperationId, Outcome, Payload, Progress},
    store::{
        Created, FencingToken, NewOperation, Placed, Record, Repository, Stamp, StoreError, Written,
    },
};

impl<T: Payload> Repository for MemoryStore<T> {
    fn create_now(&self, new: &NewOperation) -> Option<Placed> {
        match self.insert_with_room(new, self.now()) {
            Ok(InsertedEntry::New(placed)) => Some(placed),
            Ok(InsertedEntry::Not(_)) | Err(_) => None,
        }
    }

    fn finish_now(
        &self,
        placed: Placed,
        id: &OperationId,
        token: FencingToken,
        outcome: &Outcome<T>,
    ) -> bool {
        self.finish_at(placed, id, token, outcome)
    }

    async fn create(&self, new: NewOperation) -> Result<Created<T>, StoreError> {
        let now = self.now();
        Ok(match self.insert_with_room(&new, now)? {
            InsertedEntry::New(_) => Created::New(Record::create(&new, now.wall)),
            InsertedEntry::Not(created) => created,
        })
    }

    async fn start(&self, id: &OperationId, token: FencingToken) -> Result<Written<T>, StoreError> {
        self.change(id, |entry, now| entry.record.start(token, now.wall))
    }

    async fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> Result<Written<T>, StoreError> {
        self.change(id, |entry, now| {
            entry.record.report(token, progress, now.wall)
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
            entry.record.finish(token, outcome, progress, now.wall, ttl)
        })
    }

    async fn force_finish(
        &self,
        id: &OperationId,
        expected: Stamp,
        outcome: Outcome<T>,
    ) -> Result<Written<T>, StoreError> {
        let ttl = self.limits.ttl;
        let write = self.change(id, |entry, now| {
            entry.record.force_finish(expected, outcome, now.wall, ttl)
        })?;
        if let Written::Done(record) = &write {
            self.notify_holder(id, record.node());
        }
        Ok(write)
    }

    async fn delete(&self, id: &OperationId, expected: Stamp) -> Result<Written<T>, StoreError> {
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
            if record.stamp() != Some(expected) || !record.operation().state().is_terminal() {
                return Ok(Written::Lost(record.clone()));
            }
            let expires = entry.expires();
            let Some(entry) = shard.remove(hashed) else {
                return Ok(Written::Gone);
            };
            self.close_accounts(std::slice::from_ref(&entry));
            if let Some((name, keyring)) = &mut keyring
                && let Some(key) = keyring.get(name).filter(|key| key.is_of(id))
            {
                let deleted = key.deleted(&entry.record, now, expires);
                keyring.put(name, deleted, 0, &self.shared.room);
            }
            break entry;
        };
        self.shared.room.free(removed.weight.bytes());
        removed.wake();
        Ok(Written::Done(removed.record))
    }
}
