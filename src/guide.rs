//! Pages that are about more than one item.

#[doc = include_str!("../docs/modes.md")]
pub mod modes {}

#[doc = include_str!("../docs/handler.md")]
pub mod handler {}

#[doc = include_str!("../docs/dialects.md")]
pub mod dialects {}

#[doc = include_str!("../docs/deployment.md")]
pub mod deployment {}

// Pages with a plot have it beside them, which these docs do not: of two definitions of a
// link the first counts.
#[doc = include_str!("../docs/workers.plot")]
///
#[doc = include_str!("../docs/growing.md")]
pub mod growing {}

#[doc = include_str!("../docs/wire.plot")]
///
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}

#[cfg(feature = "redb")]
#[doc = include_str!("../docs/redb.md")]
pub mod redb {}

#[cfg(feature = "postgres")]
#[doc = include_str!("../docs/postgres.md")]
pub mod postgres {}

#[cfg(feature = "redis")]
#[doc = include_str!("../docs/redis.md")]
pub mod redis {}
