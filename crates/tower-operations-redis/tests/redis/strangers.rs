//! What large results cost those who do not ask for them.

use tower_operations_redis::RedisStore;

use super::{pages, proxy::Proxy, repetition, server::Redis, stranger};

#[tokio::test]
async fn a_stranger_asks_the_server_for_no_more_than_for_an_unknown_id() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    let cost = || (proxy.trips(), proxy.answered());
    stranger::costs_what_an_unknown_id_costs(store, cost).await;
}

#[tokio::test]
async fn a_repetition_asks_the_server_for_no_result() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    let cost = || (proxy.trips(), proxy.answered());
    repetition::costs_no_result(store, cost).await;
}

#[tokio::test]
async fn a_page_ends_where_its_results_are_large() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    pages::end_early(store, || proxy.answered()).await;
}
