//! Lists of operations in memory.

use std::collections::BinaryHeap;

use super::{
    MemoryStore, SHARDS,
    shard::{OperationEntry, Tick},
};
use crate::{
    operation::{Payload, PayloadView},
    store::{List, ListQuery, Owner, Page, Record, StoreError},
};

/// The number of operations to visit before other tasks may run.
const LOOKED_AT: usize = 256;

/// The records of a page and one more, with their numbers.
type Numbered<T> = Vec<(u64, Record<T>)>;

impl<T: Payload> MemoryStore<T> {
    /// Lists the operations of an owner, found by its account.
    async fn list_of(&self, owner: &Owner, mut before: u64, query: &ListQuery) -> Numbered<T> {
        let now = self.now().tick;
        let wanted = query.limit.saturating_add(1);
        let mut found = Vec::new();
        loop {
            let some = (wanted - found.len()).min(LOOKED_AT);
            let older = self.shared.room.ledger.before(owner, before, some);
            for (number, at) in &older {
                let shard = self.lock(at.shard);
                let entry = shard.numbered(at.slot, *number);
                let asked = entry.filter(|entry| is_asked(entry, now, query));
                found.extend(asked.map(|entry| (*number, entry.record.clone())));
            }
            match older.last() {
                Some((last, _)) if older.len() == some && found.len() < wanted => before = *last,
                _ => return found,
            }
            tokio::task::yield_now().await;
        }
    }

    /// Returns how many of these records fit on the page.
    fn on_page(&self, found: &Numbered<T>, query: &ListQuery) -> usize {
        let mut bytes = 0_usize;
        let fit = found.iter().take_while(|(_, record)| {
            let fits = bytes < query.max_bytes.max(1); // at least one operation
            let response = record.operation().response();
            // A body that is not needed counts in no store.
            let response = response.filter(|result| match result.view() {
                PayloadView::Response(recorded) => recorded.body_len() <= query.max_body,
                PayloadView::Json(_) => true,
            });
            let weight = response.map_or(0, |result| self.limits.heap_bytes(result));
            bytes = bytes.saturating_add(weight);
            fits
        });
        fit.count().min(query.limit)
    }

    /// Lists the operations without an owner. The newest of each shard are merged.
    async fn list_unowned(&self, before: u64, query: &ListQuery) -> Numbered<T> {
        let now = self.now().tick;
        let wanted = query.limit.saturating_add(1);
        let (mut found, mut looked_at) = (Vec::new(), 0);
        let mut newest = BinaryHeap::new();
        for index in 0..SHARDS {
            let (indexed, number) = {
                let mut shard = self.lock(index);
                let indexed = shard.index_unowned();
                (indexed, shard.unowned_before(before))
            };
            newest.extend(number.map(|(number, slot)| (number, slot, index)));
            looked_at += indexed + 1;
            self.let_others_run(&mut looked_at).await;
        }
        while found.len() < wanted
            && let Some((number, slot, index)) = newest.pop()
        {
            {
                let shard = self.lock(index);
                let entry = shard.numbered(slot, number);
                let asked = entry.filter(|entry| is_asked(entry, now, query));
                found.extend(asked.map(|entry| (number, entry.record.clone())));
                let next = shard.unowned_before(number);
                newest.extend(next.map(|(number, slot)| (number, slot, index)));
            }
            looked_at += 1;
            self.let_others_run(&mut looked_at).await;
        }
        found
    }

    /// Lets other tasks run once many operations were visited.
    async fn let_others_run(&self, looked_at: &mut usize) {
        if *looked_at >= LOOKED_AT {
            *looked_at = 0;
            tokio::task::yield_now().await;
        }
    }
}

impl<T: Payload> List for MemoryStore<T> {
    async fn list(&self, query: &ListQuery) -> Result<Page<T>, StoreError> {
        let before = match &query.after {
            Some(cursor) => self.shared.cursors.open(query, cursor)?,
            None => u64::MAX,
        };
        let mut found = match &query.owner {
            Some(owner) => self.list_of(owner, before, query).await,
            None => self.list_unowned(before, query).await,
        };
        let on_page = self.on_page(&found, query);
        let more = found.len() > on_page;
        found.truncate(on_page);
        let next = found
            .last()
            .filter(|_| more)
            .map(|(number, _)| self.shared.cursors.seal(query, *number));
        let records = found.into_iter().map(|(_, record)| record).collect();
        Ok(Page { records, next })
    }
}

fn is_asked<T>(entry: &OperationEntry<T>, now: Tick, query: &ListQuery) -> bool {
    let state = entry.record.operation().state();
    !entry.is_expired(now) && query.states.contains(state)
}
