//! The cost of large results for requests that do not read them.

use tower_operations_redis::RedisStore;

use super::{large_results, pages, proxy::Proxy, repetition, server::Redis, stranger};

#[tokio::test]
async fn a_foreign_operation_costs_as_much_as_an_unknown_id() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    let cost = || (proxy.trips(), proxy.answered());
    stranger::assert_cost_of_an_unknown_id(store, cost).await;
}

#[tokio::test]
async fn a_repeated_request_transfers_no_result() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    let cost = || (proxy.trips(), proxy.answered());
    repetition::assert_no_result_is_read(store, cost).await;
}

#[tokio::test]
async fn large_results_end_a_page() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    pages::assert_large_results_end_a_page(store, || proxy.answered()).await;
}

#[tokio::test]
async fn polls_and_lists_read_no_large_result() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    let cost = || (proxy.trips(), proxy.answered());
    large_results::assert_only_heads_are_read(store, cost).await;
}
