//! Log events of failing stores.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use http_body_util::BodyExt;
use tokio::time::sleep;
use tower_operations::{
    OperationHandle, Operations, Progress, QueuedRequest,
    store::{LeaseConfig, List, ListQuery, NewOperation, NodeId, Repository, Store, StoreError},
};

use super::{
    hooked::{Call, Hooked, When},
    *,
};

/// A store whose calls of these kinds fail while the flag is set: with `is_lasting` by
/// a refusal, else by a lost connection.
fn breakable_store(calls: &'static [Call], is_lasting: bool) -> (Hooked, Arc<AtomicBool>) {
    let is_broken = Arc::new(AtomicBool::new(false));
    let store = Hooked::new(MemoryStore::new(), {
        let is_broken = Arc::clone(&is_broken);
        move |call, when| {
            let fails = when == When::Before && calls.contains(&call) && is_broken.load(SeqCst);
            std::future::ready(match (fails, is_lasting) {
                (false, _) => Ok(()),
                (true, true) => Err(StoreError::refused("this record is damaged")),
                (true, false) => Err(StoreError::unavailable("no connection")),
            })
        }
    });
    (store, is_broken)
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_store_at_one_operation_is_logged_with_its_id() {
    use Call::{Changed, Delete, ForceFinish, Get};
    let log = EventLog::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    for (calls, lines) in [
        (
            &[Get][..],
            &[
                "GET /ID",
                "GET /ID/result",
                "GET /ID/events",
                "DELETE /ID",
                "POST /jobs/ID",
            ][..],
        ),
        (
            &[Changed],
            &["GET /ID?wait=5", "GET /ID/result?wait=5", "GET /ID/events"],
        ),
        (&[ForceFinish], &["DELETE /ID"]),
        (&[Delete], &["DELETE /ID"]),
    ] {
        let (store, is_broken) = breakable_store(calls, true);
        let id = OperationId::new();
        store.create(NewOperation::new(id.clone())).await.unwrap();
        let polls = PollService::new(store.clone());
        let mut etag = None;
        if calls == [Delete] {
            let token = store.inner.get(&id).await.unwrap().unwrap().token();
            let outcome = tower_operations::Outcome::Succeeded(None);
            store.finish(&id, token, outcome, None).await.unwrap();
            let request = Request::get(format!("/{id}")).body(()).unwrap();
            let polled = polls.clone().oneshot(request).await.unwrap();
            etag = Some(polled.headers()["etag"].clone());
        }
        is_broken.store(true, SeqCst);
        for line in lines {
            let line = line.replace("ID", &id.to_string());
            let (method, uri) = line.split_once(' ').unwrap();
            let mut request = Request::builder().method(method).uri(uri);
            if let Some(etag) = &etag {
                request = request.header("if-match", etag);
            }
            let answer = polls.clone().oneshot(request.body(()).unwrap());
            let answer = answer.await.unwrap();
            if !(calls == [Changed] && uri.ends_with("events")) {
                assert_eq!(answer.status(), 503, "{calls:?} {line}");
            }
            answer.into_body().collect().await.unwrap();
            let logged = events_with_id(&log, &id);
            let is_named = |line: &String| {
                (line.starts_with("ERROR operation not read, store unavailable id=ID ")
                    || line.starts_with("WARN event stream ended, store unavailable id=ID "))
                    && line.contains("this record is damaged")
            };
            assert_eq!(logged.len(), 1, "{calls:?} {line}: {logged:?}");
            assert!(is_named(&logged[0]), "{calls:?} {line}: {logged:?}");
        }
    }
}

/// Takes the events that have the id of this operation.
fn events_with_id(log: &EventLog, id: &OperationId) -> Vec<String> {
    let mut lines = log.events_of(id);
    lines.retain(|line| line.contains("id=ID"));
    lines
}

/// Starts a handler that reports every second, on a layer with a short lease.
async fn start_reporting(store: &Hooked) -> (AsyncAcceptLayer<Hooked>, OperationId) {
    let layer = Operations::new(store.clone())
        .lease(LeaseConfig::new(
            NodeId::named("n"),
            Duration::from_secs(30),
        ))
        .layer();
    let id = accept_with(&layer, |request| async move {
        let operation = OperationHandle::from_extensions(request.extensions());
        for page in 1..1_000 {
            sleep(Duration::from_secs(1)).await;
            operation.progress(Progress::from_count(page, 1_000));
        }
        Ok(Response::default())
    })
    .await;
    (layer, id)
}

const UNREADABLE: &str = "ERROR running operation not read id=ID ";

#[tokio::test(start_paused = true)]
async fn unwritable_progress_is_a_warning_once_per_outage() {
    let log = EventLog::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let (store, is_broken) = breakable_store(&[Call::Report], false);
    let (_layer, id) = start_reporting(&store).await;
    for _ in 0..2 {
        sleep(Duration::from_secs(5)).await;
        assert_eq!(events_with_id(&log, &id), [] as [String; 0]);
        is_broken.store(true, SeqCst);
        sleep(Duration::from_secs(20)).await;
        let lines = events_with_id(&log, &id);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("WARN progress not written id=ID "),
            "{lines:?}"
        );
        is_broken.store(false, SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_damaged_during_a_run_is_an_error_at_once() {
    let log = EventLog::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _default = tracing::subscriber::set_default(subscriber);

    // A report finds the damage.
    let (store, is_broken) = breakable_store(&[Call::Report], true);
    let (_layer, id) = start_reporting(&store).await;
    sleep(Duration::from_secs(5)).await;
    is_broken.store(true, SeqCst);
    sleep(Duration::from_secs(5)).await;
    let lines = events_with_id(&log, &id);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(UNREADABLE), "{lines:?}");

    // A renewal finds the damage.
    let (store, _) = breakable_store(&[], true);
    let (_layer, id) = start_reporting(&store).await;
    store.unrenewable.lock().unwrap().insert(id.clone());
    sleep(Duration::from_secs(15)).await;
    let lines = events_with_id(&log, &id);
    assert!(!lines.is_empty());
    for line in lines {
        assert!(line.starts_with(UNREADABLE), "{line}");
    }

    // A renewal finds the lease lost, and a read finds the damage.
    let (store, is_broken) = breakable_store(&[Call::Get], true);
    let (_layer, id) = start_reporting(&store).await;
    is_broken.store(true, SeqCst);
    store.gone.lock().unwrap().insert(id.clone());
    sleep(Duration::from_secs(60)).await;
    let lines = events_with_id(&log, &id);
    let (dropped, unreadable) = ("INFO lease lost, run dropped", UNREADABLE);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(dropped), "{lines:?}");
    assert!(lines[1].starts_with(unreadable), "{lines:?}");

    // The write of the outcome finds the damage.
    let (store, is_broken) = breakable_store(&[Call::Finish], true);
    let layer = AsyncAcceptLayer::new(store.clone());
    let id = accept_with(&layer, |_| async {
        sleep(Duration::from_secs(1)).await;
        Ok(Response::default())
    })
    .await;
    is_broken.store(true, SeqCst);
    sleep(Duration::from_millis(1_010)).await;
    let lines = events_with_id(&log, &id);
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("ERROR") && line.contains("id=ID")),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_operation_of_a_refused_request_is_logged() {
    let log = EventLog::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    // The create takes effect and is never answered.
    let store = Hooked::new(MemoryStore::new(), |call, when| async move {
        match (call, when) {
            (Call::Create, When::After) => std::future::pending().await,
            _ => Ok(()),
        }
    });
    let layer = AsyncAcceptLayer::new(store.clone());
    let layer = layer.create_timeout(std::time::Duration::from_secs(1));
    let service = layer.layer(service_fn(|_: Request<RequestBody<BufferedBody>>| async {
        Ok::<_, Infallible>(Response::new(BufferedBody::default()))
    }));
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let refused = service.oneshot(request).await.unwrap();
    assert_eq!(refused.status(), 503);
    sleep(std::time::Duration::from_secs(1)).await;
    let page = store.inner.list(&ListQuery::new(None, 2)).await.unwrap();
    let id = page.records[0].operation().id();
    let lines = log.events_of(id);
    let end = "WARN operation failed id=ID state=failed attempt=1 duration \
               problem=\"urn:tower-operations:interrupted\"";
    assert!(lines.iter().any(|line| line == end), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_undispatched_operation_is_logged() {
    let log = EventLog::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let store = MemoryStore::new();
    let failing_dispatch =
        |_: QueuedRequest| async { Err::<(), _>(std::io::Error::other("no queue")) };
    let layer = Operations::dispatching(store.clone(), failing_dispatch).layer();
    let service = layer.layer(service_fn(|_: Request<RequestBody<BufferedBody>>| async {
        Ok::<_, Infallible>(Response::new(BufferedBody::default()))
    }));
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let refused = service.oneshot(request).await.unwrap();
    assert_eq!(refused.status(), 503);
    let page = store.list(&ListQuery::new(None, 2)).await.unwrap();
    let lines = log.events_of(page.records[0].operation().id());
    let end = "WARN operation failed id=ID state=failed attempt=0 duration \
               problem=\"urn:tower-operations:not-dispatched\"";
    assert!(lines.iter().any(|line| line == end), "{lines:?}");
}
