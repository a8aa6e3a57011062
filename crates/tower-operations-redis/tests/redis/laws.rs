//! The laws of the store traits, on one node and across several.

use std::time::Duration;

use tower_operations::store::AnyStore;
use tower_operations_conformance::{self as conformance, Nodes};
use tower_operations_redis::{RedisBuilder, RedisStore};

use super::server::Redis;

async fn connect(redis: &Redis, ttl: Duration) -> RedisStore {
    let store = RedisStore::connect(&redis.url()).await;
    store.unwrap().ttl(ttl)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_keeps_the_laws() {
    let redis = Redis::start().await;
    conformance::all(async |ttl| connect(&redis, ttl).await).await;
    conformance::released_lease(async |ttl| connect(&redis, ttl).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_nodes_keep_the_laws() {
    let redis = Redis::start().await;
    conformance::all(async |ttl| {
        Nodes::new([
            connect(&redis, ttl).await,
            connect(&redis, ttl).await,
            connect(&redis, ttl).await,
        ])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_erased_store_keeps_the_laws() {
    let redis = Redis::start().await;
    conformance::all(async |ttl| {
        let builder = RedisBuilder::new(&redis.url()).prefix("app:operations");
        AnyStore::new(builder.connect().await.unwrap().ttl(ttl))
    })
    .await;
}
