//! The modes of acceptance: preferred, after a time, signaled. The clock is
//! paused.

use test_support::hooked;

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use hooked::{Call, Hooked, When};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::{sync::oneshot, time::Instant};
use tower::{Layer, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_operations::RecordedResponse;
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, Drain, FailureKind, Idempotency, MemoryStore, NotAccepted,
    OperationHandle, Operations, Outcome, Progress, RequestBody, ResponseBody, State,
    store::{Lease, List, ListQuery, Record, Repository, StoreError, Version, Written},
};

type Body = RequestBody<BufferedBody>;
type Answer = Result<Response<BufferedBody>, Infallible>;

struct Setup {
    memory: MemoryStore,
    drain: Drain,
    calls: Arc<AtomicUsize>,
}

impl Setup {
    fn new() -> (Self, AsyncAcceptLayer<MemoryStore>) {
        let memory = MemoryStore::new();
        let operations = Operations::new(memory.clone());
        let (layer, drain) = (operations.layer(), operations.drain_handle());
        (
            Self {
                memory,
                drain,
                calls: Arc::default(),
            },
            layer,
        )
    }

    async fn send<R, F>(
        &self,
        layer: &AsyncAcceptLayer<R>,
        prefer: &str,
        inner: impl Fn(Request<Body>) -> F + Clone + Send + 'static,
    ) -> Response<ResponseBody<BufferedBody>>
    where
        R: Lease<Output = RecordedResponse>,
        F: Future<Output = Answer> + Send,
    {
        let calls = Arc::clone(&self.calls);
        let service = layer.layer(service_fn(move |request| {
            calls.fetch_add(1, SeqCst);
            inner(request)
        }));
        let mut request = Request::post("/").body(BufferedBody::from("Q3")).unwrap();
        if !prefer.is_empty() {
            request
                .headers_mut()
                .insert("prefer", prefer.parse().unwrap());
        }
        service.oneshot(request).await.unwrap()
    }

    async fn operations(&self) -> Vec<Record<RecordedResponse>> {
        self.memory
            .list(&ListQuery::new(None, 10))
            .await
            .unwrap()
            .records
    }

    /// Waits until everything has ended. Returns the only operation.
    async fn only_operation(self) -> Record<RecordedResponse> {
        let memory = self.memory.clone();
        let report = self.drain.drain(Duration::from_secs(3600)).await;
        assert!(report.is_clean(), "{report:?}");
        let mut records = memory
            .list(&ListQuery::new(None, 10))
            .await
            .unwrap()
            .records;
        assert_eq!((records.len(), self.calls.load(SeqCst)), (1, 1));
        records.remove(0)
    }

    async fn assert_nothing_left(self) {
        assert!(self.operations().await.is_empty());
        assert!(self.drain.drain(Duration::ZERO).await.is_clean());
    }
}

