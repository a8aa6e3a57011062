//! The stores of a command line.

use std::{str::FromStr, time::Duration};

use tower::BoxError;
use tower_operations::{AnyStore, MemoryStore};

#[derive(Clone)]
pub enum StoreKind {
    Memory,
    Redb(std::path::PathBuf),
    Postgres(String),
    Redis(String),
}

impl FromStr for StoreKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("memory", "") => Ok(Self::Memory),
            ("redb", path) if !path.is_empty() => Ok(Self::Redb(path.into())),
            ("postgres" | "postgresql", _) => Ok(Self::Postgres(text.into())),
            ("redis", _) => Ok(Self::Redis(text.into())),
            _ => Err("expected `memory`, `redb:PATH`, `postgres://…` or `redis://…`".into()),
        }
    }
}

impl StoreKind {
    /// Opens the store, which keeps operations for `ttl` after they ended.
    pub async fn open(&self, ttl: Duration) -> Result<AnyStore, BoxError> {
        Ok(match self {
            Self::Memory => AnyStore::new(MemoryStore::new().ttl(ttl)),
            Self::Redb(path) => {
                use tower_operations_redb::RedbStore;
                let path = path.clone();
                let store = tokio::task::spawn_blocking(move || RedbStore::open(path)).await??;
                AnyStore::new(store.ttl(ttl))
            }
            Self::Postgres(url) => {
                use tower_operations_postgres::PostgresStore;
                let pool = sqlx::postgres::PgPoolOptions::new()
                    .max_connections(12)
                    .test_before_acquire(false);
                let store = PostgresStore::connect(pool.connect_lazy(url)?).await?;
                AnyStore::new(store.ttl(ttl))
            }
            Self::Redis(url) => {
                use tower_operations_redis::RedisStore;
                AnyStore::new(RedisStore::connect(url).await?.ttl(ttl))
            }
        })
    }
}
