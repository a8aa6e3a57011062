//! Power failures: everything that was answered is kept, and nothing is torn.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tower_operations::{
    operation::{OperationId, State},
    store::{Lease, LeaseConfig, NodeId, Repository, Store, Written},
};

use super::{Disk, created, held, leased, open, success};
use crate::RedbStore;

/// A generator of pseudo-random numbers, which are the same in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn text(id: &OperationId) -> String {
    format!("{id} ").repeat(100)
}

/// Creates and finishes operations until `is_off`. Returns the ids that were answered.
async fn work(store: &RedbStore, is_off: &AtomicBool) -> (Vec<OperationId>, Vec<OperationId>) {
    let (mut created_ids, mut finished_ids) = (Vec::new(), Vec::new());
    while !is_off.load(Relaxed) {
        let id = OperationId::new();
        let record = created(store.create(leased(&id)).await.unwrap());
        if is_off.load(Relaxed) {
            break; // the answer may have come after the power failure
        }
        created_ids.push(id.clone());
        let finished = store
            .finish(&id, record.token(), success(&text(&id)), None)
            .await;
        assert!(matches!(finished.unwrap(), Written::Done(_)));
        if !is_off.load(Relaxed) {
            finished_ids.push(id);
        }
    }
    (created_ids, finished_ids)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_failures_lose_nothing_that_was_answered() {
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    let mut disk = Disk::default();
    let (mut all_created, mut all_finished) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let store = open(&disk, 1 << 20);
        let is_off = AtomicBool::new(false);
        let calls = disk.calls() + 50 + (chance.next() % 100) as usize;
        let (one, other) = (work(&store, &is_off), work(&store, &is_off));
        let cut = async {
            while disk.calls() < calls {
                tokio::task::yield_now().await;
            }
            // From here on no answer counts.
            is_off.store(true, Relaxed);
            disk.after_power_cut(|| chance.next().is_multiple_of(2))
        };
        let (one, other, left) = tokio::join!(one, other, cut);
        drop(store);
        disk = left;
        for (created, finished) in [one, other] {
            all_created.extend(created);
            all_finished.extend(finished);
        }

        let store = open(&disk, 1 << 20);
        for id in &all_created {
            let record = store.get(id).await.unwrap().expect("it was answered");
            if record.operation().state() == State::Succeeded {
                let result = record.operation().result().expect("it has one");
                assert_eq!(result.body().unwrap(), text(id).as_bytes());
            }
        }
        for id in &all_finished {
            let record = store.get(id).await.unwrap().expect("it was answered");
            assert_eq!(record.operation().state(), State::Succeeded);
        }
        // No earlier holder exists any more.
        let node = NodeId::new();
        let lease = LeaseConfig::new(node, super::TERM);
        for taken in store.reclaim(&lease, 9).await.unwrap() {
            let id = taken.record.operation().id().clone();
            let token = taken.record.token();
            let lost = store.renew(&lease, &[held(&id, token)]).await.unwrap();
            assert!(lost.is_empty());
            let ended = store.finish(&id, token, success(&text(&id)), None).await;
            assert!(matches!(ended.unwrap(), Written::Done(_)));
        }
        assert!(store.reclaim(&lease, 9).await.unwrap().is_empty());
        store.close().await.unwrap();
    }
    assert!(all_finished.len() > 100, "{}", all_finished.len());
}
