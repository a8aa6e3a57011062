//! The store in a file of redb's.

use std::time::Duration;

use tower_operations::store::{
    AnyStore, RedbStore,
    conformance::{self, Nodes},
};

fn open(folder: &tempfile::TempDir, ttl: Duration) -> RedbStore {
    let path = folder.path().join(format!("{}.redb", uuid::Uuid::new_v4()));
    RedbStore::open(path).unwrap().ttl(ttl)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_keeps_every_law() {
    let folder = tempfile::tempdir().unwrap();
    conformance::all(async |ttl| open(&folder, ttl)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn handles_of_one_file_keep_every_law_together() {
    let folder = tempfile::tempdir().unwrap();
    conformance::all(async |ttl| {
        let store = open(&folder, ttl);
        Nodes::new([store.clone(), store.clone(), store])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_erased_store_keeps_every_law() {
    let folder = tempfile::tempdir().unwrap();
    conformance::all(async |ttl| AnyStore::new(open(&folder, ttl))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_file_keeps_every_law_whatever_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Duration::ZERO);
    conformance::all(async |ttl| store.clone().ttl(ttl)).await;
}
