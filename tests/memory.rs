//! The memory store: its bounds, its clock and its accounting. The conformance
//! crate tests the laws that all stores share.

use std::{future::Future, task::Poll, time::Duration};

use http::{Response, StatusCode};
use proptest::prelude::*;
use tokio::time::{Instant, advance, timeout};
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Outcome, Problem, Progress, RecordedResponse, State,
    store::{
        Created, FencingToken, IdempotencyKey, IdempotencyKeys, Lease, LeaseConfig, LeaseHandle,
        List, ListQuery, NewOperation, NodeId, Owner, PastVersion, Purge, Record, Repository,
        Reservation, Store, StoreError, Version, Watch, Written,
    },
};

type SharedRecord = Record<RecordedResponse>;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const MILLISECOND: Duration = Duration::from_millis(1);

fn result(bytes: usize) -> Outcome<RecordedResponse> {
    let body = BufferedBody::from(vec![b'x'; bytes]);
    Outcome::Succeeded(Some(RecordedResponse::new(Response::new(body))))
}

fn new_operation(number: usize) -> NewOperation {
    NewOperation::new(format!("operation-{number}").parse().unwrap())
}

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey::new(None, name, [1; 32])
}

async fn create(store: &MemoryStore, new: NewOperation) -> SharedRecord {
    match store.create(new).await.unwrap() {
        Created::New(record) => record,
        other => panic!("not new: {other:?}"),
    }
}

async fn finish(
    store: &MemoryStore,
    record: &SharedRecord,
    outcome: Outcome<RecordedResponse>,
) -> SharedRecord {
    let (id, token) = (record.operation().id(), record.token());
    match store.finish(id, token, outcome, None).await.unwrap() {
        Written::Done(record) => record,
        other => panic!("not finished: {other:?}"),
    }
}

async fn create_ended(store: &MemoryStore, new: NewOperation) -> SharedRecord {
    let record = create(store, new).await;
    finish(store, &record, result(0)).await
}

async fn exists(store: &MemoryStore, record: &SharedRecord) -> bool {
    store.get(record.operation().id()).await.unwrap().is_some()
}

/// A store without shares: one owner may fill it.
fn store_without_shares() -> MemoryStore {
    MemoryStore::new()
        .max_operations_per_owner(usize::MAX)
        .max_bytes_per_owner(usize::MAX)
}

