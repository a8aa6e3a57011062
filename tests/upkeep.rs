//! Maintenance of the store by a recovery, and log events about operations that the
//! store has lost.

use test_support::hooked;
use test_support::said;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use hooked::{Call, Hooked, When};
use http::{Request, Response, StatusCode};
use said::Said;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, MemoryStore, OperationId, Operations, Outcome, RequestBody,
    store::{Health, HealthWarning, Repository, Store, StoreError, Written},
};
use tracing::Level;

const TERM: Duration = Duration::from_secs(30);

/// A store that records the times of its purges.
fn store_with_purge_times() -> (Hooked, Arc<Mutex<Vec<Instant>>>) {
    let purge_times = Arc::<Mutex<Vec<Instant>>>::default();
    let times = Arc::clone(&purge_times);
    let store = Hooked::new(MemoryStore::new(), move |call, when| {
        if (call, when) == (Call::Purge, When::Before) {
            times.lock().unwrap().push(Instant::now());
        }
        std::future::ready(Ok(()))
    });
    (store, purge_times)
}

#[tokio::test(start_paused = true)]
async fn expired_operations_are_deleted_in_batches_with_pauses() {
    let (store, purge_times) = store_with_purge_times();
    let expired = Arc::clone(&store.expired);
    *expired.lock().unwrap() = Some(1200);
    let recovery = Operations::new(store).recovery();
    let stats = recovery.stats();
    tokio::spawn(recovery.run());
    sleep(TERM / 2).await;
    assert_eq!(stats.purged(), 1200);
    let times = std::mem::take(&mut *purge_times.lock().unwrap());
    assert_eq!(times.len(), 3);
    assert!(
        times
            .windows(2)
            .all(|two| two[1] - two[0] >= Duration::from_millis(100))
    );

    // Operations that expire later are deleted once per term.
    *expired.lock().unwrap() = Some(7);
    sleep(10 * TERM).await;
    assert_eq!(stats.purged(), 1207);
    let count = purge_times.lock().unwrap().len();
    assert!((9..=11).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn purges_can_be_disabled_and_stop_where_the_store_needs_none() {
    let (store, purge_times) = store_with_purge_times();
    *store.expired.lock().unwrap() = Some(1200);
    let operations = Operations::new(store);
    tokio::spawn(operations.recovery().without_purge().run());
    sleep(10 * TERM).await;
    assert!(purge_times.lock().unwrap().is_empty());

    let (store, purge_times) = store_with_purge_times();
    tokio::spawn(Operations::new(store).recovery().run());
    sleep(10 * TERM).await;
    assert_eq!(purge_times.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_purge_is_retried_once_per_term_and_logged() {
    let store = Hooked::new(MemoryStore::new(), |call, _| {
        let answer = match call {
            Call::Purge => Err(StoreError::refused("no right to delete")),
            _ => Ok(()),
        };
        std::future::ready(answer)
    });
    *store.expired.lock().unwrap() = Some(1);
    let (log, _guard) = Said::from(Level::WARN);
    let recovery = Operations::new(store.clone()).recovery();
    tokio::spawn(recovery.run());
    sleep(3 * TERM).await;
    let log = log.take();
    assert!((3..=4).contains(&log.len()), "{log:?}");
    assert!(log[0].contains("no right to delete"), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_health_warning_is_logged_once() {
    let store = Hooked::new(MemoryStore::new(), |_, _| std::future::ready(Ok(())));
    let health = Arc::clone(&store.health);
    let set = |warnings| *health.lock().unwrap() = Health::new(warnings);
    let (log, _guard) = Said::from(Level::INFO);
    let recovery = Operations::new(store).recovery();
    let stats = recovery.stats();
    tokio::spawn(recovery.run());
    sleep(3 * TERM).await;
    assert!(stats.health().is_good() && log.take().is_empty());

    let setting = HealthWarning::Setting {
        name: "fsync".into(),
        value: "off".into(),
    };
    set(vec![setting.clone()]);
    sleep(3 * TERM).await;
    let line = "WARN message=store can lose acknowledged writes warning=`fsync` is `off`";
    assert_eq!(log.take(), [line]);
    assert_eq!(stats.health().warnings, std::slice::from_ref(&setting));
    set(vec![setting, HealthWarning::FileRemoved]);
    sleep(3 * TERM).await;
    let new = log.take();
    assert!(new.len() == 1 && new[0].contains("removed"), "{new:?}");
    set(Vec::new());
    sleep(3 * TERM).await;
    let lines = log.take();
    assert!(
        lines.len() == 1 && lines[0].starts_with("INFO"),
        "{lines:?}"
    );
    assert!(stats.health().is_good());
}

/// Accepts a request whose handler waits for `ends`.
async fn accept(store: &Hooked, ends: &Arc<Notify>) -> OperationId {
    let ends = Arc::clone(ends);
    let inner = service_fn(move |_: Request<RequestBody<BufferedBody>>| {
        let ends = Arc::clone(&ends);
        async move {
            ends.notified().await;
            Ok::<_, Infallible>(Response::new(BufferedBody::from("done")))
        }
    });
    let layer = AsyncAcceptLayer::new(store.clone());
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    sleep(Duration::from_millis(10)).await; // the run starts
    let location = response.headers()["location"].to_str().unwrap();
    location.rsplit('/').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_lost_operation_is_logged_as_an_error_with_its_id() {
    // The loss is found by the outcome, or by the next renewal.
    for ends in [true, false] {
        let store = Hooked::new(MemoryStore::new(), |_, _| std::future::ready(Ok(())));
        let (log, _guard) = Said::from(Level::ERROR);
        let end = Arc::new(Notify::new());
        let id = accept(&store, &end).await;
        store.gone.lock().unwrap().insert(id.clone());
        if ends {
            end.notify_one();
        }
        sleep(2 * TERM).await;
        let log = log.take();
        assert_eq!(log.len(), 1, "{log:?}");
        assert!(log[0].contains(&id.to_string()), "{log:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_canceled_and_deleted_operation_is_not_logged_as_an_error() {
    let store = Hooked::new(MemoryStore::new(), |_, _| std::future::ready(Ok(())));
    let (log, _guard) = Said::from(Level::ERROR);
    let end = Arc::new(Notify::new());
    let id = accept(&store, &end).await;
    sleep(TERM).await;
    let record = store.get(&id).await.unwrap().unwrap();
    let canceled = store.force_finish(&id, record.stamp().unwrap(), Outcome::Canceled);
    let Written::Done(record) = canceled.await.unwrap() else {
        panic!("no other writer changes the operation");
    };
    let deleted = store.delete(&id, record.stamp().unwrap()).await.unwrap();
    assert!(matches!(deleted, Written::Done(_)));
    sleep(2 * TERM).await;
    assert!(log.take().is_empty());
}
