//! Statements to the server.

use std::{fmt, sync::Arc, time::Duration};

use sqlx::{
    PgConnection, Postgres as Sql,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::time::timeout;
use tower_operations::store::{StoreError, StoreResult};

use super::{
    batches::Batches,
    connections::PostgresConnections,
    error::{Unexpected, store_error},
    notices::PostgresNotices,
    statements::Statements,
};

/// The engine of a [`PostgresStore`](super::PostgresStore).
pub struct PostgresEngine {
    pub(super) connections: Arc<PostgresConnections>,
    pub(super) statements: Arc<Statements>,
    pub(super) batches: Arc<Batches>,
    pub(super) notices: PostgresNotices,
    /// Whether a server that can lose acknowledged changes is refused.
    pub(super) durable: bool,
}

impl fmt::Debug for PostgresEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresEngine")
            .field("pool", self.connections.pool())
            .finish_non_exhaustive()
    }
}

pub(super) type SqlQuery<'a> = Query<'a, Sql, PgArguments>;

/// The time-out of a statement, after which the server counts as unavailable.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `ask` on a free connection.
pub(super) async fn ask<A>(
    connections: &Arc<PostgresConnections>,
    ask: impl AsyncFnOnce(&mut PgConnection) -> Result<A, sqlx::Error>,
) -> StoreResult<A> {
    let answered = async {
        let mut permit = connections.permit().await?;
        let answer = ask(permit.begin()?).await?;
        permit.done();
        Ok(answer)
    };
    match timeout(PATIENCE, answered).await {
        Ok(answer) => answer.map_err(store_error),
        Err(_) => Err(late()),
    }
}

/// Returns the error of a statement that was not answered in time.
pub(super) fn late() -> StoreError {
    StoreError::unavailable("no answer in time")
}

impl PostgresEngine {
    /// Runs `ask` on a free connection.
    pub(super) async fn ask<A>(
        &self,
        ask: impl AsyncFnOnce(&mut PgConnection) -> Result<A, sqlx::Error>,
    ) -> StoreResult<A> {
        self::ask(&self.connections, ask).await
    }

    pub(super) async fn row(&self, ask: SqlQuery<'_>) -> StoreResult<PgRow> {
        let row = self.ask(async |connection| ask.fetch_optional(connection).await);
        Ok(row.await?.ok_or(Unexpected::Missing("row"))?)
    }

    pub(super) async fn rows(&self, ask: SqlQuery<'_>) -> StoreResult<Vec<PgRow>> {
        self.ask(async |connection| ask.fetch_all(connection).await)
            .await
    }

    /// Runs a statement; returns the number of affected rows.
    pub(super) async fn count(&self, ask: SqlQuery<'_>) -> StoreResult<u64> {
        let done = self.ask(async |connection| ask.execute(connection).await);
        Ok(done.await?.rows_affected())
    }
}
