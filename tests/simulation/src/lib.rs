//! Deterministic simulation of nodes, their store and their clients.
//!
//! A [world](run) runs on one thread with tokio's clock paused, so that hours pass in seconds, and
//! everything random in it follows from one seed: the same [`Plan`] gives the same run, byte for
//! byte. The nodes are groups of tasks with the crate's own layer, poll service and recovery. The
//! customers are those of the chaos tests, and the same checker judges the log.
//!
//! * A **kill** ends all tasks of a node at once, wherever they wait, as `SIGKILL` does.
//! * A **stop** does not poll the tasks of a node for a while, as `SIGSTOP` does.
//! * A **drain** shuts a node down gracefully, and starts it again.
//! * An **outage** takes the store away from all nodes.
//! * A **skew** puts the wall clock of a node wrong by up to half a minute.
//! * The **queue** between nodes that accept requests and workers that run them loses, delays,
//!   doubles and reorders messages.
//! * The **disk** of a single node loses its power between two writes, is full, or fails.
//! * The **result store** has the documents of longer reports. It is away together with the store
//!   or alone, and kills and stops come at each place of an upload. Hours after the customers have left, it
//!   has what the operations name, and nothing else.
//! * The [network](engine::Network) between the nodes and the store loses requests, answers and
//!   notices, and some calls are slow.

mod bug;
mod disk;
mod document;
pub mod engine;
mod faults;
mod hours;
mod journal;
mod mutants;
mod node;
mod process;
mod queue;
mod report_body;
mod results;
mod stores;
mod work;
mod world;

pub use faults::FaultNumbers;
pub use journal::Closed;
pub use mutants::Mutant;
pub use results::ResultCounts;
pub use stores::StoreKind;
pub use work::ORDERED_PANIC;
pub use world::{CUSTOMER_PANIC, Lifetime, Outcome, Plan, run, shortest_prefix};
