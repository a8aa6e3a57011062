//! Every law, on one node and across several, and keys that race.

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
async fn one_node_keeps_every_law() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    conformance::all(async |ttl| store.clone().ttl(ttl)).await;
    conformance::released_lease(async |ttl| store.clone().ttl(ttl)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_nodes_keep_every_law_together() {
    let server = Postgres::start().await;
    let nodes = [
        store(&server).await,
        store(&server).await,
        store(&server).await,
    ];
    conformance::all(async |ttl| Nodes::new(nodes.clone().map(|node| node.ttl(ttl)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_chosen_at_run_time_keeps_every_law() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    conformance::all(async |ttl| AnyStore::new(store.clone().ttl(ttl))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_single_connection_is_enough() {
    let server = Postgres::start().await;
    let store = PostgresStore::connect(pool(server.port(), 1))
        .await
        .unwrap();
    conformance::all(async |ttl| store.clone().ttl(ttl)).await;
}

/// A hundred requests with one key, on four nodes: one makes the operation, and
/// the others find it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_equal_keys_one_wins_and_the_others_find_it() {
    let server = Postgres::start().await;
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(store(&server).await.ttl(Duration::from_millis(1)));
    }
    // The second time round what the key stands for has expired.
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
        let (mut made, mut found) = (Vec::new(), Vec::new());
        for created in requests.join_all().await {
            match created {
                Created::New(record) => made.push(record),
                Created::Existing(record) => found.push(record),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(made.len(), 1, "round {round}");
        assert_eq!(found.len(), 99);
        let id = made[0].operation().id();
        assert!(found.iter().all(|record| record.operation().id() == id));
        let token = made[0].token();
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

/// The same with a reservation first, and settling.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_equal_reservations_one_wins() {
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
    // Settled a second time at the same moment, it is settled all the same.
    let answer = crate::common::response("early");
    let (one, other) = tokio::join!(
        nodes[0].complete(&key, won[0], answer.clone()),
        nodes[1].complete(&key, won[0], answer),
    );
    assert!(one.unwrap() && other.unwrap());
}

/// Purging, creating anew and forgetting, all at once, on one key and one id: no
/// deadlock, no error, and nothing is left over.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn purging_leaves_neither_keys_nor_operations_behind() {
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
                let made = store.create(new).await.unwrap();
                if let Created::New(record) = made {
                    let finished = store
                        .finish(&id, record.token(), success("done"), None)
                        .await
                        .unwrap();
                    if round % 2 == 0
                        && let tower_operations::store::Written::Done(record) = finished
                    {
                        store.delete(&id, record.version().unwrap()).await.unwrap();
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

/// Owners and keys are any text, and ids of any case are others.
#[tokio::test]
async fn names_are_kept_whatever_is_in_them() {
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
