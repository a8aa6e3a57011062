//! Notifications between nodes.

use std::{collections::HashSet, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener},
    query, query_scalar,
};
use test_support::runtime::one_worker;
use tokio::time::{Instant, sleep, timeout};
use tower_operations::{
    Outcome,
    store::{
        Lease, LeaseConfig, LeaseHandle, NewOperation, NodeId, Repository, Stamp, Version, Watch,
    },
};
use tower_operations_postgres::PostgresStore;

use crate::{
    common::{STUCK, create, pool, store, success, term},
    server::Postgres,
};

/// Shorter than the interval at which a wait polls.
const SOON: Duration = Duration::from_secs(4);

/// Returns the listening connections by process id and channel name.
async fn listening(pool: &PgPool) -> Vec<(i32, String)> {
    let sql = "SELECT pid, split_part(query, '\"', 2) FROM pg_stat_activity \
               WHERE query LIKE 'LISTEN \"tower_operations_%'";
    sqlx::query_as(sql).fetch_all(pool).await.unwrap()
}

/// Waits until `number` connections listen.
async fn until_listening(pool: &PgPool, number: usize) -> Vec<(i32, String)> {
    let begun = Instant::now();
    loop {
        let found = listening(pool).await;
        if found.len() == number {
            return found;
        }
        assert!(begun.elapsed() < STUCK, "{found:?} listen");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_wakes_a_wait_on_another_node() {
    let server = Postgres::start().await;
    let nodes = [store(&server).await, store(&server).await];
    until_listening(&pool(server.port(), 1), 2).await;
    let (id, token) = create(&nodes[0]).await;
    for (version, number) in [(1, 0), (2, 1)] {
        let waiting = tokio::spawn({
            let (node, id) = (nodes[1].clone(), id.clone());
            async move {
                let since = Version::from_number(version).unwrap();
                timeout(SOON, node.changed(&id, since, Duration::from_secs(60))).await
            }
        });
        sleep(Duration::from_millis(50)).await;
        match number {
            0 => nodes[0].start(&id, token).await.unwrap(),
            _ => nodes[0]
                .finish(&id, token, success("done"), None)
                .await
                .unwrap(),
        };
        let found = waiting
            .await
            .unwrap()
            .expect("the node was notified")
            .unwrap()
            .unwrap();
        assert_eq!(found.version().unwrap().get(), version + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_notified_of_a_revoked_lease() {
    let server = Postgres::start().await;
    let nodes = [store(&server).await, store(&server).await];
    until_listening(&pool(server.port(), 1), 2).await;
    let node = NodeId::named("node \"1\"");
    let minute = Duration::from_secs(60);
    nodes[0].revoked(&node, Duration::ZERO).await.unwrap();
    let new = NewOperation::new(tower_operations::OperationId::new())
        .with_lease(LeaseConfig::new(node.clone(), minute));
    let id = new.id.clone();
    let first = Stamp::new(Version::FIRST, new.token);
    nodes[0].create(new).await.unwrap();
    nodes[1]
        .force_finish(&id, first, Outcome::Canceled)
        .await
        .unwrap();
    let revoked_ids = timeout(SOON, nodes[0].revoked(&node, minute)).await;
    assert_eq!(revoked_ids.expect("the node was notified").unwrap(), [id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_notifies_other_nodes() {
    let server = Postgres::start().await;
    let nodes = [store(&server).await, store(&server).await];
    until_listening(&pool(server.port(), 1), 2).await;
    let lease = LeaseConfig::new(NodeId::named("node"), Duration::from_secs(60));
    let new = NewOperation::new(tower_operations::OperationId::new()).with_lease(lease.clone());
    let held = LeaseHandle::new(new.id.clone(), new.token);
    nodes[1].create(new).await.unwrap();
    let released = nodes[0].released();
    nodes[1].release(&[held]).await.unwrap();
    timeout(SOON, released)
        .await
        .expect("the node was notified");
    let reclaimed = nodes[0].reclaim_released(&lease, 10).await.unwrap();
    assert_eq!(reclaimed.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_changes_share_notifications() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let watching = pool(server.port(), 2);
    let channel = until_listening(&watching, 1).await.remove(0).1;
    let mut listener = PgListener::connect_with(&watching).await.unwrap();
    listener.listen(&channel).await.unwrap();
    let mut ids = HashSet::new();
    for _ in 0..50 {
        let ten = start_ten(&store).await;
        ids.extend(ten);
    }
    let mut payloads = 0;
    while !ids.is_empty() {
        let notification = timeout(STUCK, listener.recv())
            .await
            .expect("every change is notified");
        let notification = notification.unwrap();
        assert!(notification.payload().len() < 8_000);
        payloads += 1;
        ids.retain(|id: &String| !notification.payload().contains(id.as_str()));
    }
    assert!(payloads <= 250, "{payloads} notifications of 500 changes");
}

/// Creates and starts ten operations concurrently, and returns their ids.
async fn start_ten(store: &PostgresStore) -> Vec<String> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let store = store.clone();
        tasks.spawn(async move {
            let (id, token) = create(&store).await;
            store.start(&id, token).await.unwrap();
            id.to_string()
        });
    }
    tasks.join_all().await
}

/// The node cannot open a listening connection.
#[tokio::test]
async fn a_lost_notification_only_delays_a_wait() {
    let server = Postgres::start().await;
    let nowhere = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(1);
    let unnotified = PostgresStore::builder(pool(server.port(), 2)).listen_with(nowhere);
    let unnotified = unnotified.connect().await.unwrap();
    let other = store(&server).await;
    let (id, token) = create(&other).await;
    let since = Instant::now();
    let minute = Duration::from_secs(60);
    let (found, _) = tokio::join!(unnotified.changed(&id, Version::FIRST, minute), async {
        sleep(Duration::from_millis(50)).await;
        other.start(&id, token).await.unwrap()
    });
    assert_eq!(found.unwrap().unwrap().version().unwrap().get(), 2);
    assert!(since.elapsed() < STUCK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnected_listener_reconnects() {
    let mut server = Postgres::start().await;
    let nodes = [store(&server).await, store(&server).await];
    let watching = pool(server.port(), 1);
    for kills_the_server in [false, true] {
        let listeners = until_listening(&watching, 2).await;
        let (id, token) = create(&nodes[0]).await;
        let waiting = tokio::spawn({
            let (node, id) = (nodes[1].clone(), id.clone());
            async move {
                node.changed(&id, Version::FIRST, Duration::from_secs(60))
                    .await
            }
        });
        sleep(Duration::from_millis(50)).await;
        if kills_the_server {
            server.kill().await;
            server.run().await;
        } else {
            for (pid, _) in &listeners {
                query("SELECT pg_terminate_backend($1)")
                    .bind(pid)
                    .execute(&watching)
                    .await
                    .unwrap();
            }
        }
        // The change may be committed before or after the listeners reconnect.
        while let Err(error) = nodes[0].start(&id, token).await {
            assert!(error.is_transient());
        }
        let found = timeout(STUCK, waiting)
            .await
            .expect("the node was notified")
            .unwrap();
        // The wait may have polled while the server was down.
        if let Ok(found) = found {
            assert_eq!(found.unwrap().version().unwrap().get(), 2);
        } else {
            assert!(kills_the_server);
        }
        let again = loop {
            // The first connection of the pool may have died with the server.
            if query_scalar::<_, i32>("SELECT 1")
                .fetch_one(&watching)
                .await
                .is_ok()
            {
                break until_listening(&watching, 2).await;
            }
        };
        assert!(again.iter().all(|new| !listeners.contains(new)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_handle_sends_pending_notifications_and_stops_its_tasks() {
    let server = Postgres::start().await;
    let watching = pool(server.port(), 2);
    let (leaving, staying) = (store(&server).await, store(&server).await);
    until_listening(&watching, 2).await;
    let (id, _) = create(&leaving).await;
    let waiting = tokio::spawn(async move {
        let minute = Duration::from_secs(60);
        timeout(SOON, staying.changed(&id, Version::FIRST, minute))
            .await
            .map(|found| (found, staying))
    });
    sleep(Duration::from_millis(50)).await;
    let clone = leaving.clone();
    drop(leaving);
    until_listening(&watching, 2).await;
    let abandoned = "UPDATE operations SET lease_until = now() - interval '1 hour'";
    query(abandoned).execute(&watching).await.unwrap();
    let reclaimed = clone.reclaim(&term(60), 1).await.unwrap();
    assert_eq!(reclaimed.len(), 1);
    drop((clone, reclaimed));
    let (found, staying) = waiting.await.unwrap().expect("the node was notified");
    assert_eq!(found.unwrap().unwrap().version().unwrap().get(), 2);
    until_listening(&watching, 1).await;
    drop(staying);
    until_listening(&watching, 0).await;
}

#[test]
fn notification_tasks_restart_after_their_runtime_stops() {
    let (first, second) = (one_worker(), one_worker());
    let server = second.block_on(Postgres::start());
    let orphan = first.block_on(store(&server));
    let other = second.block_on(store(&server));
    first.block_on(create(&orphan));
    drop(first);
    second.block_on(async {
        let node = [&orphan, &other];
        // The first store receives and sends notifications.
        for (near, far) in [(0, 1), (1, 0)] {
            let begun = Instant::now();
            // Each connection of the stopped runtime fails one statement.
            let (id, token) = loop {
                let new = NewOperation::new(tower_operations::OperationId::new());
                let id = new.id.clone();
                match node[far].create(new).await {
                    Ok(tower_operations::store::Created::New(record)) => {
                        break (id, record.token());
                    }
                    other => assert!(begun.elapsed() < STUCK, "{other:?}"),
                }
            };
            let far = node[far].clone();
            let ending = tokio::spawn({
                let id = id.clone();
                async move {
                    sleep(Duration::from_secs(1)).await;
                    far.finish(&id, token, success("done"), None).await.unwrap();
                }
            });
            let since = Version::from_number(1).unwrap();
            let changed = node[near].changed(&id, since, Duration::from_secs(60));
            let found = timeout(SOON, changed).await.expect("the node was notified");
            assert!(found.unwrap().unwrap().operation().state().is_terminal());
            ending.await.unwrap();
        }
    });
}

#[test]
fn release_notifications_survive_a_stopped_runtime() {
    let (first, second) = (one_worker(), one_worker());
    let server = second.block_on(Postgres::start());
    let orphan = first.block_on(store(&server));
    let other = second.block_on(store(&server));
    drop(first);
    second.block_on(async {
        let begun = Instant::now();
        loop {
            // No other call restarts the listener.
            let released = orphan.released();
            let new = NewOperation::new(tower_operations::OperationId::new()).with_lease(
                LeaseConfig::new(NodeId::named("node"), Duration::from_secs(60)),
            );
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
