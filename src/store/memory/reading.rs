//! Reads, and waits for a change.

use std::time::Duration;

use tokio::time::timeout;

use super::{MemoryStore, shard::Tick};
use crate::{
    operation::{OperationId, Payload},
    store::{Found, Reader, Record, Store, Version, Watch},
};

impl<T: Payload> MemoryStore<T> {
    pub(super) fn read(&self, id: &OperationId) -> Option<Record<T>> {
        self.read_with(id, Record::clone)
    }

    /// Reads the operation for a reader. Its body is in memory anyway.
    fn read_for(&self, id: &OperationId, reader: Reader<'_>) -> Option<Record<T>> {
        self.read_with(id, |record| match record.owner() == reader.owner {
            true => record.clone(),
            false => record.without_result(),
        })
    }

    #[inline]
    fn read_with(
        &self,
        id: &OperationId,
        read: impl FnOnce(&Record<T>) -> Record<T>,
    ) -> Option<Record<T>> {
        let now = Tick::after(self.shared.started.elapsed());
        let id = self.hashed(id);
        let shard = self.lock(id.shard());
        shard.get(id, now).map(|entry| read(&entry.record))
    }
}

impl<T: Payload> Store for MemoryStore<T> {
    type Output = T;

    async fn get(&self, id: &OperationId) -> Found<T> {
        Ok(self.read(id))
    }

    fn get_now(&self, id: &OperationId) -> Option<Found<T>> {
        Some(Ok(self.read(id)))
    }

    async fn get_for(&self, id: &OperationId, reader: Reader<'_>) -> Found<T> {
        Ok(self.read_for(id, reader))
    }

    fn get_now_for(&self, id: &OperationId, reader: Reader<'_>) -> Option<Found<T>> {
        Some(Ok(self.read_for(id, reader)))
    }
}

impl<T: Payload> Watch for MemoryStore<T> {
    async fn changed(&self, id: &OperationId, since: Version, at_most: Duration) -> Found<T> {
        let _waiting = self.shared.room.wait();
        let hashed = self.hashed(id);
        let changed = timeout(at_most, async {
            loop {
                let waiter = {
                    let now = self.now().tick;
                    let mut shard = self.lock(hashed.shard());
                    let entry = shard.get_mut(hashed, now)?;
                    if entry.record.version() != Some(since) {
                        return Some(entry.record.clone());
                    }
                    // Created under the lock under which every change is made, so that no change
                    // is missed.
                    entry.waiter()
                };
                waiter.await;
            }
        });
        Ok(changed.await.unwrap_or_else(|_| self.read(id)))
    }
}
