//! Lists operations, and deletes expired ones.

use super::{
    Cell, CellQuery, CellReader, Engine, EngineList, EngineStore, ListedCell,
    reading::{Presented, log_unreadable, max_result, readable},
};
use crate::{
    operation::Stored,
    store::{Found, List, ListQuery, Page, Purge, StoreError, StoreResult},
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
        let reader = CellReader::Owner {
            owner: ask.owner,
            max_result: ask.max_result,
        };
        let mut records = Vec::with_capacity(found.len());
        for ListedCell { id, cell, .. } in found {
            match self.listed(&id, cell, reader).await {
                Ok(record) => records.extend(record),
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => log_unreadable(&id, &error),
            }
        }
        Ok(Page { records, next })
    }
}

impl<E: Engine, T: Stored> EngineStore<E, T> {
    /// Returns the record in a listed cell, as the reader may see it.
    async fn listed(
        &self,
        id: &[u8],
        cell: Option<StoreResult<Cell>>,
        reader: CellReader<'_>,
    ) -> Found<T> {
        let Some(decoded) = cell.and_then(|cell| readable::<T>(id, cell)) else {
            return Ok(None);
        };
        let (id, stamp) = (
            decoded.record.operation().id().clone(),
            decoded.record.stamp(),
        );
        match self.presented(Some(decoded), reader)? {
            Presented::Record(record) => Ok(record),
            Presented::NeedsResult => {
                // The operation may have been deleted since, and its id used again.
                let whole = self.read_whole(&id, reader).await?;
                Ok(whole.filter(|record| record.stamp() == stamp))
            }
        }
    }
}

impl<E: Engine, T: Stored> Purge for EngineStore<E, T> {
    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        self.shared.engine.purge(limit, self.now()).await
    }
}
