//! Enumerating what there is.

use std::sync::Arc;

use super::{MemoryStore, SHARDS};
use crate::{
    operation::{OperationId, Payload},
    store::{Cursor, List, ListQuery, Page, Record, StoreError},
};

impl<T: Payload> List for MemoryStore<T> {
    async fn list(&self, query: &ListQuery) -> Result<Page<T>, StoreError> {
        let now = self.now().tick;
        let after = query.after.as_ref().map(Position::parse).transpose()?;
        let mut found: Vec<(Position, Arc<Record<T>>)> = Vec::new();
        for index in 0..SHARDS {
            let shard = self.lock(index);
            let matching = shard
                .entries(now)
                .map(|entry| &entry.record)
                .filter(|record| {
                    record.owner() == query.owner.as_ref()
                        && query
                            .state
                            .is_none_or(|state| record.operation().state() == state)
                });
            found.extend(
                matching
                    .map(|record| (Position::of(record), Arc::clone(record)))
                    .filter(|(position, _)| after.as_ref().is_none_or(|after| position < after)),
            );
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
            .map(|(position, _)| position.cursor());
        let records = found.into_iter().map(|(_, record)| record).collect();
        Ok(Page { records, next })
    }
}

fn newest<T>(found: &mut Vec<(Position, T)>, limit: usize) {
    found.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
    found.truncate(limit);
}

/// The place of an operation in a list: by creation, then by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    created_millis: u64,
    id: OperationId,
}

impl Position {
    fn of<T>(record: &Record<T>) -> Self {
        let created = record.operation().metadata().created_at();
        let age = created.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        Self {
            created_millis: age.map_or(0, |age| age.as_millis() as u64),
            id: record.operation().id().clone(),
        }
    }

    fn cursor(&self) -> Cursor {
        Cursor(format!("{:x}.{}", self.created_millis, self.id).into())
    }

    fn parse(cursor: &Cursor) -> Result<Self, StoreError> {
        cursor
            .0
            .split_once('.')
            .and_then(|(millis, id)| {
                let created_millis = u64::from_str_radix(millis, 16).ok()?;
                Some(Self {
                    created_millis,
                    id: id.parse().ok()?,
                })
            })
            .ok_or_else(|| StoreError::refused("this is no cursor of this store"))
    }
}
