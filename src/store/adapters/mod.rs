//! Stores made from other stores or from closures, and stores chosen at run time.

mod any;
mod forward;
mod function;
mod polling;
mod single_node;

pub use any::AnyStore;
pub use function::{Change, RepositoryFn, StoreFn};
pub use polling::Polling;
pub use single_node::SingleNode;
