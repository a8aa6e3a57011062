//! Customers that use a cluster in every way, and log every answer.
//!
//! The customers post, poll, wait, cancel, read results and repeat keys at any node. They use
//! the same key at two nodes at the same moment, and for two tenants. They choose ids, cancel
//! and delete their operations, and reuse the ids. They wait for the answers of posts, and
//! list their operations. Some results are larger than a store accepts. The `checker` of
//! `tower-operations-conformance` judges the log.
//!
//! The customers know the nodes as a [`Cluster`] and the log as a [`Log`], so they need no
//! network and no process. Their waits are on the clock of tokio, and a seed determines their
//! decisions. On one thread and a paused clock, a seed gives the same log again if the cluster
//! gives the same answers again.
//!
//! Each [`Customer`] lives in a [`World`], which is the cluster, the log and the knowledge that
//! all customers share:
//!
//! ```not_rust
//! let world = Arc::new(World::new(cluster, log, seed, operations));
//! for number in 0..customers {
//!     tasks.spawn(Customer::new(Arc::clone(&world), number).place_orders());
//! }
//! // Once the tasks have ended, and all faults are healed:
//! confirm(&world).await;
//! ```

mod answer;
mod client;
mod cluster;
mod confirm;
mod customer;
mod errands;
mod follow;
mod log;
mod order;
mod random;
mod request;
mod world;

pub use answer::{answer, refused, text};
pub use client::Reply;
pub use cluster::Cluster;
pub use confirm::{confirm, look_after};
pub use customer::{Customer, TENANTS};
pub use log::Log;
pub use order::Order;
pub use random::Random;
pub use request::{ClientRequest, id_of};
pub use world::{Accepted, CHOSEN, Tally, World};
