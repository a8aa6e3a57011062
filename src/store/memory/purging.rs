//! Deletes expired operations.

use super::{MemoryStore, SHARDS};
use crate::{
    operation::Payload,
    store::{Purge, StoreError},
};

impl<T: Payload> Purge for MemoryStore<T> {
    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        let now = self.now().tick;
        let mut purged = 0;
        for index in 0..SHARDS {
            if purged == limit {
                break;
            }
            let records = {
                let mut shard = self.lock(index);
                let records = shard.purge(now, limit - purged);
                self.close_accounts(&records);
                records
            };
            self.freed(&records);
            purged += records.len();
        }
        self.shared.keys.purge(now, limit, &self.shared.room);
        Ok(purged)
    }
}
