//! The store that a command line names.

use std::{str::FromStr, time::Duration};

use tower::BoxError;
use tower_operations::{AnyStore, MemoryStore};

#[derive(Clone)]
pub(crate) enum StoreKind {
    Memory,
}

impl FromStr for StoreKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "memory" => Ok(Self::Memory),
            _ => Err("expected `memory`".into()),
        }
    }
}

impl StoreKind {
    /// The store, which keeps operations for `ttl` after they ended.
    pub(crate) async fn open(&self, ttl: Duration) -> Result<AnyStore, BoxError> {
        Ok(match self {
            Self::Memory => AnyStore::new(MemoryStore::new().ttl(ttl)),
        })
    }
}
