//! Lost answers, racing keys, and the number of round trips per call.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::{sync::Barrier, task::JoinSet};
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, Idempotency, OperationId, PollService, Progress, RequestBody,
    store::{
        Created, IdempotencyKey, IdempotencyKeys, NewOperation, Repository, Reservation, Store,
        Written,
    },
};
use tower_operations_redis::RedisStore;

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

    let new = NewOperation::new(OperationId::new()).with_lease(lease(MINUTE));
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

    let new = NewOperation::new(OperationId::new()).with_lease(lease(MINUTE));
    create(&store, new.with_key(key("once"))).await;
    assert_eq!(proxy.trips(), script, "create with a key");
}

#[tokio::test]
async fn flushed_scripts_are_loaded_again() {
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
    let held =
        tower_operations::store::LeaseHandle::new(record.operation().id().clone(), record.token());
    let renewed = tower_operations::store::Lease::renew(&store, &lease(MINUTE), &[held]).await;
    assert!(renewed.unwrap().is_empty());
}

/// Law 2: a repeated write takes effect once.
#[tokio::test]
async fn a_write_without_an_answer_can_be_repeated() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    for round in 0..5 {
        let name = format!("key-{round}");
        let with_key = |new: NewOperation| match round % 2 {
            0 => new,
            _ => new.with_key(key(&name)),
        };
        let new = NewOperation::new(OperationId::new()).with_lease(lease(MINUTE));
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
        let delete = || store.delete(&id, finished.stamp().unwrap());
        assert!(delete().await.unwrap_err().is_transient());
        assert!(matches!(delete().await.unwrap(), Written::Gone));
    }
}

#[tokio::test]
async fn a_reservation_without_an_answer_can_be_repeated() {
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

    let new = NewOperation::new(OperationId::new()).with_key(key.clone());
    let new = new.with_reservation(token);
    proxy.cut("EVALSHA");
    assert!(store.create(new.clone()).await.unwrap_err().is_transient());
    let Created::Existing(record) = store.create(new.clone()).await.unwrap() else {
        panic!("the first try was executed");
    };
    assert_eq!(record.operation().id(), &new.id);
}

/// Law 1: one of many requests with the same key creates the operation.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_creates_with_one_key_find_one_operation() {
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
            let new = NewOperation::new(OperationId::new()).with_key(key(&format!("key {round}")));
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

/// A paused server executes the pending create once it resumes.
#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_request_refused_by_a_paused_server_runs_once() {
    let redis = Redis::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let service = {
        let layer = AsyncAcceptLayer::new(super::connect(&redis).await)
            .create_timeout(Duration::from_millis(300))
            .idempotency(Idempotency::optional());
        let runs = Arc::clone(&runs);
        layer.layer(service_fn(move |_: Request<RequestBody<BufferedBody>>| {
            runs.fetch_add(1, SeqCst);
            async { Ok::<_, Infallible>(Response::new(BufferedBody::from("done"))) }
        }))
    };
    for number in 0..10 {
        let send = || {
            let key = format!("\"the invoice number {number}\"");
            let request = Request::post("/").header("idempotency-key", key);
            let request = request.body(BufferedBody::default()).unwrap();
            service.clone().oneshot(request)
        };
        redis.pause();
        let refused = send().await.unwrap();
        assert_eq!(refused.status(), 503);
        // The repeated request is sent before or after the server resumes.
        let repeated = match number % 2 {
            0 => {
                let repeated = tokio::spawn(send());
                tokio::task::yield_now().await;
                redis.resume();
                repeated.await.unwrap()
            }
            _ => {
                redis.resume();
                send().await
            }
        };
        let repeated = repeated.unwrap();
        assert_eq!(repeated.status(), 202);
        let id = repeated.extensions().get::<OperationId>().unwrap().clone();
        let polls = PollService::new(super::connect(&redis).await);
        let request = Request::get(format!("/{id}?wait=20")).body(()).unwrap();
        let shown = polls.oneshot(request).await.unwrap().into_body();
        let shown = shown.collect().await.unwrap().to_bytes();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        assert!(shown.contains("\"succeeded\""), "{shown}");
        assert_eq!(runs.load(SeqCst), number + 1);
    }
}
