//! What is particular to the memory store: its bounds, its clock, its accounts.
//! The laws that it shares with other stores are in `conformance.rs`.

use std::{future::Future, sync::Arc, task::Poll, time::Duration};

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

type Seen = Arc<Record<RecordedResponse>>;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const MILLISECOND: Duration = Duration::from_millis(1);

fn result(bytes: usize) -> Outcome<RecordedResponse> {
    let body = BufferedBody::from(vec![b'x'; bytes]);
    Outcome::Succeeded(Some(RecordedResponse::new(Response::new(body))))
}

fn numbered(number: usize) -> NewOperation {
    NewOperation::new(format!("operation-{number}").parse().unwrap())
}

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey::new(None, name, [1; 32])
}

async fn create(store: &MemoryStore, new: NewOperation) -> Seen {
    match store.create(new).await.unwrap() {
        Created::New(record) => record,
        other => panic!("not new: {other:?}"),
    }
}

async fn finish(store: &MemoryStore, record: &Seen, outcome: Outcome<RecordedResponse>) -> Seen {
    let (id, token) = (record.operation().id(), record.token());
    match store.finish(id, token, outcome, None).await.unwrap() {
        Written::Done(record) => record,
        other => panic!("not finished: {other:?}"),
    }
}

async fn ended(store: &MemoryStore, new: NewOperation) -> Seen {
    let record = create(store, new).await;
    finish(store, &record, result(0)).await
}

async fn is_there(store: &MemoryStore, record: &Seen) -> bool {
    store.get(record.operation().id()).await.unwrap().is_some()
}

/// A store that one owner may fill.
fn shareless() -> MemoryStore {
    MemoryStore::new()
        .max_operations_per_owner(usize::MAX)
        .max_bytes_per_owner(usize::MAX)
}

