//! The laws of the store traits, and the number of commits.

use std::time::Duration;

use tower_operations::{
    OperationId,
    store::{AnyStore, Lease, LeaseHandle, Repository, Store},
};
use tower_operations_conformance::{self as conformance, Nodes};
use tower_operations_redb::RedbStore;

use super::{create, new_operation, private::Folder, success};

fn open(folder: &Folder, ttl: Duration) -> RedbStore {
    let path = folder.join(&OperationId::new().to_string());
    RedbStore::open(path).unwrap().ttl(ttl)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_keeps_the_laws() {
    let folder = Folder::new("redb");
    conformance::all(async |ttl| open(&folder, ttl)).await;
    conformance::released_lease(async |ttl| open(&folder, ttl)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_handles_keep_the_laws() {
    let folder = Folder::new("redb");
    conformance::all(async |ttl| {
        let store = open(&folder, ttl);
        Nodes::new([store.clone(), store.clone(), store])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_erased_store_keeps_the_laws() {
    let folder = Folder::new("redb");
    conformance::all(async |ttl| AnyStore::new(open(&folder, ttl))).await;
    conformance::released_lease(async |ttl| AnyStore::new(open(&folder, ttl))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_populated_file_keeps_the_laws() {
    let folder = Folder::new("redb");
    let store = open(&folder, Duration::ZERO);
    conformance::all(async |ttl| store.clone().ttl(ttl)).await;
}

#[tokio::test]
async fn an_operation_takes_three_commits_and_a_poll_takes_none() {
    let folder = Folder::new("redb");
    let store = open(&folder, Duration::from_secs(60));
    let id = OperationId::new();
    let commits = || store.stats().commits;

    let token = create(&store, new_operation(&id)).await;
    assert_eq!(commits(), 1);
    store.start(&id, token).await.unwrap();
    assert_eq!(commits(), 2);
    store.finish(&id, token, success("x"), None).await.unwrap();
    assert_eq!(commits(), 3);
    // A repeated finish commits nothing.
    store.finish(&id, token, success("x"), None).await.unwrap();
    assert!(store.get_now(&id).is_some_and(|found| found.is_ok()));
    assert!(store.get(&id).await.unwrap().is_some());
    let stats = store.stats();
    assert_eq!((stats.commits, stats.changes, stats.failures), (3, 3, 0));
}

#[tokio::test]
async fn concurrent_writes_share_commits() {
    let folder = Folder::new("redb");
    let store = open(&folder, Duration::from_secs(60));
    let creating: Vec<_> = (0..500)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { create(&store, new_operation(&OperationId::new())).await })
        })
        .collect();
    for created in creating {
        created.await.unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.changes, stats.queued), (500, 0));
    assert!(stats.commits < 100, "{stats:?}");
}

#[tokio::test]
async fn a_release_notifies_other_handles() {
    let folder = Folder::new("redb");
    let store = open(&folder, Duration::from_secs(60));
    let id = OperationId::new();
    let token = create(&store, new_operation(&id)).await;
    let other = AnyStore::new(store.clone());
    let mut released = std::pin::pin!(other.released());
    let before = tokio::time::timeout(Duration::ZERO, released.as_mut()).await;
    assert!(before.is_err(), "nothing was released");
    store.release(&[LeaseHandle::new(id, token)]).await.unwrap();
    let soon = Duration::from_secs(20);
    let notified = tokio::time::timeout(soon, released).await;
    assert!(notified.is_ok(), "`released` did not complete");
}
