//! Where operations are *kept*: the traits with their laws, and the stores.
//!
//! | trait | what it can do | who needs it |
//! | --- | --- | --- |
//! | [`Store`] | read | [`PollService::read_only`](crate::PollService::read_only) |
//! | [`Repository`] | write, conditionally | the layer, [`PollService::new`](crate::PollService::new) |
//! | [`Watch`] | wait for a change | the same |
//! | [`Lease`] | say who runs what, and who died | the layer |
//! | [`IdempotencyKeys`] | run a repeated request once | a repeated `Idempotency-Key` |
//! | [`List`] | enumerate | listings |
//! | [`Purge`] | remove what expired | a housekeeping task of yours, where no [recovery](crate::Recovery) does it |
//!
//! [`MemoryStore`] has every power. [`StoreFn`] reads through a closure,
//! [`RepositoryFn`] reads and writes through two. [`AnyStore`] is a store
//! chosen at run time. [`Polling`] and [`SingleNode`] lend the powers to wait
//! and to lease to a store that lacks them.
//!
//! # Laws
//! The laws stand on the traits as *Semantics*, by these numbers. With the
//! feature `conformance`, the module of that name checks each of them on any
//! store.
//!
//! 1. *Create* is atomic and durable when it returns. The same id or key again
//!    gives the existing operation to the same owner, with its result or without. An id of another owner is
//!    *taken*; a key of another owner is another key, which says and changes
//!    nothing. The key of an operation that was forgotten says so until the
//!    operation would have expired. A read from any node sees it at once.
//! 2. Start, progress and outcome are conditional on *not terminal and my
//!    token*; a change asked for from outside names a version. Of two racing
//!    finishes one wins and the other learns that it lost. The same write
//!    repeated by the same holder succeeds: it is the same write.
//! 3. Terminal is final. A late writer changes nothing.
//! 4. The version grows by one with every change; a version that was seen never
//!    comes back with other content, not even after a crash.
//! 5. Waiting for a change misses none made after the version that was named,
//!    on any node, and returns within its time.
//! 6. A lease is taken over only with a higher fencing token, durably; a holder
//!    that lost it is refused. Renewal may be asynchronous.
//! 7. A recorded response comes back byte for byte; repeated headers, their
//!    order and values that are not UTF-8 included. A read for another owner
//!    comes without it.
//! 8. Expired is absent. Purging is batched and never touches what is not
//!    terminal.
//! 9. Errors keep their source and say whether trying again can help.
//! 10. Stored formats are versioned: a release reads what older ones wrote.
//!
//! # A store of your own
//! [`Record`] knows every conditional change as a pure function from one record
//! to the next; a store only has to make the step atomic. This one keeps its
//! records in a map under a lock:
//!
//! ```
#![doc = include_str!("custom_store.rs")]
//! // It cannot tell of a change, so it is read again for whoever waits.
//! let store = MapStore::new(Duration::from_secs(3600));
//! let store = Polling::new(store, Duration::from_millis(50));
//! let polls = tower_operations::PollService::new(store);
//! ```

mod any;
#[cfg(feature = "conformance")]
pub mod conformance;
pub(crate) mod cursor;
#[cfg(any(feature = "redb", feature = "postgres", feature = "redis"))]
pub(crate) mod durable;
mod error;
mod function;
mod health;
mod history;
mod key;
mod key_capability;
mod lending;
mod mailbox;
mod memory;
mod names;
#[cfg(feature = "postgres")]
mod postgres;
mod record;
#[cfg(feature = "redb")]
pub(crate) mod redb;
#[cfg(feature = "redis")]
mod redis;
mod repository;
mod requests;
pub(crate) mod sync;
mod traits;
pub(crate) mod wait;

pub use any::AnyStore;
#[cfg(any(feature = "redb", feature = "postgres", feature = "redis"))]
pub use durable::EngineStore;
pub use error::StoreError;
pub(crate) use error::StoreResult;
pub use function::{Change, RepositoryFn, StoreFn};
pub use health::{Health, HealthWarning};
pub use history::PastVersion;
pub use key::{IdempotencyKey, Reservation};
pub(crate) use key_capability::KeyCapability;
pub use lending::{Polling, SingleNode};
pub use memory::MemoryStore;
pub use names::{FencingToken, NodeId, Owner, Version};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresBuilder, PostgresEngine, PostgresError, PostgresStore};
pub use record::{Record, Step};
#[cfg(feature = "redb")]
pub use redb::{RedbEngine, RedbError, RedbStats, RedbStore};
#[cfg(feature = "redis")]
pub use redis::{RedisBuilder, RedisEngine, RedisError, RedisStore};
pub use repository::{Created, Repository, Written};
pub use requests::{Cursor, LeaseConfig, LeaseHandle, ListQuery, NewOperation, Page, Reclaimed};
pub(crate) use traits::{BoxFuture, Found};
pub use traits::{IdempotencyKeys, Lease, List, Purge, Store, Watch};
