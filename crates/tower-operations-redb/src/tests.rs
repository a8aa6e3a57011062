//! Tests on a disk that fails on demand.

mod counted_file;
mod damaged;
mod dump;
mod failing;
mod format;
mod power;
mod reading;

use std::time::Duration;

use http::Response;
use tower_operations::{
    operation::{BufferedBody, OperationId, Outcome, RecordedResponse},
    store::{
        Created, FencingToken, IdempotencyKey, LeaseConfig, LeaseHandle, NewOperation, NodeId,
        Owner, Record, StoreError,
    },
};

use super::{
    RedbStore,
    engine::Driver,
    testing::{self, Disk},
};

type Seen = Record<RecordedResponse>;

const TERM: Duration = Duration::from_secs(60);

/// The size of a cache that is too small to delay any write to the disk.
const NO_CACHE: usize = 0;

fn open(disk: &Disk, cache: usize) -> RedbStore {
    testing::open(disk, cache, Driver::Threads).unwrap()
}

fn response(text: &str) -> RecordedResponse {
    RecordedResponse::new(Response::new(BufferedBody::from(text.to_owned())))
}

fn success(text: &str) -> Outcome<RecordedResponse> {
    Outcome::Succeeded(Some(response(text)))
}

fn leased(id: &OperationId) -> NewOperation {
    let lease = LeaseConfig::new(NodeId::named("a"), TERM);
    NewOperation::new(id.clone())
        .with_owner(Some(Owner::new("somebody")))
        .with_lease(lease)
}

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey::new(None, name, [7; 32])
}

fn held(id: &OperationId, token: FencingToken) -> LeaseHandle {
    let id = id.clone();
    LeaseHandle::new(id, token)
}

/// Retries for as long as a retry can help; returns the number of failures.
async fn persist<A>(mut attempt: impl AsyncFnMut() -> Result<A, StoreError>) -> (A, usize) {
    let mut failures = 0;
    loop {
        match attempt().await {
            Ok(answer) => return (answer, failures),
            Err(error) => {
                assert!(error.is_transient(), "{}", error.report());
                failures += 1;
                assert!(failures < 100, "{}", error.report());
            }
        }
    }
}

/// Returns the record that this create or an earlier attempt created.
fn created(created: Created<RecordedResponse>) -> Seen {
    match created {
        Created::New(record) | Created::Existing(record) => record,
        other => panic!("{other:?}"),
    }
}
