//! What a recovery does for the store itself, and what is told of operations that the
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

/// A store that says when it was asked to delete what has expired.
fn purged_at() -> (Hooked, Arc<Mutex<Vec<Instant>>>) {
    let asked = Arc::<Mutex<Vec<Instant>>>::default();
    let times = Arc::clone(&asked);
    let store = Hooked::new(MemoryStore::new(), move |call, when| {
        if (call, when) == (Call::Purge, When::Before) {
            times.lock().unwrap().push(Instant::now());
        }
        std::future::ready(Ok(()))
    });
    (store, asked)
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_deleted_in_batches_with_a_pause_after_each() {
    let (store, asked) = purged_at();
    let expired = Arc::clone(&store.expired);
    *expired.lock().unwrap() = Some(1200);
    let recovery = Operations::new(store).recovery();
    let stats = recovery.stats();
    tokio::spawn(recovery.run());
    sleep(TERM / 2).await;
    assert_eq!(stats.purged(), 1200);
    let times = std::mem::take(&mut *asked.lock().unwrap());
    assert_eq!(times.len(), 3);
    assert!(
        times
            .windows(2)
            .all(|two| two[1] - two[0] >= Duration::from_millis(100))
    );

    // And what expires later, once a term.
    *expired.lock().unwrap() = Some(7);
    sleep(10 * TERM).await;
    assert_eq!(stats.purged(), 1207);
    let asked = asked.lock().unwrap().len();
    assert!((9..=11).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_where_that_is_switched_off_and_nobody_is_asked_again_in_vain() {
    let (store, asked) = purged_at();
    *store.expired.lock().unwrap() = Some(1200);
    let operations = Operations::new(store);
    tokio::spawn(operations.recovery().without_purge().run());
    sleep(10 * TERM).await;
    assert!(asked.lock().unwrap().is_empty());

    let (store, asked) = purged_at();
    tokio::spawn(Operations::new(store).recovery().run());
    sleep(10 * TERM).await;
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_delete_is_asked_again_and_still_recovered_from() {
    let store = Hooked::new(MemoryStore::new(), |call, _| {
        let answer = match call {
            Call::Purge => Err(StoreError::refused("no right to delete")),
            _ => Ok(()),
        };
        std::future::ready(answer)
    });
    *store.expired.lock().unwrap() = Some(1);
    let (said, _guard) = Said::from(Level::WARN);
    let recovery = Operations::new(store.clone()).recovery();
    tokio::spawn(recovery.run());
    sleep(3 * TERM).await;
    let said = said.take();
    assert!((3..=4).contains(&said.len()), "{said:?}");
    assert!(said[0].contains("no right to delete"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_new_against_the_store_is_warned_of_once() {
    let store = Hooked::new(MemoryStore::new(), |_, _| std::future::ready(Ok(())));
    let health = Arc::clone(&store.health);
    let set = |warnings| *health.lock().unwrap() = Health::new(warnings);
    let (said, _guard) = Said::from(Level::INFO);
    let recovery = Operations::new(store).recovery();
    let stats = recovery.stats();
    tokio::spawn(recovery.run());
    sleep(3 * TERM).await;
    assert!(stats.health().is_good() && said.take().is_empty());

    let setting = HealthWarning::Setting {
        name: "fsync".into(),
        value: "off".into(),
    };
    set(vec![setting.clone()]);
    sleep(3 * TERM).await;
    let line = "WARN message=what the store acknowledges can be lost warning=`fsync` is `off`";
    assert_eq!(said.take(), [line]);
    assert_eq!(stats.health().warnings, std::slice::from_ref(&setting));
    set(vec![setting, HealthWarning::FileRemoved]);
    sleep(3 * TERM).await;
    let new = said.take();
    assert!(new.len() == 1 && new[0].contains("removed"), "{new:?}");
    set(Vec::new());
    sleep(3 * TERM).await;
    let again = said.take();
    assert!(
        again.len() == 1 && again[0].starts_with("INFO"),
        "{again:?}"
    );
    assert!(stats.health().is_good());
}

/// An application on this store whose handler waits to be told to end.
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
    sleep(Duration::from_millis(10)).await; // it begins
    let location = response.headers()["location"].to_str().unwrap();
    location.rsplit('/').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_the_store_has_lost_is_an_error_with_its_id() {
    // By its outcome, and by the next renewal.
    for ends in [true, false] {
        let store = Hooked::new(MemoryStore::new(), |_, _| std::future::ready(Ok(())));
        let (said, _guard) = Said::from(Level::ERROR);
        let end = Arc::new(Notify::new());
        let id = accept(&store, &end).await;
        store.gone.lock().unwrap().insert(id.clone());
        if ends {
            end.notify_one();
        }
        sleep(2 * TERM).await;
        let said = said.take();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(&id.to_string()), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_was_canceled_and_deleted_is_no_error() {
    let store = Hooked::new(MemoryStore::new(), |_, _| std::future::ready(Ok(())));
    let (said, _guard) = Said::from(Level::ERROR);
    let end = Arc::new(Notify::new());
    let id = accept(&store, &end).await;
    sleep(TERM).await;
    let record = store.get(&id).await.unwrap().unwrap();
    let canceled = store.force_finish(&id, record.version().unwrap(), Outcome::Canceled);
    let Written::Done(record) = canceled.await.unwrap() else {
        panic!("nobody else writes");
    };
    let forgotten = store.delete(&id, record.version().unwrap()).await.unwrap();
    assert!(matches!(forgotten, Written::Done(_)));
    sleep(2 * TERM).await;
    assert!(said.take().is_empty());
}
