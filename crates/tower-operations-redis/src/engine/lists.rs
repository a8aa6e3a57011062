//! Lists of operations.

use tower_operations::{
    engine::{CellQuery, EngineList, ListedCell},
    store::StoreResult,
};

use super::{LOOKED_AT, RedisEngine};
use crate::{
    answers,
    arguments::{moment, words},
    scripts,
};

impl EngineList for RedisEngine {
    async fn list(&self, ask: CellQuery<'_>) -> StoreResult<Vec<ListedCell>> {
        let list = self.names.list(ask.owner);
        let mut found: Vec<ListedCell> = Vec::new();
        let mut before = ask.before;
        loop {
            let limit = ask.limit - found.len();
            let mut call = self.call(&scripts::LIST, &[&list]);
            match before {
                Some(number) => call.arg(format!("({number}")),
                None => call.arg("+inf"),
            };
            call.arg(moment(ask.now));
            call.arg(words(ask.states));
            call.arg(limit).arg(limit.clamp(16, LOOKED_AT));
            let bytes: usize = found.iter().map(ListedCell::result_bytes).sum();
            call.arg(ask.max_bytes.saturating_sub(bytes));
            call.arg(ask.max_result);
            let answer = self.look(&scripts::LIST, call).await?;
            let (more, next) = answers::listed(answer)?;
            found.extend(more);
            match next {
                Some(_) if found.len() < ask.limit => before = next,
                _ => return Ok(found),
            }
        }
    }

    async fn cursor_secret(&self) -> StoreResult<[u8; 32]> {
        let mut call = self.call(&scripts::SECRET, &[&self.names.secret()]);
        call.arg(&tower_operations::engine::new_secret()[..]);
        let secret = self.look(&scripts::SECRET, call).await?;
        answers::secret(secret)
    }
}