async fn is_full(store: &MemoryStore, new: NewOperation) -> bool {
    match store.create(new).await {
        Ok(Created::New(_)) => false,
        Err(error @ StoreError::Full) => {
            assert!(error.is_transient(), "the error is not transient");
            true
        }
        other => panic!("neither new nor full: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_ttl_starts_at_the_end() {
    let store = MemoryStore::new().ttl(10 * SECOND);
    let record = create(&store, NewOperation::new(OperationId::new())).await;
    advance(HOUR).await;
    assert!(exists(&store, &record).await);

    let record = finish(&store, &record, result(0)).await;
    let metadata = record.operation().metadata();
    let (finished, expires) = (metadata.finished_at(), metadata.expires_at());
    assert_eq!(expires, finished.map(|at| at + 10 * SECOND));
    advance(10 * SECOND - MILLISECOND).await;
    assert!(exists(&store, &record).await, "not before its time");
    advance(MILLISECOND).await;
    assert!(!exists(&store, &record).await, "not after its time");
}

#[tokio::test(start_paused = true)]
async fn the_ttl_is_exact_to_the_nanosecond() {
    let store = MemoryStore::new().ttl(SECOND);
    advance(Duration::from_nanos(999_999)).await;
    let record = create_ended(&store, NewOperation::new(OperationId::new())).await;
    advance(SECOND - Duration::from_nanos(1)).await;
    assert!(exists(&store, &record).await, "not before its time");
    advance(Duration::from_nanos(1)).await;
    assert!(!exists(&store, &record).await, "not after its time");
}

#[tokio::test(start_paused = true)]
async fn a_live_operation_is_never_removed() {
    let store = MemoryStore::new()
        .ttl(SECOND)
        .min_retention(Duration::ZERO)
        .max_operations(3);
    let pending = create(&store, new_operation(1)).await;
    let running = create(&store, new_operation(2)).await;
    let started = store.start(running.operation().id(), running.token()).await;
    assert!(matches!(started.unwrap(), Written::Done(_)));
    let lease = LeaseConfig::new(NodeId::new(), SECOND);
    let abandoned = create(&store, new_operation(3).with_lease(lease)).await;

    advance(1000 * HOUR).await;
    assert!(is_full(&store, new_operation(4)).await);
    assert_eq!(store.purge(usize::MAX).await.unwrap(), 0);
    for record in [pending, running, abandoned] {
        assert!(exists(&store, &record).await);
    }
    assert_eq!(store.len(), 3);
}

/// The order holds across shards, for any order of creation.
#[tokio::test(start_paused = true)]
async fn the_operation_that_ended_first_is_evicted_first() {
    const CAPACITY: usize = 100;
    let store = MemoryStore::new()
        .min_retention(Duration::ZERO)
        .max_operations(CAPACITY);
    let mut by_end = Vec::new();
    for number in 0..CAPACITY {
        by_end.push(create(&store, new_operation(number)).await);
    }
    // 37 and 100 are coprime.
    by_end = (0..CAPACITY)
        .map(|number| by_end[number * 37 % CAPACITY].clone())
        .collect();
    for record in &by_end {
        advance(MILLISECOND).await;
        finish(&store, record, result(0)).await;
    }
    for evicted in 1..=CAPACITY {
        create(&store, new_operation(CAPACITY + evicted)).await;
        assert_eq!(store.len(), CAPACITY);
        for (number, record) in by_end.iter().enumerate() {
            let expected = number >= evicted;
            assert_eq!(
                exists(&store, record).await,
                expected,
                "{number} of {evicted}"
            );
        }
    }
    assert!(
        is_full(&store, new_operation(1000)).await,
        "only live operations are left"
    );
}

#[tokio::test(start_paused = true)]
async fn an_ended_operation_is_kept_for_the_minimum_retention() {
    let store = MemoryStore::new().max_operations(2);
    let first = create_ended(&store, new_operation(1)).await;
    advance(MINUTE - MILLISECOND).await;
    let second = create_ended(&store, new_operation(2)).await;
    assert!(
        is_full(&store, new_operation(3)).await,
        "60 s is the default"
    );
    advance(MILLISECOND).await;
    create(&store, new_operation(3)).await;
    assert!(!exists(&store, &first).await);
    assert!(
        exists(&store, &second).await,
        "the second operation ended a millisecond ago"
    );
    assert!(is_full(&store, new_operation(4)).await);
}

#[tokio::test(start_paused = true)]
async fn an_expired_operation_is_evicted_before_the_minimum_retention() {
    let store = MemoryStore::new().ttl(SECOND).max_operations(1);
    let first = create_ended(&store, new_operation(1)).await;
    assert!(is_full(&store, new_operation(2)).await);
    advance(SECOND).await;
    create(&store, new_operation(2)).await;
    assert!(!exists(&store, &first).await);
    assert_eq!(store.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded() {
    let store = MemoryStore::new()
        .min_retention(Duration::ZERO)
        .max_bytes(100_000);
    let mut ids = Vec::new();
    while !is_full(&store, new_operation(ids.len())).await {
        ids.push(new_operation(ids.len()).id);
        assert!(store.bytes() <= 100_000);
    }
    assert_eq!(store.len(), ids.len());
    assert!(ids.len() > 100, "an operation takes less than a kilobyte");

    // An operation that ends frees room, less the size of its outcome.
    for id in &ids[..10] {
        advance(MILLISECOND).await;
        let token = store.get(id).await.unwrap().unwrap().token();
        store
            .finish(id, token, Outcome::Succeeded(None), None)
            .await
            .unwrap();
    }
    for (number, evicted) in ids[..9].iter().enumerate() {
        assert!(!is_full(&store, new_operation(1000 + number)).await);
        assert!(store.bytes() <= 100_000);
        assert!(store.get(evicted).await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn evictions_free_no_more_bytes_than_needed() {
    let store = MemoryStore::new()
        .min_retention(Duration::ZERO)
        .max_bytes(100_000);
    let mut records = Vec::new();
    for number in 0..50 {
        records.push(create(&store, new_operation(number)).await);
    }
    for record in &records {
        advance(MILLISECOND).await;
        finish(&store, record, result(10_000)).await;
    }
    assert!(store.bytes() > 500_000);
    create(&store, new_operation(50)).await;
    assert!(store.bytes() <= 100_000);
    // Another result would not fit, so no more than needed was evicted.
    assert!(store.bytes() > 100_000 - 12_000);
    let checks = records.iter().map(|record| exists(&store, record));
    let mut remaining = Vec::new();
    for record in checks {
        remaining.push(record.await);
    }
    assert!(
        remaining.is_sorted(),
        "the operations that ended first are evicted: {remaining:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_stored_above_every_bound() {
    let store = MemoryStore::new().max_bytes(10_000).max_operations(2);
    let records = [
        create(&store, new_operation(1)).await,
        create(&store, new_operation(2)).await,
    ];
    for record in &records {
        let finished = finish(&store, record, result(1 << 20)).await;
        let found = store.get(finished.operation().id()).await.unwrap();
        assert_eq!(found.as_ref(), Some(&finished));
    }
    assert!(store.bytes() > 2 << 20);
    assert!(
        is_full(&store, new_operation(3)).await,
        "both have just ended"
    );
    advance(MINUTE).await;
    create(&store, new_operation(3)).await;
    assert!(store.bytes() < 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_refused_create_leaves_no_partial_state() {
    let store = MemoryStore::new().max_operations(1);
    create(&store, new_operation(1)).await;
    let bytes = store.bytes();
    let refused = new_operation(2).with_key(key("a key of the client"));
    for _ in 0..3 {
        assert!(is_full(&store, refused.clone()).await);
    }
    assert_eq!((store.len(), store.bytes()), (1, bytes));
    assert!(store.get(&refused.id).await.unwrap().is_none());
    let reserved = store
        .reserve(&key("a key of the client"), FencingToken::random(), SECOND)
        .await;
    assert!(matches!(reserved.unwrap(), Reservation::Reserved(_)));
}

/// A repeated create adds nothing, so it evicts nothing, least of all the operation
/// that it asks for.
#[tokio::test(start_paused = true)]
async fn a_repeated_create_evicts_nothing() {
    let store = MemoryStore::new()
        .min_retention(Duration::ZERO)
        .max_operations(2);
    let keyed = new_operation(1).with_key(key("a key of the client"));
    let first = create_ended(&store, keyed.clone()).await;
    advance(SECOND).await;
    let second = create_ended(&store, new_operation(2)).await;
    advance(SECOND).await;
    let same_id = new_operation(1).with_key(key("a key of the client"));
    let same_key = new_operation(3).with_key(key("a key of the client"));
    for (repetition, record) in [
        (same_id, &first),
        (same_key, &first),
        (new_operation(2), &second),
    ] {
        match store.create(repetition).await.unwrap() {
            Created::Existing(found) => assert_eq!(&found, record),
            other => panic!("not the existing record: {other:?}"),
        }
    }
    let other = new_operation(1).with_owner(Some(Owner::new("another")));
    assert!(matches!(
        store.create(other).await.unwrap(),
        Created::IdTaken
    ));
    assert!(exists(&store, &first).await && exists(&store, &second).await);
    assert_eq!(store.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_creates_succeed_up_to_the_bound() {
    for _ in 0..20 {
        let store = MemoryStore::new().max_operations(10);
        let creates = (0..100).map(|number| {
            let store = store.clone();
            tokio::spawn(async move { !is_full(&store, new_operation(number)).await })
        });
        let mut created = 0;
        for create in creates.collect::<Vec<_>>() {
            created += usize::from(create.await.unwrap());
        }
        assert_eq!((created, store.len()), (10, 10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_creates_of_one_id_succeed_once() {
    for _ in 0..20 {
        let store = MemoryStore::new().max_operations(1);
        let creates = (0..50).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.create(new_operation(1)).await })
        });
        let mut created = 0;
        for create in creates.collect::<Vec<_>>() {
            match create.await.unwrap() {
                Ok(Created::New(_)) => created += 1,
                Ok(Created::Existing(_)) | Err(StoreError::Full) => {}
                other => panic!("neither new nor existing: {other:?}"),
            }
        }
        assert_eq!((created, store.len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_outlives_its_deleted_operation_until_the_expiry() {
    let store = MemoryStore::new().ttl(HOUR);
    let record = create_ended(&store, new_operation(1).with_key(key("k"))).await;
    let id = record.operation().id();
    let deleted = store.delete(id, record.stamp().unwrap()).await.unwrap();
    assert!(matches!(deleted, Written::Done(_)));
    assert!(!exists(&store, &record).await);

    advance(HOUR - MILLISECOND).await;
    // A purge in between removes neither the key nor anything else.
    assert_eq!(store.purge(usize::MAX).await.unwrap(), 0);
    match store
        .create(new_operation(2).with_key(key("k")))
        .await
        .unwrap()
    {
        Created::KeyHeld(Reservation::Deleted(found)) => {
            assert_eq!(found.operation().id(), id);
        }
        other => panic!("the key was free: {other:?}"),
    }
    let reserved = store
        .reserve(&key("k"), FencingToken::random(), SECOND)
        .await
        .unwrap();
    assert!(matches!(reserved, Reservation::Deleted(_)));
    advance(MILLISECOND).await;
    create(&store, new_operation(2).with_key(key("k"))).await;
}

#[tokio::test(start_paused = true)]
async fn the_key_of_an_expired_or_evicted_operation_is_free() {
    for purges in [false, true] {
        let store = MemoryStore::new().ttl(HOUR).max_operations(1);
        create_ended(&store, new_operation(1).with_key(key("k"))).await;
        advance(HOUR).await;
        if purges {
            assert_eq!(store.purge(1).await.unwrap(), 1);
        }
        let second = create(&store, new_operation(1).with_key(key("k"))).await;
        finish(&store, &second, result(0)).await;
        advance(MINUTE).await;
        // This create evicts the operation above.
        create(&store, new_operation(2).with_key(key("another"))).await;
        let reserved = store
            .reserve(&key("k"), FencingToken::random(), SECOND)
            .await
            .unwrap();
        assert!(matches!(reserved, Reservation::Reserved(_)), "{reserved:?}");
    }
}

/// An id that the application chooses may be reused by another owner. The old key
/// does not find the new operation.
#[tokio::test(start_paused = true)]
async fn a_key_never_finds_an_operation_that_it_did_not_create() {
    let store = MemoryStore::new().ttl(SECOND);
    create_ended(&store, new_operation(1).with_key(key("old"))).await;
    advance(SECOND).await;
    let other = Some(Owner::new("another"));
    create(
        &store,
        new_operation(1).with_owner(other).with_key(key("new")),
    )
    .await;
    let reserved = store
        .reserve(&key("old"), FencingToken::random(), SECOND)
        .await
        .unwrap();
    assert!(matches!(reserved, Reservation::Reserved(_)), "{reserved:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_exact_to_the_nanosecond() {
    let store = MemoryStore::new();
    let lease = |term| LeaseConfig::new(NodeId::new(), term);
    advance(Duration::from_nanos(999_999)).await;
    let record = create(&store, new_operation(1).with_lease(lease(SECOND))).await;
    advance(SECOND - Duration::from_nanos(1)).await;
    assert!(store.reclaim(&lease(SECOND), 9).await.unwrap().is_empty());
    let handle = LeaseHandle {
        id: record.operation().id().clone(),
        token: record.token(),
    };
    assert!(
        store
            .renew(&lease(SECOND), &[handle])
            .await
            .unwrap()
            .is_empty()
    );
    advance(SECOND - Duration::from_nanos(1)).await;
    assert!(store.reclaim(&lease(SECOND), 9).await.unwrap().is_empty());
    advance(Duration::from_nanos(1)).await;
    let reclaimed = store.reclaim(&lease(SECOND), 9).await.unwrap();
    assert_eq!(reclaimed.len(), 1);
    assert!(reclaimed[0].record.token() > record.token());
    assert!(store.reclaim(&lease(SECOND), 9).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_operation_without_a_lease_is_not_reclaimed() {
    let store = MemoryStore::new();
    create(&store, new_operation(1)).await;
    advance(1000 * HOUR).await;
    let lease = LeaseConfig::new(NodeId::new(), SECOND);
    assert!(store.reclaim(&lease, 9).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn waiters_are_counted_until_they_end() {
    let store = MemoryStore::new().ttl(SECOND);
    let record = create(&store, new_operation(1)).await;
    let wait = |since: Version, at_most| {
        let (store, id) = (store.clone(), record.operation().id().clone());
        async move { store.changed(&id, since, at_most).await.unwrap() }
    };

    // The waits end by a change, by time and by being dropped.
    let changed: Vec<_> = (0..10)
        .map(|_| tokio::spawn(wait(Version::FIRST, HOUR)))
        .collect();
    let timed_out: Vec<_> = (0..10)
        .map(|_| tokio::spawn(wait(Version::FIRST, SECOND)))
        .collect();
    let dropped: Vec<_> = (0..10)
        .map(|_| tokio::spawn(wait(Version::FIRST, HOUR)))
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(store.waiters(), 30);
    for waiter in dropped {
        waiter.abort();
        assert!(waiter.await.unwrap_err().is_cancelled());
    }
    assert_eq!(store.waiters(), 20);
    for waiter in timed_out {
        assert_eq!(waiter.await.unwrap().as_ref(), Some(&record));
    }
    assert_eq!(store.waiters(), 10);
    let finished = finish(&store, &record, result(0)).await;
    for waiter in changed {
        assert_eq!(waiter.await.unwrap().as_ref(), Some(&finished));
    }
    assert_eq!(store.waiters(), 0);

    // A wait ends when its operation is deleted.
    let waiter = tokio::spawn(wait(finished.version().unwrap(), HOUR));
    tokio::task::yield_now().await;
    assert_eq!(store.waiters(), 1);
    let since = Instant::now();
    store
        .delete(record.operation().id(), finished.stamp().unwrap())
        .await
        .unwrap();
    assert_eq!(waiter.await.unwrap(), None);
    assert_eq!(since.elapsed(), Duration::ZERO, "at once");
    assert_eq!(store.waiters(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_once_when_its_operation_is_purged_evicted_or_replaced() {
    let store = MemoryStore::new().ttl(MINUTE).max_operations(1);
    for removal in 0..3 {
        let record = create_ended(&store, new_operation(1)).await;
        let waiter = {
            let (store, record) = (store.clone(), record.clone());
            tokio::spawn(async move {
                let (id, since) = (record.operation().id(), record.version().unwrap());
                store.changed(id, since, HOUR).await.unwrap()
            })
        };
        tokio::task::yield_now().await;
        advance(MINUTE).await;
        match removal {
            0 => assert_eq!(store.purge(1).await.unwrap(), 1),
            1 => drop(create(&store, new_operation(2)).await),
            _ => drop(create(&store, new_operation(1)).await),
        }
        let found = timeout(MILLISECOND, waiter)
            .await
            .expect("at once")
            .unwrap();
        // A new operation with the same id is a change.
        assert_eq!(found.is_some(), removal == 2, "{removal}");
        for number in [1, 2] {
            let id = new_operation(number).id;
            let Some(record) = store.get(&id).await.unwrap() else {
                continue;
            };
            let canceled = store.force_finish(&id, record.stamp().unwrap(), Outcome::Canceled);
            let Written::Done(record) = canceled.await.unwrap() else {
                panic!("no other writer changes the operation");
            };
            store.delete(&id, record.stamp().unwrap()).await.unwrap();
        }
        assert_eq!((store.len(), store.waiters()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_duration_may_have_any_length() {
    let store = MemoryStore::new()
        .ttl(Duration::MAX)
        .min_retention(Duration::MAX);
    let lease = LeaseConfig::new(NodeId::new(), Duration::MAX);
    let record = create(&store, new_operation(1).with_lease(lease.clone())).await;
    advance(HOUR).await;
    assert!(store.reclaim(&lease, 9).await.unwrap().is_empty());
    let waiter = {
        let (store, record) = (store.clone(), record.clone());
        tokio::spawn(async move {
            let id = record.operation().id();
            store
                .changed(id, Version::FIRST, Duration::MAX)
                .await
                .unwrap()
        })
    };
    tokio::task::yield_now().await;
    let finished = finish(&store, &record, result(0)).await;
    assert_eq!(waiter.await.unwrap(), Some(finished.clone()));
    advance(1000 * HOUR).await;
    assert!(exists(&store, &finished).await);
    let page = store.list(&ListQuery::new(None, usize::MAX)).await.unwrap();
    assert_eq!(page.records, [finished]);
}

#[tokio::test(start_paused = true)]
async fn clones_share_their_operations() {
    let store = MemoryStore::new();
    let clone = store.clone();
    let record = create(&store, new_operation(1)).await;
    assert!(exists(&clone, &record).await);
    finish(&clone, &record, result(10)).await;
    let found = store.get(record.operation().id()).await.unwrap().unwrap();
    assert!(found.operation().state().is_terminal());
    assert_eq!((store.len(), store.bytes()), (clone.len(), clone.bytes()));
    drop(store);
    assert!(exists(&clone, &record).await);
}

#[tokio::test(start_paused = true)]
async fn settings_belong_to_the_handle() {
    let store = MemoryStore::new().ttl(HOUR);
    let short = store.clone().ttl(SECOND);
    let (first, second) = (
        create_ended(&store, new_operation(1)).await,
        create_ended(&short, new_operation(2)).await,
    );
    advance(SECOND).await;
    assert!(exists(&short, &first).await);
    assert!(!exists(&store, &second).await);
}

#[tokio::test(start_paused = true)]
async fn a_purge_removes_expired_operations_in_batches() {
    let store = MemoryStore::new().ttl(SECOND);
    let live = create(&store, new_operation(0)).await;
    for number in 1..=100 {
        create_ended(&store, new_operation(number)).await;
    }
    assert_eq!(store.purge(usize::MAX).await.unwrap(), 0);
    advance(SECOND).await;
    let fresh = create_ended(&store, new_operation(101)).await;
    // The last finish may have removed some of the expired operations.
    let expired = store.len() - 2;
    assert!(expired >= 98);
    assert_eq!(store.purge(0).await.unwrap(), 0);
    assert_eq!(store.purge(30).await.unwrap(), 30);
    assert_eq!(store.purge(usize::MAX).await.unwrap(), expired - 30);
    assert_eq!(store.len(), 2);
    assert!(exists(&store, &live).await && exists(&store, &fresh).await);
}

/// A store with new operations needs no call of `purge`.
#[tokio::test(start_paused = true)]
async fn expired_operations_are_removed_as_others_end() {
    let store = MemoryStore::new().ttl(SECOND);
    let mut most = 0;
    for number in 0..20_000 {
        create_ended(&store, new_operation(number)).await;
        advance(MILLISECOND).await;
        most = most.max(store.len());
    }
    // A thousand operations have not expired, and some shards are not cleaned up yet.
    assert!(most < 2_000, "{most} were kept");
}

#[tokio::test]
async fn results_of_a_custom_type_are_weighed_by_the_weigher() {
    let store = MemoryStore::<String>::with_weigher(String::capacity);
    assert!(store.is_empty());
    let new = NewOperation::new(OperationId::new());
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("not new");
    };
    let before = store.bytes();
    let result = "x".repeat(12_345);
    let (id, token) = (record.operation().id(), record.token());
    store
        .finish(id, token, Outcome::Succeeded(Some(result)), None)
        .await
        .unwrap();
    // Each weight is rounded slightly.
    assert!(store.bytes().abs_diff(before + 12_345) < 16);
}

#[tokio::test(start_paused = true)]
async fn a_result_whose_weigher_panics_is_stored_and_expires() {
    let weigh = |text: &String| match text.as_str() {
        "lead" => panic!("too heavy"),
        text => text.len(),
    };
    let store = MemoryStore::<String>::with_weigher(weigh).ttl(MILLISECOND);
    let Created::New(record) = store
        .create(NewOperation::new(OperationId::new()))
        .await
        .unwrap()
    else {
        panic!("not new");
    };
    let (id, token) = (record.operation().id().clone(), record.token());
    let (writer, written_id) = (store.clone(), id.clone());
    let write = tokio::spawn(async move {
        let outcome = Outcome::Succeeded(Some("lead".into()));
        writer.finish(&written_id, token, outcome, None).await
    });
    assert!(write.await.unwrap_err().is_panic());
    let record = store.get(&id).await.unwrap().unwrap();
    assert!(record.operation().state().is_terminal());
    advance(2 * MILLISECOND).await;
    assert_eq!(store.get(&id).await.unwrap(), None);
    assert_eq!(store.purge(10).await.unwrap(), 1);
    assert_eq!((store.len(), store.bytes()), (0, 0));
}

/// One step of a random test, on one of a few operations.
#[derive(Debug, Clone)]
enum Act {
    Create {
        id: usize,
        owner: bool,
        key: Option<u8>,
        has_lease: bool,
    },
    Start {
        id: usize,
    },
    Report {
        id: usize,
        length: usize,
    },
    Finish {
        id: usize,
        bytes: usize,
        progress: bool,
    },
    Fail {
        id: usize,
        length: usize,
    },
    Cancel {
        id: usize,
    },
    Delete {
        id: usize,
    },
    Reclaim,
    Reserve {
        key: u8,
    },
    Purge {
        limit: usize,
    },
    Pass {
        milliseconds: u64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let id = 0_usize..6;
    prop_oneof![
        4 => (id.clone(), any::<bool>(), prop::option::of(0_u8..3), any::<bool>())
            .prop_map(|(id, owner, key, has_lease)| Act::Create { id, owner, key, has_lease }),
        2 => id.clone().prop_map(|id| Act::Start { id }),
        2 => (id.clone(), 0_usize..100).prop_map(|(id, length)| Act::Report { id, length }),
        3 => (id.clone(), 0_usize..3_000, any::<bool>())
            .prop_map(|(id, bytes, progress)| Act::Finish { id, bytes, progress }),
        1 => (id.clone(), 0_usize..300).prop_map(|(id, length)| Act::Fail { id, length }),
        1 => id.clone().prop_map(|id| Act::Cancel { id }),
        2 => id.prop_map(|id| Act::Delete { id }),
        1 => Just(Act::Reclaim),
        1 => (0_u8..3).prop_map(|key| Act::Reserve { key }),
        1 => (0_usize..4).prop_map(|limit| Act::Purge { limit }),
        2 => (0_u64..60).prop_map(|milliseconds| Act::Pass { milliseconds }),
    ]
}

/// Returns an id: a UUID for an even number, text for an odd one.
fn act_id(id: usize) -> OperationId {
    match id % 2 {
        0 => format!("01890a5d-ac96-774b-bcce-b302099a800{id}")
            .parse()
            .unwrap(),
        _ => format!("invoice-{}-{id}", "x".repeat(10 * id))
            .parse()
            .unwrap(),
    }
}

async fn perform(store: &MemoryStore, act: Act) {
    let find = |id: usize| {
        let store = store.clone();
        async move { store.get(&act_id(id)).await.unwrap() }
    };
    match act {
        Act::Create {
            id,
            owner,
            key: name,
            has_lease,
        } => {
            let mut new = NewOperation::new(act_id(id));
            new = new.with_owner(owner.then(|| Owner::new("the owner of some operations")));
            if let Some(name) = name {
                new = new.with_key(key(&format!("key {name}")));
            }
            if has_lease {
                let node = NodeId::named("the first");
                new = new.with_lease(LeaseConfig::new(node, 20 * MILLISECOND));
            }
            match store.create(new).await {
                Ok(_) | Err(StoreError::Full | StoreError::FullForOwner) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        Act::Start { id } => {
            if let Some(record) = find(id).await {
                store.start(&act_id(id), record.token()).await.unwrap();
            }
        }
        Act::Report { id, length } => {
            if let Some(record) = find(id).await {
                let progress = Progress::from_message("p".repeat(length));
                store
                    .report(&act_id(id), record.token(), progress)
                    .await
                    .unwrap();
            }
        }
        Act::Finish {
            id,
            bytes,
            progress,
        } => {
            if let Some(record) = find(id).await {
                let progress = progress.then(|| Progress::from_count(1, 1).with_unit("pages"));
                let (id, token) = (act_id(id), record.token());
                store
                    .finish(&id, token, result(bytes), progress)
                    .await
                    .unwrap();
            }
        }
        Act::Fail { id, length } => {
            if let Some(record) = find(id).await {
                let problem = Problem::new(StatusCode::BAD_GATEWAY)
                    .with_detail("d".repeat(length))
                    .with("code", "c".repeat(length));
                let (id, token) = (act_id(id), record.token());
                store
                    .finish(&id, token, Outcome::failed(problem), None)
                    .await
                    .unwrap();
            }
        }
        Act::Cancel { id } => {
            if let Some(record) = find(id).await {
                let (id, stamp) = (act_id(id), record.stamp().unwrap());
                store
                    .force_finish(&id, stamp, Outcome::Canceled)
                    .await
                    .unwrap();
            }
        }
        Act::Delete { id } => {
            if let Some(record) = find(id).await {
                store
                    .delete(&act_id(id), record.stamp().unwrap())
                    .await
                    .unwrap();
            }
        }
        Act::Reclaim => {
            let node = NodeId::named("the second");
            let lease = LeaseConfig::new(node, 20 * MILLISECOND);
            store.reclaim(&lease, 2).await.unwrap();
        }
        Act::Reserve { key: name } => {
            let key = key(&format!("key {name}"));
            match store
                .reserve(&key, FencingToken::random(), 20 * MILLISECOND)
                .await
            {
                Ok(_) | Err(StoreError::Full | StoreError::FullForOwner) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Act::Purge { limit } => {
            assert!(store.purge(limit).await.unwrap() <= limit);
        }
        Act::Pass { milliseconds } => advance(Duration::from_millis(milliseconds)).await,
    }
}

/// Returns the minimum size of a store that has only this operation.
async fn weight(record: &Record<RecordedResponse>) -> usize {
    let alone = MemoryStore::new();
    let operation = record.operation();
    let new = NewOperation::new(operation.id().clone()).with_owner(record.owner().cloned());
    let (id, created) = (operation.id(), create(&alone, new).await);
    let token = created.token();
    let history = record.history();
    let reports = history.iter().map(|past| past.progress.as_deref());
    for progress in reports.flatten() {
        let progress = progress.clone();
        alone.report(id, token, progress).await.unwrap();
    }
    let progress = operation.metadata().progress().cloned();
    match operation.outcome() {
        Some(outcome) => {
            let finish = alone.finish(id, token, outcome.clone(), progress);
            finish.await.unwrap();
        }
        None => {
            if let Some(progress) = progress {
                alone.report(id, token, progress).await.unwrap();
            }
        }
    }
    let alone_record = alone.get(id).await.unwrap().unwrap();
    let further = history_bytes(record) - history_bytes(&alone_record);
    // Weights are rounded up to multiples of sixteen.
    alone.bytes() + further - 15
}

/// Returns the size of a record's history, which is zero where the record's times
/// imply it.
fn history_bytes(record: &Record<RecordedResponse>) -> usize {
    let operation = record.operation();
    let has_started = operation.metadata().started_at().is_some();
    let implied = u64::from(has_started) + u64::from(operation.state().is_terminal());
    match record.version().unwrap().get() - 1 > implied {
        true => record.history().len() * size_of::<PastVersion>(),
        false => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_accounting_is_right_after_any_steps(
        acts in prop::collection::vec(act(), 0..60),
        max_operations in 1_usize..7,
        max_bytes in 1_000_usize..10_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = MemoryStore::new()
                .ttl(50 * MILLISECOND)
                .min_retention(10 * MILLISECOND)
                .max_operations(max_operations)
                .max_bytes(max_bytes);
            for act in acts {
                let creates = matches!(act, Act::Create { .. });
                let before = store.bytes();
                perform(&store, act).await;
                assert!(store.len() <= max_operations);
                if creates {
                    assert!(store.bytes() <= max_bytes.max(before), "a create went over the bound");
                }
            }
            store.purge(usize::MAX).await.unwrap();
            let (mut operations, mut bytes) = (0, 0);
            for id in 0..6 {
                if let Some(record) = store.get(&act_id(id)).await.unwrap() {
                    operations += 1;
                    bytes += weight(&record).await;
                }
            }
            // Keys take room of their own.
            assert_eq!(store.len(), operations);
            assert!(store.bytes() >= bytes);

            for id in 0..6 {
                perform(&store, Act::Cancel { id }).await;
                perform(&store, Act::Delete { id }).await;
            }
            // The keys of deleted operations live until the expiry.
            advance(50 * MILLISECOND).await;
            store.purge(usize::MAX).await.unwrap();
            assert_eq!((store.len(), store.bytes(), store.waiters()), (0, 0, 0));
        });
    }
}

/// Calls of every kind run concurrently; then everything is removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_accounting_is_right_after_concurrent_calls() {
    let store = MemoryStore::new()
        .ttl(2 * MILLISECOND)
        .min_retention(MILLISECOND)
        .max_operations(40)
        .max_bytes(100_000);
    let tasks: Vec<_> = (0..8_usize)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for step in 0..2_000_usize {
                    // Neighboring tasks use the same operations.
                    let number = (step * 7 + task / 2) % 60;
                    let id = new_operation(number).id;
                    let lease = LeaseConfig::new(NodeId::named("node"), MILLISECOND);
                    match (step + task) % 9 {
                        0..=2 => {
                            let mut new = new_operation(number).with_lease(lease);
                            if number.is_multiple_of(2) {
                                new = new.with_key(key(&format!("key {}", number / 4)));
                            }
                            match store.create(new).await {
                                Ok(_) | Err(StoreError::Full | StoreError::FullForOwner) => {}
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                        3 | 4 => {
                            let Some(record) = store.get(&id).await.unwrap() else {
                                continue;
                            };
                            let mut token = record.token();
                            if step % 9 == 3 {
                                store.start(&id, token).await.unwrap();
                                continue;
                            }
                            if step.is_multiple_of(2) {
                                token = token.next();
                            }
                            let outcome = result(step % 3_000);
                            store.finish(&id, token, outcome, None).await.unwrap();
                        }
                        5 => {
                            if let Some(record) = store.get(&id).await.unwrap() {
                                let stamp = record.stamp().unwrap();
                                store
                                    .force_finish(&id, stamp, Outcome::Canceled)
                                    .await
                                    .unwrap();
                            }
                        }
                        6 => {
                            if let Some(record) = store.get(&id).await.unwrap() {
                                store.delete(&id, record.stamp().unwrap()).await.unwrap();
                            }
                        }
                        7 => {
                            store
                                .changed(&id, Version::FIRST, Duration::ZERO)
                                .await
                                .unwrap();
                            store.purge(2).await.unwrap();
                        }
                        _ => drop(store.reclaim(&lease, 2).await.unwrap()),
                    }
                    assert!(store.len() <= 40, "more operations than the bound");
                }
            })
        })
        .collect();
    for task in tasks {
        timeout(MINUTE, task).await.expect("not stuck").unwrap();
    }
    for number in 0..60 {
        let id = new_operation(number).id;
        // The operation may end or expire in between.
        while let Some(record) = store.get(&id).await.unwrap() {
            let stamp = record.stamp().unwrap();
            let canceled = store.force_finish(&id, stamp, Outcome::Canceled);
            let ended = match canceled.await.unwrap() {
                Written::Done(record) | Written::Lost(record) => record,
                Written::Gone => break,
            };
            store.delete(&id, ended.stamp().unwrap()).await.unwrap();
        }
    }
    // The keys of deleted operations live until the expiry.
    let purge = timeout(MINUTE, async {
        while store.bytes() > 0 {
            store.purge(usize::MAX).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    purge.await.expect("nothing is left");
    let rest = (store.len(), store.bytes(), store.waiters());
    assert_eq!(rest, (0, 0, 0));
}

/// Fills the store with keys of early answers, without operations.
async fn fill_with_keys(store: &MemoryStore, name: &str) {
    for number in 0..500 {
        let key = key(&format!("{name} {number}"));
        let token = FencingToken::random();
        if store.reserve(&key, token, SECOND).await.is_ok() {
            let answer = Response::new(BufferedBody::from("x".repeat(500)));
            store
                .complete(&key, token, RecordedResponse::new(answer))
                .await
                .unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn old_keys_are_evicted_for_operations_and_for_other_keys() {
    let store = MemoryStore::new()
        .max_bytes(64 * 1024)
        .min_retention(MINUTE);
    fill_with_keys(&store, "first").await;
    let full = store.create(NewOperation::new(OperationId::new())).await;
    assert!(
        matches!(full, Err(StoreError::Full)),
        "the keys are too recent"
    );
    advance(MINUTE).await;
    create(&store, NewOperation::new(OperationId::new())).await;
    fill_with_keys(&store, "second").await;
    let token = FencingToken::random();
    advance(MINUTE).await;
    let reserved = store.reserve(&key("third"), token, SECOND).await.unwrap();
    assert!(matches!(reserved, Reservation::Reserved(_)));
    assert!(store.bytes() <= 64 * 1024 + 1024, "{}", store.bytes());
}

#[tokio::test(start_paused = true)]
async fn a_store_full_of_evictable_operations_has_room_for_a_key() {
    let store = MemoryStore::new()
        .max_bytes(16 * 1024)
        .min_retention(Duration::ZERO);
    for number in 0..100 {
        create_ended(&store, new_operation(number)).await;
    }
    let token = FencingToken::random();
    let reserved = store.reserve(&key("k"), token, SECOND).await.unwrap();
    assert!(matches!(reserved, Reservation::Reserved(_)));
    // A repeated reservation returns the same token.
    let second = store.reserve(&key("k"), token, SECOND).await.unwrap();
    assert!(matches!(second, Reservation::Reserved(same) if same == token));
}

#[tokio::test]
async fn a_list_is_in_creation_order_within_one_millisecond() {
    let store = MemoryStore::new();
    let mut ids = Vec::new();
    for _ in 0..500 {
        let new = NewOperation::new(OperationId::new());
        ids.insert(0, new.id.clone());
        create(&store, new).await;
    }
    let mut query = ListQuery::new(None, 70);
    let mut listed = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        listed.extend(
            page.records
                .iter()
                .map(|record| record.operation().id().clone()),
        );
        match page.next {
            Some(cursor) => query = query.with_after(cursor),
            None => break,
        }
    }
    assert_eq!(listed, ids);
}

/// Creates ended operations of `owner`, with results of `bytes` bytes.
async fn fill(store: &MemoryStore, owner: &str, count: usize, bytes: usize) -> Vec<SharedRecord> {
    let mut all = Vec::new();
    for _ in 0..count {
        let new = NewOperation::new(OperationId::new()).with_owner(Some(Owner::new(owner)));
        let record = create(store, new).await;
        all.push(finish(store, &record, result(bytes)).await);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn operations_of_the_largest_owner_are_evicted_first() {
    let store = store_without_shares().max_bytes(1_000_000);
    let bobs = fill(&store, "bob", 3, 10_000).await;
    let ownerless = create_ended(&store, NewOperation::new(OperationId::new())).await;
    advance(SECOND).await;
    let adas = fill(&store, "ada", 9, 100_000).await;
    advance(61 * SECOND).await;
    // New operations of ada evict her own, although those of others ended earlier.
    fill(&store, "ada", 9, 100_000).await;
    for record in bobs.iter().chain([&ownerless]) {
        assert!(exists(&store, record).await, "{:?}", record.owner());
    }
    for record in &adas[..8] {
        assert!(!exists(&store, record).await);
    }
    // New operations of another owner evict those of ada too.
    advance(61 * SECOND).await;
    let before = store.len();
    fill(&store, "carol", 3, 40_000).await;
    assert!(store.len() < before + 3);
    for record in &bobs {
        assert!(exists(&store, record).await);
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_owner_evicts_nothing_of_others() {
    let store = store_without_shares().max_bytes(1_000_000);
    let bobs = fill(&store, "bob", 3, 10_000).await;
    advance(61 * SECOND).await;
    fill(&store, "ada", 9, 100_000).await;
    let ada = || NewOperation::new(OperationId::new()).with_owner(Some(Owner::new("ada")));
    while !is_full(&store, ada()).await {}
    for record in &bobs {
        assert!(exists(&store, record).await);
    }
    let carol = NewOperation::new(OperationId::new()).with_owner(Some(Owner::new("carol")));
    assert!(!is_full(&store, carol).await);
    advance(61 * SECOND).await;
    assert!(!is_full(&store, ada()).await);
}

/// Creates operations of `owner` with keys and deletes them; the keys remain.
async fn leave_keys(store: &MemoryStore, owner: &str, count: usize) {
    for number in 0..count {
        let owner = Some(Owner::new(owner));
        let new = NewOperation::new(OperationId::new())
            .with_owner(owner.clone())
            .with_key(IdempotencyKey::new(owner, format!("key {number}"), [1; 32]));
        let record = create_ended(store, new).await;
        let deleted = store.delete(record.operation().id(), record.stamp().unwrap());
        assert!(matches!(deleted.await.unwrap(), Written::Done(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn keys_of_the_largest_owner_are_evicted_first() {
    let store = store_without_shares();
    let bobs = fill(&store, "bob", 3, 10_000).await;
    let ownerless = create_ended(&store, NewOperation::new(OperationId::new())).await;
    let before = store.bytes();
    leave_keys(&store, "ada", 300).await;
    assert!(store.bytes() - before > 150_000, "ada has the most");
    let full = store.bytes() + 10_000;
    let store = store.max_bytes(full);
    advance(61 * SECOND).await;
    let carols = fill(&store, "carol", 5, 20_000).await;
    for record in bobs.iter().chain([&ownerless]).chain(&carols) {
        assert!(exists(&store, record).await, "{:?}", record.owner());
    }
    // The oldest keys of ada are evicted, the newest remain.
    let reserve = async |number: usize| {
        let key = IdempotencyKey::new(Some(Owner::new("ada")), format!("key {number}"), [1; 32]);
        store.reserve(&key, FencingToken::random(), SECOND).await
    };
    assert!(matches!(reserve(0).await, Ok(Reservation::Reserved(_))));
    assert!(matches!(reserve(299).await, Ok(Reservation::Deleted(_))));
}

#[tokio::test(start_paused = true)]
async fn keys_without_an_owner_are_evicted_before_operations_of_smaller_owners() {
    let store = store_without_shares().max_bytes(600_000);
    let bobs = fill(&store, "bob", 3, 10_000).await;
    fill_with_keys(&store, "nobody's").await;
    let keys = store.bytes();
    advance(61 * SECOND).await;
    fill(&store, "carol", 10, 20_000).await;
    assert!(keys + 10 * 20_000 > 600_000, "{keys} leave room for all");
    for record in &bobs {
        assert!(exists(&store, record).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_not_evicted_where_the_bound_on_operations_is_reached() {
    let store = MemoryStore::new().max_operations(1);
    let (key, token) = (key("a key"), FencingToken::random());
    store.reserve(&key, token, MINUTE).await.unwrap();
    let answer = RecordedResponse::new(Response::new(BufferedBody::from("an answer")));
    assert!(store.complete(&key, token, answer).await.unwrap());
    create(&store, NewOperation::new(OperationId::new())).await;
    advance(2 * MINUTE).await;
    assert!(is_full(&store, NewOperation::new(OperationId::new())).await);
    let found = store.reserve(&key, FencingToken::random(), MINUTE).await;
    assert!(matches!(found.unwrap(), Reservation::Answered(_)));
}

/// Measures the shortest of five runs.
async fn shortest<T>(mut act: impl AsyncFnMut() -> T) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let start = std::time::Instant::now();
        act().await;
        shortest = shortest.min(start.elapsed());
    }
    shortest
}

#[tokio::test]
async fn a_list_and_a_reclaim_read_no_more_than_they_return() {
    let store = MemoryStore::new().max_bytes(usize::MAX);
    let lease = |node: &str, seconds| LeaseConfig::new(NodeId::named(node), seconds * SECOND);
    let operation_of =
        |owner: &str| NewOperation::new(OperationId::new()).with_owner(Some(Owner::new(owner)));
    for n in 0..100_000 {
        let new = match n % 2 {
            0 => operation_of("ada"),
            _ => NewOperation::new(OperationId::new()),
        };
        create(&store, new.with_lease(lease("a", 3600))).await;
    }
    for _ in 0..30 {
        create(&store, operation_of("bob").with_lease(lease("a", 0))).await;
    }
    // The first list of operations without an owner visits all of them.
    let begun = std::time::Instant::now();
    store.list(&ListQuery::new(None, 20)).await.unwrap();
    let full_list = begun.elapsed();
    for owner in [Some("ada"), Some("bob"), None] {
        let query = ListQuery::new(owner.map(Owner::new), 20);
        assert_eq!(store.list(&query).await.unwrap().records.len(), 20);
        let page = shortest(async || store.list(&query).await).await;
        assert!(page < full_list / 20, "{page:?} and {full_list:?}");
    }
    let mut reclaimed = 0;
    let reclaim_time = shortest(async || {
        let lease = lease("b", 3600);
        reclaimed += store.reclaim(&lease, 6).await.unwrap().len();
    });
    let reclaim_time = reclaim_time.await;
    assert_eq!(reclaimed, 30);
    assert!(
        reclaim_time < full_list / 20,
        "{reclaim_time:?} and {full_list:?}"
    );
    let empty_reclaim = shortest(async || store.reclaim(&lease("b", 3600), 64).await).await;
    assert!(
        empty_reclaim < full_list / 20,
        "{empty_reclaim:?} and {full_list:?}"
    );
}

#[tokio::test]
async fn a_long_list_yields_to_other_tasks() {
    for owner in [None, Some(Owner::new("ada"))] {
        let store = MemoryStore::new();
        for n in 0..10_000 {
            create(&store, new_operation(n).with_owner(owner.clone())).await;
        }
        // No operation matches, so every one is read.
        let query = ListQuery::new(owner.clone(), 20).with_state(State::Failed);
        let mut list = std::pin::pin!(store.list(&query));
        let mut turns = 1;
        let page = std::future::poll_fn(|context| match list.as_mut().poll(context) {
            Poll::Pending => {
                turns += 1;
                Poll::Pending
            }
            ready @ Poll::Ready(_) => ready,
        });
        assert!(page.await.unwrap().records.is_empty());
        assert!(turns > 10, "{owner:?}: {turns} turns");
    }
}

#[tokio::test]
async fn a_claim_revokes_the_lease_of_the_dispatching_node() {
    let store = MemoryStore::new();
    let lease = |node: &str| LeaseConfig::new(NodeId::named(node), MINUTE);
    let record = create(&store, new_operation(1).with_lease(lease("front"))).await;
    let front = NodeId::named("front");
    let handle = LeaseHandle {
        id: record.operation().id().clone(),
        token: record.token(),
    };
    let before = store.revoked(&front, Duration::ZERO).await.unwrap();
    assert!(before.is_empty());
    let claimed = store.claim(&lease("worker"), &handle).await.unwrap();
    assert!(matches!(claimed, Written::Done(_)));
    let revoked = store.revoked(&front, Duration::ZERO).await.unwrap();
    assert_eq!(revoked, [handle.id]);
}

#[tokio::test]
async fn the_time_of_a_reclaim_does_not_depend_on_the_number_of_leases() {
    let lease = |seconds| LeaseConfig::new(NodeId::named("a"), seconds * SECOND);
    let mut took = Vec::new();
    for operations in [1_000, 200_000] {
        let store = MemoryStore::new().max_bytes(usize::MAX);
        for _ in 0..operations {
            let new = NewOperation::new(OperationId::new());
            create(&store, new.with_lease(lease(3600))).await;
        }
        let reclaim_time = shortest(async || store.reclaim(&lease(3600), 64).await).await;
        took.push(reclaim_time);
    }
    assert!(took[1] < took[0] * 20, "{took:?}");
}