async fn is_full(store: &MemoryStore, new: NewOperation) -> bool {
    match store.create(new).await {
        Ok(Created::New(_)) => false,
        Err(error @ StoreError::Full) => {
            assert!(error.is_transient(), "room may come");
            true
        }
        other => panic!("neither new nor full: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_to_live_begins_with_the_end() {
    let store = MemoryStore::new().ttl(10 * SECOND);
    let record = create(&store, NewOperation::new(OperationId::new())).await;
    advance(HOUR).await;
    assert!(is_there(&store, &record).await);

    let record = finish(&store, &record, result(0)).await;
    let metadata = record.operation().metadata();
    let (finished, expires) = (metadata.finished_at(), metadata.expires_at());
    assert_eq!(expires, finished.map(|at| at + 10 * SECOND));
    advance(10 * SECOND - MILLISECOND).await;
    assert!(is_there(&store, &record).await, "not before its time");
    advance(MILLISECOND).await;
    assert!(!is_there(&store, &record).await, "not after its time");
}

#[tokio::test(start_paused = true)]
async fn the_time_to_live_is_counted_to_the_nanosecond() {
    let store = MemoryStore::new().ttl(SECOND);
    advance(Duration::from_nanos(999_999)).await;
    let record = ended(&store, NewOperation::new(OperationId::new())).await;
    advance(SECOND - Duration::from_nanos(1)).await;
    assert!(is_there(&store, &record).await, "not before its time");
    advance(Duration::from_nanos(1)).await;
    assert!(!is_there(&store, &record).await, "not after its time");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_terminal_never_goes() {
    let store = MemoryStore::new()
        .ttl(SECOND)
        .min_retention(Duration::ZERO)
        .max_operations(3);
    let pending = create(&store, numbered(1)).await;
    let running = create(&store, numbered(2)).await;
    let started = store.start(running.operation().id(), running.token()).await;
    assert!(matches!(started.unwrap(), Written::Done(_)));
    let lease = LeaseConfig::new(NodeId::new(), SECOND);
    let abandoned = create(&store, numbered(3).with_lease(lease)).await;

    advance(1000 * HOUR).await;
    assert!(is_full(&store, numbered(4)).await);
    assert_eq!(store.purge(usize::MAX).await.unwrap(), 0);
    for record in [pending, running, abandoned] {
        assert!(is_there(&store, &record).await);
    }
    assert_eq!(store.len(), 3);
}

/// Over all shards, whatever the order of creation.
#[tokio::test(start_paused = true)]
async fn what_ended_first_goes_first() {
    const KEPT: usize = 100;
    let store = MemoryStore::new()
        .min_retention(Duration::ZERO)
        .max_operations(KEPT);
    let mut by_end = Vec::new();
    for number in 0..KEPT {
        by_end.push(create(&store, numbered(number)).await);
    }
    // 37 has no divisor in common with 100.
    by_end = (0..KEPT)
        .map(|number| by_end[number * 37 % KEPT].clone())
        .collect();
    for record in &by_end {
        advance(MILLISECOND).await;
        finish(&store, record, result(0)).await;
    }
    for gone in 1..=KEPT {
        create(&store, numbered(KEPT + gone)).await;
        assert_eq!(store.len(), KEPT);
        for (number, record) in by_end.iter().enumerate() {
            let expected = number >= gone;
            assert_eq!(
                is_there(&store, record).await,
                expected,
                "{number} of {gone}"
            );
        }
    }
    assert!(
        is_full(&store, numbered(1000)).await,
        "only live ones are left"
    );
}

#[tokio::test(start_paused = true)]
async fn what_has_just_ended_is_kept_for_a_minimum() {
    let store = MemoryStore::new().max_operations(2);
    let first = ended(&store, numbered(1)).await;
    advance(MINUTE - MILLISECOND).await;
    let second = ended(&store, numbered(2)).await;
    assert!(is_full(&store, numbered(3)).await, "60 s is the default");
    advance(MILLISECOND).await;
    create(&store, numbered(3)).await;
    assert!(!is_there(&store, &first).await);
    assert!(
        is_there(&store, &second).await,
        "it ended a millisecond ago"
    );
    assert!(is_full(&store, numbered(4)).await);
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_goes_even_before_the_minimum() {
    let store = MemoryStore::new().ttl(SECOND).max_operations(1);
    let first = ended(&store, numbered(1)).await;
    assert!(is_full(&store, numbered(2)).await);
    advance(SECOND).await;
    create(&store, numbered(2)).await;
    assert!(!is_there(&store, &first).await);
    assert_eq!(store.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded() {
    let store = MemoryStore::new()
        .min_retention(Duration::ZERO)
        .max_bytes(100_000);
    let mut created = Vec::new();
    while !is_full(&store, numbered(created.len())).await {
        created.push(numbered(created.len()).id);
        assert!(store.bytes() <= 100_000);
    }
    assert_eq!(store.len(), created.len());
    assert!(
        created.len() > 100,
        "an operation takes less than a kilobyte"
    );

    // Room comes back with what ends, and leaves with what it has to say.
    for id in &created[..10] {
        advance(MILLISECOND).await;
        let token = store.get(id).await.unwrap().unwrap().token();
        store
            .finish(id, token, Outcome::Succeeded(None), None)
            .await
            .unwrap();
    }
    for (number, gone) in created[..9].iter().enumerate() {
        assert!(!is_full(&store, numbered(1000 + number)).await);
        assert!(store.bytes() <= 100_000);
        assert!(store.get(gone).await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_go_as_take_too_many_bytes() {
    let store = MemoryStore::new()
        .min_retention(Duration::ZERO)
        .max_bytes(100_000);
    let mut records = Vec::new();
    for number in 0..50 {
        records.push(create(&store, numbered(number)).await);
    }
    for record in &records {
        advance(MILLISECOND).await;
        finish(&store, record, result(10_000)).await;
    }
    assert!(store.bytes() > 500_000);
    create(&store, numbered(50)).await;
    assert!(store.bytes() <= 100_000);
    // No more than had to: what is left would not have had room for another.
    assert!(store.bytes() > 100_000 - 12_000);
    let left = records.iter().map(|record| is_there(&store, record));
    let mut found = Vec::new();
    for record in left {
        found.push(record.await);
    }
    assert!(
        found.is_sorted(),
        "those that ended first are gone: {found:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_taken_above_every_bound() {
    let store = MemoryStore::new().max_bytes(10_000).max_operations(2);
    let records = [
        create(&store, numbered(1)).await,
        create(&store, numbered(2)).await,
    ];
    for record in &records {
        let ended = finish(&store, record, result(1 << 20)).await;
        let found = store.get(ended.operation().id()).await.unwrap();
        assert_eq!(found.as_ref(), Some(&ended));
    }
    assert!(store.bytes() > 2 << 20);
    assert!(is_full(&store, numbered(3)).await, "both have just ended");
    advance(MINUTE).await;
    create(&store, numbered(3)).await;
    assert!(store.bytes() < 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_leaves_nothing_half_made() {
    let store = MemoryStore::new().max_operations(1);
    create(&store, numbered(1)).await;
    let bytes = store.bytes();
    let refused = numbered(2).with_key(key("a key of the client"));
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

/// A repeated create makes nothing, so nothing has to go for it: least of all
/// what it asks for.
#[tokio::test(start_paused = true)]
async fn nothing_goes_for_what_is_there_already() {
    let store = MemoryStore::new()
        .min_retention(Duration::ZERO)
        .max_operations(2);
    let keyed = numbered(1).with_key(key("a key of the client"));
    let first = ended(&store, keyed.clone()).await;
    advance(SECOND).await;
    let second = ended(&store, numbered(2)).await;
    advance(SECOND).await;
    let same_id = numbered(1).with_key(key("a key of the client"));
    let same_key = numbered(3).with_key(key("a key of the client"));
    for (again, record) in [
        (same_id, &first),
        (same_key, &first),
        (numbered(2), &second),
    ] {
        match store.create(again).await.unwrap() {
            Created::Existing(found) => assert_eq!(&found, record),
            other => panic!("not the one that is there: {other:?}"),
        }
    }
    let other = numbered(1).with_owner(Some(Owner::new("another")));
    assert!(matches!(
        store.create(other).await.unwrap(),
        Created::IdTaken
    ));
    assert!(is_there(&store, &first).await && is_there(&store, &second).await);
    assert_eq!(store.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_many_creates_as_there_is_room_for_succeed_at_the_same_moment() {
    for _ in 0..20 {
        let store = MemoryStore::new().max_operations(10);
        let creates = (0..100).map(|number| {
            let store = store.clone();
            tokio::spawn(async move { !is_full(&store, numbered(number)).await })
        });
        let mut created = 0;
        for create in creates.collect::<Vec<_>>() {
            created += usize::from(create.await.unwrap());
        }
        assert_eq!((created, store.len()), (10, 10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_id_is_created_at_the_same_moment_where_there_is_room_for_one() {
    for _ in 0..20 {
        let store = MemoryStore::new().max_operations(1);
        let creates = (0..50).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.create(numbered(1)).await })
        });
        let mut created = 0;
        for create in creates.collect::<Vec<_>>() {
            match create.await.unwrap() {
                Ok(Created::New(_)) => created += 1,
                Ok(Created::Existing(_)) | Err(StoreError::Full) => {}
                other => panic!("neither new nor there: {other:?}"),
            }
        }
        assert_eq!((created, store.len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_outlives_a_forgotten_operation_until_that_would_have_expired() {
    let store = MemoryStore::new().ttl(HOUR);
    let record = ended(&store, numbered(1).with_key(key("k"))).await;
    let id = record.operation().id();
    let forgotten = store.delete(id, record.version().unwrap()).await.unwrap();
    assert!(matches!(forgotten, Written::Done(_)));
    assert!(!is_there(&store, &record).await);

    advance(HOUR - MILLISECOND).await;
    // Purging in between removes neither the key nor anything else.
    assert_eq!(store.purge(usize::MAX).await.unwrap(), 0);
    match store.create(numbered(2).with_key(key("k"))).await.unwrap() {
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
    create(&store, numbered(2).with_key(key("k"))).await;
}

#[tokio::test(start_paused = true)]
async fn the_key_of_an_operation_that_expired_or_was_evicted_is_free() {
    for purges in [false, true] {
        let store = MemoryStore::new().ttl(HOUR).max_operations(1);
        ended(&store, numbered(1).with_key(key("k"))).await;
        advance(HOUR).await;
        if purges {
            assert_eq!(store.purge(1).await.unwrap(), 1);
        }
        let again = create(&store, numbered(1).with_key(key("k"))).await;
        finish(&store, &again, result(0)).await;
        advance(MINUTE).await;
        // Evicts the one above.
        create(&store, numbered(2).with_key(key("another"))).await;
        let reserved = store
            .reserve(&key("k"), FencingToken::random(), SECOND)
            .await
            .unwrap();
        assert!(matches!(reserved, Reservation::Reserved(_)), "{reserved:?}");
    }
}

/// An id that the application brings may be used again, by another owner, after
/// the key of the first one.
#[tokio::test(start_paused = true)]
async fn a_key_never_finds_an_operation_that_it_did_not_make() {
    let store = MemoryStore::new().ttl(SECOND);
    ended(&store, numbered(1).with_key(key("old"))).await;
    advance(SECOND).await;
    let other = Some(Owner::new("another"));
    create(&store, numbered(1).with_owner(other).with_key(key("new"))).await;
    let reserved = store
        .reserve(&key("old"), FencingToken::random(), SECOND)
        .await
        .unwrap();
    assert!(matches!(reserved, Reservation::Reserved(_)), "{reserved:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_to_its_last_nanosecond() {
    let store = MemoryStore::new();
    let lease = |term| LeaseConfig::new(NodeId::new(), term);
    advance(Duration::from_nanos(999_999)).await;
    let record = create(&store, numbered(1).with_lease(lease(SECOND))).await;
    advance(SECOND - Duration::from_nanos(1)).await;
    assert!(store.reclaim(&lease(SECOND), 9).await.unwrap().is_empty());
    let held = LeaseHandle {
        id: record.operation().id().clone(),
        token: record.token(),
    };
    assert!(
        store
            .renew(&lease(SECOND), &[held])
            .await
            .unwrap()
            .is_empty()
    );
    advance(SECOND - Duration::from_nanos(1)).await;
    assert!(store.reclaim(&lease(SECOND), 9).await.unwrap().is_empty());
    advance(Duration::from_nanos(1)).await;
    let taken = store.reclaim(&lease(SECOND), 9).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert!(taken[0].record.token() > record.token());
    assert!(store.reclaim(&lease(SECOND), 9).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_holds_is_not_taken_over() {
    let store = MemoryStore::new();
    create(&store, numbered(1)).await;
    advance(1000 * HOUR).await;
    let lease = LeaseConfig::new(NodeId::new(), SECOND);
    assert!(store.reclaim(&lease, 9).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn waiters_are_counted_and_leave_no_trace() {
    let store = MemoryStore::new().ttl(SECOND);
    let record = create(&store, numbered(1)).await;
    let wait = |since: Version, at_most| {
        let (store, id) = (store.clone(), record.operation().id().clone());
        async move { store.changed(&id, since, at_most).await.unwrap() }
    };

    // Ended by a change, by time, by being dropped.
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
    for waiting in dropped {
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
    }
    assert_eq!(store.waiters(), 20);
    for waiting in timed_out {
        assert_eq!(waiting.await.unwrap().as_ref(), Some(&record));
    }
    assert_eq!(store.waiters(), 10);
    let ended = finish(&store, &record, result(0)).await;
    for waiting in changed {
        assert_eq!(waiting.await.unwrap().as_ref(), Some(&ended));
    }
    assert_eq!(store.waiters(), 0);

    // Ended by there being nothing to wait for any more.
    let forgotten = tokio::spawn(wait(ended.version().unwrap(), HOUR));
    tokio::task::yield_now().await;
    assert_eq!(store.waiters(), 1);
    let since = Instant::now();
    store
        .delete(record.operation().id(), ended.version().unwrap())
        .await
        .unwrap();
    assert_eq!(forgotten.await.unwrap(), None);
    assert_eq!(since.elapsed(), Duration::ZERO, "at once");
    assert_eq!(store.waiters(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_what_is_purged_or_evicted_or_replaced_is_over_at_once() {
    let store = MemoryStore::new().ttl(MINUTE).max_operations(1);
    for removal in 0..3 {
        let record = ended(&store, numbered(1)).await;
        let waiting = {
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
            1 => drop(create(&store, numbered(2)).await),
            _ => drop(create(&store, numbered(1)).await),
        }
        let found = timeout(MILLISECOND, waiting)
            .await
            .expect("at once")
            .unwrap();
        // A new one under the same id is another operation, and a change.
        assert_eq!(found.is_some(), removal == 2, "{removal}");
        for number in [1, 2] {
            let id = numbered(number).id;
            store
                .force_finish(&id, Version::FIRST, Outcome::Canceled)
                .await
                .unwrap();
            store.delete(&id, Version::FIRST.next()).await.unwrap();
        }
        assert_eq!((store.len(), store.waiters()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn no_span_of_time_is_too_long() {
    let store = MemoryStore::new()
        .ttl(Duration::MAX)
        .min_retention(Duration::MAX);
    let lease = LeaseConfig::new(NodeId::new(), Duration::MAX);
    let record = create(&store, numbered(1).with_lease(lease.clone())).await;
    advance(HOUR).await;
    assert!(store.reclaim(&lease, 9).await.unwrap().is_empty());
    let waiting = {
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
    let ended = finish(&store, &record, result(0)).await;
    assert_eq!(waiting.await.unwrap(), Some(ended.clone()));
    advance(1000 * HOUR).await;
    assert!(is_there(&store, &ended).await);
    let page = store.list(&ListQuery::new(None, usize::MAX)).await.unwrap();
    assert_eq!(page.records, [ended]);
}

#[tokio::test(start_paused = true)]
async fn clones_are_handles_to_the_same_operations() {
    let store = MemoryStore::new();
    let clone = store.clone();
    let record = create(&store, numbered(1)).await;
    assert!(is_there(&clone, &record).await);
    finish(&clone, &record, result(10)).await;
    let found = store.get(record.operation().id()).await.unwrap().unwrap();
    assert!(found.operation().state().is_terminal());
    assert_eq!((store.len(), store.bytes()), (clone.len(), clone.bytes()));
    drop(store);
    assert!(is_there(&clone, &record).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_set_belongs_to_the_handle() {
    let store = MemoryStore::new().ttl(HOUR);
    let short = store.clone().ttl(SECOND);
    let (first, second) = (
        ended(&store, numbered(1)).await,
        ended(&short, numbered(2)).await,
    );
    advance(SECOND).await;
    assert!(is_there(&short, &first).await);
    assert!(!is_there(&store, &second).await);
}

#[tokio::test(start_paused = true)]
async fn purging_removes_what_has_expired_in_batches() {
    let store = MemoryStore::new().ttl(SECOND);
    let live = create(&store, numbered(0)).await;
    for number in 1..=100 {
        ended(&store, numbered(number)).await;
    }
    assert_eq!(store.purge(usize::MAX).await.unwrap(), 0);
    advance(SECOND).await;
    let fresh = ended(&store, numbered(101)).await;
    // The end of the last one may have taken some along.
    let expired = store.len() - 2;
    assert!(expired >= 98);
    assert_eq!(store.purge(0).await.unwrap(), 0);
    assert_eq!(store.purge(30).await.unwrap(), 30);
    assert_eq!(store.purge(usize::MAX).await.unwrap(), expired - 30);
    assert_eq!(store.len(), 2);
    assert!(is_there(&store, &live).await && is_there(&store, &fresh).await);
}

/// Nobody has to call `purge` where operations come and go.
#[tokio::test(start_paused = true)]
async fn what_has_expired_leaves_with_what_ends() {
    let store = MemoryStore::new().ttl(SECOND);
    let mut most = 0;
    for number in 0..20_000 {
        ended(&store, numbered(number)).await;
        advance(MILLISECOND).await;
        most = most.max(store.len());
    }
    // A thousand that have not expired, and what its shard has not come to.
    assert!(most < 2_000, "{most} were kept");
}

#[tokio::test]
async fn results_of_another_type_are_weighed_as_they_say() {
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
    // Weights are rounded, each a little.
    assert!(store.bytes().abs_diff(before + 12_345) < 16);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_weighed_has_ended_all_the_same_and_expires() {
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
    let (writer, written) = (store.clone(), id.clone());
    let write = tokio::spawn(async move {
        let outcome = Outcome::Succeeded(Some("lead".into()));
        writer.finish(&written, token, outcome, None).await
    });
    assert!(write.await.unwrap_err().is_panic());
    let ended = store.get(&id).await.unwrap().unwrap();
    assert!(ended.operation().state().is_terminal());
    advance(2 * MILLISECOND).await;
    assert_eq!(store.get(&id).await.unwrap(), None);
    assert_eq!(store.purge(10).await.unwrap(), 1);
    assert_eq!((store.len(), store.bytes()), (0, 0));
}

/// One step of a life with others, on one of a few operations.
#[derive(Debug, Clone)]
enum Act {
    Create {
        id: usize,
        owner: bool,
        key: Option<u8>,
        leased: bool,
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
    Forget {
        id: usize,
    },
    TakeOver,
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
            .prop_map(|(id, owner, key, leased)| Act::Create { id, owner, key, leased }),
        2 => id.clone().prop_map(|id| Act::Start { id }),
        2 => (id.clone(), 0_usize..100).prop_map(|(id, length)| Act::Report { id, length }),
        3 => (id.clone(), 0_usize..3_000, any::<bool>())
            .prop_map(|(id, bytes, progress)| Act::Finish { id, bytes, progress }),
        1 => (id.clone(), 0_usize..300).prop_map(|(id, length)| Act::Fail { id, length }),
        1 => id.clone().prop_map(|id| Act::Cancel { id }),
        2 => id.prop_map(|id| Act::Forget { id }),
        1 => Just(Act::TakeOver),
        1 => (0_u8..3).prop_map(|key| Act::Reserve { key }),
        1 => (0_usize..4).prop_map(|limit| Act::Purge { limit }),
        2 => (0_u64..60).prop_map(|milliseconds| Act::Pass { milliseconds }),
    ]
}

/// Some ids are kept as UUIDs, others as text.
fn act_on(id: usize) -> OperationId {
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
    let found = |id: usize| {
        let store = store.clone();
        async move { store.get(&act_on(id)).await.unwrap() }
    };
    match act {
        Act::Create {
            id,
            owner,
            key: name,
            leased,
        } => {
            let mut new = NewOperation::new(act_on(id));
            new = new.with_owner(owner.then(|| Owner::new("the owner of some operations")));
            if let Some(name) = name {
                new = new.with_key(key(&format!("key {name}")));
            }
            if leased {
                let node = NodeId::named("the first");
                new = new.with_lease(LeaseConfig::new(node, 20 * MILLISECOND));
            }
            match store.create(new).await {
                Ok(_) | Err(StoreError::Full | StoreError::FullForOwner) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        Act::Start { id } => {
            if let Some(record) = found(id).await {
                store.start(&act_on(id), record.token()).await.unwrap();
            }
        }
        Act::Report { id, length } => {
            if let Some(record) = found(id).await {
                let progress = Progress::from_message("p".repeat(length));
                store
                    .report(&act_on(id), record.token(), progress)
                    .await
                    .unwrap();
            }
        }
        Act::Finish {
            id,
            bytes,
            progress,
        } => {
            if let Some(record) = found(id).await {
                let progress = progress.then(|| Progress::from_count(1, 1).with_unit("pages"));
                let (id, token) = (act_on(id), record.token());
                store
                    .finish(&id, token, result(bytes), progress)
                    .await
                    .unwrap();
            }
        }
        Act::Fail { id, length } => {
            if let Some(record) = found(id).await {
                let problem = Problem::new(StatusCode::BAD_GATEWAY)
                    .with_detail("d".repeat(length))
                    .with("code", "c".repeat(length));
                let (id, token) = (act_on(id), record.token());
                store
                    .finish(&id, token, Outcome::failed(problem), None)
                    .await
                    .unwrap();
            }
        }
        Act::Cancel { id } => {
            if let Some(record) = found(id).await {
                let (id, version) = (act_on(id), record.version().unwrap());
                store
                    .force_finish(&id, version, Outcome::Canceled)
                    .await
                    .unwrap();
            }
        }
        Act::Forget { id } => {
            if let Some(record) = found(id).await {
                store
                    .delete(&act_on(id), record.version().unwrap())
                    .await
                    .unwrap();
            }
        }
        Act::TakeOver => {
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

/// What a store with nothing but this operation takes at the least.
async fn weight(record: &Record<RecordedResponse>) -> usize {
    let alone = MemoryStore::new();
    let operation = record.operation();
    let new = NewOperation::new(operation.id().clone()).with_owner(record.owner().cloned());
    let (id, created) = (operation.id(), create(&alone, new).await);
    let token = created.token();
    let history = record.history();
    let said = history.iter().map(|past| past.progress.as_deref());
    for progress in said.flatten() {
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
    // Weights are rounded up to sixteen.
    alone.bytes() + further - 15
}

/// What its history takes: nothing, if its times tell it.
fn history_bytes(record: &Record<RecordedResponse>) -> usize {
    let operation = record.operation();
    let has_started = operation.metadata().started_at().is_some();
    let told = u64::from(has_started) + u64::from(operation.state().is_terminal());
    match record.version().unwrap().get() - 1 > told {
        true => record.history().len() * size_of::<PastVersion>(),
        false => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_accounts_are_right_whatever_happens(
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
                if let Some(record) = store.get(&act_on(id)).await.unwrap() {
                    operations += 1;
                    bytes += weight(&record).await;
                }
            }
            // Keys take room of their own.
            assert_eq!(store.len(), operations);
            assert!(store.bytes() >= bytes);

            for id in 0..6 {
                perform(&store, Act::Cancel { id }).await;
                perform(&store, Act::Forget { id }).await;
            }
            // The keys of what was forgotten outlive it until its expiry.
            advance(50 * MILLISECOND).await;
            store.purge(usize::MAX).await.unwrap();
            assert_eq!((store.len(), store.bytes(), store.waiters()), (0, 0, 0));
        });
    }
}

/// Everything at once, from every thread; then all is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_accounts_are_right_after_a_crowd() {
    let store = MemoryStore::new()
        .ttl(2 * MILLISECOND)
        .min_retention(MILLISECOND)
        .max_operations(40)
        .max_bytes(100_000);
    let crowd: Vec<_> = (0..8_usize)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for step in 0..2_000_usize {
                    // Neighbours meet on the same operations.
                    let number = (step * 7 + task / 2) % 60;
                    let id = numbered(number).id;
                    let lease = LeaseConfig::new(NodeId::named("node"), MILLISECOND);
                    match (step + task) % 9 {
                        0..=2 => {
                            let mut new = numbered(number).with_lease(lease);
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
                                let version = record.version().unwrap();
                                store
                                    .force_finish(&id, version, Outcome::Canceled)
                                    .await
                                    .unwrap();
                            }
                        }
                        6 => {
                            if let Some(record) = store.get(&id).await.unwrap() {
                                store.delete(&id, record.version().unwrap()).await.unwrap();
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
                    assert!(store.len() <= 40, "more than there is room for");
                }
            })
        })
        .collect();
    for task in crowd {
        timeout(MINUTE, task).await.expect("not stuck").unwrap();
    }
    for number in 0..60 {
        let id = numbered(number).id;
        // It may end, or expire, in between.
        while let Some(record) = store.get(&id).await.unwrap() {
            let version = record.version().unwrap();
            store
                .force_finish(&id, version, Outcome::Canceled)
                .await
                .unwrap();
            store.delete(&id, version.next()).await.unwrap();
            store.delete(&id, version).await.unwrap();
        }
    }
    // The keys of what was forgotten outlive it until its expiry.
    let purged = timeout(MINUTE, async {
        while store.bytes() > 0 {
            store.purge(usize::MAX).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    purged.await.expect("nothing is left");
    let left = (store.len(), store.bytes(), store.waiters());
    assert_eq!(left, (0, 0, 0));
}

/// Keys without operations: early answers, and what was forgotten.
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
async fn keys_of_the_past_make_room_for_operations_and_for_each_other() {
    let store = MemoryStore::new()
        .max_bytes(64 * 1024)
        .min_retention(MINUTE);
    fill_with_keys(&store, "first").await;
    let full = store.create(NewOperation::new(OperationId::new())).await;
    assert!(
        matches!(full, Err(StoreError::Full)),
        "they were kept just now"
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
async fn a_store_full_of_what_may_go_has_room_for_a_key() {
    let store = MemoryStore::new()
        .max_bytes(16 * 1024)
        .min_retention(Duration::ZERO);
    for number in 0..100 {
        ended(&store, numbered(number)).await;
    }
    let token = FencingToken::random();
    let reserved = store.reserve(&key("k"), token, SECOND).await.unwrap();
    assert!(matches!(reserved, Reservation::Reserved(_)));
    // The same again is the same reservation.
    let again = store.reserve(&key("k"), token, SECOND).await.unwrap();
    assert!(matches!(again, Reservation::Reserved(same) if same == token));
}

#[tokio::test]
async fn a_list_is_in_the_order_of_creation_within_one_millisecond_too() {
    let store = MemoryStore::new();
    let mut made = Vec::new();
    for _ in 0..500 {
        let new = NewOperation::new(OperationId::new());
        made.insert(0, new.id.clone());
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
    assert_eq!(listed, made);
}

/// Ended operations of an owner's, with results of this size.
async fn fill(store: &MemoryStore, owner: &str, count: usize, bytes: usize) -> Vec<Seen> {
    let mut all = Vec::new();
    for _ in 0..count {
        let new = NewOperation::new(OperationId::new()).with_owner(Some(Owner::new(owner)));
        let record = create(store, new).await;
        all.push(finish(store, &record, result(bytes)).await);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn what_an_owner_has_who_has_the_most_goes_first() {
    let store = shareless().max_bytes(1_000_000);
    let bobs = fill(&store, "bob", 3, 10_000).await;
    let nobodys = ended(&store, NewOperation::new(OperationId::new())).await;
    advance(SECOND).await;
    let adas = fill(&store, "ada", 9, 100_000).await;
    advance(61 * SECOND).await;
    // Each takes the place of one of hers, though those of others end sooner.
    fill(&store, "ada", 9, 100_000).await;
    for record in bobs.iter().chain([&nobodys]) {
        assert!(is_there(&store, record).await, "{:?}", record.owner());
    }
    for record in &adas[..8] {
        assert!(!is_there(&store, record).await);
    }
    // What another one makes does too.
    advance(61 * SECOND).await;
    let before = store.len();
    fill(&store, "carol", 3, 40_000).await;
    assert!(store.len() < before + 3);
    for record in &bobs {
        assert!(is_there(&store, record).await);
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_the_most_takes_nothing_of_others() {
    let store = shareless().max_bytes(1_000_000);
    let bobs = fill(&store, "bob", 3, 10_000).await;
    advance(61 * SECOND).await;
    fill(&store, "ada", 9, 100_000).await;
    let ada = || NewOperation::new(OperationId::new()).with_owner(Some(Owner::new("ada")));
    while !is_full(&store, ada()).await {}
    for record in &bobs {
        assert!(is_there(&store, record).await);
    }
    let carol = NewOperation::new(OperationId::new()).with_owner(Some(Owner::new("carol")));
    assert!(!is_full(&store, carol).await);
    advance(61 * SECOND).await;
    assert!(!is_full(&store, ada()).await);
}

/// Keys of an owner's whose operations were forgotten.
async fn forget_keyed(store: &MemoryStore, owner: &str, count: usize) {
    for number in 0..count {
        let owner = Some(Owner::new(owner));
        let new = NewOperation::new(OperationId::new())
            .with_owner(owner.clone())
            .with_key(IdempotencyKey::new(owner, format!("key {number}"), [1; 32]));
        let record = ended(store, new).await;
        let forgotten = store.delete(record.operation().id(), record.version().unwrap());
        assert!(matches!(forgotten.await.unwrap(), Written::Done(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn keys_of_who_has_the_most_go_before_what_others_have() {
    let store = shareless();
    let bobs = fill(&store, "bob", 3, 10_000).await;
    let nobodys = ended(&store, NewOperation::new(OperationId::new())).await;
    let before = store.bytes();
    forget_keyed(&store, "ada", 300).await;
    assert!(store.bytes() - before > 150_000, "she has the most");
    let full = store.bytes() + 10_000;
    let store = store.max_bytes(full);
    advance(61 * SECOND).await;
    let carols = fill(&store, "carol", 5, 20_000).await;
    for record in bobs.iter().chain([&nobodys]).chain(&carols) {
        assert!(is_there(&store, record).await, "{:?}", record.owner());
    }
    // Those that have stood for it for longest went; her others are there.
    let reserve = async |number: usize| {
        let key = IdempotencyKey::new(Some(Owner::new("ada")), format!("key {number}"), [1; 32]);
        store.reserve(&key, FencingToken::random(), SECOND).await
    };
    assert!(matches!(reserve(0).await, Ok(Reservation::Reserved(_))));
    assert!(matches!(reserve(299).await, Ok(Reservation::Deleted(_))));
}

#[tokio::test(start_paused = true)]
async fn nobodys_keys_go_before_what_those_have_who_have_less() {
    let store = shareless().max_bytes(600_000);
    let bobs = fill(&store, "bob", 3, 10_000).await;
    fill_with_keys(&store, "nobody's").await;
    let keys = store.bytes();
    advance(61 * SECOND).await;
    fill(&store, "carol", 10, 20_000).await;
    assert!(keys + 10 * 20_000 > 600_000, "{keys} leave room for all");
    for record in &bobs {
        assert!(is_there(&store, record).await);
    }
}

#[tokio::test(start_paused = true)]
async fn no_key_goes_where_one_operation_more_is_one_too_many() {
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

/// How long it takes, of some tries the shortest.
async fn shortest<T>(mut act: impl AsyncFnMut() -> T) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let begun = std::time::Instant::now();
        act().await;
        shortest = shortest.min(begun.elapsed());
    }
    shortest
}

#[tokio::test]
async fn a_list_and_a_take_over_look_at_no_more_than_they_answer() {
    let store = MemoryStore::new().max_bytes(usize::MAX);
    let lease = |node: &str, seconds| LeaseConfig::new(NodeId::named(node), seconds * SECOND);
    let owned =
        |owner: &str| NewOperation::new(OperationId::new()).with_owner(Some(Owner::new(owner)));
    for n in 0..100_000 {
        let new = match n % 2 {
            0 => owned("ada"),
            _ => NewOperation::new(OperationId::new()),
        };
        create(&store, new.with_lease(lease("a", 3600))).await;
    }
    for _ in 0..30 {
        create(&store, owned("bob").with_lease(lease("a", 0))).await;
    }
    let everything = shortest(async || store.list(&ListQuery::new(None, 20)).await).await;
    for owner in ["ada", "bob"] {
        let query = ListQuery::new(Some(Owner::new(owner)), 20);
        assert_eq!(store.list(&query).await.unwrap().records.len(), 20);
        let page = shortest(async || store.list(&query).await).await;
        assert!(page < everything / 20, "{page:?} and {everything:?}");
    }
    let mut taken = 0;
    let taking = shortest(async || {
        let lease = lease("b", 3600);
        taken += store.reclaim(&lease, 6).await.unwrap().len();
    });
    let taking = taking.await;
    assert_eq!(taken, 30);
    assert!(taking < everything / 20, "{taking:?} and {everything:?}");
    let nothing = shortest(async || store.reclaim(&lease("b", 3600), 64).await).await;
    assert!(nothing < everything / 20, "{nothing:?} and {everything:?}");
}

#[tokio::test]
async fn a_list_of_many_lets_others_run_in_between() {
    for owner in [None, Some(Owner::new("ada"))] {
        let store = MemoryStore::new();
        for n in 0..10_000 {
            create(&store, numbered(n).with_owner(owner.clone())).await;
        }
        // None of them, so that all are looked at.
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
async fn who_handed_an_operation_on_hears_that_it_was_claimed() {
    let store = MemoryStore::new();
    let lease = |node: &str| LeaseConfig::new(NodeId::named(node), MINUTE);
    let record = create(&store, numbered(1).with_lease(lease("front"))).await;
    let front = NodeId::named("front");
    let held = LeaseHandle {
        id: record.operation().id().clone(),
        token: record.token(),
    };
    let before = store.revoked(&front, Duration::ZERO).await.unwrap();
    assert!(before.is_empty());
    let claimed = store.claim(&lease("worker"), &held).await.unwrap();
    assert!(matches!(claimed, Written::Done(_)));
    let revoked = store.revoked(&front, Duration::ZERO).await.unwrap();
    assert_eq!(revoked, [held.id]);
}

#[tokio::test]
async fn a_look_for_what_is_over_takes_as_long_however_much_is_held() {
    let lease = |seconds| LeaseConfig::new(NodeId::named("a"), seconds * SECOND);
    let mut took = Vec::new();
    for operations in [1_000, 200_000] {
        let store = MemoryStore::new().max_bytes(usize::MAX);
        for _ in 0..operations {
            let new = NewOperation::new(OperationId::new());
            create(&store, new.with_lease(lease(3600))).await;
        }
        let look = shortest(async || store.reclaim(&lease(3600), 64).await).await;
        took.push(look);
    }
    assert!(took[1] < took[0] * 20, "{took:?}");
}
