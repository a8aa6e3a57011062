use std::{sync::Arc, time::Duration};

use tower_operations::engine::{EngineStore, Notifier};

use super::{
    RedisEngine, RedisError, RedisStore, checks, connection::RedisConnections, names::RedisNames,
};

/// A builder that connects a [`RedisStore`] with settings other than the defaults.
///
/// ```no_run
/// # async fn connect() -> Result<(), tower_operations_redis::RedisError> {
/// use std::time::Duration;
/// use tower_operations_redis::{RedisBuilder, RedisStore};
///
/// let store: RedisStore = RedisBuilder::new("redis://127.0.0.1:6379/")
///     .prefix("shop:operations")
///     .patience(Duration::from_secs(2))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisBuilder {
    url: Box<str>,
    prefix: Box<str>,
    patience: Duration,
    trusted: bool,
}

impl RedisBuilder {
    /// Creates a builder for the server at this URL:
    /// `redis://[user][:password@]host[:port][/database]`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            prefix: "operations".into(),
            patience: Duration::from_secs(5),
            trusted: false,
        }
    }

    /// Sets the prefix of all names in the server, which is followed by a `/`; `operations`
    /// by default. The prefix consists of 1 to 64 letters, digits, `-`, `_`, `.` and `:`.
    #[must_use]
    pub fn prefix(self, prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
            ..self
        }
    }

    /// Sets how long the server may take for an answer, connecting included, before the server
    /// counts as unavailable; 5 seconds by default.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Assumes the best of everything that the server does not report: its version, whether it
    /// is a replica, and its `maxmemory-policy`. This is meant for managed servers that forbid
    /// `INFO` and `CONFIG`.
    #[must_use]
    pub fn trust_server(self) -> Self {
        Self {
            trusted: true,
            ..self
        }
    }

    /// Connects, and checks whether the server can be trusted with operations.
    ///
    /// # Errors
    /// Returns a [`RedisError`] if the server cannot be reached, or must not be trusted.
    pub async fn connect<T>(self) -> Result<RedisStore<T>, RedisError> {
        let names = RedisNames::new(&self.prefix)?;
        let connections = RedisConnections::new(&self.url, self.patience)?;
        checks::check(connections.first(), &names, self.trusted).await?;
        let notifier = Arc::new(Notifier::default());
        let engine = RedisEngine::start(connections, names, self.trusted, &notifier).await?;
        Ok(RedisStore(EngineStore::with_notifier(engine, notifier)))
    }
}

impl std::fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may contain a password.
        f.debug_struct("RedisBuilder")
            .field("prefix", &self.prefix)
            .field("patience", &self.patience)
            .field("trusted", &self.trusted)
            .finish_non_exhaustive()
    }
}
