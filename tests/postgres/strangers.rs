//! What an operation costs those that it is not there for.

use tower_operations::PostgresStore;

use crate::{common::pool, proxy::Proxy, server::Postgres, stranger};

#[tokio::test]
async fn a_stranger_asks_the_server_for_no_more_than_for_an_unknown_id() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 1)).await.unwrap();
    let cost = || (proxy.executed(), proxy.answered());
    stranger::costs_what_an_unknown_id_costs(store, cost).await;
}
