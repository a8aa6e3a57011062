//! Lists of operations.

use ::redb::ReadTransaction;
use tower_operations::{
    engine::{CellQuery, EngineList, ListedCell},
    store::StoreResult,
};

use super::RedbEngine;
use crate::reading;

impl EngineList for RedbEngine {
    async fn list(&self, ask: CellQuery<'_>) -> StoreResult<Vec<ListedCell>> {
        let mut page = Vec::<ListedCell>::new();
        let (mut before, owner) = (ask.before, ask.owner.cloned());
        let (states, now) = (ask.states, ask.now);
        let (max_result, max_bytes) = (ask.max_result, ask.max_bytes);
        while page.len() < ask.limit {
            let bytes = page.iter().map(ListedCell::result_bytes).sum();
            let (owner, limit) = (owner.clone(), ask.limit - page.len());
            let part = move |read: &ReadTransaction| {
                let mut ask = CellQuery::new(owner.as_ref(), limit, now);
                (ask.states, ask.before) = (states, before);
                (ask.max_result, ask.max_bytes) = (max_result, max_bytes);
                reading::list(read, ask, bytes)
            };
            let (more, next) = self.look(part).await?;
            page.extend(more);
            let Some(next) = next else { break };
            before = Some(next);
        }
        Ok(page)
    }

    async fn cursor_secret(&self) -> StoreResult<[u8; 32]> {
        self.look(reading::secret).await
    }
}
