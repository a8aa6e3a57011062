//! Operations in Redis or Valkey: see [`RedisStore`].
//!
//! Each method of the engine is one script, and a script is atomic: in the server,
//! in its append-only file, and for its replicas. So the argument of the laws is
//! that of a table under a lock. The one lock is the server's only thread; it does
//! not reach across the slots of a cluster, which is refused therefore.

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

use super::durable::EngineStore;
use crate::operation::RecordedResponse;

pub use builder::RedisBuilder;
pub use engine::RedisEngine;
pub use error::RedisError;

/// Operations in Redis (6.2 or later) or Valkey, for any number of nodes.
///
/// [The guide](crate::guide::redis) has the layout, all tables and all figures.
///
/// ```no_run
/// # async fn serve() -> Result<(), tower_operations::store::RedisError> {
/// use std::time::Duration;
/// use tower_operations::{AsyncAcceptLayer, PollService, store::RedisStore};
///
/// let store = RedisStore::connect("redis://127.0.0.1:6379/")
///     .await?
///     .ttl(Duration::from_secs(60 * 60));
/// let accept = AsyncAcceptLayer::new(store.clone());
/// let polls = PollService::new(store);
/// # Ok(())
/// # }
/// ```
///
/// # Durability
/// It is as durable as the server is told to be. With `appendonly yes` and
/// `appendfsync always` nothing that was acknowledged is lost when the server
/// dies; with `everysec` up to two seconds are, without an append-only file
/// everything since the last snapshot. A failover to a replica is asynchronous: it
/// can lose acknowledged operations, whatever the persistence.
///
/// # Sizing
/// A live operation takes some 1,300 bytes of the server's memory, one that has
/// ended some 2,000 and its result, until its time to live is over. A server that
/// is full accepts no more ([`StoreError::Full`](super::StoreError::Full)), and lets
/// what it has accepted come to its end. Each handle has five connections, which its
/// clones share.
///
/// # Permissions
/// Names and channel begin with the prefix, `operations/`. The guide has a rule for
/// a user that may do what is needed, and nothing else.
///
/// # What to monitor
/// `evicted_keys` (0), `used_memory`, `aof_last_write_status`, and by `ZCOUNT` of
/// `operations/leases` those whose node has died.
pub type RedisStore<T = RecordedResponse> = EngineStore<RedisEngine, T>;

impl RedisStore {
    /// Keeps operations in the server at this URL, under the prefix `operations`.
    ///
    /// # Errors
    /// If the server cannot be reached, or must not be trusted with operations:
    /// see [`RedisError`].
    pub async fn connect(url: &str) -> Result<Self, RedisError> {
        RedisBuilder::new(url).connect().await
    }
}
