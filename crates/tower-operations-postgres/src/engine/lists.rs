//! Lists of operations.

use sqlx::{Row, query};
use tower_operations::{
    engine::{CellQuery, EngineList, ListedCell},
    store::StoreResult,
};

use super::count;
use crate::{
    asking::PostgresEngine,
    error::{Unexpected, store_error},
    values::{self, bytes, moment, words},
};

impl EngineList for PostgresEngine {
    async fn list(&self, ask: CellQuery<'_>) -> StoreResult<Vec<ListedCell>> {
        let sql = match ask.owner {
            Some(_) => &self.statements.list,
            None => &self.statements.list_nobodys,
        };
        let before = ask.before.unwrap_or(u64::MAX);
        let query = query(sql)
            .bind(ask.owner.map(|owner| owner.as_str().as_bytes()))
            .bind(i64::try_from(before).unwrap_or(i64::MAX))
            .bind(words(ask.states))
            .bind(moment(ask.now).exact)
            .bind(count(ask.limit))
            .bind(count(ask.max_bytes))
            .bind(count(ask.max_result));
        let mut listed = Vec::new();
        for row in &self.rows(query).await? {
            if row.try_get("is_standby").map_err(store_error)? {
                return Err(Unexpected::Standby.into());
            }
            listed.extend(values::listed(row)?);
        }
        Ok(listed)
    }

    async fn cursor_secret(&self) -> StoreResult<[u8; 32]> {
        let row = self.row(query(&self.statements.secret)).await?;
        let secret = bytes(&row, "secret")?;
        Ok(<[u8; 32]>::try_from(&*secret).map_err(|_| Unexpected::Missing("secret"))?)
    }
}
