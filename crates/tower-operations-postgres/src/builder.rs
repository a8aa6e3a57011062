use std::{borrow::Cow, fmt, marker::PhantomData, pin::pin, sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection, PgPool, pool::PoolConnection, postgres::PgConnectOptions};
use tokio::time::timeout;
use tower_operations::engine::{EngineStore, Notifier};

use super::{
    PostgresError, PostgresStore,
    asking::PostgresEngine,
    batches::Batches,
    connections::PostgresConnections,
    names::PostgresNames,
    notices::{Channel, PostgresNotices},
    schema,
    statements::Statements,
};

/// The time that a server may take to report why there is no connection.
const TO_SAY_WHY: Duration = Duration::from_secs(5);

/// Settings of a [`PostgresStore`], before it connects.
#[must_use = "a store has to be connected"]
pub struct PostgresBuilder<T> {
    pool: PgPool,
    schema: Box<str>,
    table: Box<str>,
    migrate: bool,
    durable: bool,
    connections: Option<usize>,
    listening: Option<PgConnectOptions>,
    result: PhantomData<fn() -> T>,
}

/// Omits the connect options: they contain a password.
impl<T> fmt::Debug for PostgresBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder")
            .field("schema", &self.schema)
            .field("table", &self.table)
            .field("migrate", &self.migrate)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

impl<T> PostgresBuilder<T> {
    pub(super) fn new(pool: PgPool) -> Self {
        Self {
            pool,
            schema: super::SCHEMA.into(),
            table: super::TABLE.into(),
            migrate: true,
            durable: true,
            connections: None,
            listening: None,
            result: PhantomData,
        }
    }

    /// Sets the schema of the tables, `public` by default. A missing schema is created.
    pub fn schema(mut self, name: &str) -> Self {
        self.schema = name.into();
        self
    }

    /// Sets the table of operations, `operations` by default. All other objects are named after
    /// the table with a suffix, so several stores can share a schema.
    pub fn table(mut self, name: &str) -> Self {
        self.table = name.into();
        self
    }

    /// Sets whether the store creates and upgrades its tables where needed; true by
    /// default. With false, a store whose tables are not up to date is refused: see
    /// [`PostgresStore`].
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Accepts a server that can lose acknowledged changes in a crash, by `synchronous_commit`,
    /// `fsync` or `full_page_writes`. This is right for tests, and where a file system makes
    /// `full_page_writes` unnecessary.
    pub fn accept_data_loss(mut self) -> Self {
        self.durable = false;
        self
    }

    /// Sets how many connections of the pool the store uses at most; all by default.
    pub fn max_connections(mut self, at_most: usize) -> Self {
        self.connections = Some(at_most);
        self
    }

    /// Sets the options of the listening connection; those of the pool by default. Set them if
    /// the pool connects through a pooler that shares connections: such a connection cannot
    /// listen.
    pub fn listen_with(mut self, options: PgConnectOptions) -> Self {
        self.listening = Some(options);
        self
    }

    /// Checks the server, sets up the tables, and starts to listen.
    ///
    /// # Errors
    /// Returns a [`PostgresError`], whose variants are the reasons.
    pub async fn connect(self) -> Result<PostgresStore<T>, PostgresError> {
        let names = PostgresNames::new(&self.schema, &self.table)?;
        {
            let mut connection = match first(&self.pool).await {
                Err(sqlx::Error::PoolTimedOut) => return Err(why_not(&self.pool).await.into()),
                acquired => acquired?,
            };
            schema::check_server(&mut connection, self.durable).await?;
            schema::set_up(&mut connection, &names, self.migrate).await?;
        }
        if self.pool.options().get_test_before_acquire() {
            tracing::info!("pool tests connections before use, one more round trip per statement");
        }
        let statements = Arc::new(Statements::new(&names));
        let notifier = Arc::new(Notifier::default());
        let at_most = self.pool.options().get_max_connections() as usize;
        let listening = self.listening;
        let options = (*self.pool.connect_options()).clone();
        let connections = PostgresConnections::new(self.pool, self.connections.unwrap_or(at_most));
        let channel = Channel {
            name: names.channel(),
            connections: Arc::clone(&connections),
            statements: Arc::clone(&statements),
            listening: listening.unwrap_or(options),
        };
        let notices = PostgresNotices::begin(channel, Arc::clone(&notifier));
        let engine = PostgresEngine {
            batches: Batches::new(&connections, &statements),
            connections,
            statements,
            notices,
            durable: self.durable,
        };
        Ok(PostgresStore(EngineStore::with_notifier(engine, notifier)))
    }
}

/// The time after which the wait for the first connection is logged.
const TO_WAIT_IN_SILENCE: Duration = Duration::from_secs(2);

/// Returns the first connection. A pool retries while the server refuses connections.
async fn first(pool: &PgPool) -> Result<PoolConnection<sqlx::Postgres>, sqlx::Error> {
    let mut acquired = pin!(pool.acquire());
    if let Ok(acquired) = timeout(TO_WAIT_IN_SILENCE, acquired.as_mut()).await {
        return acquired;
    }
    let options = pool.connect_options();
    let at_most = pool.options().get_acquire_timeout();
    tracing::warn!(
        host = &*host(&options),
        port = options.get_port(),
        ?at_most,
        "waiting for a connection to the database"
    );
    acquired.await
}

/// Returns the address of the server: a host, or a directory of sockets.
fn host(options: &PgConnectOptions) -> Cow<'_, str> {
    match options.get_socket() {
        Some(directory) => directory.to_string_lossy(),
        None => options.get_host().into(),
    }
}

/// Returns the server's reason after a time-out of the pool, which does not give one.
async fn why_not(pool: &PgPool) -> sqlx::Error {
    let options = pool.connect_options();
    match timeout(TO_SAY_WHY, PgConnection::connect_with(&options)).await {
        Ok(Err(error)) => error,
        Ok(Ok(_)) | Err(_) => sqlx::Error::PoolTimedOut,
    }
}
