//! Lists operations, and deletes expired ones.

use super::{
    CellQuery, CellReader, Engine, EngineList, EngineStore, ListedCell,
    reading::{max_result, readable},
};
use crate::{
    operation::Stored,
    store::{List, ListQuery, Page, Purge, StoreError},
};

impl<E: EngineList, T: Stored> List for EngineStore<E, T> {
    async fn list(&self, query: &ListQuery) -> Result<Page<T>, StoreError> {
        let ask = CellQuery {
            owner: query.owner.as_ref(),
            states: query.states,
            // One more than the page has, to know whether another page follows.
            limit: query.limit.saturating_add(1),
            max_result: max_result::<T>(query.max_body),
            max_bytes: query.max_bytes.max(1), // at least one operation
            before: self.opened(query).await?,
            now: self.now(),
        };
        let mut found = self.shared.engine.list(ask).await?;
        let read = found.iter().take_while(|listed| listed.cell.is_some());
        let on_page = read.count().min(query.limit);
        let more = found.len() > on_page;
        found.truncate(on_page);
        let last = found.last().filter(|_| more);
        let next = match last.map(|last| last.number) {
            Some(number) => Some(self.sealed(query, number).await?),
            None => None,
        };
        let mut records = Vec::with_capacity(found.len());
        for ListedCell { id, cell, .. } in found {
            let Some((record, is_whole)) = cell.and_then(|cell| readable(&id, cell)) else {
                continue;
            };
            match is_whole || ask.max_result == usize::MAX {
                true => records.push(record),
                false => records.extend(
                    self.read(record.operation().id(), CellReader::Store)
                        .await?,
                ),
            }
        }
        Ok(Page { records, next })
    }
}

impl<E: Engine, T: Stored> Purge for EngineStore<E, T> {
    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        self.shared.engine.purge(limit, self.now()).await
    }
}
