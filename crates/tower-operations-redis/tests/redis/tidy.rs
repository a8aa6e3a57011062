//! Law 8: expired operations leave no data, and long lists are processed in parts.

use std::time::Duration;

use tokio::time::sleep;
use tower_operations::{
    BufferedBody, OperationId, RecordedResponse, State,
    store::{
        FencingToken, IdempotencyKey, IdempotencyKeys, Lease, LeaseHandle, List, ListQuery,
        NewOperation, Owner, Purge, Repository, Store,
    },
};
use tower_operations_redis::RedisStore;

use super::{ask, connect, create, done, lease, server::Redis, success};

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey::new(None, name, [7; 32])
}

async fn names(redis: &Redis) -> Vec<String> {
    let mut names: Vec<String> = ask(redis, &["KEYS", "*"]).await;
    names.sort();
    names
}

/// The permanent keys of the store.
const FOREVER: [&str; 2] = ["operations/format", "operations/number"];

/// The key of the secret that seals list cursors.
const SECRET: &str = "operations/secret";

#[tokio::test]
async fn expired_operations_leave_no_data() {
    let redis = Redis::start().await;
    let ttl = Duration::from_millis(500);
    let store = connect(&redis).await.ttl(ttl);
    let owner = |number: u32| match number % 3 {
        0 => None,
        1 => Some(Owner::new("")),
        _ => Some(Owner::new("one with\nspaces in it")),
    };
    for number in 0..30 {
        let mut new = NewOperation::new(OperationId::new())
            .with_owner(owner(number))
            .with_request(Some("a request".into()));
        if number % 2 == 0 {
            new = new.with_lease(lease(Duration::from_secs(60)));
        }
        if number % 5 < 2 {
            new = new.with_key(key(&format!("key {number}")));
        }
        let record = create(&store, new).await;
        let (id, token) = (record.operation().id(), record.token());
        let ended = done(store.finish(id, token, success("done"), None).await);
        if number % 10 == 0 {
            done(store.delete(id, ended.stamp().unwrap()).await);
        }
    }
    let token = FencingToken::random();
    let early = key("early");
    store.reserve(&early, token, ttl).await.unwrap();
    let answer = RecordedResponse::new(http::Response::new(BufferedBody::from("no".to_owned())));
    assert!(store.complete(&early, token, answer).await.unwrap());
    let expiring = FencingToken::random();
    store.reserve(&key("lapsing"), expiring, ttl).await.unwrap();

    sleep(2 * ttl).await;
    let removed = store.purge(1000).await.unwrap();
    assert_eq!(removed, 27);
    // The keys of deleted operations expire on the server, a minute later.
    for name in names(&redis).await {
        if FOREVER.contains(&name.as_str()) {
            continue;
        }
        assert!(name.starts_with("operations/key:"), "{name} is left");
        let left: i64 = ask(&redis, &["PTTL", &name]).await;
        assert!((1..=60_000).contains(&left), "{name} is left for {left} ms");
    }
}

