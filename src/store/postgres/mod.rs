//! Operations in PostgreSQL, for any number of nodes.

mod builder;
mod connections;
mod engine;
mod error;
mod names;
mod notices;
mod schema;
mod statements;
mod values;

use sqlx::PgPool;

pub use self::{builder::PostgresBuilder, engine::Postgres, error::PostgresError};
use super::durable::Durable;
use crate::operation::RecordedResponse;

const SCHEMA: &str = "public";
const TABLE: &str = "operations";

/// Operations in PostgreSQL, for any number of nodes.
pub type PostgresStore<T = RecordedResponse> = Durable<Postgres, T>;

impl PostgresStore {
    /// Keeps operations in the table `operations`, which it makes if it is not
    /// there. Has to be called within a tokio runtime, as everything else.
    ///
    /// # Errors
    /// What [`PostgresError`] says.
    pub async fn connect(pool: PgPool) -> Result<Self, PostgresError> {
        Self::builder(pool).connect().await
    }

    /// A store with settings of yours.
    pub fn builder(pool: PgPool) -> PostgresBuilder<RecordedResponse> {
        Self::builder_for(pool)
    }

    /// The scripts that set up the tables, each from one version to the next, for
    /// whoever has the rights to; the store itself is then told not to
    /// [`migrate`](PostgresBuilder::migrate). Each is to be run once, in one
    /// transaction.
    ///
    /// # Errors
    /// If a name cannot be one.
    pub fn migrations(schema: &str, table: &str) -> Result<Vec<String>, PostgresError> {
        let names = names::Names::new(schema, table)?;
        Ok(schema::scripts(&names).collect())
    }
}

impl<T> PostgresStore<T> {
    /// A store of results of your own, with settings of yours.
    pub fn builder_for(pool: PgPool) -> PostgresBuilder<T> {
        PostgresBuilder::new(pool)
    }
}
