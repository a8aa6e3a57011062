//! What large results cost those who do not ask for them.

use tower_operations::{
    OperationId,
    store::{IdempotencyKey, NewOperation, Repository, Written},
};
use tower_operations_postgres::PostgresStore;

use crate::{
    common::{pool, success},
    pages,
    proxy::Proxy,
    repetition,
    server::Postgres,
    stranger,
};

#[tokio::test]
async fn a_stranger_asks_the_server_for_no_more_than_for_an_unknown_id() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 1)).await.unwrap();
    let cost = || (proxy.executed(), proxy.answered());
    stranger::costs_what_an_unknown_id_costs(store, cost).await;
}

#[tokio::test]
async fn a_repetition_asks_the_server_for_no_result() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 1)).await.unwrap();
    let cost = || (proxy.executed(), proxy.answered());
    repetition::costs_no_result(store, cost).await;
}

/// It would be put together whole, however little of it is sent.
#[tokio::test]
async fn the_server_looks_at_no_result_for_a_repetition() {
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
        let ask = format!("SELECT head IS NOT NULL, result IS NULL FROM {call}");
        let found: (bool, bool) = sqlx::query_as(sqlx::AssertSqlSafe(ask))
            .bind(new.id.to_string())
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(found, (true, true), "{call}");
    }
}

#[tokio::test]
async fn a_page_ends_where_its_results_are_large() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 1)).await.unwrap();
    pages::end_early(store, || proxy.answered()).await;
}
