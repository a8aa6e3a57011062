//! The cost of large results for requests that do not read them.

use tower_operations::{
    OperationId,
    store::{IdempotencyKey, NewOperation, Repository, Written},
};
use tower_operations_postgres::PostgresStore;

use crate::{
    common::{pool, success},
    large_results, pages,
    proxy::Proxy,
    repetition,
    server::Postgres,
    stranger,
};

#[tokio::test]
async fn a_foreign_operation_costs_as_much_as_an_unknown_id() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 1)).await.unwrap();
    let cost = || (proxy.executed(), proxy.answered());
    stranger::assert_cost_of_an_unknown_id(store, cost).await;
}

#[tokio::test]
async fn a_repeated_request_transfers_no_result() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 1)).await.unwrap();
    let cost = || (proxy.executed(), proxy.answered());
    repetition::assert_no_result_is_read(store, cost).await;
}

/// The server would assemble the whole result even if only a part were sent.
#[tokio::test]
async fn a_repeated_request_reads_no_result_on_the_server() {
    let server = Postgres::start().await;
    let pool = pool(server.port(), 1);
    let store = PostgresStore::connect(pool.clone()).await.unwrap();
    let key = IdempotencyKey::new(None, "a key", [1; 32]);
    let new = NewOperation::new(OperationId::new()).with_key(key);
    store.create(new.clone()).await.unwrap();
    let finished = store.finish(&new.id, new.token, success("done"), None);
    assert!(matches!(finished.await.unwrap(), Written::Done(_)));
    for call in [
        "operations_insert_2($1, 1, 1, 'pending', NULL, '', NULL, NULL, NULL, NULL, NULL, now())",
        "operations_insert_2($1 || '2', 1, 1, 'pending', NULL, '', NULL, NULL, 'a key', \
         decode(repeat('01', 32), 'hex'), NULL, now())",
        "operations_reserve_2('a key', NULL, decode(repeat('01', 32), 'hex'), 1, \
         INTERVAL '1 s', now() + 0 * length($1) * INTERVAL '1 s')",
    ] {
        let query = format!("SELECT head IS NOT NULL, result IS NULL FROM {call}");
        let found: (bool, bool) = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(new.id.to_string())
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(found, (true, true), "{call}");
    }
}

#[tokio::test]
async fn large_results_end_a_page() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 1)).await.unwrap();
    pages::assert_large_results_end_a_page(store, || proxy.answered()).await;
}

#[tokio::test]
async fn polls_and_lists_read_no_large_result() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 1)).await.unwrap();
    let cost = || (proxy.executed(), proxy.answered());
    large_results::assert_only_heads_are_read(store, cost).await;
}
