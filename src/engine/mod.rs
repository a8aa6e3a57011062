//! A kit for stores: [`Engine`] asks for compare-and-set on bytes, [`EngineStore`] makes a
//! store with every capability and every law of it.
//!
//! An engine stores *cells*: the bytes of a record, with the few values that it must
//! compare, order and search by. It knows nothing of states and steps, which belong to
//! [`Record`](crate::store::Record). `EngineStore` combines the two, so the
//! [laws](crate::store#laws) hold on every engine that keeps the promises of [`Engine`]. The
//! stores in a file, in PostgreSQL and in Redis are made of it.
//!
//! The types that an engine only returns may get new variants and fields; it makes them by
//! their constructors. The enums that an engine must handle are exhaustive: a new variant
//! is a new major version.
//!
//! # Example
//! A store whose engine is a map under a lock. It is not durable, and shows every method:
//!
//! ```
#![doc = include_str!("map_engine.rs")]
//!
//! let store: EngineStore<MapEngine> = EngineStore::new(MapEngine::default());
//! let operations = tower_operations::Operations::new(store);
//! ```
//!
//! An engine with [`EngineKeys`] and [`EngineList`] has idempotency keys and lists as well. A
//! crate of its own wraps its `EngineStore` by [`engine_store!`](crate::engine_store), for
//! constructors of its own. The package `tower-operations-conformance` checks the laws.

mod browsing;
mod cell;
mod cursors;
#[allow(clippy::module_inception)]
mod engine;
mod engine_store;
mod join_all;
mod leasing;
mod live_records;
mod macros;
mod notifier;
mod reading;
pub(crate) mod record_head;
mod reserving;
#[cfg(test)]
mod tests;
mod writing;

pub use cell::{
    Cell, CellQuery, CellReader, Inserted, KeyCell, KeyState, LapsedCell, LeaseChange, ListedCell,
    NewCell, NextCell, Notice, ReclaimFilter, Replaced, Stamp,
};
pub use engine::{Engine, EngineKeys, EngineList};
use engine_store::EngineShared;
pub use engine_store::EngineStore;
pub use notifier::Notifier;

pub use crate::store::cursor::new_secret;
