//! A layer that is used by several runtimes, one of which goes: what it had begun for all
//! is begun again on another. With a real clock, since each runtime has one of its own.

use std::{convert::Infallible, future::Future, thread, time::Duration};

use http::{Request, Response, StatusCode};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, MemoryStore, OperationHandle, OperationId, Progress, RequestBody, State,
    WholeBody,
    store::{Lease, LeaseTerm, NodeId, Store},
};

const TERM: Duration = Duration::from_millis(400);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn term(node: &'static str) -> LeaseTerm {
    LeaseTerm {
        node: NodeId::named(node),
        term: TERM,
    }
}

/// Accepts a request whose handler hangs, after it has reported once if it is told to.
async fn accept(layer: &AsyncAcceptLayer<MemoryStore>, reports: bool) -> OperationId {
    let service = layer.layer(service_fn(
        move |request: Request<RequestBody<WholeBody>>| async move {
            let operation = OperationHandle::of(request.extensions());
            if reports {
                operation.progress(Progress::percent(1.0));
            }
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(Response::new(WholeBody::default()))
        },
    ));
    let request = Request::post("/").body(WholeBody::default()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap();
    location.rsplit('/').next().unwrap().parse().unwrap()
}

/// Insists on nobody being able to take anything over for five terms.
async fn is_renewed(store: &MemoryStore) {
    let begun = Instant::now();
    while begun.elapsed() < 5 * TERM {
        sleep(TERM / 8).await;
        let taken = store.take_over(&term("another"), 10).await.unwrap();
        assert!(taken.is_empty(), "after {:?}", begun.elapsed());
    }
}

/// In a thread of its own, as one runtime cannot be dropped within another.
fn elsewhere<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::spawn(move || {
        let runtime = runtime();
        let output = runtime.block_on(work);
        drop(runtime);
        output
    })
}

#[test]
fn leases_are_renewed_by_whichever_runtime_is_left() {
    for reports in [false, true] {
        let store = MemoryStore::new();
        let layer = AsyncAcceptLayer::new(store.clone()).lease(term("here"));
        let first = runtime();
        // The heartbeat begins here.
        let gone = first.block_on(accept(&layer, false));
        let left = elsewhere(async move {
            let id = accept(&layer, reports).await;
            // Then its runtime goes, and with it what it ran.
            elsewhere_drop(first).await;
            let held = store.get(&gone).await.unwrap().unwrap();
            store
                .release(&[tower_operations::store::Held {
                    id: gone.clone(),
                    token: held.token(),
                }])
                .await
                .unwrap();
            let taken = store.take_over(&term("another"), 10).await.unwrap();
            assert_eq!(taken.len(), 1);
            let keeping = tokio::spawn({
                let store = store.clone();
                let held = tower_operations::store::Held {
                    id: gone,
                    token: taken[0].record.token(),
                };
                async move {
                    loop {
                        let another = term("another");
                        store
                            .renew(&another, std::slice::from_ref(&held))
                            .await
                            .unwrap();
                        sleep(TERM / 8).await;
                    }
                }
            });
            is_renewed(&store).await;
            keeping.abort();
            let record = store.get(&id).await.unwrap().unwrap();
            assert_eq!(record.operation().state(), State::Running);
            // Nor is there anything in the way of a later one.
            accept(&layer, reports).await;
            store
        });
        left.join().unwrap();
    }
}

async fn elsewhere_drop(runtime: Runtime) {
    tokio::task::spawn_blocking(move || drop(runtime))
        .await
        .unwrap();
}

#[test]
fn the_next_of_several_runtimes_renews_its_leases_after_each_of_them_has_gone() {
    let store = MemoryStore::new();
    let layer = AsyncAcceptLayer::new(store.clone()).lease(term("here"));
    for _ in 0..2 {
        let (layer, store) = (layer.clone(), store.clone());
        elsewhere(async move {
            let id = accept(&layer, false).await;
            let begun = Instant::now();
            while begun.elapsed() < 4 * TERM {
                sleep(TERM / 8).await;
                let record = store.get(&id).await.unwrap().unwrap();
                let taken = store.take_over(&term("another"), 10).await.unwrap();
                let is_taken = taken
                    .iter()
                    .any(|taken| taken.record.operation().id() == record.operation().id());
                assert!(!is_taken, "after {:?}", begun.elapsed());
            }
        })
        .join()
        .unwrap();
    }
}
