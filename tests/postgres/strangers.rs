//! What large results cost those who do not ask for them.

use tower_operations::PostgresStore;

use crate::{common::pool, pages, proxy::Proxy, server::Postgres, stranger};

#[tokio::test]
async fn a_stranger_asks_the_server_for_no_more_than_for_an_unknown_id() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 1)).await.unwrap();
    let cost = || (proxy.executed(), proxy.answered());
    stranger::costs_what_an_unknown_id_costs(store, cost).await;
}

#[tokio::test]
async fn a_page_ends_where_its_results_are_large() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 1)).await.unwrap();
    pages::end_early(store, || proxy.answered()).await;
}
