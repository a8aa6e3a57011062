//! Operations in PostgreSQL, for any number of nodes.

mod asking;
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

pub(super) use self::error::said;
pub use self::{asking::PostgresEngine, builder::PostgresBuilder, error::PostgresError};
use super::durable::EngineStore;
use crate::operation::RecordedResponse;

const SCHEMA: &str = "public";
const TABLE: &str = "operations";

/// Operations in PostgreSQL, for any number of nodes.
///
/// It has every power, and clones are handles to the same tables. It works through a
/// pool of the application's, and listens on a connection of its own.
///
/// ```no_run
/// use tower_operations::{Operations, store::PostgresStore};
///
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = sqlx::PgPool::connect("postgres://localhost/app").await?;
/// let store = PostgresStore::connect(pool).await?;
/// let operations = Operations::new(store);
/// tokio::spawn(operations.recovery().run());
/// let (layer, polls) = (operations.layer(), operations.poll_service());
/// # Ok(())
/// # }
/// ```
///
/// # Durability
/// Whatever is acknowledged is committed durably, but for renewals of leases. A server
/// that is set to lose commits is refused, and so is a standby.
///
/// # Sizing
/// One statement a step; 200 to 400 bytes of JSON an operation without progress, besides
/// its result and indexes. What has expired is deleted by the
/// [recovery](crate::Recovery), or by [`purge`](crate::store::Purge::purge).
///
/// # Permissions
/// To create tables and functions in the schema once, or, with
/// `migrations` applied by somebody else, to read and write them.
///
/// # What to monitor
/// Warnings of this crate in `tracing`, dead rows, leases that lie far back.
///
/// The page [`guide::postgres`](crate::guide::postgres) has the schema, and more.
pub type PostgresStore<T = RecordedResponse> = EngineStore<PostgresEngine, T>;

impl EngineStore<PostgresEngine> {
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
        let names = names::PostgresNames::new(schema, table)?;
        Ok(schema::scripts(&names).collect())
    }
}

impl<T> EngineStore<PostgresEngine, T> {
    /// A store of results of your own, with settings of yours.
    pub fn builder_for(pool: PgPool) -> PostgresBuilder<T> {
        PostgresBuilder::new(pool)
    }
}
