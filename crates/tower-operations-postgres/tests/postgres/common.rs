//! Helpers of the tests.

use std::time::Duration;

use http::Response;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tower_operations::{
    BufferedBody, OperationId, Outcome, RecordedResponse,
    store::{Created, FencingToken, LeaseConfig, NewOperation, NodeId, Repository},
};
use tower_operations_postgres::PostgresStore;

use crate::server::Postgres;

/// The time after which a wait fails as stuck.
pub(crate) const STUCK: Duration = Duration::from_secs(20);

pub(crate) fn url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable")
}

/// Returns a pool with the recommended settings.
pub(crate) fn pool(port: u16, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy(&url(port))
        .unwrap()
}

pub(crate) async fn store(server: &Postgres) -> PostgresStore {
    PostgresStore::connect(pool(server.port(), 4))
        .await
        .unwrap()
}

pub(crate) fn term(seconds: u64) -> LeaseConfig {
    LeaseConfig::new(NodeId::new(), Duration::from_secs(seconds))
}

pub(crate) fn response(text: impl Into<String>) -> RecordedResponse {
    RecordedResponse::new(Response::new(BufferedBody::from(text.into())))
}

pub(crate) fn success(text: impl Into<String>) -> Outcome<RecordedResponse> {
    Outcome::Succeeded(Some(response(text)))
}

/// Creates an operation whose lease the test holds.
pub(crate) async fn create(
    store: &impl Repository<Output = RecordedResponse>,
) -> (OperationId, FencingToken) {
    let id = OperationId::new();
    let new = NewOperation::new(id.clone()).with_lease(term(60));
    match store.create(new).await.unwrap() {
        Created::New(record) => (id, record.token()),
        other => panic!("{other:?}"),
    }
}

/// Returns an operation without a lease.
pub(crate) fn without_lease(id: &str) -> NewOperation {
    NewOperation::new(id.parse().unwrap())
}
