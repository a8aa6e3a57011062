//! Law 5 across nodes: changes are told, and what is not told costs time only.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tower_operations::{
    OperationId,
    store::{Lease, LeaseHandle, NewOperation, NodeId, Repository, Version, Watch},
};
use tower_operations_redis::RedisStore;

use super::{ask, connect, create, done, lease, proxy::Proxy, server::Redis, success};

const LONG: Duration = Duration::from_secs(60);

/// Less than it takes to hear of a change without being told.
const SOON: Duration = Duration::from_secs(3);

/// How long it takes until one node hears of what another does.
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
async fn other_nodes_hear_of_a_change_at_once() {
    let redis = Redis::start().await;
    let (near, far) = (connect(&redis).await, connect(&redis).await);
    for _ in 0..5 {
        let latency = latency(&near, &far).await;
        assert!(latency < SOON, "{latency:?}");
    }
}

#[tokio::test]
async fn a_node_whose_operation_was_ended_from_outside_is_told() {
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
    done(
        far.force_finish(id, record.version().unwrap(), outcome)
            .await,
    );
    let recalled = near.revoked(&node, LONG).await.unwrap();
    assert_eq!(recalled, std::slice::from_ref(id));
    assert!(since.elapsed() < SOON);
}

#[tokio::test]
async fn other_nodes_hear_of_a_release_at_once() {
    let redis = Redis::start().await;
    let (near, far) = (connect(&redis).await, connect(&redis).await);
    let new = NewOperation::new(OperationId::new()).with_lease(lease(LONG));
    let record = create(&far, new).await;
    let released = near.released();
    let changed = timeout(Duration::from_millis(500), near.released()).await;
    assert!(changed.is_err(), "nothing was released");
    let held = LeaseHandle::new(record.operation().id().clone(), record.token());
    far.release(&[held]).await.unwrap();
    timeout(SOON, released).await.expect("it was told");
    let taken = near.reclaim_released(&lease(LONG), 10).await.unwrap();
    assert_eq!(taken.len(), 1);
}

#[tokio::test]
async fn a_notice_that_is_lost_costs_time_only() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let near = RedisStore::connect(&proxy.url()).await.unwrap();
    let far = connect(&redis).await;
    proxy.mute(true);
    let lost = latency(&near, &far).await;
    assert!(lost > SOON, "it was told after {lost:?}");
    assert!(lost < 3 * SOON, "{lost:?}");
    proxy.mute(false);
    let told = latency(&near, &far).await;
    assert!(told < SOON, "{told:?}");
}

/// Whoever waits reads again when the subscription is there again.
#[tokio::test]
async fn a_subscription_that_breaks_is_made_again() {
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
    let told = latency(&near, &far).await;
    assert!(told < SOON, "{told:?}");
}

#[tokio::test]
async fn nothing_is_left_when_the_last_handle_is_dropped() {
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    let other = store.clone();
    let clients = async || {
        let list: String = ask(&redis, &["CLIENT", "LIST"]).await;
        list.lines().count() - 1 // but for who asks
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
fn what_tells_and_hears_is_begun_again_once_its_runtime_has_gone() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let redis = second.block_on(Redis::start());
    let orphan = first.block_on(connect(&redis));
    let other = second.block_on(connect(&redis));
    first.block_on(create(&orphan, NewOperation::new(OperationId::new())));
    drop(first);
    second.block_on(async {
        // Its connections went with the runtime, and are made again when they are used.
        for _ in 0..20 {
            let new = NewOperation::new(OperationId::new());
            let _ = orphan.create(new).await;
        }
        for (near, far) in [(&orphan, &other), (&other, &orphan)] {
            // It subscribes when somebody begins to wait.
            let _ = latency(near, far).await;
            let latency = latency(near, far).await;
            assert!(latency < SOON, "{latency:?}");
        }
    });
}

#[test]
fn a_release_is_heard_of_once_the_runtime_that_heard_before_has_gone() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let server = second.block_on(Redis::start());
    let orphan = first.block_on(connect(&server));
    let other = second.block_on(connect(&server));
    drop(first);
    second.block_on(async {
        let begun = Instant::now();
        loop {
            // Nothing else is asked of it.
            let released = orphan.released();
            let new = NewOperation::new(OperationId::new()).with_lease(lease(LONG));
            let held = LeaseHandle::new(new.id.clone(), new.token);
            other.create(new).await.unwrap();
            other.release(&[held]).await.unwrap();
            if timeout(Duration::from_millis(100), released).await.is_ok() {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "it is not heard");
        }
    });
}
