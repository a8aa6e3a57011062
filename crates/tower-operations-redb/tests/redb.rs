//! `RedbStore`: the laws, refused files, and killed processes.

#[path = "redb/file.rs"]
mod file;
#[path = "redb/kill.rs"]
mod kill;
#[path = "redb/laws.rs"]
mod laws;
use test_support::private;
#[path = "redb/restarts.rs"]
mod restarts;
#[path = "redb/upkeep.rs"]
mod upkeep;

use std::time::Duration;

use tower_operations::{
    BufferedBody, OperationId, Outcome, RecordedResponse,
    store::{Created, LeaseConfig, NewOperation, NodeId},
};
use tower_operations_redb::RedbStore;

/// The term of a lease that does not expire during a test.
const TERM: Duration = Duration::from_secs(600);

fn lease() -> LeaseConfig {
    LeaseConfig::new(NodeId::new(), TERM)
}

fn new_operation(id: &OperationId) -> NewOperation {
    NewOperation::new(id.clone()).with_lease(lease())
}

fn success(text: impl Into<String>) -> Outcome<RecordedResponse> {
    let body = BufferedBody::from(text.into());
    Outcome::Succeeded(Some(RecordedResponse::new(http::Response::new(body))))
}

async fn create(store: &RedbStore, new: NewOperation) -> tower_operations::store::FencingToken {
    use tower_operations::store::Repository;

    match store.create(new).await {
        Ok(Created::New(record)) => record.token(),
        other => panic!("{other:?}"),
    }
}
