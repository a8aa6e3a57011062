//! A layer used by several runtimes, one of which is dropped: the background tasks of
//! the layer restart on another one. The clock is real, as each runtime has its own.

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

/// Accepts a request whose handler hangs. With `reports` the handler reports once before.
async fn accept<R>(layer: &AsyncAcceptLayer<R>, reports: bool) -> OperationId
where
    R: Lease<Output = RecordedResponse>,
{
    let hang = move |operation: OperationHandle| async move {
        if reports {
            operation.progress(Progress::from_percent(1.0));
        }
        pending::<()>().await;
    };
    accept_for(layer, hang).await
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
            let run = handler(OperationHandle::from_extensions(request.extensions()));
            async move {
                run.await;
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

/// Waits until the operation runs, and with it the heartbeat.
async fn wait_until_running(store: &MemoryStore, id: &OperationId) {
    loop {
        let record = store.get(id).await.unwrap().unwrap();
        if record.operation().state() == State::Running {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Asserts that nothing can be reclaimed for five terms.
async fn assert_renewed(store: &MemoryStore) {
    assert_renewed_for(store, 5 * TERM).await;
}

/// Asserts that nothing can be reclaimed for `time`.
async fn assert_renewed_for(store: &MemoryStore, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        sleep(TERM / 8).await;
        let reclaimed = store.reclaim(&term("another"), 10).await.unwrap();
        assert!(reclaimed.is_empty(), "after {:?}", start.elapsed());
    }
}

async fn cancel(store: &MemoryStore, id: &OperationId) {
    let record = store.get(id).await.unwrap().unwrap();
    let stamp = record.stamp().unwrap();
    let canceled = store.force_finish(id, stamp, Outcome::Canceled);
    canceled.await.unwrap();
}

/// Runs `work` in a thread of its own, as one runtime cannot be dropped within another.
fn spawn_thread<T: Send + 'static>(
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
fn leases_are_renewed_by_the_remaining_runtime() {
    for reports in [false, true] {
        let store = MemoryStore::new();
        let layer = Operations::new(store.clone()).lease(term("here")).layer();
        let first = runtime();
        // The heartbeat starts on this runtime.
        let first_id = first.block_on(async {
            let first_id = accept(&layer, false).await;
            wait_until_running(&store, &first_id).await;
            first_id
        });
        let second = spawn_thread(async move {
            let id = accept(&layer, reports).await;
            // The first runtime is dropped, and with it what it ran.
            drop_runtime(first).await;
            let record = store.get(&first_id).await.unwrap().unwrap();
            store
                .release(&[tower_operations::store::LeaseHandle {
                    id: first_id.clone(),
                    token: record.token(),
                }])
                .await
                .unwrap();
            let reclaimed = store.reclaim(&term("another"), 10).await.unwrap();
            assert_eq!(reclaimed.len(), 1);
            let renewal_task = tokio::spawn({
                let store = store.clone();
                let handle = tower_operations::store::LeaseHandle {
                    id: first_id,
                    token: reclaimed[0].record.token(),
                };
                async move {
                    loop {
                        let another = term("another");
                        store
                            .renew(&another, std::slice::from_ref(&handle))
                            .await
                            .unwrap();
                        sleep(TERM / 8).await;
                    }
                }
            });
            assert_renewed(&store).await;
            renewal_task.abort();
            let record = store.get(&id).await.unwrap().unwrap();
            assert_eq!(record.operation().state(), State::Running);
            // A later operation is accepted too.
            accept(&layer, reports).await;
            store
        });
        second.join().unwrap();
    }
}

async fn drop_runtime(runtime: Runtime) {
    tokio::task::spawn_blocking(move || drop(runtime))
        .await
        .unwrap();
}

#[test]
fn leases_are_renewed_by_each_of_several_runtimes_in_turn() {
    let store = MemoryStore::new();
    let layer = Operations::new(store.clone()).lease(term("here")).layer();
    for _ in 0..2 {
        let (layer, store) = (layer.clone(), store.clone());
        spawn_thread(async move {
            let id = accept(&layer, false).await;
            let start = Instant::now();
            while start.elapsed() < 4 * TERM {
                sleep(TERM / 8).await;
                let record = store.get(&id).await.unwrap().unwrap();
                let reclaimed = store.reclaim(&term("another"), 10).await.unwrap();
                let is_reclaimed = reclaimed
                    .iter()
                    .any(|reclaimed| reclaimed.record.operation().id() == record.operation().id());
                assert!(!is_reclaimed, "after {:?}", start.elapsed());
            }
        })
        .join()
        .unwrap();
    }
}

/// The thing a run waits for while the runtime of the heartbeat is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum WaitsFor {
    /// The write of its outcome.
    Recording,
    /// The write of a report.
    Reporting,
    /// Its handler, after the cancellation by a drain.
    Cleanup,
}

#[test]
fn leases_of_waiting_runs_outlive_the_runtime_of_the_heartbeat() {
    for waits_for in [WaitsFor::Recording, WaitsFor::Reporting, WaitsFor::Cleanup] {
        let memory = MemoryStore::new();
        let store = Hooked::new(memory.clone(), move |call, when| async move {
            match (waits_for, call, when) {
                (WaitsFor::Recording, Call::Finish, When::Before) => {
                    Err(StoreError::unavailable("it is away"))
                }
                (WaitsFor::Reporting, Call::Report, When::Before) => pending().await,
                _ => Ok(()),
            }
        });
        let long = Duration::from_secs(60);
        let operations = Operations::new(store).lease(term("here"));
        let drain = operations.drain_handle();
        let layer = operations.layer().cancel_grace(long);
        let first = runtime();
        // The heartbeat starts on this runtime.
        let first_id = first.block_on(accept(&layer, false));
        let second = spawn_thread(async move {
            let id = match waits_for {
                WaitsFor::Recording => accept_for(&layer, async |_| {}).await,
                WaitsFor::Reporting => accept(&layer, true).await,
                WaitsFor::Cleanup => accept(&layer, false).await,
            };
            if waits_for == WaitsFor::Cleanup {
                tokio::spawn(async move { drain.drain(long).await });
            }
            sleep(TERM / 8).await;
            drop_runtime(first).await;
            cancel(&memory, &first_id).await;
            assert_renewed(&memory).await;
            let record = memory.get(&id).await.unwrap().unwrap();
            assert_eq!(record.operation().state(), State::Running, "{waits_for:?}");
        });
        second.join().unwrap();
    }
}

#[test]
fn a_lease_being_released_outlives_the_runtime_of_the_heartbeat() {
    let memory = MemoryStore::new();
    let (release_sender, release_receiver) = mpsc::channel();
    let store = Hooked::new(memory.clone(), move |call, when| {
        let is_away = (call, when) == (Call::Release, When::Before);
        if is_away {
            release_sender.send(()).unwrap();
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
    // The heartbeat starts on this runtime.
    let first_id = first.block_on(accept(&layer, false));
    let second = spawn_thread(async move {
        let id = accept(&layer, false).await;
        wait_until_running(&memory, &id).await;
        tokio::spawn(async move { drain.drain(Duration::ZERO).await });
        while release_receiver.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        drop_runtime(first).await;
        cancel(&memory, &first_id).await;
        // The release is tried for a second.
        assert_renewed_for(&memory, 2 * TERM).await;
        let record = memory.get(&id).await.unwrap().unwrap();
        assert_eq!(record.operation().state(), State::Running);
    });
    second.join().unwrap();
}

#[test]
fn a_reclaimed_operation_is_renewed_while_it_is_ended() {
    for has_heartbeat in [true, false] {
        let memory = MemoryStore::new();
        let (end_sender, end_receiver) = mpsc::channel();
        let looks = Arc::new(AtomicUsize::new(0));
        let store = Hooked::new(memory.clone(), move |call, when| {
            let is_away = match (call, when) {
                (Call::Finish, When::Before) => {
                    end_sender.send(()).unwrap();
                    true
                }
                // Only the first look reaches the store, because a later one would renew as well.
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
        // The heartbeat starts on this runtime, if there is one.
        let first_id = has_heartbeat.then(|| first.block_on(accept(&layer, false)));
        let second = spawn_thread(async move {
            let new = NewOperation::new(OperationId::new()).with_lease(term("dead"));
            let handle = LeaseHandle {
                id: new.id.clone(),
                token: new.token,
            };
            memory.create(new).await.unwrap();
            memory.release(&[handle]).await.unwrap();
            tokio::spawn(operations.recovery().run());
            while end_receiver.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            drop_runtime(first).await;
            if let Some(first_id) = first_id {
                cancel(&memory, &first_id).await;
            }
            // The end is tried for a term, and the lease is renewed until then.
            assert_renewed_for(&memory, TERM + TERM / 3).await;
        });
        second.join().unwrap();
    }
}

#[test]
fn a_runtime_dropped_with_live_operations_shuts_down() {
    for is_recorded in [false, true] {
        let (block_sender, block_receiver) = mpsc::channel();
        let block = move || {
            block_sender.send(()).unwrap();
            // The runtime of the heartbeat is dropped meanwhile.
            thread::sleep(Duration::from_millis(300));
        };
        let handler_block = block.clone();
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
            let block = handler_block.clone();
            async move {
                // The heartbeat starts meanwhile.
                sleep(TERM / 8).await;
                if !is_recorded {
                    block();
                    pending::<()>().await;
                }
            }
        }));
        let limit = Duration::from_secs(20);
        block_receiver.recv_timeout(limit).unwrap();
        let (drop_sender, drop_receiver) = mpsc::channel();
        thread::spawn(move || {
            drop(runtime);
            drop_sender.send(()).unwrap();
        });
        let outcome = drop_receiver.recv_timeout(limit);
        assert!(outcome.is_ok(), "the drop hangs; recorded: {is_recorded}");
    }
}
