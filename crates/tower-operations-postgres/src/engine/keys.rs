//! Idempotency keys.

use std::time::{Duration, SystemTime};

use sqlx::{Row, query};
use tower_operations::{
    engine::{EngineKeys, KeyCell},
    store::{FencingToken, IdempotencyKey, StoreResult},
};

use super::fits;
use crate::{
    asking::PostgresEngine,
    error::{full, store_error},
    values::{digits, key_cell, micros, moment},
};

impl EngineKeys for PostgresEngine {
    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
        now: SystemTime,
    ) -> StoreResult<Option<KeyCell>> {
        let name = key.scoped_name();
        let ask = query(&self.statements.reserve)
            .bind(name.as_bytes())
            .bind(key.owner.as_ref().map(|owner| owner.as_str().as_bytes()))
            .bind(key.fingerprint.as_slice())
            .bind(digits(token))
            .bind(micros(term))
            .bind(moment(now).exact);
        let row = self.row(ask).await.map_err(full)?;
        let stands_for: Option<&str> = row.try_get("stands_for").map_err(store_error)?;
        stands_for.map(|what| key_cell(&row, what)).transpose()
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: &[u8],
        ttl: Duration,
    ) -> StoreResult<bool> {
        fits(answer)?;
        let name = key.scoped_name();
        let ask = query(&self.statements.settle)
            .bind(name.as_bytes())
            .bind(digits(token))
            .bind(answer)
            .bind(micros(ttl));
        Ok(self.count(ask).await? > 0)
    }

    async fn release_reservation(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
    ) -> StoreResult<bool> {
        let name = key.scoped_name();
        let ask = query(&self.statements.release_key)
            .bind(name.as_bytes())
            .bind(digits(token));
        Ok(self.count(ask).await? > 0)
    }
}
