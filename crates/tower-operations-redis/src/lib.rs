#![doc = include_str!("../README.md")]

mod answers;
mod arguments;
mod builder;
mod checks;
mod connection;
mod engine;
mod error;
mod names;
mod notices;
mod scripts;

pub use builder::RedisBuilder;
pub use engine::RedisEngine;
pub use error::RedisError;

tower_operations::engine_store! {
/// Operations in Redis (6.2 or later) or Valkey, for any number of nodes.
///
/// [The page of this crate](crate) has the layout, all tables and all figures.
///
/// ```no_run
/// # async fn serve() -> Result<(), tower_operations_redis::RedisError> {
/// use std::time::Duration;
/// use tower_operations::Operations;
/// use tower_operations_redis::RedisStore;
///
/// let store = RedisStore::connect("redis://127.0.0.1:6379/")
///     .await?
///     .ttl(Duration::from_secs(60 * 60));
/// let operations = Operations::new(store);
/// # Ok(())
/// # }
/// ```
///
/// # Durability
/// The store is as durable as the server is configured to be. With `appendonly yes` and
/// `appendfsync always`, no acknowledged change is lost when the server dies. With `everysec`,
/// up to two seconds are lost; without an append-only file, everything since the last snapshot
/// is lost. A failover to a replica is asynchronous: it can lose acknowledged operations,
/// whatever the persistence.
///
/// # Sizing
/// A live operation takes about 1,300 bytes of the server's memory. An operation that has ended
/// takes about 2,000 bytes plus its result, until its time to live is over. A full server
/// accepts no more operations ([`StoreError::Full`](tower_operations::store::StoreError::Full));
/// operations that were accepted before can still end. Each handle has five connections, which
/// its clones share.
///
/// # Permissions
/// Names and channel begin with the prefix, `operations/`. The guide has an ACL rule for a
/// user with exactly the needed rights.
///
/// # Monitoring
/// Watch `evicted_keys` (0), `used_memory`, `aof_last_write_status`, and the operations
/// whose node has died, by `ZCOUNT` of `operations/leases`.
pub struct RedisStore(RedisEngine);
}

impl RedisStore {
    /// Connects to the server at this URL, with the prefix `operations`.
    ///
    /// # Errors
    /// Returns a [`RedisError`] if the server cannot be reached, or must not be trusted with
    /// operations.
    pub async fn connect(url: &str) -> Result<Self, RedisError> {
        RedisBuilder::new(url).connect().await
    }
}
