//! The store of a command line.

use std::{str::FromStr, time::Duration};

use tower::BoxError;
use tower_operations::{AnyStore, MemoryStore};

#[derive(Clone)]
pub(crate) enum StoreKind {
    Memory,
    #[cfg(feature = "redb")]
    Redb(std::path::PathBuf),
    #[cfg(feature = "postgres")]
    Postgres(String),
    #[cfg(feature = "redis")]
    Redis(String),
}

impl FromStr for StoreKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("memory", "") => Ok(Self::Memory),
            #[cfg(feature = "redb")]
            ("redb", path) if !path.is_empty() => Ok(Self::Redb(path.into())),
            #[cfg(feature = "postgres")]
            ("postgres" | "postgresql", _) => Ok(Self::Postgres(text.into())),
            #[cfg(feature = "redis")]
            ("redis", _) => Ok(Self::Redis(text.into())),
            _ => Err(
                "expected `memory` or, with the feature of that name, `redb:PATH`, \
                 `postgres://…` or `redis://…`"
                    .into(),
            ),
        }
    }
}

impl StoreKind {
    /// Opens the store, which keeps operations for `ttl` after they ended.
    pub(crate) async fn open(&self, ttl: Duration) -> Result<AnyStore, BoxError> {
        Ok(match self {
            Self::Memory => AnyStore::new(MemoryStore::new().ttl(ttl)),
            #[cfg(feature = "redb")]
            Self::Redb(path) => {
                use tower_operations::store::RedbStore;
                let path = path.clone();
                let store = tokio::task::spawn_blocking(move || RedbStore::open(path)).await??;
                AnyStore::new(store.ttl(ttl))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => {
                use tower_operations::store::PostgresStore;
                let pool = sqlx::postgres::PgPoolOptions::new()
                    .max_connections(12)
                    .test_before_acquire(false);
                let store = PostgresStore::connect(pool.connect_lazy(url)?).await?;
                AnyStore::new(store.ttl(ttl))
            }
            #[cfg(feature = "redis")]
            Self::Redis(url) => {
                use tower_operations::store::RedisStore;
                AnyStore::new(RedisStore::connect(url).await?.ttl(ttl))
            }
        })
    }
}