/// The server expires operations that are not purged. Later finishes and reads remove
/// their index entries.
#[tokio::test]
async fn operations_expired_by_the_server_leave_no_index_entries() {
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    let owner = Some(Owner::new("somebody"));
    let mut ids = Vec::new();
    for _ in 0..6 {
        let new = NewOperation::new(OperationId::new()).with_owner(owner.clone());
        let record = create(&store, new.with_lease(lease(Duration::ZERO))).await;
        ids.push(record.operation().id().clone());
        let (id, token) = (record.operation().id(), record.token());
        if ids.len() > 3 {
            done(store.finish(id, token, success("done"), None).await);
            let name = format!("operations/{{{id}}}");
            let left: i64 = ask(&redis, &["PTTL", &name]).await;
            let day = 24 * 60 * 60 * 1000;
            assert!((day..=day + 60_000).contains(&left), "{left} ms");
            // Simulates the expiry.
            ask::<()>(&redis, &["DEL", &name]).await;
            let ended = ["ZADD", "operations/ended", "XX", "1"];
            let entry: Vec<String> = ask(&redis, &["ZRANGE", "operations/ended", "-1", "-1"]).await;
            ask::<()>(&redis, &[&ended[..], &[&entry[0]]].concat()).await;
        } else {
            ask::<()>(&redis, &["DEL", &format!("operations/{{{id}}}")]).await;
        }
    }
    assert!(
        store
            .reclaim(&lease(Duration::ZERO), 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        ask::<usize>(&redis, &["ZCARD", "operations/leases"]).await,
        0
    );
    assert_eq!(
        store.purge(10).await.unwrap(),
        1,
        "two were removed by later finishes"
    );
    let listed = store.list(&ListQuery::new(owner, 10)).await.unwrap();
    assert!(listed.records.is_empty() && listed.next.is_none());
    assert_eq!(names(&redis).await, FOREVER);
}

#[tokio::test]
async fn a_reused_id_replaces_its_index_entries() {
    let redis = Redis::start().await;
    let ttl = Duration::from_millis(50);
    let store = connect(&redis).await.ttl(ttl);
    let id = OperationId::new();
    for round in 0..3_u32 {
        let new = NewOperation::new(id.clone()).with_owner(Some(Owner::new(format!("{round}"))));
        let record = create(&store, new.with_key(key(&format!("key {}", round / 2)))).await;
        done(
            store
                .finish(&id, record.token(), success("done"), None)
                .await,
        );
        sleep(2 * ttl).await;
    }
    assert_eq!(
        names(&redis).await,
        [
            "operations/ended",
            "operations/format",
            "operations/key:@1:2key 1",
            "operations/list:2",
            "operations/number",
            &format!("operations/{{{id}}}"),
        ]
    );
    assert_eq!(store.purge(10).await.unwrap(), 1);
    assert_eq!(names(&redis).await, FOREVER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_batches_are_processed_in_parts() {
    const MANY: usize = 1203;
    let redis = Redis::with(&["--appendfsync", "no"]).await;
    let ttl = Duration::from_secs(2);
    let store = connect(&redis).await.ttl(ttl);
    let (owner, term) = (Some(Owner::new("somebody")), Duration::from_secs(60));
    let mut held = Vec::new();
    let creating: Vec<_> = (0..MANY)
        .map(|_| {
            let (store, owner) = (store.clone(), owner.clone());
            tokio::spawn(async move {
                let new = NewOperation::new(OperationId::new()).with_owner(owner);
                let record = create(&store, new.with_lease(lease(term))).await;
                LeaseHandle::new(record.operation().id().clone(), record.token())
            })
        })
        .collect();
    for created in creating {
        held.push(created.await.unwrap());
    }
    // Some handles have a wrong token.
    let mut handles = held.clone();
    let wrong = [0, 499, 500, 1202];
    for index in wrong {
        handles[index].token = FencingToken::from_number(0);
    }
    let lost = store.renew(&lease(term), &handles).await.unwrap();
    assert_eq!(lost, wrong.map(|index| handles[index].clone()));

    let by = |store: RedisStore, state| {
        let query = ListQuery::new(owner.clone(), 2 * MANY).with_state(state);
        async move { store.list(&query).await.unwrap().records.len() }
    };
    let finished = 7;
    for held in &held[..finished] {
        done(
            store
                .finish(&held.id, held.token, success("done"), None)
                .await,
        );
    }
    assert_eq!(by(store.clone(), State::Succeeded).await, finished);
    assert_eq!(by(store.clone(), State::Pending).await, MANY - finished);
    assert_eq!(by(store.clone(), State::Running).await, 0);
    // The match is among the oldest operations, so the list scans many of them.
    let query = ListQuery::new(owner.clone(), 1).with_state(State::Succeeded);
    assert_eq!(store.list(&query).await.unwrap().records.len(), 1);

    store.release(&held).await.unwrap();
    let reclaimed = store.reclaim(&lease(term), 600).await.unwrap();
    assert_eq!(reclaimed.len(), 600);
    for held in &held[finished..] {
        let record = store.get(&held.id).await.unwrap().unwrap();
        done(
            store
                .finish(&held.id, record.token(), success("done"), None)
                .await,
        );
    }
    sleep(ttl + ttl / 10).await;
    let purged = store.purge(777).await.unwrap();
    assert!(purged <= 777);
    while store.purge(777).await.unwrap() > 0 {}
    let left = names(&redis).await;
    assert_eq!(left, [&FOREVER[..], &[SECRET]].concat());
}

#[tokio::test]
async fn cursors_work_after_a_flush_of_the_server() {
    let redis = Redis::start().await;
    let nodes = [connect(&redis).await, connect(&redis).await];
    let query = ListQuery::new(None, 1);
    let first = async |node: &RedisStore| {
        for _ in 0..2 {
            create(node, NewOperation::new(OperationId::new())).await;
        }
        node.list(&query).await.unwrap().next.unwrap()
    };
    let lost = first(&nodes[0]).await;
    let _: () = ask(&redis, &["FLUSHALL"]).await;
    // The other node has not read the old secret, and creates a new one.
    let cursor = first(&nodes[1]).await;
    for node in &nodes {
        let page = node.list(&query.clone().with_after(cursor.clone())).await;
        assert_eq!(page.unwrap().records.len(), 1);
        assert!(
            node.list(&query.clone().with_after(lost.clone()))
                .await
                .is_err()
        );
    }
}
