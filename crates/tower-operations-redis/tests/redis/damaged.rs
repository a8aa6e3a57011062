//! Damaged or overwritten records do not block other operations.

use std::time::Duration;

use test_support::said::LogOutput;
use tower_operations::{
    OperationId, State,
    store::{
        Lease, LeaseHandle, List, ListQuery, NewOperation, Owner, Purge, Repository, Store,
        StoreError,
    },
};

use super::{Stored, ask, connect, create, done, lease, server::Redis, success};

fn handle(record: &Stored) -> LeaseHandle {
    LeaseHandle::new(record.operation().id().clone(), record.token())
}

fn name(record: &Stored) -> String {
    format!("operations/{{{}}}", record.operation().id())
}

fn owner() -> Option<Owner> {
    Some(Owner::new("somebody"))
}

async fn create_live(store: &tower_operations_redis::RedisStore, term: Duration) -> Stored {
    let new = NewOperation::new(OperationId::new()).with_owner(owner());
    create(store, new.with_lease(lease(term))).await
}

const LONG: Duration = Duration::from_secs(600);

/// Makes an operation the first to be reclaimed: in front of those that were released, whatever
/// the order of the ids.
async fn put_in_front(redis: &Redis, record: &Stored) {
    let id = record.operation().id().to_string();
    ask::<()>(redis, &["ZADD", "operations/leases", "-1", &id]).await;
}

#[tokio::test]
async fn a_key_of_another_type_does_not_block_other_operations() {
    let redis = Redis::start().await;
    let ttl = Duration::from_millis(50);
    let store = connect(&redis).await.ttl(ttl);
    let (bad, good) = (
        create_live(&store, LONG).await,
        create_live(&store, LONG).await,
    );
    ask::<()>(&redis, &["SET", &name(&bad), "x"]).await;

    // Renewal and listing.
    let lost = store
        .renew(&lease(LONG), &[handle(&bad), handle(&good)])
        .await;
    assert_eq!(lost.unwrap(), [handle(&bad)]);
    let listed = store.list(&ListQuery::new(owner(), 10)).await.unwrap();
    assert_eq!(listed.records, std::slice::from_ref(&good));
    let first = store.list(&ListQuery::new(owner(), 1)).await.unwrap();
    let next = ListQuery::new(owner(), 1).with_after(first.next.expect("there is a next page"));
    assert!(store.list(&next).await.unwrap().records.is_empty());

    // Release and reclaim; the damaged operation is set aside.
    put_in_front(&redis, &bad).await;
    store.release(&[handle(&bad), handle(&good)]).await.unwrap();
    let reclaimed = store.reclaim(&lease(LONG), 1).await.unwrap();
    assert_eq!(reclaimed.len(), 1);
    assert_eq!(reclaimed[0].record.operation().id(), good.operation().id());
    // Both may be due in the same millisecond.
    let score = async |record: &Stored| {
        let id = record.operation().id().to_string();
        ask::<f64>(&redis, &["ZSCORE", "operations/leases", &id]).await
    };
    assert!(
        score(&bad).await >= score(&good).await,
        "the damaged operation is in front"
    );
    let error = store.get(bad.operation().id()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)));

    // Finish and purge.
    let ended = create_live(&store, LONG).await;
    done(
        store
            .finish(ended.operation().id(), ended.token(), success("x"), None)
            .await,
    );
    ask::<()>(&redis, &["SET", &name(&ended), "x"]).await;
    let entry: Vec<String> = ask(&redis, &["ZRANGE", "operations/ended", "0", "0"]).await;
    ask::<()>(&redis, &["ZADD", "operations/ended", "1", &entry[0]]).await;
    let record = &reclaimed[0].record;
    done(
        store
            .finish(record.operation().id(), record.token(), success("x"), None)
            .await,
    );
    tokio::time::sleep(2 * ttl).await;
    store.purge(10).await.unwrap();
    assert_eq!(
        ask::<usize>(&redis, &["ZCARD", "operations/ended"]).await,
        0
    );
}

#[tokio::test]
async fn a_damaged_record_does_not_block_other_operations() {
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    let mut records = Vec::new();
    for _ in 0..4 {
        records.push(create_live(&store, LONG).await);
    }
    ask::<()>(&redis, &["HSET", &name(&records[0]), "h", "no JSON"]).await;
    ask::<()>(&redis, &["HDEL", &name(&records[1]), "h"]).await;
    ask::<()>(&redis, &["DEL", &name(&records[2])]).await;
    let all: Vec<_> = records.iter().map(handle).collect();
    store.release(&all).await.unwrap();
    for damaged in &records[..3] {
        put_in_front(&redis, damaged).await;
    }
    let listed = store.list(&ListQuery::new(owner(), 10)).await.unwrap();
    assert_eq!(listed.records, [records[3].clone()]);
    let reclaimed = store.reclaim(&lease(LONG), 1).await.unwrap();
    assert_eq!(
        reclaimed[0].record.operation().id(),
        records[3].operation().id()
    );
    assert_eq!(reclaimed[0].record.operation().state(), State::Pending);
    // Two damaged records stay in the index; the deleted record is removed.
    assert_eq!(
        ask::<usize>(&redis, &["ZCARD", "operations/leases"]).await,
        3
    );
    assert!(store.reclaim(&lease(LONG), 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_create_with_a_broken_index_writes_nothing() {
    let redis = Redis::start().await;
    let ttl = Duration::from_millis(50);
    let store = connect(&redis).await.ttl(ttl);
    let before = create_live(&store, LONG).await;
    ask::<()>(&redis, &["SET", "operations/list:somebody", "x"]).await;
    let id = OperationId::new();
    let new = NewOperation::new(id.clone()).with_owner(owner());
    let refused = store.create(new).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused:?}");
    assert!(store.get(&id).await.unwrap().is_none());
    // The broken list belongs to one owner, and affects no other operation.
    done(
        store
            .finish(before.operation().id(), before.token(), success("x"), None)
            .await,
    );
    tokio::time::sleep(2 * ttl).await;
    assert_eq!(store.purge(10).await.unwrap(), 1);
    let others = create(&store, NewOperation::new(OperationId::new())).await;
    done(
        store
            .finish(others.operation().id(), others.token(), success("x"), None)
            .await,
    );
}

#[tokio::test]
async fn an_unreadable_record_is_logged_with_its_id() {
    let (log, _default) = LogOutput::collect();
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    for damage in [&["HSET", "h", "no JSON"][..], &["DEL"], &["SET", "x"]] {
        let bad = create_live(&store, LONG).await;
        store.release(&[handle(&bad)]).await.unwrap();
        let name = name(&bad);
        if damage[0] == "SET" {
            ask::<()>(&redis, &["DEL", &name]).await;
        }
        let command = [&damage[..1], &[&name], &damage[1..]].concat();
        ask::<()>(&redis, &command).await;
        assert!(store.reclaim(&lease(LONG), 9).await.unwrap().is_empty());
        let text = log.take();
        let id = format!("id={}", bad.operation().id());
        let is_logged = |line: &str| line.contains("ERROR") && line.contains(&id);
        assert!(text.lines().any(is_logged), "{damage:?}: {text}");
    }
}
