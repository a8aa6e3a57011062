//! A layer that is used by several runtimes, one of which goes: what it had begun for all
//! is begun again on another. With a real clock, since each runtime has one of its own.

use test_support::hooked;

use std::{
    convert::Infallible,
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use hooked::{Call, Hooked, When};
use http::{Request, Response, StatusCode};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, MemoryStore, OperationHandle, OperationId, Operations, Outcome,
    Progress, RecordedResponse, RequestBody, State,
    store::{Lease, LeaseConfig, LeaseHandle, NewOperation, NodeId, Repository, Store, StoreError},
};

const TERM: Duration = Duration::from_millis(400);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn term(node: &'static str) -> LeaseConfig {
    LeaseConfig::new(NodeId::named(node), TERM)
}

/// Accepts a request whose handler hangs, after it has reported once if it is told to.
async fn accept<R>(layer: &AsyncAcceptLayer<R>, reports: bool) -> OperationId
where
    R: Lease<Output = RecordedResponse>,
{
    let hangs = move |operation: OperationHandle| async move {
        if reports {
            operation.progress(Progress::from_percent(1.0));
        }
        pending::<()>().await;
    };
    accept_for(layer, hangs).await
}

/// Accepts a request for this handler.
async fn accept_for<R, F>(
    layer: &AsyncAcceptLayer<R>,
    handler: impl Fn(OperationHandle) -> F + Clone + Send + 'static,
) -> OperationId
where
    R: Lease<Output = RecordedResponse>,
    F: Future<Output = ()> + Send + 'static,
{
    let service = layer.layer(service_fn(
        move |request: Request<RequestBody<BufferedBody>>| {
            let done = handler(OperationHandle::from_extensions(request.extensions()));
            async move {
                done.await;
                Ok::<_, Infallible>(Response::new(BufferedBody::default()))
            }
        },
    ));
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap();
    location.rsplit('/').next().unwrap().parse().unwrap()
}

