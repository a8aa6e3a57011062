//! The laws of the store traits on one node and several nodes, and racing keys.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Barrier, task::JoinSet};
use tower_operations::{
    OperationId,
    store::{
        AnyStore, Created, FencingToken, IdempotencyKey, IdempotencyKeys, NewOperation, Owner,
        Purge, Repository, Reservation, Store,
    },
};
use tower_operations_conformance::{self as conformance, Nodes};
use tower_operations_postgres::PostgresStore;

use crate::{
    common::{create, pool, store, success, term},
    server::Postgres,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_node_keeps_the_laws() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    conformance::all(async |ttl| store.clone().ttl(ttl)).await;
    conformance::released_lease(async |ttl| store.clone().ttl(ttl)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_nodes_keep_the_laws() {
    let server = Postgres::start().await;
    let nodes = [
        store(&server).await,
        store(&server).await,
        store(&server).await,
    ];
    conformance::all(async |ttl| Nodes::new(nodes.clone().map(|node| node.ttl(ttl)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_erased_store_keeps_the_laws() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    conformance::all(async |ttl| AnyStore::new(store.clone().ttl(ttl))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_single_connection_keeps_the_laws() {
    let server = Postgres::start().await;
    let store = PostgresStore::connect(pool(server.port(), 1))
        .await
        .unwrap();
    conformance::all(async |ttl| store.clone().ttl(ttl)).await;
}

/// A hundred requests with one key on four nodes: one request creates the operation, and
/// the others find it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_creates_with_one_key_find_one_operation() {
    let server = Postgres::start().await;
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(store(&server).await.ttl(Duration::from_millis(1)));
    }
    // The operation of the key has expired in later rounds.
    for round in 0..3 {
        let start = Arc::new(Barrier::new(100));
        let mut requests = JoinSet::new();
        for number in 0..100 {
            let (store, start) = (nodes[number % nodes.len()].clone(), Arc::clone(&start));
            requests.spawn(async move {
                let key = IdempotencyKey::new(None, "the same for everybody", [7; 32]);
                let new = NewOperation::new(OperationId::new())
                    .with_key(key)
                    .with_lease(term(60));
                start.wait().await;
                store.create(new).await.unwrap()
            });
        }
        let (mut winners, mut found) = (Vec::new(), Vec::new());
        for created in requests.join_all().await {
            match created {
                Created::New(record) => winners.push(record),
                Created::Existing(record) => found.push(record),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(found.len(), 99);
        let id = winners[0].operation().id();
        assert!(found.iter().all(|record| record.operation().id() == id));
        let token = winners[0].token();
        nodes[0]
            .finish(id, token, success("done"), None)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM operations")
        .fetch_one(&pool(server.port(), 1))
        .await
        .unwrap();
    assert_eq!(left, 3);
}

/// A hundred reservations of one key on two nodes: one request wins and completes the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_reservations_have_one_winner() {
    let server = Postgres::start().await;
    let nodes = [store(&server).await, store(&server).await];
    let start = Arc::new(Barrier::new(100));
    let mut requests = JoinSet::new();
    let key = IdempotencyKey::new(None, "reserved", [7; 32]);
    for number in 0..100 {
        let (store, start) = (nodes[number % 2].clone(), Arc::clone(&start));
        let key = key.clone();
        requests.spawn(async move {
            start.wait().await;
            let token = FencingToken::random();
            store
                .reserve(&key, token, Duration::from_secs(60))
                .await
                .unwrap()
        });
    }
    let answers = requests.join_all().await;
    let won: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer {
            Reservation::Reserved(token) => Some(*token),
            Reservation::InProgress => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(won.len(), 1);
    // A concurrent second completion succeeds too.
    let answer = crate::common::response("early");
    let (one, other) = tokio::join!(
        nodes[0].complete(&key, won[0], answer.clone()),
        nodes[1].complete(&key, won[0], answer),
    );
    assert!(one.unwrap() && other.unwrap());
}

/// Concurrent purges, creates and deletes of the same keys and ids cause no deadlock and
/// no error, and leave no row.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_purges_leave_no_rows() {
    let server = Postgres::start().await;
    let nodes = [store(&server).await, store(&server).await];
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let store = nodes[number % 2].clone().ttl(Duration::from_millis(2));
        tasks.spawn(async move {
            for round in 0..100 {
                let key =
                    IdempotencyKey::new(None, format!("key {}", (round + number) % 3), [0; 32]);
                let id: OperationId = format!("id-{}", round % 3).parse().unwrap();
                let new = NewOperation::new(id.clone())
                    .with_key(key)
                    .with_lease(term(60));
                let created = store.create(new).await.unwrap();
                if let Created::New(record) = created {
                    let finished = store
                        .finish(&id, record.token(), success("done"), None)
                        .await
                        .unwrap();
                    if round % 2 == 0
                        && let tower_operations::store::Written::Done(record) = finished
                    {
                        store.delete(&id, record.stamp().unwrap()).await.unwrap();
                    }
                }
                store.purge(2).await.unwrap();
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let pool = pool(server.port(), 1);
    while nodes[0].purge(100).await.unwrap() > 0 {}
    for table in ["operations", "operations_keys"] {
        let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let left: i64 = sqlx::query_scalar(count).fetch_one(&pool).await.unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

/// Owners and keys may be any text, and ids are case-sensitive.
#[tokio::test]
async fn names_may_be_any_text() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let owner = Owner::new("a\0b \u{1f980} '; DROP TABLE operations; --");
    let (id, upper): (OperationId, OperationId) =
        ("a-id".parse().unwrap(), "A-ID".parse().unwrap());
    let key = IdempotencyKey::new(None, "\0'\\\u{e4}", [1; 32]);
    let new = NewOperation::new(id.clone())
        .with_owner(Some(owner.clone()))
        .with_key(key.clone());
    store.create(new.clone()).await.unwrap();
    assert!(store.get(&upper).await.unwrap().is_none());
    let record = store.get(&id).await.unwrap().unwrap();
    assert_eq!(record.owner(), Some(&owner));
    match store.create(new).await.unwrap() {
        Created::Existing(found) => assert_eq!(found, record),
        other => panic!("{other:?}"),
    }
    let (other, _) = create(&store).await;
    let query = tower_operations::store::ListQuery::new(Some(owner), 10);
    let page = tower_operations::store::List::list(&store, &query)
        .await
        .unwrap();
    assert_eq!(page.records, [record]);
    assert!(store.get(&other).await.unwrap().is_some());
}
