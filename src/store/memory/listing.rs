//! Enumerating what there is.

use std::sync::Arc;

use super::{MemoryStore, SHARDS};
use crate::{
    operation::Payload,
    store::{Cursor, List, ListQuery, Page, Record, StoreError},
};

impl<T: Payload> List for MemoryStore<T> {
    async fn list(&self, query: &ListQuery) -> Result<Page<T>, StoreError> {
        let now = self.now().tick;
        let before = query.after.as_ref().map_or(Ok(u64::MAX), parse)?;
        let mut found: Vec<(u64, Arc<Record<T>>)> = Vec::new();
        for index in 0..SHARDS {
            let shard = self.lock(index);
            let matching = shard.entries(now).filter(|entry| {
                entry.number < before
                    && entry.record.owner() == query.owner.as_ref()
                    && query.states.contains(entry.record.operation().state())
            });
            found.extend(matching.map(|entry| (entry.number, Arc::clone(&entry.record))));
            drop(shard);
            // Keeps the memory of a list bounded by its page.
            if found.len() > query.limit.saturating_add(1).saturating_mul(4) {
                newest(&mut found, query.limit.saturating_add(1));
            }
        }
        newest(&mut found, query.limit.saturating_add(1));
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        let next = found
            .last()
            .filter(|_| more)
            .map(|(number, _)| Cursor(format!("{number:x}").into()));
        let records = found.into_iter().map(|(_, record)| record).collect();
        Ok(Page { records, next })
    }
}

fn newest<T>(found: &mut Vec<(u64, T)>, limit: usize) {
    found.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
    found.truncate(limit);
}

/// A cursor is the number of the last operation of its page.
fn parse(cursor: &Cursor) -> Result<u64, StoreError> {
    u64::from_str_radix(&cursor.0, 16)
        .map_err(|_| StoreError::refused("this is no cursor of this store"))
}
