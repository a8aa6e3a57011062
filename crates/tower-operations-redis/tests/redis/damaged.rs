//! What is damaged, or was overwritten, keeps nobody from the others.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_operations::{
    OperationId, State,
    store::{
        Lease, LeaseHandle, List, ListQuery, NewOperation, Owner, Purge, Repository, Store,
        StoreError,
    },
};

use super::{Seen, ask, connect, create, done, lease, server::Redis, success};

fn held(record: &Seen) -> LeaseHandle {
    LeaseHandle::new(record.operation().id().clone(), record.token())
}

fn name(record: &Seen) -> String {
    format!("operations/{{{}}}", record.operation().id())
}

fn owner() -> Option<Owner> {
    Some(Owner::new("somebody"))
}

async fn live(store: &tower_operations_redis::RedisStore, term: Duration) -> Seen {
    let new = NewOperation::new(OperationId::new()).with_owner(owner());
    create(store, new.with_lease(lease(term))).await
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_key_of_another_type_in_the_place_of_an_operation_keeps_nobody_from_the_others() {
    let redis = Redis::start().await;
    let ttl = Duration::from_millis(50);
    let store = connect(&redis).await.ttl(ttl);
    let (bad, good) = (live(&store, LONG).await, live(&store, LONG).await);
    ask::<()>(&redis, &["SET", &name(&bad), "x"]).await;

    // Renewed, and listed.
    let lost = store.renew(&lease(LONG), &[held(&bad), held(&good)]).await;
    assert_eq!(lost.unwrap(), [held(&bad)]);
    let listed = store.list(&ListQuery::new(owner(), 10)).await.unwrap();
    assert_eq!(listed.records, std::slice::from_ref(&good));
    let first = store.list(&ListQuery::new(owner(), 1)).await.unwrap();
    let next = ListQuery::new(owner(), 1).with_after(first.next.expect("there is more"));
    assert!(store.list(&next).await.unwrap().records.is_empty());

    // Released, and taken over; the other one is put aside.
    ask::<()>(
        &redis,
        &[
            "ZADD",
            "operations/leases",
            "0",
            &bad.operation().id().to_string(),
        ],
    )
    .await;
    store.release(&[held(&bad), held(&good)]).await.unwrap();
    let taken = store.reclaim(&lease(LONG), 1).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].record.operation().id(), good.operation().id());
    let first: Vec<String> = ask(&redis, &["ZRANGE", "operations/leases", "0", "0"]).await;
    assert_eq!(
        first,
        [good.operation().id().to_string()],
        "it is in front of nobody"
    );
    let error = store.get(bad.operation().id()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)));

    // Ended, and purged.
    let ended = live(&store, LONG).await;
    done(
        store
            .finish(ended.operation().id(), ended.token(), success("x"), None)
            .await,
    );
    ask::<()>(&redis, &["SET", &name(&ended), "x"]).await;
    let entry: Vec<String> = ask(&redis, &["ZRANGE", "operations/ended", "0", "0"]).await;
    ask::<()>(&redis, &["ZADD", "operations/ended", "1", &entry[0]]).await;
    let record = &taken[0].record;
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
async fn a_record_that_is_damaged_keeps_nobody_from_the_others() {
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    let mut records = Vec::new();
    for _ in 0..4 {
        records.push(live(&store, LONG).await);
    }
    ask::<()>(&redis, &["HSET", &name(&records[0]), "h", "no JSON"]).await;
    ask::<()>(&redis, &["HDEL", &name(&records[1]), "h"]).await;
    ask::<()>(&redis, &["DEL", &name(&records[2])]).await;
    let all: Vec<_> = records.iter().map(held).collect();
    store.release(&all).await.unwrap();
    let ids = ["0", &records[2].operation().id().to_string()];
    ask::<()>(&redis, &["ZADD", "operations/leases", ids[0], ids[1]]).await;
    let listed = store.list(&ListQuery::new(owner(), 10)).await.unwrap();
    assert_eq!(listed.records, [records[3].clone()]);
    let taken = store.reclaim(&lease(LONG), 1).await.unwrap();
    assert_eq!(
        taken[0].record.operation().id(),
        records[3].operation().id()
    );
    assert_eq!(taken[0].record.operation().state(), State::Pending);
    // Two may be mended; of one nothing is left.
    assert_eq!(
        ask::<usize>(&redis, &["ZCARD", "operations/leases"]).await,
        3
    );
    assert!(store.reclaim(&lease(LONG), 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_index_of_another_type_leaves_nothing_half_made() {
    let redis = Redis::start().await;
    let ttl = Duration::from_millis(50);
    let store = connect(&redis).await.ttl(ttl);
    let before = live(&store, LONG).await;
    ask::<()>(&redis, &["SET", "operations/list:somebody", "x"]).await;
    let id = OperationId::new();
    let new = NewOperation::new(id.clone()).with_owner(owner());
    let refused = store.create(new).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused:?}");
    assert!(store.get(&id).await.unwrap().is_none());
    // It is the list of one owner, and nobody else's affair.
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

/// What is logged.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl io::Write for Said {
    fn write(&mut self, some: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_cannot_be_read_among_others_is_logged_with_its_id() {
    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    for damage in [&["HSET", "h", "no JSON"][..], &["DEL"], &["SET", "x"]] {
        let bad = live(&store, LONG).await;
        store.release(&[held(&bad)]).await.unwrap();
        let name = name(&bad);
        if damage[0] == "SET" {
            ask::<()>(&redis, &["DEL", &name]).await;
        }
        let command = [&damage[..1], &[&name], &damage[1..]].concat();
        ask::<()>(&redis, &command).await;
        assert!(store.reclaim(&lease(LONG), 9).await.unwrap().is_empty());
        let text = String::from_utf8(std::mem::take(&mut *said.0.lock().unwrap())).unwrap();
        let id = format!("id={}", bad.operation().id());
        let is_it = |line: &str| line.contains("ERROR") && line.contains(&id);
        assert!(text.lines().any(is_it), "{damage:?}: {text}");
    }
}
