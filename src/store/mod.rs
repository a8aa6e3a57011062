//! The storage of operations: the traits with their laws, and the stores of this crate.
//!
//! | trait | capability | required by |
//! | --- | --- | --- |
//! | [`Store`] | read | [`PollService::read_only`](crate::PollService::read_only) |
//! | [`Repository`] | write, conditionally | the layer, [`PollService::new`](crate::PollService::new) |
//! | [`Watch`] | wait for a change | the same |
//! | [`Lease`] | track which node runs an operation, and reclaim operations of dead nodes | the layer |
//! | [`IdempotencyKeys`] | run a repeated request once | a repeated `Idempotency-Key` |
//! | [`List`] | enumerate | listings |
//! | [`Purge`] | delete expired operations | your own housekeeping task, where no
//! [recovery](crate::Recovery) deletes them |
//!
//! [`MemoryStore`] has every capability. [`StoreFn`] reads through a closure,
//! [`RepositoryFn`] reads and writes through two. [`AnyStore`] is a store chosen at run
//! time. [`Polling`] adds [`Watch`] to a store that lacks it, [`SingleNode`] adds
//! [`Lease`].
//!
//! # Laws
//! Each trait lists its laws under *Semantics*, by these numbers. The package
//! [`tower-operations-conformance`](https://docs.rs/tower-operations-conformance) checks each
//! law on any store.
//!
//! 1. *Create* is atomic and durable when it returns. A create with the same id or key
//!    again returns the existing operation to the same owner, with or without its result.
//!    An id of another owner is *taken*. A key of another owner is a different key: it
//!    reveals nothing and changes nothing. The key of a deleted operation reports the
//!    deletion until the operation would have expired. A read from any node sees a created
//!    operation at once.
//! 2. Start, progress and outcome are conditional on *not terminal and my token*. A change
//!    requested from outside names a stamp, a version and a token, which no later operation with
//!    the id has. Of two racing finishes one wins and the other learns that it lost. A write that
//!    the same holder repeats succeeds, because it is the same write.
//! 3. Terminal is final. A late writer changes nothing.
//! 4. The version grows by one with every change. A version that was seen never comes back
//!    with other content, not even after a crash.
//! 5. Waiting for a change misses no change after the named version, on any node, and
//!    returns within its time.
//! 6. A lease is reclaimed only with a higher fencing token, durably. A holder that lost
//!    its lease is refused. Renewal may be asynchronous.
//! 7. A recorded response comes back byte for byte, including repeated headers, their order
//!    and values that are not UTF-8. A read for another owner comes without the response.
//! 8. An expired operation is absent. Purging is batched and never touches operations that
//!    are not terminal.
//! 9. Errors keep their source and report whether a retry can help.
//! 10. Stored formats are versioned: a release reads what older releases wrote.
//!
//! # Custom stores
//! [`Record`] implements every conditional change as a pure function from one record to the
//! next. A store only has to make the step atomic. This store keeps its records in a map
//! under a lock:
//!
//! ```
#![doc = include_str!("custom_store.rs")]
//! // It cannot notify of changes, so it is read again for each waiter.
//! let store = MapStore::new(Duration::from_secs(3600));
//! let store = Polling::new(store, Duration::from_millis(50));
//! let polls = tower_operations::PollService::new(store);
//! ```

mod adapters;
pub(crate) mod cursor;
mod error;
mod health;
mod history;
mod key;
mod key_capability;
pub(crate) mod mailbox;
mod memory;
mod names;
mod reader;
mod record;
mod repository;
mod requests;
mod stamp;
pub(crate) mod sync;
mod traits;
pub(crate) mod wait;

pub use adapters::{AnyStore, Change, Polling, RepositoryFn, SingleNode, StoreFn};
pub use error::{StoreError, StoreResult};
pub use health::{Health, HealthWarning};
pub use history::PastVersion;
pub use key::{IdempotencyKey, Reservation};
pub(crate) use key_capability::KeyCapability;
pub use memory::MemoryStore;
pub use names::{FencingToken, NodeId, Owner, Version};
pub use reader::Reader;
pub use record::{Record, Step};
pub use repository::{Created, Repository, Written};
pub use requests::{
    Cursor, LeaseConfig, LeaseHandle, ListQuery, NewOperation, Page, Placed, Reclaimed,
};
pub use stamp::Stamp;
pub(crate) use traits::{BoxFuture, Found};
pub use traits::{IdempotencyKeys, Lease, List, Purge, Store, Watch};