async fn text(response: Response<ResponseBody<BufferedBody>>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn header<'a>(response: &'a Response<ResponseBody<BufferedBody>>, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

/// A handler that takes `seconds`.
fn handler_of(
    seconds: u64,
) -> impl Fn(Request<Body>) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> + Clone {
    move |request| {
        Box::pin(async move {
            assert_eq!(
                request.into_body().collect().await.unwrap().to_bytes(),
                "Q3"
            );
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(Response::new(BufferedBody::from("done")))
        })
    }
}

/// The attempt counts from the creation, so that a node that reclaims the operation
/// knows that it may have had effects.
#[tokio::test(start_paused = true)]
async fn a_late_accepted_operation_is_running_from_its_first_version() {
    let (setup, layer) = Setup::new();
    let layer = layer.after(Duration::from_secs(1));
    let response = setup.send(&layer, "", handler_of(5)).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let record = setup.operations().await.remove(0);
    assert_eq!(record.operation().state(), State::Running);
    assert_eq!(record.attempts(), 1);
    assert_eq!(record.version(), Some(Version::FIRST));
    let ended = setup.only_operation().await;
    assert_eq!(ended.version(), Some(Version::FIRST.next()));
    assert_eq!(ended.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_look_up_of_a_key_does_not_prolong_the_time_to_the_202() {
    let (setup, layer) = Setup::new();
    drop(layer);
    let store = Hooked::new(setup.memory.clone(), async |call, when| {
        if (call, when) == (Call::Reserve, When::Before) {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    });
    let operations = Operations::new(store);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let setup = Setup { drain, ..setup };
    let service = layer
        .idempotency(Idempotency::required())
        .after(Duration::from_secs(3))
        .layer(service_fn(handler_of(60)));
    let start = Instant::now();
    let request = Request::post("/").header("idempotency-key", "\"0123456789abcdef\"");
    let request = request.body(BufferedBody::from("Q3")).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(
        (response.status(), start.elapsed().as_secs()),
        (StatusCode::ACCEPTED, 3)
    );
    setup.drain.drain(Duration::from_secs(3600)).await;
}

#[tokio::test(start_paused = true)]
async fn preferred_mode_accepts_only_with_the_preference() {
    let (setup, layer) = Setup::new();
    let layer = layer.when_preferred();
    let response = setup.send(&layer, "", handler_of(5)).await;
    assert_eq!(
        (response.status(), header(&response, "vary")),
        (StatusCode::OK, "Prefer")
    );
    assert_eq!(header(&response, "preference-applied"), "");
    drop(response); // a drain waits until the response is read
    assert!(setup.operations().await.is_empty());

    setup.calls.store(0, SeqCst);
    let response = setup
        .send(&layer, "Respond-Async; x=1", handler_of(5))
        .await;
    assert_eq!(
        (response.status(), header(&response, "vary")),
        (StatusCode::ACCEPTED, "Prefer")
    );
    assert_eq!(header(&response, "preference-applied"), "respond-async");
    assert_eq!(
        setup.only_operation().await.operation().state(),
        State::Succeeded
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_in_time_is_sent_unchanged() {
    let (setup, layer) = Setup::new();
    let start = Instant::now();
    let response = setup
        .send(&layer.after(Duration::from_secs(5)), "", handler_of(3))
        .await;
    assert_eq!(
        (response.status(), start.elapsed().as_secs()),
        (StatusCode::OK, 3)
    );
    assert_eq!(header(&response, "location"), "");
    assert_eq!(text(response).await, "done");
    setup.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_response_becomes_an_operation_of_the_same_call() {
    let (setup, layer) = Setup::new();
    let start = Instant::now();
    let response = setup
        .send(&layer.after(Duration::from_secs(5)), "", handler_of(60))
        .await;
    assert_eq!(
        (response.status(), start.elapsed().as_secs()),
        (StatusCode::ACCEPTED, 5)
    );
    let record = setup.only_operation().await;
    assert_eq!(start.elapsed().as_secs(), 60);
    assert_eq!(
        record.operation().result().unwrap().body().unwrap(),
        b"done"
    );
    // The operation was created as running, and then finished.
    assert_eq!(record.version().unwrap().get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wait_shortens_the_time_and_is_in_preference_applied() {
    let (setup, layer) = Setup::new();
    let start = Instant::now();
    let response = setup
        .send(&layer, "respond-async, wait=2", handler_of(60))
        .await;
    assert_eq!(
        (response.status(), start.elapsed().as_secs()),
        (StatusCode::ACCEPTED, 2)
    );
    assert_eq!(
        header(&response, "preference-applied"),
        "respond-async, wait=2"
    );
    let response = setup.send(&layer, "wait=2", handler_of(1)).await;
    assert_eq!(
        (response.status(), header(&response, "preference-applied")),
        (StatusCode::OK, "wait=2")
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_ended_early_by_the_handler_is_not_in_preference_applied() {
    for after in [false, true] {
        let (setup, layer) = Setup::new();
        let layer = match after {
            true => layer.after(Duration::from_secs(30)),
            false => layer,
        };
        let inner = |request: Request<Body>| async move {
            let operation = OperationHandle::from_extensions(request.extensions());
            operation.accept().await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(Response::new(BufferedBody::from("done")))
        };
        let start = Instant::now();
        let response = setup.send(&layer, "respond-async, wait=20", inner).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let applied = header(&response, "preference-applied");
        match start.elapsed().as_secs() {
            20.. => assert_eq!(applied, "respond-async, wait=20"),
            _ => assert_eq!(applied, "respond-async"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_before_acceptance_drops_the_call() {
    struct NotifyOnDrop(Option<oneshot::Sender<()>>);
    impl Drop for NotifyOnDrop {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    let (setup, layer) = Setup::new();
    let (sender, dropped) = oneshot::channel();
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
    let inner = move |_| {
        let guard = NotifyOnDrop(sender.lock().unwrap().take());
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    };
    let layer = layer.after(Duration::from_secs(60));
    let response = setup.send(&layer, "", inner);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), response)
            .await
            .is_err()
    );
    dropped.await.unwrap();
    setup.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_signals_is_accepted_and_one_that_returns_is_not() {
    let (setup, layer) = Setup::new();
    let layer = layer.when_signaled();
    let early = setup
        .send(&layer, "respond-async", async |_| {
            let mut response = Response::new(BufferedBody::from("page 3 has no data"));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            Ok(response)
        })
        .await;
    assert_eq!(
        (early.status(), header(&early, "vary")),
        (StatusCode::BAD_REQUEST, "")
    );
    assert_eq!(text(early).await, "page 3 has no data");
    assert!(setup.operations().await.is_empty());

    setup.calls.store(0, SeqCst);
    let start = Instant::now();
    let response = setup
        .send(&layer, "", async |request| {
            let operation = OperationHandle::from_extensions(request.extensions());
            tokio::time::sleep(Duration::from_secs(1)).await;
            operation.accept().await.unwrap();
            // Further signals have no effect, concurrent ones included.
            tokio::join!(operation.accept(), operation.accept())
                .0
                .unwrap();
            tokio::time::sleep(Duration::from_secs(9)).await;
            Ok(Response::new(BufferedBody::from("done")))
        })
        .await;
    assert_eq!(
        (response.status(), start.elapsed().as_secs()),
        (StatusCode::ACCEPTED, 1)
    );
    let record = setup.only_operation().await;
    assert_eq!(
        record.operation().result().unwrap().body().unwrap(),
        b"done"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_signal_still_accepts() {
    let (setup, layer) = Setup::new();
    let slow_store = Hooked::new(setup.memory.clone(), async |call, when| {
        if (call, when) == (Call::Create, When::Before) {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    });
    drop(layer);
    let operations = Operations::new(slow_store);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let setup = Setup { drain, ..setup };
    let response = setup
        .send(&layer.when_signaled(), "", async |request| {
            let operation = OperationHandle::from_extensions(request.extensions());
            let signal = tokio::time::timeout(Duration::from_secs(1), operation.accept()).await;
            assert!(signal.is_err());
            Ok(Response::new(BufferedBody::from("done")))
        })
        .await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(
        setup.only_operation().await.operation().state(),
        State::Succeeded
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_create_leaves_the_answer_to_the_handler() {
    let (setup, layer) = Setup::new();
    drop(layer);
    let failing_store = Hooked::new(setup.memory.clone(), |call, _| {
        std::future::ready(match call {
            Call::Create => Err(StoreError::refused("down")),
            _ => Ok(()),
        })
    });
    let operations = Operations::new(failing_store);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let setup = Setup { drain, ..setup };
    let response = setup
        .send(&layer.clone().when_signaled(), "", async |request| {
            let refused = OperationHandle::from_extensions(request.extensions())
                .accept()
                .await;
            assert_eq!(refused, Err(NotAccepted::Unavailable));
            let mut response = Response::new(BufferedBody::from("not now"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            Ok(response)
        })
        .await;
    assert_eq!(text(response).await, "not now");

    let start = Instant::now();
    let response = setup
        .send(&layer.after(Duration::from_secs(5)), "", handler_of(60))
        .await;
    assert_eq!(
        (response.status(), start.elapsed().as_secs()),
        (StatusCode::OK, 60)
    );
    drop(response);
    setup.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_during_the_create_leaves_an_operation_or_nothing() {
    for fails in [false, true] {
        let (setup, layer) = Setup::new();
        drop(layer);
        let slow_store = Hooked::new(setup.memory.clone(), move |call, when| async move {
            if (call, when) == (Call::Create, When::Before) {
                tokio::time::sleep(Duration::from_secs(2)).await;
                return if fails {
                    Err(StoreError::refused("down"))
                } else {
                    Ok(())
                };
            }
            Ok(())
        });
        let operations = Operations::new(slow_store);
        let (layer, drain) = (operations.layer(), operations.drain_handle());
        let setup = Setup { drain, ..setup };
        let layer = layer.after(Duration::from_secs(1));
        let response = setup.send(&layer, "", handler_of(60));
        assert!(
            tokio::time::timeout(Duration::from_secs(2), response)
                .await
                .is_err()
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
        match fails {
            false => assert_eq!(
                setup.only_operation().await.operation().state(),
                State::Succeeded
            ),
            true => setup.assert_nothing_left().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_after_acceptance_fails_only_the_operation() {
    let (setup, layer) = Setup::new();
    let layer = layer.when_signaled();
    let early = tokio::spawn({
        let service = layer.layer(service_fn(async |_: Request<Body>| -> Answer {
            panic!("early")
        }));
        service.oneshot(Request::post("/").body(BufferedBody::default()).unwrap())
    });
    assert!(early.await.unwrap_err().is_panic());
    let response = setup
        .send(&layer, "", async |request| {
            OperationHandle::from_extensions(request.extensions())
                .accept()
                .await
                .unwrap();
            panic!("late")
        })
        .await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(
        setup.only_operation().await.operation().state(),
        State::Failed
    );
}

#[tokio::test(start_paused = true)]
async fn the_running_timeout_applies_in_every_mode() {
    for mode in 0..3 {
        let (setup, layer) = Setup::new();
        let layer = layer.running_timeout(Duration::from_secs(60));
        let layer = match mode {
            0 => layer,
            1 => layer.after(Duration::from_secs(5)),
            _ => layer.when_signaled(),
        };
        let start = Instant::now();
        let response = setup
            .send(&layer, "", async |request| {
                OperationHandle::from_extensions(request.extensions())
                    .accept()
                    .await
                    .unwrap();
                std::future::pending().await
            })
            .await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let record = setup.only_operation().await;
        let problem = record.operation().problem().unwrap();
        assert_eq!(problem.type_uri(), FailureKind::TimedOut.urn());
        assert_eq!(start.elapsed().as_secs(), 60);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_store_in_a_report_does_not_change_the_outcome() {
    for mode in 0..3 {
        let (setup, layer) = Setup::new();
        drop(layer);
        let store = Hooked::new(setup.memory.clone(), |call, _| {
            assert_ne!(call, Call::Report, "on purpose");
            std::future::ready(Ok(()))
        });
        let operations = Operations::new(store);
        let (layer, drain) = (operations.layer(), operations.drain_handle());
        let setup = Setup { drain, ..setup };
        let layer = match mode {
            0 => layer,
            1 => layer.after(Duration::from_secs(5)),
            _ => layer.when_signaled(),
        };
        setup
            .send(&layer, "", async |request| {
                let operation = OperationHandle::from_extensions(request.extensions());
                operation.accept().await.unwrap();
                operation.progress(Progress::from_percent(50.0));
                tokio::time::sleep(Duration::from_secs(9)).await;
                Ok(Response::new(BufferedBody::from("done")))
            })
            .await;
        let record = setup.only_operation().await;
        assert_eq!(record.operation().state(), State::Succeeded);
        assert_eq!(
            record.operation().metadata().progress(),
            Some(&Progress::from_percent(50.0))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_neither_signals_nor_returns_is_a_504() {
    let (setup, layer) = Setup::new();
    let layer = layer
        .when_signaled()
        .running_timeout(Duration::from_secs(60));
    let start = Instant::now();
    let response = setup
        .send(&layer, "", async |_| std::future::pending().await)
        .await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(start.elapsed().as_secs(), 60);
    assert!(text(response).await.contains(FailureKind::TimedOut.urn()));
    setup.assert_nothing_left().await;
}

/// The abandoned create of the first signal does not end the operation of the second.
#[tokio::test(start_paused = true)]
async fn a_handler_that_retries_its_signal_is_accepted() {
    for has_timer in [false, true] {
        let (setup, layer) = Setup::new();
        drop(layer);
        let start = Instant::now();
        // The store is unavailable for creates, and longer for writes that end an operation.
        let store = Hooked::new(setup.memory.clone(), move |call, when| {
            let is_away = match call {
                Call::Create => start.elapsed() < Duration::from_millis(5_300),
                Call::Finish => start.elapsed() < Duration::from_secs(15),
                _ => false,
            };
            std::future::ready(match when {
                When::Before if is_away => Err(StoreError::unavailable("away")),
                _ => Ok(()),
            })
        });
        let operations = Operations::new(store);
        let (layer, drain) = (operations.layer(), operations.drain_handle());
        let setup = Setup { drain, ..setup };
        let layer = match has_timer {
            true => layer.after(Duration::from_secs(6)),
            false => layer.when_signaled(),
        };
        let response = setup
            .send(&layer, "", async |request| {
                let operation = OperationHandle::from_extensions(request.extensions());
                let refused = operation.accept().await;
                assert_eq!(refused, Err(NotAccepted::Unavailable));
                operation.accept().await.unwrap();
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(Response::new(BufferedBody::from("done")))
            })
            .await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let record = setup.only_operation().await;
        assert_eq!(record.operation().state(), State::Succeeded, "{has_timer}");
    }
}

/// The handler was told that there is no operation. An operation that exists
/// nevertheless is never accepted later.
#[tokio::test(start_paused = true)]
async fn an_abandoned_operation_is_not_accepted_by_a_second_signal() {
    let (setup, layer) = Setup::new();
    drop(layer);
    let start = Instant::now();
    let store = Hooked::new(setup.memory.clone(), move |call, when| {
        let is_cut = (call, when) == (Call::Create, When::After)
            && start.elapsed() < Duration::from_millis(5_300);
        std::future::ready(match is_cut {
            true => Err(StoreError::unavailable("the connection was lost")),
            false => Ok(()),
        })
    });
    let operations = Operations::new(store);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let setup = Setup { drain, ..setup };
    let response = setup
        .send(&layer.when_signaled(), "", async |request| {
            let operation = OperationHandle::from_extensions(request.extensions());
            for _ in 0..2 {
                let refused = operation.accept().await;
                assert_eq!(refused, Err(NotAccepted::Unavailable));
            }
            let mut response = Response::new(BufferedBody::from("not now"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            Ok(response)
        })
        .await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(response);
    let record = setup.only_operation().await;
    let problem = record.operation().problem().unwrap();
    assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
}

/// The service is not ready when the time is over, so the operation waits as any other.
#[tokio::test(start_paused = true)]
async fn an_operation_accepted_before_its_service_is_ready_is_pending() {
    let (setup, layer) = Setup::new();
    let layer = layer.after(Duration::from_secs(1));
    let limit = ConcurrencyLimitLayer::new(1);
    let inner = limit.layer(service_fn(handler_of(10)));
    let service = layer.layer(inner);
    let post = || Request::post("/").body(BufferedBody::from("Q3")).unwrap();
    let first = service.clone().oneshot(post()).await.unwrap();
    let second = service.oneshot(post()).await.unwrap();
    for response in [first, second] {
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    }
    let records = setup.operations().await;
    let [second, first] = &records[..] else {
        panic!("two: {records:?}");
    };
    assert_eq!(first.operation().state(), State::Running);
    assert_eq!(first.attempts(), 1);
    assert_eq!(second.operation().state(), State::Pending);
    assert_eq!(second.attempts(), 0);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let records = setup.operations().await;
    assert_eq!(records[1].operation().state(), State::Succeeded);
    assert_eq!(records[0].operation().state(), State::Running);
    assert_eq!(records[0].attempts(), 1);
    let report = setup.drain.drain(Duration::from_secs(3600)).await;
    assert!(report.is_clean(), "{report:?}");
    let records = setup.memory.list(&ListQuery::new(None, 10)).await.unwrap();
    let ended = records
        .records
        .iter()
        .map(|record| record.operation().state());
    assert!(ended.eq([State::Succeeded; 2]));
}

/// A client cancels the operation as soon as it exists, before this node tracks it.
/// The node gets the revocation while it knows of no such operation.
#[tokio::test(start_paused = true)]
async fn a_cancel_right_after_the_create_stops_a_held_call() {
    let memory = MemoryStore::new();
    let (hook_memory, creates) = (memory.clone(), Arc::new(AtomicUsize::new(0)));
    let store = Hooked::new(memory.clone(), move |call, when| {
        let is_second =
            (call, when) == (Call::Create, When::After) && creates.fetch_add(1, SeqCst) == 1;
        let memory = hook_memory.clone();
        async move {
            if is_second {
                let found = memory.list(&ListQuery::new(None, 1)).await.unwrap();
                let record = &found.records[0];
                let (id, stamp) = (record.operation().id(), record.stamp().unwrap());
                let canceled = memory.force_finish(id, stamp, Outcome::Canceled).await;
                assert!(matches!(canceled, Ok(Written::Done(_))));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        }
    });
    let operations = Operations::new(store);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let post = || Request::post("/").body(BufferedBody::from("Q3")).unwrap();
    let inner = service_fn(handler_of(3600));
    // This operation makes the node renew leases and get revocations.
    let other = layer.clone().layer(inner.clone());
    assert_eq!(
        other.oneshot(post()).await.unwrap().status(),
        StatusCode::ACCEPTED
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held_service = layer.after(Duration::from_secs(1)).layer(inner);
    let response = held_service.oneshot(post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let accepted = Instant::now();
    while drain.in_flight().operations > 1 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(
            accepted.elapsed() < Duration::from_secs(2),
            "the call still runs"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_acceptance_has_the_format_of_the_dialect() {
    use tower_operations::{
        Idempotency,
        dialect::{Azure, Fhir, Google},
    };

    async fn failures(mode: &str, layer: AsyncAcceptLayer<MemoryStore>) -> [serde_json::Value; 2] {
        let (setup, _) = Setup::new();
        let layer = layer
            .running_timeout(Duration::from_secs(5))
            .result_limit(3)
            .idempotency(Idempotency::optional());
        let layer = match mode {
            "after" => layer.after(Duration::from_secs(60)),
            _ => layer.when_signaled(),
        };
        let late = setup.send(&layer, "respond-async", handler_of(10)).await;
        assert_eq!(late.status(), StatusCode::GATEWAY_TIMEOUT, "{mode}");
        // The response exceeds the limit for keyed answers, and its size is not known before.
        let service = layer.layer(service_fn(async |_: Request<Body>| {
            Ok::<_, Infallible>(Response::new(UnsizedBody(Some("done"))))
        }));
        let request = Request::post("/")
            .header("idempotency-key", "\"of 16 letters or more\"")
            .header("prefer", "respond-async")
            .body(BufferedBody::from("Q3"))
            .unwrap();
        let large = service.oneshot(request).await.unwrap();
        assert_eq!(large.status(), StatusCode::INTERNAL_SERVER_ERROR, "{mode}");
        let large = large.into_body().collect().await.unwrap().to_bytes();
        [text(late).await.into_bytes(), large.to_vec()]
            .map(|body| serde_json::from_slice(&body).unwrap())
    }

    for mode in ["after", "signaled"] {
        let operations = Operations::new(MemoryStore::new());
        for azure in failures(mode, operations.clone().dialect(Azure::default()).layer()).await {
            assert!(azure["error"]["code"].is_string(), "{azure}");
        }
        let [late, large] =
            failures(mode, operations.clone().dialect(Google::default()).layer()).await;
        assert_eq!(late["error"]["status"], "DEADLINE_EXCEEDED");
        assert_eq!(large["error"]["status"], "INTERNAL");
        for fhir in failures(mode, operations.clone().dialect(Fhir::default()).layer()).await {
            assert_eq!(fhir["resourceType"], "OperationOutcome");
        }
        let [late, large] = failures(mode, operations.layer()).await;
        assert_eq!(late["type"], FailureKind::TimedOut.urn());
        assert_eq!(large["type"], FailureKind::ResultTooLarge.urn());
    }
}

/// A body of unknown length.
struct UnsizedBody(Option<&'static str>);

impl http_body::Body for UnsizedBody {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        let piece = self.0.take().map(bytes::Bytes::from);
        std::task::Poll::Ready(piece.map(|piece| Ok(http_body::Frame::data(piece))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_passed_on_by_a_handler_has_the_format_of_the_dialect() {
    use axum::response::IntoResponse;

    let (setup, _) = Setup::new();
    let failing_store = Hooked::new(setup.memory.clone(), |call, _| {
        std::future::ready(match call {
            Call::Create => Err(StoreError::refused("down")),
            _ => Ok(()),
        })
    });
    let layer = Operations::new(failing_store)
        .dialect(tower_operations::dialect::Azure::default())
        .layer()
        .when_signaled();
    let refused = setup.send(&layer, "", async |request| {
        let refused = OperationHandle::from_extensions(request.extensions())
            .accept()
            .await;
        let response = refused.unwrap_err().into_response();
        Ok(response.map(|_| BufferedBody::from("in its own words")))
    });
    let refused = refused.await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    let error: serde_json::Value = serde_json::from_str(&text(refused).await).unwrap();
    assert!(error["error"]["code"].is_string(), "{error}");
}
