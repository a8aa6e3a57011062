//! How a run ends, with a paused clock.

use test_support::hooked;

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use hooked::{Call, Hooked, When};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::{sync::oneshot, time::Instant};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_operations::{
    AcceptedRequest, AsyncAcceptLayer, BufferedBody, Drain, FailureKind, MemoryStore, Operation,
    OperationHandle, OperationId, Operations, Outcome, Progress, RecordedResponse, RequestBody,
    RunOutcome, RunService, State,
    store::{
        Created, Lease, LeaseConfig, NewOperation, NodeId, Repository, Store, StoreError, Watch,
        Written,
    },
};

type Body = RequestBody<BufferedBody>;
type Answer = Result<Response<BufferedBody>, BoxError>;

/// A store, and a way to have requests accepted.
struct Setup<R> {
    store: R,
    layer: AsyncAcceptLayer<R>,
    drain: Drain,
}

impl<R> Setup<R>
where
    R: Lease<Output = RecordedResponse> + Watch + Clone,
{
    fn new(store: R) -> Self {
        let operations = Operations::new(store.clone());
        let (layer, drain) = (operations.layer(), operations.drain_handle());
        Self {
            store,
            layer,
            drain,
        }
    }

    fn layer(self, change: impl FnOnce(AsyncAcceptLayer<R>) -> AsyncAcceptLayer<R>) -> Self {
        Self {
            layer: change(self.layer),
            ..self
        }
    }

    async fn accept<F>(
        &self,
        inner: impl Fn(Request<Body>) -> F + Clone + Send + 'static,
    ) -> OperationId
    where
        F: Future<Output = Answer> + Send,
    {
        let service = self.layer.layer(service_fn(inner));
        let request = Request::post("/reports")
            .body(BufferedBody::from("Q3"))
            .unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let location = response.headers()["location"].to_str().unwrap();
        location.rsplit('/').next().unwrap().parse().unwrap()
    }

    /// The operation once `done` says so.
    async fn once(
        &self,
        id: &OperationId,
        done: impl Fn(&Operation<RecordedResponse>) -> bool,
    ) -> Operation<RecordedResponse> {
        let mut record = self
            .store
            .get(id)
            .await
            .unwrap()
            .expect("a 202 is readable at once");
        while !done(record.operation()) {
            let version = record.version().unwrap();
            let wait = Duration::from_secs(24 * 60 * 60);
            record = self
                .store
                .changed(id, version, wait)
                .await
                .unwrap()
                .unwrap();
            assert_ne!(
                record.version(),
                Some(version),
                "it never came: {:?}",
                record.operation()
            );
        }
        record.operation().clone()
    }

    async fn ended(&self, id: &OperationId) -> Operation<RecordedResponse> {
        self.once(id, |operation| operation.state().is_terminal())
            .await
    }

    async fn failed_as(&self, id: &OperationId, kind: FailureKind) {
        let operation = self.ended(id).await;
        let problem = operation.problem().expect("it failed");
        assert_eq!(problem.type_uri(), kind.urn());
        assert_eq!(problem.status(), Some(kind.status()));
        assert_eq!(operation.response(), None);
    }
}

async fn done(_: Request<Body>) -> Answer {
    Ok(Response::new(BufferedBody::from("done")))
}

