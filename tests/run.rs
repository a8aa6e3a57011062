//! Outcomes of runs. The clock is paused.

use test_support::hooked;

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
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

/// A store, and a layer that accepts requests.
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

    /// Waits until `condition` holds for the operation.
    async fn wait_for(
        &self,
        id: &OperationId,
        condition: impl Fn(&Operation<RecordedResponse>) -> bool,
    ) -> Operation<RecordedResponse> {
        let mut record = self
            .store
            .get(id)
            .await
            .unwrap()
            .expect("a 202 is readable at once");
        while !condition(record.operation()) {
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
                "the condition never held: {:?}",
                record.operation()
            );
        }
        record.operation().clone()
    }

    async fn wait_for_end(&self, id: &OperationId) -> Operation<RecordedResponse> {
        self.wait_for(id, |operation| operation.state().is_terminal())
            .await
    }

    async fn assert_failed(&self, id: &OperationId, kind: FailureKind) {
        let operation = self.wait_for_end(id).await;
        let problem = operation.problem().expect("the operation failed");
        assert_eq!(problem.type_uri(), kind.urn());
        assert_eq!(problem.status(), Some(kind.status()));
        assert_eq!(operation.response(), None);
    }
}

async fn respond(_: Request<Body>) -> Answer {
    Ok(Response::new(BufferedBody::from("done")))
}

