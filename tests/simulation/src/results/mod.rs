//! A result store that all nodes of a world share, and reach over a network of its own.
//!
//! * A call takes time, may lose its request or its answer, and may panic. The store is away
//!   together with the store of the operations, and on its own.
//! * A lost answer may be that of a call which takes effect seconds later, when its node is dead.
//! * The clock of the store is wrong by less than an hour.
//! * A list may lack uploads of the last hour, and show deleted ones.
//! * A node may be killed or stopped at a place of an upload.

mod bucket;
mod call;
mod counts;
mod list;
mod mutations;
mod read;
mod store;
mod trap;
mod upload;

pub(crate) use bucket::Bucket;
pub(crate) use call::SimulatedResults;
pub use counts::ResultCounts;
pub(crate) use trap::TrapFault;