/// Waits until the operation is run, and with it the heartbeat.
async fn until_running(store: &MemoryStore, id: &OperationId) {
    loop {
        let record = store.get(id).await.unwrap().unwrap();
        if record.operation().state() == State::Running {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Insists on nobody being able to take anything over for five terms.
async fn is_renewed(store: &MemoryStore) {
    is_renewed_for(store, 5 * TERM).await;
}

/// The same for so long.
async fn is_renewed_for(store: &MemoryStore, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        sleep(TERM / 8).await;
        let taken = store.reclaim(&term("another"), 10).await.unwrap();
        assert!(taken.is_empty(), "after {:?}", begun.elapsed());
    }
}

async fn cancel(store: &MemoryStore, id: &OperationId) {
    let record = store.get(id).await.unwrap().unwrap();
    let version = record.version().unwrap();
    let canceled = store.force_finish(id, version, Outcome::Canceled);
    canceled.await.unwrap();
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
        let layer = Operations::new(store.clone()).lease(term("here")).layer();
        let first = runtime();
        // The heartbeat begins here.
        let gone = first.block_on(async {
            let gone = accept(&layer, false).await;
            until_running(&store, &gone).await;
            gone
        });
        let left = elsewhere(async move {
            let id = accept(&layer, reports).await;
            // Then its runtime goes, and with it what it ran.
            elsewhere_drop(first).await;
            let held = store.get(&gone).await.unwrap().unwrap();
            store
                .release(&[tower_operations::store::LeaseHandle {
                    id: gone.clone(),
                    token: held.token(),
                }])
                .await
                .unwrap();
            let taken = store.reclaim(&term("another"), 10).await.unwrap();
            assert_eq!(taken.len(), 1);
            let keeping = tokio::spawn({
                let store = store.clone();
                let held = tower_operations::store::LeaseHandle {
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
    let layer = Operations::new(store.clone()).lease(term("here")).layer();
    for _ in 0..2 {
        let (layer, store) = (layer.clone(), store.clone());
        elsewhere(async move {
            let id = accept(&layer, false).await;
            let begun = Instant::now();
            while begun.elapsed() < 4 * TERM {
                sleep(TERM / 8).await;
                let record = store.get(&id).await.unwrap().unwrap();
                let taken = store.reclaim(&term("another"), 10).await.unwrap();
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

/// What a run waits for while the heartbeat of its node goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Awaits {
    /// Its outcome to be recorded.
    Recording,
    /// A report to be written.
    Reporting,
    /// Its handler, which was told of the end of a drain.
    TidyingUp,
}

#[test]
fn leases_are_renewed_whatever_a_run_waits_for_when_the_runtime_of_the_heartbeat_goes() {
    for awaits in [Awaits::Recording, Awaits::Reporting, Awaits::TidyingUp] {
        let memory = MemoryStore::new();
        let store = Hooked::new(memory.clone(), move |call, when| async move {
            match (awaits, call, when) {
                (Awaits::Recording, Call::Finish, When::Before) => {
                    Err(StoreError::unavailable("it is away"))
                }
                (Awaits::Reporting, Call::Report, When::Before) => pending().await,
                _ => Ok(()),
            }
        });
        let long = Duration::from_secs(60);
        let operations = Operations::new(store).lease(term("here"));
        let drain = operations.drain_handle();
        let layer = operations.layer().cancel_grace(long);
        let first = runtime();
        // The heartbeat begins here.
        let gone = first.block_on(accept(&layer, false));
        let left = elsewhere(async move {
            let id = match awaits {
                Awaits::Recording => accept_for(&layer, async |_| {}).await,
                Awaits::Reporting => accept(&layer, true).await,
                Awaits::TidyingUp => accept(&layer, false).await,
            };
            if awaits == Awaits::TidyingUp {
                tokio::spawn(async move { drain.drain(long).await });
            }
            sleep(TERM / 8).await;
            elsewhere_drop(first).await;
            cancel(&memory, &gone).await;
            is_renewed(&memory).await;
            let record = memory.get(&id).await.unwrap().unwrap();
            assert_eq!(record.operation().state(), State::Running, "{awaits:?}");
        });
        left.join().unwrap();
    }
}

#[test]
fn a_lease_that_is_being_released_is_renewed_when_the_runtime_of_the_heartbeat_goes() {
    let memory = MemoryStore::new();
    let (releasing, released) = mpsc::channel();
    let store = Hooked::new(memory.clone(), move |call, when| {
        let is_away = (call, when) == (Call::Release, When::Before);
        if is_away {
            releasing.send(()).unwrap();
        }
        async move {
            match is_away {
                true => Err(StoreError::unavailable("it is away")),
                false => Ok(()),
            }
        }
    });
    let operations = Operations::new(store).lease(term("here"));
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let layer = layer.rerun_if(|_| true);
    let app = service_fn(async |_: Request<BufferedBody>| {
        Ok::<_, Infallible>(Response::new(BufferedBody::default()))
    });
    let _recovery = operations.recovery().rerun_with(app, 3);
    let first = runtime();
    // The heartbeat begins here.
    let gone = first.block_on(accept(&layer, false));
    let left = elsewhere(async move {
        let id = accept(&layer, false).await;
        until_running(&memory, &id).await;
        tokio::spawn(async move { drain.drain(Duration::ZERO).await });
        while released.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        elsewhere_drop(first).await;
        cancel(&memory, &gone).await;
        // It is tried for a second.
        is_renewed_for(&memory, 2 * TERM).await;
        let record = memory.get(&id).await.unwrap().unwrap();
        assert_eq!(record.operation().state(), State::Running);
    });
    left.join().unwrap();
}

#[test]
fn what_was_taken_over_is_renewed_while_it_is_being_ended_with_and_without_a_heartbeat_before() {
    for is_lost in [true, false] {
        let memory = MemoryStore::new();
        let (ending, ended) = mpsc::channel();
        let looks = Arc::new(AtomicUsize::new(0));
        let store = Hooked::new(memory.clone(), move |call, when| {
            let is_away = match (call, when) {
                (Call::Finish, When::Before) => {
                    ending.send(()).unwrap();
                    true
                }
                // Only the first look finds the store: a later one would renew as well.
                (Call::Get, When::Before) => looks.fetch_add(1, SeqCst) > 0,
                _ => false,
            };
            async move {
                match is_away {
                    true => Err(StoreError::unavailable("it is away")),
                    false => Ok(()),
                }
            }
        });
        let operations = Operations::new(store).lease(term("here"));
        let layer = operations.layer();
        let first = runtime();
        // The heartbeat begins here, if there is one.
        let gone = is_lost.then(|| first.block_on(accept(&layer, false)));
        let left = elsewhere(async move {
            let new = NewOperation::new(OperationId::new()).with_lease(term("dead"));
            let held = LeaseHandle {
                id: new.id.clone(),
                token: new.token,
            };
            memory.create(new).await.unwrap();
            memory.release(&[held]).await.unwrap();
            tokio::spawn(operations.recovery().run());
            while ended.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            elsewhere_drop(first).await;
            if let Some(gone) = gone {
                cancel(&memory, &gone).await;
            }
            // It is tried for a term, and renewed until then.
            is_renewed_for(&memory, TERM + TERM / 3).await;
        });
        left.join().unwrap();
    }
}

#[test]
fn a_runtime_that_is_dropped_with_live_operations_comes_to_an_end() {
    for is_recorded in [false, true] {
        let (blocks, blocked) = mpsc::channel();
        let block = move || {
            blocks.send(()).unwrap();
            // Meanwhile the heartbeat goes.
            thread::sleep(Duration::from_millis(300));
        };
        let in_handler = block.clone();
        let store = Hooked::new(MemoryStore::new(), move |call, when| {
            let block = block.clone();
            async move {
                if (call, when) == (Call::Finish, When::Before) {
                    block();
                    pending::<()>().await;
                }
                Ok(())
            }
        });
        let layer = Operations::new(store).lease(term("here")).layer();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(accept_for(&layer, move |_| {
            let block = in_handler.clone();
            async move {
                // Until it beats.
                sleep(TERM / 8).await;
                if !is_recorded {
                    block();
                    pending::<()>().await;
                }
            }
        }));
        let patience = Duration::from_secs(20);
        blocked.recv_timeout(patience).unwrap();
        let (gone, has_gone) = mpsc::channel();
        thread::spawn(move || {
            drop(runtime);
            gone.send(()).unwrap();
        });
        let went = has_gone.recv_timeout(patience);
        assert!(went.is_ok(), "it hangs; recorded: {is_recorded}");
    }
}
