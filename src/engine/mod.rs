//! A kit for stores: [`EngineStore`] makes a store of an [`Engine`], which only has to
//! store bytes and replace them conditionally (compare-and-set).
//!
//! This engine is the storage of a store, and not a queue engine, which delivers
//! [dispatched](crate::Operations::dispatching) requests to workers.
//!
//! An engine stores *cells*: the bytes of a record, with the few values that the engine must
//! compare, order and search by. The states and steps of an operation belong to
//! [`Record`](crate::store::Record). `EngineStore` combines cells and records, so the
//! [laws](crate::store#laws) hold on every engine that keeps the promises of [`Engine`]. The
//! stores in a file, in PostgreSQL and in Redis are each an `EngineStore` on an engine.
//!
//! | the engine implements | its store implements |
//! | --- | --- |
//! | [`Engine`] | [`Repository`](crate::store::Repository), [`Watch`](crate::store::Watch), [`Lease`](crate::store::Lease), [`Purge`](crate::store::Purge) |
//! | [`EngineKeys`] | [`IdempotencyKeys`](crate::store::IdempotencyKeys) |
//! | [`EngineList`] | [`List`](crate::store::List) |
//!
//! # Compatibility
//! Types that an engine returns, for example [`Cell`] and [`Replaced`], are
//! `#[non_exhaustive]`: an engine creates them with their constructors or variants, and a
//! minor version may add fields and variants. Enums that an engine receives and must match,
//! for example [`LeaseChange`] and [`ReclaimFilter`], are exhaustive: a new variant is a new
//! major version.
//!
//! # Example
//! This store has an engine that is a map under a lock. The map is not durable. The example
//! shows every required method:
//!
//! ```
#![doc = include_str!("map_engine.rs")]
//!
//! let store: EngineStore<MapEngine> = EngineStore::new(MapEngine::default());
//! let operations = tower_operations::Operations::new(store);
//! ```
//!
//! A package that provides a store declares a type of its own around `EngineStore` with
//! [`engine_store!`](crate::engine_store), and adds the constructors. The package
//! `tower-operations-conformance` checks the laws.

mod browsing;
mod cell;
mod cursors;
#[allow(clippy::module_inception)]
mod engine;
mod engine_store;
mod join_all;
mod key_cell;
mod leasing;
mod listed_cell;
mod live_records;
mod macros;
mod notifier;
mod reading;
pub(crate) mod record_head;
mod reserving;
mod run_to_completion;
#[cfg(test)]
mod tests;
mod writing;

pub use cell::{
    Cell, CellReader, Inserted, LapsedCell, LeaseChange, NewCell, NextCell, Notice, ReclaimFilter,
    Replaced,
};
pub use engine::{Engine, EngineKeys, EngineList};
use engine_store::EngineShared;
pub use engine_store::EngineStore;
pub use key_cell::{KeyCell, KeyState};
pub use listed_cell::{CellQuery, ListedCell};
pub use notifier::Notifier;

pub use crate::{
    environment::{spawn, wall_clock},
    store::cursor::new_secret,
};