async fn hang(_: Request<Body>) -> Answer {
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn below_400_it_succeeds_and_from_400_on_it_fails_with_the_response() {
    let setup = Setup::new(MemoryStore::new());
    for status in [200_u16, 204, 302, 399, 400, 404, 500, 599] {
        let id = setup
            .accept(move |_| async move {
                let mut response = Response::new(BufferedBody::from("said"));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok(response)
            })
            .await;
        let operation = setup.ended(&id).await;
        let recorded = operation.response().expect("it is recorded either way");
        assert_eq!(
            (recorded.status().as_u16(), recorded.body().as_ref()),
            (status, "said".as_bytes())
        );
        match operation.problem() {
            None => assert!(status < 400),
            Some(problem) => assert_eq!(problem.status().unwrap().as_u16(), status),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_problem_of_the_inner_service_is_the_problem_of_the_operation() {
    let setup = Setup::new(MemoryStore::new());
    let id = setup
        .accept(async |_| {
            let mut response = Response::new(BufferedBody::from(
                r#"{"title":"Report failed","code":"X"}"#,
            ));
            *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
            let media_type = HeaderValue::from_static("application/problem+json");
            response.headers_mut().insert("content-type", media_type);
            Ok(response)
        })
        .await;
    let operation = setup.ended(&id).await;
    let problem = operation.problem().unwrap();
    assert_eq!(
        (problem.title(), problem.code()),
        (Some("Report failed"), Some("X"))
    );
    assert_eq!(problem.status(), Some(StatusCode::UNPROCESSABLE_ENTITY));
}

#[tokio::test(start_paused = true)]
async fn errors_panics_and_too_large_results_have_their_types() {
    let setup = Setup::new(MemoryStore::new()).layer(|layer| layer.result_limit(3));
    let id = setup.accept(async |_| Err("secret".into())).await;
    setup.failed_as(&id, FailureKind::InnerError).await;
    let text = serde_json::to_string(setup.ended(&id).await.problem().unwrap()).unwrap();
    assert!(!text.contains("secret"), "the inside stays inside: {text}");

    let id = setup.accept(async |_| panic!("secret")).await;
    setup.failed_as(&id, FailureKind::Panicked).await;
    // In the call itself, before there is a future.
    let id = setup
        .accept(|_| -> std::future::Ready<Answer> { panic!("at once") })
        .await;
    setup.failed_as(&id, FailureKind::Panicked).await;

    let id = setup.accept(done).await;
    setup.failed_as(&id, FailureKind::ResultTooLarge).await;
    let id = setup
        .accept(async |_| Ok(Response::new(BufferedBody::from("fit"))))
        .await;
    assert_eq!(setup.ended(&id).await.state(), State::Succeeded);
    assert!(setup.drain.drain(Duration::ZERO).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn pending_and_running_are_bounded_by_an_hour_each() {
    let setup = Setup::new(MemoryStore::new());
    let begun = Instant::now();
    let id = setup.accept(hang).await;
    setup.failed_as(&id, FailureKind::TimedOut).await;
    assert_eq!(begun.elapsed().as_secs(), 3600);

    let begun = Instant::now();
    let never_ready = tower::service_fn(done).map_future(|future| future);
    let busy = tower::limit::ConcurrencyLimit::with_semaphore(
        never_ready,
        Arc::new(tokio::sync::Semaphore::new(0)),
    );
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let response = setup.layer.layer(busy).oneshot(request).await.unwrap();
    let location = response.headers()["location"].to_str().unwrap();
    let id = location.rsplit('/').next().unwrap().parse().unwrap();
    setup.failed_as(&id, FailureKind::TimedOut).await;
    assert_eq!(begun.elapsed().as_secs(), 3600);
    // It never ran.
    assert_eq!(setup.ended(&id).await.metadata().started_at(), None);
}

#[tokio::test(start_paused = true)]
async fn there_is_no_such_thing_as_an_unlimited_run() {
    let setup = Setup::new(MemoryStore::new()).layer(|layer| layer.running_timeout(Duration::MAX));
    let begun = Instant::now();
    let id = setup.accept(hang).await;
    setup
        .store
        .changed(
            &id,
            setup
                .store
                .get(&id)
                .await
                .unwrap()
                .unwrap()
                .version()
                .unwrap(),
            Duration::MAX,
        )
        .await
        .unwrap();
    let mut operation = setup.store.get(&id).await.unwrap().unwrap();
    while !operation.operation().state().is_terminal() {
        let version = operation.version().unwrap();
        operation = setup
            .store
            .changed(&id, version, Duration::MAX)
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(begun.elapsed().as_secs(), 30 * 24 * 60 * 60);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_fires_the_token_and_drops_the_call_after_the_grace() {
    struct Dropped(Option<oneshot::Sender<Instant>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(Instant::now());
        }
    }

    let setup =
        Setup::new(MemoryStore::new()).layer(|layer| layer.cancel_grace(Duration::from_secs(2)));
    let (tell_canceled, canceled) = oneshot::channel();
    let (tell_dropped, dropped) = oneshot::channel();
    let told = Arc::new(Mutex::new(Some((tell_canceled, tell_dropped))));
    let id = setup
        .accept(move |request| {
            let (tell_canceled, tell_dropped) = told.lock().unwrap().take().unwrap();
            async move {
                let _dropped = Dropped(Some(tell_dropped));
                let token = OperationHandle::from_extensions(request.extensions()).cancellation();
                token.cancelled().await;
                let _ = tell_canceled.send(Instant::now());
                std::future::pending().await
            }
        })
        .await;
    let running = setup
        .once(&id, |operation| operation.state() == State::Running)
        .await;
    assert_eq!(running.state(), State::Running);
    let version = setup
        .store
        .get(&id)
        .await
        .unwrap()
        .unwrap()
        .version()
        .unwrap();
    let at = Instant::now();
    let write = setup
        .store
        .force_finish(&id, version, Outcome::Canceled)
        .await
        .unwrap();
    assert!(matches!(write, Written::Done(_)));
    assert_eq!(canceled.await.unwrap() - at, Duration::ZERO);
    assert_eq!(dropped.await.unwrap() - at, Duration::from_secs(2));
    assert_eq!(setup.ended(&id).await.state(), State::Canceled);
    assert!(setup.drain.drain(Duration::from_secs(1)).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_reports_are_a_few_writes_and_the_last_one_is_kept() {
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    let store = Hooked::new(MemoryStore::new(), move |call, when| {
        if (call, when) == (Call::Report, When::After) {
            counted.fetch_add(1, SeqCst);
        }
        std::future::ready(Ok(()))
    });
    let setup = Setup::new(store);
    let id = setup
        .accept(async |request| {
            let operation = OperationHandle::from_extensions(request.extensions());
            for page in 1..=20_000 {
                operation.progress(Progress::from_count(page, 20_000));
                if page % 10 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            done(request).await
        })
        .await;
    let operation = setup.ended(&id).await;
    assert_eq!(
        operation.metadata().progress(),
        Some(&Progress::from_count(20_000, 20_000))
    );
    let writes = writes.load(SeqCst);
    assert!((2..=12).contains(&writes), "{writes} writes in two seconds");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_written_until_the_store_takes_it() {
    let fails = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fails);
    let store = Hooked::new(MemoryStore::new(), move |call, when| {
        // Every other time it happened all the same.
        let turn = if call == Call::Finish {
            counted.fetch_add(1, SeqCst)
        } else {
            usize::MAX
        };
        std::future::ready(match (turn, when) {
            (0..=8, When::Before) | (9..=20, When::After) => Err(StoreError::unavailable("down")),
            _ => Ok(()),
        })
    });
    let setup = Setup::new(store);
    let id = setup.accept(done).await;
    assert_eq!(setup.ended(&id).await.state(), State::Succeeded);
    assert!(setup.drain.drain(Duration::from_secs(120)).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_the_store_refuses_does_not_keep_the_operation_alive() {
    let tries = Arc::new(AtomicUsize::new(0));
    let store = Hooked::new(MemoryStore::new(), move |call, when| {
        let first = (call, when) == (Call::Finish, When::Before) && tries.fetch_add(1, SeqCst) == 0;
        std::future::ready(match first {
            true => Err(StoreError::refused("too large for a row")),
            false => Ok(()),
        })
    });
    let setup = Setup::new(store);
    let id = setup.accept(done).await;
    setup.failed_as(&id, FailureKind::ResultTooLarge).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_its_own_hears_of_a_cancel_at_once() {
    let store = MemoryStore::new();
    let inner = service_fn(|_: Request<BufferedBody>| hang_forever());
    let service = RunService::new(store.clone(), inner);
    let drain = service.drain_handle();
    let new = NewOperation::new(OperationId::new()).with_lease(service.lease_config());
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let ran = tokio::spawn(service.oneshot(AcceptedRequest::new(&record, request)));
    let id = record.operation().id();
    let running = store
        .changed(id, record.version().unwrap(), Duration::from_secs(9))
        .await;
    let version = running.unwrap().unwrap().version().unwrap();
    let at = Instant::now();
    store
        .force_finish(id, version, Outcome::Canceled)
        .await
        .unwrap();
    assert_eq!(ran.await.unwrap().unwrap(), RunOutcome::Refused);
    assert_eq!(
        at.elapsed(),
        Duration::from_millis(500),
        "the grace, and no more"
    );
    assert!(drain.drain(Duration::ZERO).await.is_clean());
}

async fn hang_forever() -> Answer {
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_refused_like_any_other_is_tried_until_it_is_taken() {
    let tries = Arc::new(AtomicUsize::new(0));
    let store = Hooked::new(MemoryStore::new(), move |call, when| {
        let refuses =
            (call, when) == (Call::Finish, When::Before) && tries.fetch_add(1, SeqCst) < 8;
        std::future::ready(match refuses {
            true => Err(StoreError::refused("no permission")),
            false => Ok(()),
        })
    });
    let setup = Setup::new(store);
    let id = setup.accept(done).await;
    assert_eq!(setup.ended(&id).await.state(), State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_silent_once_or_panics_once_is_asked_again() {
    for (panics, is_hasty) in [(false, false), (false, true), (true, false), (true, true)] {
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let mut store = Hooked::new(MemoryStore::new(), move |call, when| {
            let mut calls = calls.lock().unwrap();
            let first = when == When::Before && !calls.contains(&call);
            calls.push(call);
            async move {
                if first
                    && matches!(
                        call,
                        Call::Start | Call::Finish | Call::Renew | Call::Revoked
                    )
                    // Who waits for a silent one to create has no patience to ask again.
                    || first && call == Call::Create && (panics || is_hasty)
                {
                    if panics {
                        std::panic::panic_any(Bomb);
                    }
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        store.is_hasty = is_hasty;
        let setup = Setup::new(store);
        let id = setup.accept(done).await;
        assert_eq!(setup.ended(&id).await.state(), State::Succeeded);
        assert!(setup.drain.drain(Duration::from_secs(60)).await.is_clean());
    }
}

/// What is thrown, and throws again when it goes.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_cannot_lose_its_operation_by_its_own_token() {
    let setup = Setup::new(MemoryStore::new());
    let id = setup
        .accept(async |request| {
            let token = OperationHandle::from_extensions(request.extensions()).cancellation();
            token.cancel();
            drop(token.drop_guard());
            tokio::time::sleep(Duration::from_secs(1)).await;
            done(request).await
        })
        .await;
    assert_eq!(setup.ended(&id).await.state(), State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_panic_whose_payload_panics_is_still_only_a_failure() {
    let setup = Setup::new(MemoryStore::new());
    let id = setup.accept(async |_| std::panic::panic_any(Bomb)).await;
    setup.failed_as(&id, FailureKind::Panicked).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_when_it_goes_has_failed_its_operation() {
    /// Armed in a clone, which is what is called.
    struct Fuse(bool);

    impl Clone for Fuse {
        fn clone(&self) -> Self {
            Self(true)
        }
    }

    impl Drop for Fuse {
        fn drop(&mut self) {
            assert!(!self.0, "it goes with a bang");
        }
    }

    let setup = Setup::new(MemoryStore::new());
    let fuse = Fuse(false);
    let id = setup
        .accept(move |request| {
            let _in_the_service = &fuse;
            done(request)
        })
        .await;
    setup.failed_as(&id, FailureKind::Panicked).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_not_clean_while_something_is_still_being_accepted() {
    let store = Hooked::new(MemoryStore::new(), async |call, when| {
        if (call, when) == (Call::Create, When::Before) {
            tokio::time::sleep(Duration::from_millis(10_500)).await;
        }
        Ok(())
    });
    let memory = store.inner.clone();
    let operations = Operations::new(store);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let service = layer
        .create_timeout(Duration::from_secs(60))
        .layer(service_fn(hang));
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let response = tokio::spawn(service.oneshot(request));
    tokio::task::yield_now().await;
    let report = drain.drain(Duration::from_secs(10)).await;
    // It is refused, and not made in the second that is left.
    assert_eq!(
        response.await.unwrap().unwrap().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!((report.refused, report.unanswered), (1, 0), "{report:?}");
    assert!(!report.is_clean());
    assert!(memory.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_is_in_its_grace_is_neither_interrupted_nor_unrecorded() {
    let setup =
        Setup::new(MemoryStore::new()).layer(|layer| layer.cancel_grace(Duration::from_secs(60)));
    let id = setup.accept(hang).await;
    setup
        .once(&id, |operation| operation.state() == State::Running)
        .await;
    let version = setup
        .store
        .get(&id)
        .await
        .unwrap()
        .unwrap()
        .version()
        .unwrap();
    setup
        .store
        .force_finish(&id, version, Outcome::Canceled)
        .await
        .unwrap();
    let report = setup.drain.drain(Duration::from_secs(90)).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.finished, 1);
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_whatever_recalls_say() {
    // Recalls that fail, and recalls that always name something.
    for fails in [true, false] {
        let store = Hooked::new(MemoryStore::new(), move |call, _| {
            std::future::ready(match call {
                Call::Revoked if fails => Err(StoreError::unavailable("down")),
                _ => Ok(()),
            })
        });
        let setup = Setup::new(store.clone());
        let id = setup
            .accept(async |request| {
                tokio::time::sleep(Duration::from_secs(300)).await;
                done(request).await
            })
            .await;
        let noise = async {
            loop {
                if !fails {
                    let node = store
                        .get(&id)
                        .await
                        .unwrap()
                        .unwrap()
                        .node()
                        .cloned()
                        .unwrap();
                    noisy_recall(&store.inner, &node).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let term = LeaseConfig::new(NodeId::named("another"), Duration::from_secs(30));
        let watch = async {
            for _ in 0..25 {
                tokio::time::sleep(Duration::from_secs(10)).await;
                assert!(store.inner.reclaim(&term, 10).await.unwrap().is_empty());
            }
        };
        tokio::select! {
            () = noise => {}
            () = watch => {}
        }
        assert_eq!(setup.ended(&id).await.state(), State::Succeeded);
    }
}

/// Recalls an operation that the node has no more.
async fn noisy_recall(store: &MemoryStore, node: &NodeId) {
    let term = LeaseConfig::new(node.clone(), Duration::from_secs(30));
    let new = NewOperation::new(OperationId::new()).with_lease(term);
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let id = record.operation().id();
    store
        .force_finish(id, record.version().unwrap(), Outcome::Canceled)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_refuses_what_it_runs_already_and_gives_back_what_comes_too_late() {
    let store = MemoryStore::new();
    let service = RunService::new(
        store.clone(),
        service_fn(|_: Request<BufferedBody>| hang_forever()),
    );
    let drain = service.drain_handle();
    let Created::New(record) = store
        .create(NewOperation::new(OperationId::new()))
        .await
        .unwrap()
    else {
        panic!("the id is new");
    };
    let delivery = || {
        AcceptedRequest::new(
            &record,
            Request::post("/").body(BufferedBody::default()).unwrap(),
        )
    };
    let first = tokio::spawn(service.clone().oneshot(delivery()));
    tokio::task::yield_now().await;
    assert_eq!(
        service.clone().oneshot(delivery()).await.unwrap(),
        RunOutcome::Refused
    );
    drain.close();
    assert!(
        service
            .oneshot(delivery())
            .await
            .unwrap_err()
            .is_transient()
    );
    assert_eq!(drain.drain(Duration::ZERO).await.interrupted.len(), 1);
    assert_eq!(
        first.await.unwrap().unwrap(),
        RunOutcome::Recorded(State::Failed)
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_interrupts_and_reports() {
    let setup = Setup::new(MemoryStore::new());
    let slow = setup
        .accept(async |request| {
            tokio::time::sleep(Duration::from_secs(5)).await;
            done(request).await
        })
        .await;
    let hanging = setup.accept(hang).await;
    let store = setup.store.clone();
    let layer = setup.layer.clone();
    setup.drain.close();
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let refused = layer
        .layer(service_fn(done))
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));

    let begun = Instant::now();
    let report = setup.drain.drain(Duration::from_secs(10)).await;
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert_eq!(
        (
            report.finished,
            &report.interrupted,
            report.unrecorded.len()
        ),
        (1, &vec![hanging.clone()], 0)
    );
    let state = async |id| store.get(id).await.unwrap().unwrap().operation().clone();
    assert_eq!(state(&slow).await.state(), State::Succeeded);
    assert_eq!(
        state(&hanging).await.problem().unwrap().type_uri(),
        FailureKind::Interrupted.urn()
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_what_is_idle_is_over_at_once_and_leaves_no_task() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let setup = Setup::new(MemoryStore::new());
    let id = setup.accept(done).await;
    setup.ended(&id).await;
    let begun = Instant::now();
    assert!(setup.drain.drain(Duration::from_secs(60)).await.is_clean());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    while tasks() > before {
        tokio::task::yield_now().await;
    }
    assert_eq!(setup.store.waiters(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_store_that_stays_down_never_took_is_reported() {
    let store = Hooked::new(MemoryStore::new(), |call, _| {
        std::future::ready(match call {
            Call::Finish => Err(StoreError::unavailable("down")),
            _ => Ok(()),
        })
    });
    let setup = Setup::new(store);
    let id = setup.accept(done).await;
    let report = setup.drain.drain(Duration::from_secs(10)).await;
    assert_eq!((report.unrecorded, report.interrupted.len()), (vec![id], 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_lease_is_somebody_else_s_is_stopped_and_writes_nothing() {
    let setup = Setup::new(MemoryStore::new());
    let id = setup.accept(hang).await;
    setup
        .once(&id, |operation| operation.state() == State::Running)
        .await;
    let record = setup.store.get(&id).await.unwrap().unwrap();
    let held = tower_operations::store::LeaseHandle {
        id: id.clone(),
        token: record.token(),
    };
    setup.store.release(&[held]).await.unwrap();
    let term = LeaseConfig::new(NodeId::named("another"), Duration::from_secs(3600));
    let taken = setup.store.reclaim(&term, 10).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert!(taken[0].record.token() > record.token());
    assert!(setup.drain.drain(Duration::from_secs(60)).await.is_clean());
    let record = setup.store.get(&id).await.unwrap().unwrap();
    assert_eq!(record.version(), taken[0].record.version());
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_for_as_long_as_the_run_goes_on() {
    let setup = Setup::new(MemoryStore::new());
    let id = setup
        .accept(async |request| {
            tokio::time::sleep(Duration::from_secs(600)).await;
            done(request).await
        })
        .await;
    let term = LeaseConfig::new(NodeId::named("another"), Duration::from_secs(30));
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(setup.store.reclaim(&term, 10).await.unwrap().is_empty());
    }
    assert_eq!(setup.ended(&id).await.state(), State::Succeeded);
}
