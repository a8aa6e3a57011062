#![doc = include_str!("../README.md")]

mod asking;
mod batches;
mod builder;
mod connections;
mod engine;
mod error;
mod names;
mod notices;
mod rows;
mod schema;
mod statements;
mod values;

use sqlx::PgPool;

pub use self::{
    asking::PostgresEngine,
    builder::PostgresBuilder,
    error::{DriverError, PostgresError},
};

use tower_operations::RecordedResponse;

const SCHEMA: &str = "public";
const TABLE: &str = "operations";

tower_operations::engine_store! {
/// Operations in PostgreSQL, for any number of nodes.
///
/// The store has every capability, and clones are handles to the same tables. The store works
/// through a pool of the application, and listens on a connection of its own.
///
/// ```no_run
/// use tower_operations::Operations;
/// use tower_operations_postgres::PostgresStore;
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
/// Every acknowledged change is committed durably, except renewals of leases. A server
/// whose settings can lose commits is refused, and so is a standby.
///
/// # Sizing
/// Each step is one statement. An operation without progress takes 200 to 400 bytes of
/// JSON, besides its result and indexes. The [recovery](tower_operations::Recovery), or
/// [`purge`](tower_operations::store::Purge::purge), deletes expired operations.
///
/// # Permissions
/// The store needs rights to create tables and functions in the schema once. If another user
/// applies the `migrations`, the store needs only rights to read and write the tables.
///
/// # Monitoring
/// Watch the warnings of this crate in `tracing`, dead rows, and leases that expired long
/// ago.
///
/// The [page of this crate](crate) has the schema, and more.
pub struct PostgresStore(PostgresEngine);
}

impl PostgresStore {
    /// Connects to the table `operations`, and creates the table if it is missing. This call,
    /// like all others, needs a tokio runtime.
    ///
    /// # Errors
    /// Returns a [`PostgresError`], whose variants are the reasons.
    pub async fn connect(pool: PgPool) -> Result<Self, PostgresError> {
        Self::builder(pool).connect().await
    }

    /// Returns a builder for a store with other settings.
    pub fn builder(pool: PgPool) -> PostgresBuilder<RecordedResponse> {
        Self::builder_for(pool)
    }

    /// Returns the scripts that set up the tables, each from one version to the next, for a user
    /// with the necessary rights. Switch [`migrate`](PostgresBuilder::migrate) off for the store
    /// itself. Each script runs once, in one transaction.
    ///
    /// # Errors
    /// Returns an error if a name is invalid.
    pub fn migrations(schema: &str, table: &str) -> Result<Vec<String>, PostgresError> {
        let names = names::PostgresNames::new(schema, table)?;
        Ok(schema::scripts(&names).collect())
    }
}

impl<T> PostgresStore<T> {
    /// Returns a builder for a store of results of another type.
    pub fn builder_for(pool: PgPool) -> PostgresBuilder<T> {
        PostgresBuilder::new(pool)
    }
}
