//! URLs: those of operations, and the parts of the URLs that clients send.

mod authority;
mod forwarded;
mod locator;
mod original_uri;
mod path;
pub(crate) mod query;
mod urls;

pub(crate) use forwarded::ForwardingHeader;
#[cfg(any(fuzzing, test))]
pub(crate) use forwarded::base as forwarded_base;
pub use locator::{InvalidPublicUrl, Locator};
pub(crate) use locator::{absolute, path_is_below};
pub(crate) use original_uri::original_uri;
pub(crate) use path::{part_of, unescaped};
pub use urls::Urls;