async fn hang(_: Request<Body>) -> Answer {
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn an_operation_succeeds_below_400_and_fails_from_400_with_the_response() {
    let setup = Setup::new(MemoryStore::new());
    for status in [200_u16, 204, 302, 399, 400, 404, 500, 599] {
        let id = setup
            .accept(move |_| async move {
                let mut response = Response::new(BufferedBody::from("said"));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok(response)
            })
            .await;
        let operation = setup.wait_for_end(&id).await;
        let recorded = operation
            .response()
            .expect("the response is recorded either way");
        assert_eq!(
            (recorded.status().as_u16(), recorded.body().unwrap()),
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
    let operation = setup.wait_for_end(&id).await;
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
    setup.assert_failed(&id, FailureKind::InnerError).await;
    let text = serde_json::to_string(setup.wait_for_end(&id).await.problem().unwrap()).unwrap();
    assert!(!text.contains("secret"), "the error text leaks: {text}");

    let id = setup.accept(async |_| panic!("secret")).await;
    setup.assert_failed(&id, FailureKind::Panicked).await;
    // This panic is in the call itself, before there is a future.
    let id = setup
        .accept(|_| -> std::future::Ready<Answer> { panic!("at once") })
        .await;
    setup.assert_failed(&id, FailureKind::Panicked).await;

    let id = setup.accept(respond).await;
    setup.assert_failed(&id, FailureKind::ResultTooLarge).await;
    let ended = setup.wait_for_end(&id).await;
    let detail = ended.problem().unwrap().detail().unwrap();
    assert!(detail.contains("3 bytes") && detail.contains("result store"));
    let id = setup
        .accept(async |_| Ok(Response::new(BufferedBody::from("fit"))))
        .await;
    assert_eq!(setup.wait_for_end(&id).await.state(), State::Succeeded);
    assert!(setup.drain.drain(Duration::ZERO).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn pending_and_running_times_are_bounded_by_an_hour_each() {
    let setup = Setup::new(MemoryStore::new());
    let start = Instant::now();
    let id = setup.accept(hang).await;
    setup.assert_failed(&id, FailureKind::TimedOut).await;
    assert_eq!(start.elapsed().as_secs(), 3600);

    let start = Instant::now();
    let never_ready = tower::service_fn(respond).map_future(|future| future);
    let busy = tower::limit::ConcurrencyLimit::with_semaphore(
        never_ready,
        Arc::new(tokio::sync::Semaphore::new(0)),
    );
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let response = setup.layer.layer(busy).oneshot(request).await.unwrap();
    let location = response.headers()["location"].to_str().unwrap();
    let id = location.rsplit('/').next().unwrap().parse().unwrap();
    setup.assert_failed(&id, FailureKind::TimedOut).await;
    assert_eq!(start.elapsed().as_secs(), 3600);
    // The operation never ran.
    assert_eq!(setup.wait_for_end(&id).await.metadata().started_at(), None);
}

#[tokio::test(start_paused = true)]
async fn a_running_timeout_is_at_most_thirty_days() {
    let setup = Setup::new(MemoryStore::new()).layer(|layer| layer.running_timeout(Duration::MAX));
    let start = Instant::now();
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
    assert_eq!(start.elapsed().as_secs(), 30 * 24 * 60 * 60);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_fires_the_token_and_drops_the_call_after_the_grace() {
    struct NotifyOnDrop(Option<oneshot::Sender<Instant>>);

    impl Drop for NotifyOnDrop {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(Instant::now());
        }
    }

    let setup =
        Setup::new(MemoryStore::new()).layer(|layer| layer.cancel_grace(Duration::from_secs(2)));
    let (canceled_sender, canceled) = oneshot::channel();
    let (dropped_sender, dropped) = oneshot::channel();
    let senders = Arc::new(Mutex::new(Some((canceled_sender, dropped_sender))));
    let id = setup
        .accept(move |request| {
            let (canceled_sender, dropped_sender) = senders.lock().unwrap().take().unwrap();
            async move {
                let _guard = NotifyOnDrop(Some(dropped_sender));
                let token = OperationHandle::from_extensions(request.extensions()).cancellation();
                token.cancelled().await;
                let _ = canceled_sender.send(Instant::now());
                std::future::pending().await
            }
        })
        .await;
    let running = setup
        .wait_for(&id, |operation| operation.state() == State::Running)
        .await;
    assert_eq!(running.state(), State::Running);
    let stamp = setup
        .store
        .get(&id)
        .await
        .unwrap()
        .unwrap()
        .stamp()
        .unwrap();
    let at = Instant::now();
    let write = setup
        .store
        .force_finish(&id, stamp, Outcome::Canceled)
        .await
        .unwrap();
    assert!(matches!(write, Written::Done(_)));
    assert_eq!(canceled.await.unwrap() - at, Duration::ZERO);
    assert_eq!(dropped.await.unwrap() - at, Duration::from_secs(2));
    assert_eq!(setup.wait_for_end(&id).await.state(), State::Canceled);
    assert!(setup.drain.drain(Duration::from_secs(1)).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn many_reports_are_a_few_writes_and_the_last_one_is_recorded() {
    let writes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&writes);
    let store = Hooked::new(MemoryStore::new(), move |call, when| {
        if (call, when) == (Call::Report, When::After) {
            counter.fetch_add(1, SeqCst);
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
            respond(request).await
        })
        .await;
    let operation = setup.wait_for_end(&id).await;
    assert_eq!(
        operation.metadata().progress(),
        Some(&Progress::from_count(20_000, 20_000))
    );
    let writes = writes.load(SeqCst);
    assert!((2..=12).contains(&writes), "{writes} writes in two seconds");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_retried_until_the_store_accepts_it() {
    let fails = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fails);
    let store = Hooked::new(MemoryStore::new(), move |call, when| {
        // The first failures come before the write, the later ones after it.
        let turn = if call == Call::Finish {
            counter.fetch_add(1, SeqCst)
        } else {
            usize::MAX
        };
        std::future::ready(match (turn, when) {
            (0..=8, When::Before) | (9..=20, When::After) => Err(StoreError::unavailable("down")),
            _ => Ok(()),
        })
    });
    let setup = Setup::new(store);
    let id = setup.accept(respond).await;
    assert_eq!(setup.wait_for_end(&id).await.state(), State::Succeeded);
    assert!(setup.drain.drain(Duration::from_secs(120)).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_the_store_refuses_fails_the_operation() {
    let limit = "The store of operations takes at most 4096 bytes as one value.";
    for (has_limit, reason) in [
        (true, limit),
        (false, "The store of operations refused it."),
    ] {
        let error = move || match has_limit {
            true => StoreError::too_large(4_097, 4_096),
            false => StoreError::refused("secret"),
        };
        let tries = AtomicUsize::new(0);
        let store = Hooked::new(MemoryStore::new(), move |call, when| {
            let is_finish = (call, when) == (Call::Finish, When::Before);
            std::future::ready(match is_finish && tries.fetch_add(1, SeqCst) == 0 {
                true => Err(error()),
                false => Ok(()),
            })
        });
        let setup = Setup::new(store);
        let id = setup.accept(respond).await;
        setup.assert_failed(&id, FailureKind::ResultTooLarge).await;
        let ended = setup.wait_for_end(&id).await;
        let detail = ended.problem().unwrap().detail().unwrap();
        let remedy = "The application can set a result store.";
        assert_eq!(detail, format!("{reason} {remedy}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_a_layer_gets_a_cancel_at_once() {
    let store = MemoryStore::new();
    let inner = service_fn(|_: Request<BufferedBody>| hang_forever());
    let service = RunService::new(store.clone(), inner);
    let drain = service.drain_handle();
    let new = NewOperation::new(OperationId::new()).with_lease(service.lease_config());
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let run = tokio::spawn(service.oneshot(AcceptedRequest::new(&record, request)));
    let id = record.operation().id();
    let running = store
        .changed(id, record.version().unwrap(), Duration::from_secs(9))
        .await;
    let stamp = running.unwrap().unwrap().stamp().unwrap();
    let at = Instant::now();
    store
        .force_finish(id, stamp, Outcome::Canceled)
        .await
        .unwrap();
    assert_eq!(run.await.unwrap().unwrap(), RunOutcome::Refused);
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
async fn an_outcome_refused_like_any_other_is_retried_until_it_is_accepted() {
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
    let id = setup.accept(respond).await;
    assert_eq!(setup.wait_for_end(&id).await.state(), State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_the_store_that_is_silent_or_panics_once_is_retried() {
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
                    // A silent create uses up its time-out and is not retried.
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
        let id = setup.accept(respond).await;
        assert_eq!(setup.wait_for_end(&id).await.state(), State::Succeeded);
        assert!(setup.drain.drain(Duration::from_secs(60)).await.is_clean());
    }
}

/// A guard in a handler that panics when it is dropped.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

async fn hang_with_a_guard(_: Request<Body>) -> Answer {
    let _guard = PanicsOnDrop;
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_when_it_is_dropped_leaves_an_operation_that_ended() {
    // Its time is over.
    let setup = Setup::new(MemoryStore::new());
    let setup = setup.layer(|layer| layer.running_timeout(Duration::from_secs(1)));
    let id = setup.accept(hang_with_a_guard).await;
    let operation = setup.wait_for_end(&id).await;
    let problem = operation.problem().expect("it failed");
    assert_eq!(problem.type_uri(), FailureKind::Panicked.urn());
    assert!(setup.drain.drain(Duration::ZERO).await.is_clean());

    // A client cancels the operation.
    let setup = Setup::new(MemoryStore::new());
    let id = setup.accept(hang_with_a_guard).await;
    tokio::task::yield_now().await;
    let stamp = setup.store.get(&id).await.unwrap().unwrap().stamp();
    let canceled = setup
        .store
        .force_finish(&id, stamp.unwrap(), Outcome::Canceled);
    assert!(matches!(canceled.await.unwrap(), Written::Done(_)));
    let report = setup.drain.drain(Duration::from_secs(60)).await;
    assert!(report.is_clean(), "{report:?}");

    // A drain is over.
    let setup = Setup::new(MemoryStore::new());
    let id = setup.accept(hang_with_a_guard).await;
    tokio::task::yield_now().await;
    let report = setup.drain.drain(Duration::from_secs(1)).await;
    assert!(report.unrecorded.is_empty(), "{report:?}");
    assert_eq!(setup.wait_for_end(&id).await.state(), State::Failed);
}

/// A panic payload that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_cancels_its_own_token_keeps_its_operation() {
    let setup = Setup::new(MemoryStore::new());
    let id = setup
        .accept(async |request| {
            let token = OperationHandle::from_extensions(request.extensions()).cancellation();
            token.cancel();
            drop(token.drop_guard());
            tokio::time::sleep(Duration::from_secs(1)).await;
            respond(request).await
        })
        .await;
    assert_eq!(setup.wait_for_end(&id).await.state(), State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_panic_whose_payload_panics_fails_only_the_operation() {
    let setup = Setup::new(MemoryStore::new());
    let id = setup.accept(async |_| std::panic::panic_any(Bomb)).await;
    setup.assert_failed(&id, FailureKind::Panicked).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_on_drop_fails_its_operation() {
    /// Panics on drop in a clone, and clones are what is called.
    struct Fuse(bool);

    impl Clone for Fuse {
        fn clone(&self) -> Self {
            Self(true)
        }
    }

    impl Drop for Fuse {
        fn drop(&mut self) {
            assert!(!self.0, "on purpose");
        }
    }

    let setup = Setup::new(MemoryStore::new());
    let fuse = Fuse(false);
    let id = setup
        .accept(move |request| {
            let _in_the_service = &fuse;
            respond(request)
        })
        .await;
    setup.assert_failed(&id, FailureKind::Panicked).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_during_an_accept_is_not_clean() {
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
    // The request is refused, and not created in the second that is left.
    assert_eq!(
        response.await.unwrap().unwrap().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!((report.refused, report.unanswered), (1, 0), "{report:?}");
    assert!(!report.is_clean());
    assert!(memory.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_canceled_run_in_its_grace_is_neither_interrupted_nor_unrecorded() {
    let setup =
        Setup::new(MemoryStore::new()).layer(|layer| layer.cancel_grace(Duration::from_secs(60)));
    let id = setup.accept(hang).await;
    setup
        .wait_for(&id, |operation| operation.state() == State::Running)
        .await;
    let stamp = setup
        .store
        .get(&id)
        .await
        .unwrap()
        .unwrap()
        .stamp()
        .unwrap();
    setup
        .store
        .force_finish(&id, stamp, Outcome::Canceled)
        .await
        .unwrap();
    let report = setup.drain.drain(Duration::from_secs(90)).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.finished, 1);
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_whatever_revocations_say() {
    // Revocations fail, or always name an operation.
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
                respond(request).await
            })
            .await;
        let revocations = async {
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
                    revoke_unrelated(&store.inner, &node).await;
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
            () = revocations => {}
            () = watch => {}
        }
        assert_eq!(setup.wait_for_end(&id).await.state(), State::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn a_canceled_run_stops_soon_though_the_store_does_not_answer_at_first() {
    let canceled = Arc::new(AtomicBool::new(false));
    let unanswered = AtomicUsize::new(2);
    let is_canceled = Arc::clone(&canceled);
    let store = Hooked::new(MemoryStore::new(), move |call, _| {
        let fails = call == Call::Renew
            && is_canceled.load(SeqCst)
            && unanswered
                .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
                .is_ok();
        std::future::ready(match fails {
            true => Err(StoreError::unavailable("the answer was lost")),
            false => Ok(()),
        })
    });
    let setup = Setup::new(store.clone()).layer(|layer| layer.cancel_grace(Duration::ZERO));
    let (stopped, stops) = oneshot::channel::<()>();
    let stopped = Arc::new(Mutex::new(Some(stopped)));
    let id = setup
        .accept(move |_| {
            let stopped = stopped.lock().unwrap().take();
            async move {
                let _stopped = stopped;
                std::future::pending().await
            }
        })
        .await;
    let running = setup.wait_for(&id, |operation| operation.state() == State::Running);
    running.await;
    canceled.store(true, SeqCst);
    let stamp = store.get(&id).await.unwrap().unwrap().stamp().unwrap();
    let cancel = store.inner.force_finish(&id, stamp, Outcome::Canceled);
    cancel.await.unwrap();
    // Without the repetitions, the next renewal comes after a third of 30 seconds.
    let stops = tokio::time::timeout(Duration::from_secs(1), stops).await;
    assert!(stops.is_ok(), "the run goes on");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_during_the_last_renewal_of_a_round_is_not_forgotten() {
    let memory = MemoryStore::new();
    let renewals = Arc::new(AtomicUsize::new(0));
    let (store, counted) = (memory.clone(), Arc::clone(&renewals));
    let canceled = Arc::new(Mutex::new(None::<OperationId>));
    let to_cancel = Arc::clone(&canceled);
    // The renewal at the end of a round and the one at the begin of the next are not answered.
    let hooked = Hooked::new(memory.clone(), move |call, when| {
        let (store, counted, to_cancel) = (store.clone(), counted.clone(), to_cancel.clone());
        async move {
            let id = to_cancel.lock().unwrap().clone();
            let (Call::Renew, When::Before, Some(id)) = (call, when, id) else {
                return Ok(());
            };
            let renewal = counted.fetch_add(1, SeqCst);
            if renewal == 0 {
                let record = store.get(&id).await?.unwrap();
                let stamp = record.stamp().unwrap();
                store.force_finish(&id, stamp, Outcome::Canceled).await?;
            }
            match renewal {
                0 | 1 => Err(StoreError::unavailable("the answer was lost")),
                _ => Ok(()),
            }
        }
    });
    let setup = Setup::new(hooked).layer(|layer| layer.cancel_grace(Duration::ZERO));
    let id = setup.accept(hang).await;
    let running = setup.wait_for(&id, |operation| operation.state() == State::Running);
    running.await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    *canceled.lock().unwrap() = Some(id);
    while renewals.load(SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.drain.in_flight().operations, 0, "the run goes on");
}

/// Revokes an operation that the node no longer runs.
async fn revoke_unrelated(store: &MemoryStore, node: &NodeId) {
    let term = LeaseConfig::new(node.clone(), Duration::from_secs(30));
    let new = NewOperation::new(OperationId::new()).with_lease(term);
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let id = record.operation().id();
    store
        .force_finish(id, record.stamp().unwrap(), Outcome::Canceled)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_refuses_a_running_operation_and_fails_after_the_close() {
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
            respond(request).await
        })
        .await;
    let hanging = setup.accept(hang).await;
    let store = setup.store.clone();
    let layer = setup.layer.clone();
    setup.drain.close();
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let refused = layer
        .layer(service_fn(respond))
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));

    let start = Instant::now();
    let report = setup.drain.drain(Duration::from_secs(10)).await;
    assert_eq!(start.elapsed().as_secs(), 10);
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
async fn a_drain_of_an_idle_node_ends_at_once_and_leaves_no_task() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let setup = Setup::new(MemoryStore::new());
    let id = setup.accept(respond).await;
    setup.wait_for_end(&id).await;
    let start = Instant::now();
    assert!(setup.drain.drain(Duration::from_secs(60)).await.is_clean());
    assert_eq!(start.elapsed(), Duration::ZERO);
    while tasks() > before {
        tokio::task::yield_now().await;
    }
    assert_eq!(setup.store.waiters(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_the_store_never_accepts_is_reported_by_the_drain() {
    let store = Hooked::new(MemoryStore::new(), |call, _| {
        std::future::ready(match call {
            Call::Finish => Err(StoreError::unavailable("down")),
            _ => Ok(()),
        })
    });
    let setup = Setup::new(store);
    let id = setup.accept(respond).await;
    let report = setup.drain.drain(Duration::from_secs(10)).await;
    assert_eq!((report.unrecorded, report.interrupted.len()), (vec![id], 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_lease_was_reclaimed_stops_and_writes_nothing() {
    let setup = Setup::new(MemoryStore::new());
    let id = setup.accept(hang).await;
    setup
        .wait_for(&id, |operation| operation.state() == State::Running)
        .await;
    let record = setup.store.get(&id).await.unwrap().unwrap();
    let handle = tower_operations::store::LeaseHandle {
        id: id.clone(),
        token: record.token(),
    };
    setup.store.release(&[handle]).await.unwrap();
    let term = LeaseConfig::new(NodeId::named("another"), Duration::from_secs(3600));
    let reclaimed = setup.store.reclaim(&term, 10).await.unwrap();
    assert_eq!(reclaimed.len(), 1);
    assert!(reclaimed[0].record.token() > record.token());
    assert!(setup.drain.drain(Duration::from_secs(60)).await.is_clean());
    let record = setup.store.get(&id).await.unwrap().unwrap();
    assert_eq!(record.version(), reclaimed[0].record.version());
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_throughout_a_run() {
    let setup = Setup::new(MemoryStore::new());
    let id = setup
        .accept(async |request| {
            tokio::time::sleep(Duration::from_secs(600)).await;
            respond(request).await
        })
        .await;
    let term = LeaseConfig::new(NodeId::named("another"), Duration::from_secs(30));
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(setup.store.reclaim(&term, 10).await.unwrap().is_empty());
    }
    assert_eq!(setup.wait_for_end(&id).await.state(), State::Succeeded);
}

#[tokio::test]
async fn a_lease_is_set_before_a_run_service_is_cloned() {
    let inner = service_fn(async |_: Request<BufferedBody>| {
        Ok::<_, BoxError>(Response::new(BufferedBody::default()))
    });
    let lease = || LeaseConfig::new(NodeId::named("worker"), Duration::from_secs(9));
    let service = RunService::new(MemoryStore::new(), inner);
    // A drain handle does not share the lease.
    let _drain = service.drain_handle();
    let service = service.lease(lease());
    assert_eq!(service.lease_config().term, Duration::from_secs(9));
    let clone = service.clone();
    let late = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| clone.lease(lease())));
    assert!(late.is_err());
    assert_eq!(service.lease_config().term, Duration::from_secs(9));
}
