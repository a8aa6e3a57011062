//! What is executed but not answered, what comes a hundred times, and how many
//! round trips it takes.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Barrier, task::JoinSet};
use tower_operations::{
    OperationId, Progress,
    store::{
        Created, IdempotencyKey, IdempotencyKeys, NewOperation, RedisStore, Repository,
        Reservation, Store, Written,
    },
};

use super::{connect, create, done, lease, proxy::Proxy, server::Redis, success};

const MINUTE: Duration = Duration::from_secs(60);

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey::new(None, name, [7; 32])
}

#[tokio::test]
async fn each_step_of_an_operation_is_one_round_trip() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    proxy.trips();
    let script = [vec!["EVALSHA".to_owned()]];

    let new = NewOperation::new(OperationId::new()).lease(lease(MINUTE));
    let record = create(&store, new.clone()).await;
    assert_eq!(proxy.trips(), script, "create");
    let (id, token) = (record.operation().id(), record.token());
    done(store.start(id, token).await);
    assert_eq!(proxy.trips(), script, "start");
    done(
        store
            .report(id, token, Progress::from_message("half"))
            .await,
    );
    assert_eq!(proxy.trips(), script, "progress");
    done(store.finish(id, token, success("all"), None).await);
    assert_eq!(proxy.trips(), script, "finish");
    assert!(store.get(id).await.unwrap().is_some());
    assert_eq!(proxy.trips(), [["PERSIST", "HMGET"]], "poll");

    let new = NewOperation::new(OperationId::new()).lease(lease(MINUTE));
    create(&store, new.key(key("once"))).await;
    assert_eq!(proxy.trips(), script, "create with a key");
}

#[tokio::test]
async fn a_server_that_has_forgotten_the_scripts_is_told_them_again() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    super::ask::<()>(&redis, &["SCRIPT", "FLUSH"]).await;
    proxy.trips();
    create(&store, NewOperation::new(OperationId::new())).await;
    assert_eq!(proxy.trips(), [["EVALSHA"], ["SCRIPT"], ["EVALSHA"]]);
    create(&store, NewOperation::new(OperationId::new())).await;
    assert_eq!(proxy.trips(), [["EVALSHA"]]);
    super::ask::<()>(&redis, &["SCRIPT", "FLUSH"]).await;
    let record = create(&store, NewOperation::new(OperationId::new())).await;
    super::ask::<()>(&redis, &["SCRIPT", "FLUSH"]).await;
    let held = tower_operations::store::LeaseHandle {
        id: record.operation().id().clone(),
        token: record.token(),
    };
    let renewed = tower_operations::store::Lease::renew(&store, &lease(MINUTE), &[held]).await;
    assert!(renewed.unwrap().is_empty());
}

/// Law 2: the same write again is the same write.
#[tokio::test]
async fn a_write_whose_answer_was_cut_off_can_be_repeated() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    for round in 0..5 {
        let name = format!("key-{round}");
        let with_key = |new: NewOperation| match round % 2 {
            0 => new,
            _ => new.key(key(&name)),
        };
        let new = NewOperation::new(OperationId::new()).lease(lease(MINUTE));
        let (new, id) = (with_key(new.clone()), new.id);
        proxy.cut("EVALSHA");
        let error = store.create(new.clone()).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert!(proxy.has_cut());
        let Created::Existing(record) = store.create(new).await.unwrap() else {
            panic!("the first try was executed");
        };
        assert_eq!(record.operation().id(), &id);
        let token = record.token();

        proxy.cut("EVALSHA");
        let error = store.start(&id, token).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let started = done(store.start(&id, token).await);
        assert_eq!(started.attempts(), 1);

        proxy.cut("EVALSHA");
        let text = format!("result {round}");
        let finish = || store.finish(&id, token, success(&text), None);
        let error = finish().await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let finished = done(finish().await);
        assert_eq!(finished.version().unwrap().get(), 3, "written once");

        proxy.cut("EVALSHA");
        let forget = || store.delete(&id, finished.version().unwrap());
        assert!(forget().await.unwrap_err().is_transient());
        assert!(matches!(forget().await.unwrap(), Written::Gone));
    }
}

#[tokio::test]
async fn a_reservation_whose_answer_was_cut_off_can_be_repeated() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    let (key, token) = (key("once"), tower_operations::store::FencingToken::random());
    proxy.cut("EVALSHA");
    let reserve = || store.reserve(&key, token, MINUTE);
    assert!(reserve().await.unwrap_err().is_transient());
    assert!(matches!(reserve().await.unwrap(), Reservation::Reserved(own) if own == token));
    let other = tower_operations::store::FencingToken::random();
    let other = store.reserve(&key, other, MINUTE).await.unwrap();
    assert!(matches!(other, Reservation::InProgress));

    let new = NewOperation::new(OperationId::new()).key(key.clone());
    let new = new.reservation(token);
    proxy.cut("EVALSHA");
    assert!(store.create(new.clone()).await.unwrap_err().is_transient());
    let Created::Existing(record) = store.create(new.clone()).await.unwrap() else {
        panic!("the first try was executed");
    };
    assert_eq!(record.operation().id(), &new.id);
}

/// Law 1: of many that come with the same key, one makes the operation.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_equal_keys_one_wins() {
    let redis = Redis::start().await;
    let mut stores = Vec::new();
    for _ in 0..5 {
        stores.push(connect(&redis).await);
    }
    for round in 0..5 {
        let barrier = Arc::new(Barrier::new(100));
        let mut tasks = JoinSet::new();
        for number in 0..100 {
            let (store, barrier) = (stores[number % 5].clone(), Arc::clone(&barrier));
            let new = NewOperation::new(OperationId::new()).key(key(&format!("key {round}")));
            tasks.spawn(async move {
                barrier.wait().await;
                store.create(new).await.unwrap()
            });
        }
        let (mut new, mut existing) = (Vec::new(), Vec::new());
        while let Some(created) = tasks.join_next().await {
            match created.unwrap() {
                Created::New(record) => new.push(record),
                Created::Existing(record) => existing.push(record),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((new.len(), existing.len()), (1, 99));
        assert!(existing.iter().all(|record| record == &new[0]));
    }
}
