//! Law 5 across nodes: changes are notified, and a lost notification only delays a wait.

use std::time::{Duration, Instant};

use test_support::runtime::one_worker;
use tokio::time::{sleep, timeout};
use tower_operations::{
    OperationId,
    store::{Lease, LeaseHandle, NewOperation, NodeId, Repository, Version, Watch},
};
use tower_operations_redis::RedisStore;

use super::{ask, connect, create, done, lease, proxy::Proxy, server::Redis, success};

const LONG: Duration = Duration::from_secs(60);

/// Shorter than the interval at which a wait polls.
const SOON: Duration = Duration::from_secs(3);

/// Measures the time until one node sees a change of another.
async fn latency(near: &RedisStore, far: &RedisStore) -> Duration {
    let record = create(far, NewOperation::new(OperationId::new())).await;
    let id = record.operation().id().clone();
    let wait = tokio::spawn({
        let (near, id) = (near.clone(), id.clone());
        async move { near.changed(&id, Version::FIRST, LONG).await.unwrap() }
    });
    sleep(Duration::from_millis(50)).await;
    let since = Instant::now();
    let ended = done(far.finish(&id, record.token(), success("done"), None).await);
    assert_eq!(wait.await.unwrap(), Some(ended));
    since.elapsed()
}

#[tokio::test]
async fn a_change_wakes_a_wait_on_another_node() {
    let redis = Redis::start().await;
    let (near, far) = (connect(&redis).await, connect(&redis).await);
    for _ in 0..5 {
        let latency = latency(&near, &far).await;
        assert!(latency < SOON, "{latency:?}");
    }
}

#[tokio::test]
async fn a_node_is_notified_of_a_revoked_lease() {
    let redis = Redis::start().await;
    let (near, far) = (connect(&redis).await, connect(&redis).await);
    let mine = lease(LONG);
    let node: NodeId = mine.node.clone();
    let new = NewOperation::new(OperationId::new()).with_lease(mine);
    let record = create(&near, new).await;
    let nothing = near.revoked(&node, Duration::from_millis(1)).await;
    assert!(nothing.unwrap().is_empty());
    let since = Instant::now();
    let outcome = tower_operations::Outcome::Canceled;
    let id = record.operation().id();
    done(far.force_finish(id, record.stamp().unwrap(), outcome).await);
    let revoked_ids = near.revoked(&node, LONG).await.unwrap();
    assert_eq!(revoked_ids, std::slice::from_ref(id));
    assert!(since.elapsed() < SOON);
}

#[tokio::test]
async fn a_release_notifies_other_nodes() {
    let redis = Redis::start().await;
    let (near, far) = (connect(&redis).await, connect(&redis).await);
    let new = NewOperation::new(OperationId::new()).with_lease(lease(LONG));
    let record = create(&far, new).await;
    let released = near.released();
    let changed = timeout(Duration::from_millis(500), near.released()).await;
    assert!(changed.is_err(), "nothing was released");
    let held = LeaseHandle::new(record.operation().id().clone(), record.token());
    far.release(&[held]).await.unwrap();
    timeout(SOON, released)
        .await
        .expect("the node was notified");
    let reclaimed = near.reclaim_released(&lease(LONG), 10).await.unwrap();
    assert_eq!(reclaimed.len(), 1);
}

#[tokio::test]
async fn a_lost_notification_only_delays_a_wait() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let near = RedisStore::connect(&proxy.url()).await.unwrap();
    let far = connect(&redis).await;
    proxy.mute(true);
    let delayed = latency(&near, &far).await;
    assert!(delayed > SOON, "the node was notified after {delayed:?}");
    assert!(delayed < 3 * SOON, "{delayed:?}");
    proxy.mute(false);
    let notified = latency(&near, &far).await;
    assert!(notified < SOON, "{notified:?}");
}

/// A wait reads the operation again once the subscription is restored.
#[tokio::test]
async fn a_broken_subscription_is_restored() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let near = RedisStore::connect(&proxy.url()).await.unwrap();
    let far = connect(&redis).await;
    let record = create(&far, NewOperation::new(OperationId::new())).await;
    let id = record.operation().id().clone();
    let wait = tokio::spawn({
        let (near, id) = (near.clone(), id.clone());
        async move { near.changed(&id, Version::FIRST, LONG).await.unwrap() }
    });
    sleep(Duration::from_millis(50)).await;
    proxy.mute(true);
    let since = Instant::now();
    let ended = done(far.finish(&id, record.token(), success("done"), None).await);
    proxy.mute(false);
    let killed: usize = ask(&redis, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert_eq!(killed, 2);
    assert_eq!(wait.await.unwrap(), Some(ended));
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    let notified = latency(&near, &far).await;
    assert!(notified < SOON, "{notified:?}");
}

#[tokio::test]
async fn the_last_handle_closes_its_connections() {
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    let other = store.clone();
    let clients = async || {
        let list: String = ask(&redis, &["CLIENT", "LIST"]).await;
        list.lines().count() - 1 // without the connection of `ask`
    };
    for _ in 0..10 {
        create(&store, NewOperation::new(OperationId::new())).await;
    }
    assert_eq!(
        clients().await,
        5,
        "four for commands, and one that listens"
    );
    drop(store);
    create(&other, NewOperation::new(OperationId::new())).await;
    drop(other);
    let since = Instant::now();
    while clients().await > 0 {
        assert!(since.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn notification_tasks_restart_after_their_runtime_stops() {
    let (first, second) = (one_worker(), one_worker());
    let redis = second.block_on(Redis::start());
    let orphan = first.block_on(connect(&redis));
    let other = second.block_on(connect(&redis));
    first.block_on(create(&orphan, NewOperation::new(OperationId::new())));
    drop(first);
    second.block_on(async {
        // The connections of the stopped runtime are replaced when they are used.
        for _ in 0..20 {
            let new = NewOperation::new(OperationId::new());
            let _ = orphan.create(new).await;
        }
        for (near, far) in [(&orphan, &other), (&other, &orphan)] {
            // The first wait subscribes.
            let _ = latency(near, far).await;
            let latency = latency(near, far).await;
            assert!(latency < SOON, "{latency:?}");
        }
    });
}

#[test]
fn release_notifications_survive_a_stopped_runtime() {
    let (first, second) = (one_worker(), one_worker());
    let server = second.block_on(Redis::start());
    let orphan = first.block_on(connect(&server));
    let other = second.block_on(connect(&server));
    drop(first);
    second.block_on(async {
        let begun = Instant::now();
        loop {
            // No other call restarts the subscription.
            let released = orphan.released();
            let new = NewOperation::new(OperationId::new()).with_lease(lease(LONG));
            let held = LeaseHandle::new(new.id.clone(), new.token);
            other.create(new).await.unwrap();
            other.release(&[held]).await.unwrap();
            if timeout(Duration::from_millis(100), released).await.is_ok() {
                break;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the release is not notified"
            );
        }
    });
}
