//! Lists of operations.

use tower_operations::{
    engine::{Cell, CellQuery, EngineList, ListedCell},
    store::StoreResult,
};

use super::{SimulatedEngine, database::Rows};
use crate::Mutant;

impl Rows {
    fn list(&mut self, query: &CellQuery<'_>) -> Vec<ListedCell> {
        let owner: Option<Box<str>> = query.owner.map(|owner| owner.as_str().into());
        let before = query.before.unwrap_or(u64::MAX);
        let mut skips = Vec::new();
        for ((_, number), _) in self
            .by_owner
            .range((owner.clone(), 0)..(owner.clone(), before))
        {
            if self.bug.shows(Mutant::ListSkipsARow, 50) {
                skips.push(*number);
            }
        }
        let numbers = self.by_owner.range((owner.clone(), 0)..(owner, before));
        let (mut listed, mut bytes) = (Vec::new(), 0);
        for ((_, number), id) in numbers.rev() {
            let Some(row) = self.get(id) else { continue };
            if skips.contains(number)
                || row.has_expired(query.now)
                || !query.states.iter().any(|state| state == row.state)
            {
                continue;
            }
            let cell = (bytes < query.max_bytes).then(|| {
                let result = row.cell.result.clone();
                let result = result.filter(|result| result.len() <= query.max_result);
                Ok(Cell::new(row.cell.head.clone(), result))
            });
            let entry = ListedCell::new(*number, id.to_string().into(), cell);
            bytes += entry.result_bytes();
            listed.push(entry);
            if listed.len() == query.limit {
                break;
            }
        }
        listed
    }
}

impl<const POLLS: bool> EngineList for SimulatedEngine<POLLS> {
    async fn list(&self, query: CellQuery<'_>) -> StoreResult<Vec<ListedCell>> {
        self.call(|rows| rows.list(&query)).await
    }

    async fn cursor_secret(&self) -> StoreResult<[u8; 32]> {
        self.call(|rows| rows.secret).await
    }
}
