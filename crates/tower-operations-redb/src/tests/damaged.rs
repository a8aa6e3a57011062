//! Damaged rows do not block the other rows.

use std::time::Duration;

use ::redb::{Builder, Database};
use tower_operations::{
    operation::OperationId,
    store::{Lease, LeaseConfig, LeaseHandle, List, ListQuery, Owner, Purge, Repository, Store},
};

use super::{Disk, created, held, key, leased, open, success};
use crate::{
    RedbStore,
    tables::{CELLS, KEYS, LEASED},
};

/// The size of a cache that keeps everything in memory, so that nothing is read before it is
/// damaged.
const CACHE: usize = 1 << 20;

/// Changes the file while the store is closed.
async fn damage(disk: &Disk, store: RedbStore, change: impl FnOnce(&Database)) -> RedbStore {
    store.close().await.unwrap();
    drop(store);
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    change(&database);
    drop(database);
    open(disk, CACHE)
}

/// Replaces a row by these bytes, or removes the row.
fn overwrite(database: &Database, id: &OperationId, row: Option<&[u8]>) {
    let write = database.begin_write().unwrap();
    {
        let mut cells = write.open_table(CELLS).unwrap();
        match row {
            Some(row) => cells.insert(id.to_string().as_bytes(), row).unwrap(),
            None => cells.remove(id.to_string().as_bytes()).unwrap(),
        };
    }
    write.commit().unwrap();
}

async fn live(store: &RedbStore) -> LeaseHandle {
    let id = OperationId::new();
    let record = created(store.create(leased(&id)).await.unwrap());
    held(&id, record.token())
}

#[tokio::test]
async fn damaged_live_rows_do_not_block_other_rows() {
    let disk = Disk::default();
    let store = open(&disk, CACHE);
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(live(&store).await);
    }
    // The file can be opened nevertheless.
    let store = damage(&disk, store, |database| {
        overwrite(database, &all[0].id, Some(b"no row"));
        overwrite(database, &all[1].id, Some(b""));
        overwrite(database, &all[2].id, None);
        let write = database.begin_write().unwrap();
        let mut leased = write.open_table(LEASED).unwrap();
        leased.insert(u64::MAX, &b"\xff is no id"[..]).unwrap();
        drop(leased);
        write.commit().unwrap();
    })
    .await;
    let good = &all[3];
    let owner = Some(Owner::new("somebody"));
    let listed = store.list(&ListQuery::new(owner, 9)).await.unwrap();
    let listed: Vec<_> = listed
        .records
        .iter()
        .map(|it| it.operation().id())
        .collect();
    assert_eq!(listed, [&good.id]);
    let lease = LeaseConfig::default();
    let lost = store.renew(&lease, &all).await.unwrap();
    assert_eq!(lost, all[..3]);
    store.release(&all).await.unwrap();
    let taken = store.reclaim(&lease, 1).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(*taken[0].record.operation().id(), good.id);
    assert!(store.get(&all[0].id).await.is_err());
    assert_eq!(store.stats().failures, 0);
}

/// The record is damaged while it is held.
#[tokio::test]
async fn leases_without_a_cell_do_not_block_reclaims() {
    let disk = Disk::default();
    let store = open(&disk, CACHE);
    let (bad, gone, good) = (live(&store).await, live(&store).await, live(&store).await);
    {
        // The damage is done through the database of the store, which keeps the leases in
        // memory.
        let access = store.0.engine().slot.read().await;
        let database = access.database().unwrap();
        overwrite(database, &bad.id, Some(b"no row"));
        overwrite(database, &gone.id, None);
    }
    store
        .release(&[bad.clone(), gone.clone(), good.clone()])
        .await
        .unwrap();
    let lease = LeaseConfig::default();
    let taken = store.reclaim_released(&lease, 1).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(*taken[0].record.operation().id(), good.id);
}

#[tokio::test]
async fn damaged_ended_rows_do_not_block_a_purge() {
    let disk = Disk::default();
    let store = open(&disk, CACHE).ttl(Duration::ZERO);
    let mut ids = Vec::new();
    for number in 0..3 {
        let id = OperationId::new();
        let new = leased(&id).with_key(key(&format!("key {number}")));
        let record = created(store.create(new).await.unwrap());
        let finished = store.finish(&id, record.token(), success("done"), None);
        finished.await.unwrap();
        ids.push(id);
    }
    let store = damage(&disk, store, |database| {
        overwrite(database, &ids[0], Some(b"no row"));
        let write = database.begin_write().unwrap();
        let mut keys = write.open_table(KEYS).unwrap();
        keys.insert(&b"key 1"[..], &b"no row"[..]).unwrap();
        drop(keys);
        write.commit().unwrap();
    })
    .await;
    let mut purged = 0;
    for _ in 0..4 {
        purged += store.purge(1).await.unwrap();
    }
    assert_eq!(purged, 3, "each is looked at once");
    assert_eq!(store.purge(9).await.unwrap(), 0);
    assert!(store.get(&ids[1]).await.unwrap().is_none());
}
