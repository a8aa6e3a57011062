#![doc = include_str!("../README.md")]
//!
//! # Calling the checks
//! * The closure gets the *time to live* of the store: how long the store keeps an
//!   operation after its end. Some checks ask for an hour, some for a quarter of a second.
//! * The closure may return the same store at every call, for example the same database, as long
//!   as the time to live is the requested one: every check uses its own ids, owners, keys and
//!   nodes. No other task may reclaim or purge there meanwhile.
//! * The checks race with each other through [`tokio::spawn`], so they need a tokio
//!   runtime. A runtime with several threads makes the races real.
//! * The checks wait for expiry with [`tokio::time::sleep`], about five seconds in total. With a
//!   paused clock they do not wait; a paused clock fits only a store that uses tokio's clock
//!   alone.
//! * [`Nodes`] checks a store across handles that stand for several nodes, or connections.
//!
//! | function | required | laws |
//! | --- | --- | --- |
//! | [`repository`] | [`Repository`] | 1, 2, 3, 4, 7, 8 |
//! | [`watch`] | [`Watch`] | 5, 7 |
//! | [`lease`] | [`Lease`] | 6 |
//! | [`released_lease`] | [`Lease`] that distinguishes released from expired leases | 6 |
//! | [`single_node_lease`] | [`Lease`], provided by [`SingleNode`](tower_operations::store::SingleNode) | 6, except reclaiming |
//! | [`keys`] | [`IdempotencyKeys`] | 1, 7, 8 |
//! | [`list`] | [`List`] | listing, 8, 9 |
//! | [`purge`] | [`Purge`] | 8 |
//!
//! The checks cover only behaviour that is visible from outside: not that *create* and
//! *finish* are durable, nor what happens when the engine dies.

pub mod checker;
mod create;
mod expiry;
mod heads;
mod holder;
mod in_place;
mod keys;
mod lease;
mod list;
mod nodes;
mod outside;
mod purge;
mod racing;
mod reading;
mod recorded;
mod results;
mod subject;
mod watch;

use std::{sync::Arc, time::Duration};

pub use nodes::Nodes;
pub use results::results;
use tower_operations::{
    RecordedResponse,
    store::{IdempotencyKeys, Lease, List, Purge, Repository, Watch},
};

use self::subject::{LONG, SHORT};

/// Checks every law on a store with every capability.
///
/// # Panics
/// Panics when a law is broken.
pub async fn all<R, F, Fut>(make: F)
where
    R: Repository<Output = RecordedResponse> + Watch + Lease + IdempotencyKeys + List + Purge,
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = R>,
{
    repository(&make).await;
    watch(&make).await;
    lease(&make).await;
    keys(&make).await;
    list(&make).await;
    purge(&make).await;
}

/// Checks reading and writing.
///
/// # Panics
/// Panics when a law is broken.
pub async fn repository<R, F, Fut>(make: F)
where
    R: Repository<Output = RecordedResponse>,
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = R>,
{
    let store = Arc::new(make(LONG).await);
    in_place::check(&*store).await;
    create::check(&store).await;
    holder::check(&store).await;
    outside::check(&store).await;
    recorded::check(&store).await;
    reading::check(&*store).await;
    heads::check(&*store).await;
    racing::check(&store).await;
    let store = Arc::new(make(SHORT).await);
    expiry::check(&store).await;
}

/// Checks waiting for a change.
///
/// # Panics
/// Panics when a law is broken.
pub async fn watch<R, F, Fut>(make: F)
where
    R: Repository<Output = RecordedResponse> + Watch,
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = R>,
{
    let store = Arc::new(make(LONG).await);
    watch::check(&store).await;
    reading::check_waiting(&*store).await;
    heads::check_waiting(&*store).await;
}

/// Checks leases, and reclaiming them.
///
/// # Panics
/// Panics when a law is broken.
pub async fn lease<R, F, Fut>(make: F)
where
    R: Lease<Output = RecordedResponse>,
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = R>,
{
    let store = Arc::new(make(LONG).await);
    lease::check_holding(&store).await;
    lease::check_reclaiming(&store).await;
}

/// Checks [`Lease::reclaim_released`] of a store that distinguishes released from expired
/// leases; not part of [`all`].
///
/// # Panics
/// Panics when a law is broken.
pub async fn released_lease<R, F, Fut>(make: F)
where
    R: Lease<Output = RecordedResponse>,
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = R>,
{
    lease::check_releasing(&Arc::new(make(LONG).await)).await;
}

/// Checks the leases of a store with a single writing node, where no lease is ever reclaimed.
///
/// # Panics
/// Panics when a law is broken.
pub async fn single_node_lease<R, F, Fut>(make: F)
where
    R: Lease<Output = RecordedResponse>,
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = R>,
{
    lease::check_holding(&Arc::new(make(LONG).await)).await;
}

/// Checks keys, with and without a reservation.
///
/// # Panics
/// Panics when a law is broken.
pub async fn keys<R, F, Fut>(make: F)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = R>,
{
    keys::check(&Arc::new(make(LONG).await)).await;
    keys::check_expiry(&Arc::new(make(SHORT).await)).await;
}

/// Checks listing.
///
/// # Panics
/// Panics when a law is broken.
pub async fn list<R, F, Fut>(make: F)
where
    R: Repository<Output = RecordedResponse> + List,
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = R>,
{
    let store = Arc::new(make(LONG).await);
    list::check(&store).await;
    heads::check_lists(&*store).await;
    list::check_expiry(&Arc::new(make(SHORT).await)).await;
}

/// Checks that expired operations are removed.
///
/// # Panics
/// Panics when a law is broken.
pub async fn purge<R, F, Fut>(make: F)
where
    R: Repository<Output = RecordedResponse> + Purge,
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = R>,
{
    purge::check(&Arc::new(make(SHORT).await)).await;
}
