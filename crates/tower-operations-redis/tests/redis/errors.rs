//! Law 9: errors keep their source and are transient or permanent.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use tower_operations::{
    OperationId,
    store::{
        FencingToken, IdempotencyKey, IdempotencyKeys, Lease, LeaseConfig, LeaseHandle, List,
        ListQuery, NewOperation, Repository, Store, StoreError,
    },
};
use tower_operations_redis::{RedisBuilder, RedisStore};

use super::{ask, connect, create, done, lease, server::Redis, success};

#[tokio::test]
async fn a_stopped_server_is_a_transient_error() {
    let mut redis = Redis::start().await;
    let store = connect(&redis).await;
    let record = create(&store, NewOperation::new(OperationId::new())).await;
    let id = record.operation().id();
    redis.stop().await;
    for _ in 0..3 {
        let since = Instant::now();
        let error = store.get(id).await.unwrap_err();
        assert!(error.is_transient());
        assert!(error.source().unwrap().is::<redis::RedisError>());
        assert!(since.elapsed() < Duration::from_secs(3));
    }
    redis.run().await;
    while let Err(error) = store.get(id).await {
        assert!(error.is_transient());
    }
    assert_eq!(store.get(id).await.unwrap(), Some(record));
}

/// A server with a `timeout` closes idle connections.
#[tokio::test]
async fn a_closed_connection_fails_no_idempotent_call() {
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    let record = create(&store, NewOperation::new(OperationId::new())).await;
    let lease = LeaseConfig::default();
    let held = [LeaseHandle::new(
        record.operation().id().clone(),
        record.token(),
    )];
    for _ in 0..3 {
        let kill = async || {
            let killed: usize = ask(&redis, &["CLIENT", "KILL", "TYPE", "normal"]).await;
            assert!(killed > 0);
        };
        kill().await;
        let found = store.get(record.operation().id()).await.unwrap();
        assert_eq!(found.as_ref(), Some(&record));
        kill().await;
        assert!(store.reclaim(&lease, 9).await.unwrap().is_empty());
        kill().await;
        assert!(store.renew(&lease, &held).await.unwrap().is_empty());
        kill().await;
        let listed = store.list(&ListQuery::new(None, 9)).await.unwrap();
        assert_eq!(listed.records, std::slice::from_ref(&record));
    }
}

/// A silent server neither refuses nor closes the connection.
#[tokio::test]
async fn a_silent_server_is_a_transient_error() {
    let redis = Redis::start().await;
    let patience = Duration::from_millis(300);
    let builder = RedisBuilder::new(&redis.url()).patience(patience);
    let store: RedisStore = builder.clone().connect().await.unwrap();
    let record = create(&store, NewOperation::new(OperationId::new())).await;
    redis.pause();
    for _ in 0..3 {
        let since = Instant::now();
        let error = store.get(record.operation().id()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(since.elapsed() >= patience);
        assert!(since.elapsed() < 10 * patience);
    }
    let error = builder.connect::<String>().await.unwrap_err();
    let is_unavailable = matches!(error, tower_operations_redis::RedisError::Unavailable(_));
    assert!(is_unavailable, "{error:?}");
    redis.resume();
    let found = loop {
        match store.get(record.operation().id()).await {
            Ok(found) => break found,
            Err(error) => assert!(error.is_transient()),
        }
    };
    assert_eq!(found, Some(record));
}

#[tokio::test]
async fn a_full_server_refuses_new_operations_and_finishes_old_ones() {
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    let key = |name: &str| IdempotencyKey::new(None, name, [1; 32]);
    let token = FencingToken::random();
    let term = Duration::from_secs(60);
    store.reserve(&key("mine"), token, term).await.unwrap();
    let new = NewOperation::new(OperationId::new()).with_lease(lease(term));
    let record = create(&store, new).await;
    let (id, holder) = (record.operation().id(), record.token());
    ask::<()>(&redis, &["CONFIG", "SET", "maxmemory", "1"]).await;

    let new = NewOperation::new(OperationId::new());
    let error = store.create(new.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Full), "{error:?}");
    assert!(store.get(&new.id).await.unwrap().is_none());
    let other = store.reserve(&key("other"), token, term).await;
    assert!(matches!(other, Err(StoreError::Full)), "{other:?}");

    // Another node can connect, and accepted operations continue.
    let store = connect(&redis).await;
    store.reserve(&key("mine"), token, term).await.unwrap();
    let held = LeaseHandle::new(id.clone(), holder);
    assert!(store.renew(&lease(term), &[held]).await.unwrap().is_empty());
    done(store.start(id, holder).await);
    let ended = done(store.finish(id, holder, success("done"), None).await);
    done(store.delete(id, ended.stamp().unwrap()).await);
    assert!(
        store
            .release_reservation(&key("mine"), token)
            .await
            .unwrap()
    );

    ask::<()>(&redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
    create(&store, new).await;
}

#[tokio::test]
async fn damaged_records_are_refused() {
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    let ids = ["list", "torn", "broken"];
    ask::<()>(&redis, &["RPUSH", "operations/{list}", "x"]).await;
    ask::<()>(
        &redis,
        &["HSET", "operations/{broken}", "v", "1", "t", "1", "h", "{"],
    )
    .await;
    for id in ids {
        let id: OperationId = id.parse().unwrap();
        if id.to_string() == "torn" {
            create(&store, NewOperation::new(id.clone())).await;
            ask::<()>(&redis, &["HSET", "operations/{torn}", "h", ""]).await;
        }
        let error = store.get(&id).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{id}: {error:?}");
        assert!(error.source().is_some());
        let error = store
            .create(NewOperation::new(id.clone()))
            .await
            .unwrap_err();
        assert!(!error.is_transient(), "{id}: {error:?}");
    }
}

/// The old primary may return under the same address after a failover.
#[tokio::test]
async fn a_server_turned_replica_is_neither_read_nor_written() {
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    let record = create(&store, NewOperation::new(OperationId::new())).await;
    let (id, token) = (record.operation().id(), record.token());
    ask::<()>(&redis, &["REPLICAOF", "127.0.0.1", "1"]).await;
    let error = store.get(id).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let error = store.start(id, token).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let error = store.reclaim(&lease(Duration::from_secs(1)), 1).await;
    assert!(error.unwrap_err().is_transient());
    let error = store.create(NewOperation::new(OperationId::new())).await;
    assert!(error.unwrap_err().is_transient());
    ask::<()>(&redis, &["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(store.get(id).await.unwrap(), Some(record));
}
