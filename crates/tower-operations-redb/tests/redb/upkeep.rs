//! Purging by recovery, and the health of the file.

use std::{fs, time::Duration};

use tokio::time::{Instant, sleep};
use tower_operations::{
    OperationId, Operations,
    store::{AnyStore, HealthWarning, LeaseConfig, NodeId, Repository, Store},
};
use tower_operations_redb::RedbStore;

use super::{create, new_operation, private::Folder, success};

#[tokio::test]
async fn recovery_purges_expired_operations() {
    let folder = Folder::new("redb");
    let store = RedbStore::open(folder.join("operations.redb")).unwrap();
    let brief = store.clone().ttl(Duration::from_millis(1));
    let mut ids = Vec::new();
    for _ in 0..20 {
        let id = OperationId::new();
        let token = create(&store, new_operation(&id)).await;
        brief.finish(&id, token, success("x"), None).await.unwrap();
        ids.push(id);
    }
    let live = OperationId::new();
    create(&store, new_operation(&live)).await;
    sleep(Duration::from_millis(5)).await;
    let lease = LeaseConfig::new(NodeId::new(), Duration::from_millis(300));
    // `AnyStore` forwards the purge.
    let recovery = Operations::new(AnyStore::new(store.clone()))
        .lease(lease)
        .recovery();
    let stats = recovery.stats();
    let running = tokio::spawn(recovery.run());
    let begun = Instant::now();
    while stats.purged() < 20 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{stats:?}");
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stats.purged(), 20);
    assert!(store.get(&live).await.unwrap().is_some());
    running.abort();
}

#[cfg(unix)]
#[tokio::test]
async fn a_removed_or_replaced_file_is_a_health_warning() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let store = AnyStore::new(RedbStore::open(&path).unwrap());
    assert!(store.health().await.unwrap().is_good());
    let elsewhere = folder.join("moved.redb");
    fs::rename(&path, &elsewhere).unwrap();
    let warnings = store.health().await.unwrap().warnings;
    assert_eq!(warnings, [HealthWarning::FileRemoved]);
    fs::write(&path, "something else").unwrap();
    let warnings = store.health().await.unwrap().warnings;
    assert_eq!(warnings, [HealthWarning::FileReplaced]);
    fs::rename(&elsewhere, &path).unwrap();
    assert!(store.health().await.unwrap().is_good());
}
