//! Stores made of others: chosen at run time, of closures, or with a capability added.

mod any;
mod forward;
mod function;
mod polling;
mod single_node;

pub use any::AnyStore;
pub use function::{Change, RepositoryFn, StoreFn};
pub use polling::Polling;
pub use single_node::SingleNode;
