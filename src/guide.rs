//! Pages that are about more than one item.

/// Choosing when a request goes asynchronous.
#[doc = include_str!("../docs/modes.md")]
pub mod modes {}

/// What changes for your handler.
#[doc = include_str!("../docs/handler.md")]
pub mod handler {}
