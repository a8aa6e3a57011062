//! Accepting a request, in process: the way to its 202.

use test_support::hooked;

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hooked::{Call, Hooked, When};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, MemoryStore, OperationHandle, Operations, RequestBody,
    store::{List, ListQuery},
};

/// A body that arrives frame by frame, with a pause before each.
struct SlowBody {
    frames: VecDeque<&'static str>,
    paused: bool,
}

impl SlowBody {
    fn new(frames: &[&'static str]) -> Self {
        Self {
            frames: frames.iter().copied().collect(),
            paused: false,
        }
    }
}

impl Body for SlowBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.paused = !self.paused;
        if self.paused {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = self.frames.pop_front();
        Poll::Ready(frame.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
    }
}

/// Polls `future` until it has been pending `times` times. Returns its output
/// if it was ready before.
async fn poll_times<F: Future>(mut future: Pin<&mut F>, times: usize) -> Option<F::Output> {
    let mut pending = 0;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if pending == times => Poll::Ready(None),
        Poll::Pending => {
            pending += 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test]
async fn a_dropped_accept_leaves_nothing_or_one_operation_that_finishes() {
    let (mut without_operation, mut with_operation, mut accepted) = (0, 0, 0);
    // The response future is polled `polls` times and dropped. In between its
    // task makes `steps` more steps.
    // `is_hasty`: the store claims that its calls never wait, which is false.
    let points = (0..20).flat_map(|polls| (0..12).map(move |steps| (polls, steps)));
    for ((polls, steps), is_hasty) in points.flat_map(|point| [(point, false), (point, true)]) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let memory = MemoryStore::new();
        let mut store = Hooked::new(memory.clone(), async |_, _| {
            tokio::task::yield_now().await;
            Ok(())
        });
        store.is_hasty = is_hasty;
        let operations = Operations::new(store);
        let (layer, drain) = (operations.layer(), operations.drain_handle());
        let service = layer.layer(service_fn(
            move |request: Request<RequestBody<SlowBody>>| {
                counter.fetch_add(1, SeqCst);
                async move {
                    assert_eq!(request.into_body().size_hint().exact(), Some(6));
                    tokio::task::yield_now().await;
                    Ok::<_, Infallible>(Response::new(SlowBody::new(&["do", "ne"])))
                }
            },
        ));
        let request = Request::post("/")
            .body(SlowBody::new(&["one", "two"]))
            .unwrap();
        {
            let mut response = pin!(service.oneshot(request));
            if let Some(response) = poll_times(response.as_mut(), polls).await {
                assert_eq!(response.unwrap().status(), StatusCode::ACCEPTED);
                accepted += 1;
            }
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
        }
        let report = drain.drain(Duration::from_secs(5)).await;
        assert!(report.is_clean(), "{report:?}");
        let operations = memory
            .list(&ListQuery::new(None, 10))
            .await
            .unwrap()
            .records;
        assert_eq!(
            operations.len(),
            calls.load(SeqCst),
            "after {polls} polls and {steps} steps"
        );
        match operations.as_slice() {
            [] => without_operation += 1,
            [one] => {
                with_operation += 1;
                let result = one.operation().result().expect("it succeeded");
                assert_eq!(result.body().unwrap(), b"done");
            }
            _ => panic!("one request made several operations"),
        }
    }
    // All three cases occurred: no operation, one operation, and a 202.
    assert!(
        without_operation > 0 && with_operation > accepted && accepted > 0,
        "{without_operation} {with_operation} {accepted}"
    );
}

#[tokio::test]
async fn layers_and_their_clones_share_one_bound_and_spawn_no_task() {
    let operations = Operations::new(MemoryStore::new()).max_in_flight(1);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let before = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    let hang = service_fn(|_: Request<RequestBody<BufferedBody>>| async {
        std::future::pending::<Result<Response<BufferedBody>, Infallible>>().await
    });
    let services: Vec<_> = (0..100).map(|_| layer.clone().layer(hang)).collect();
    assert_eq!(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        before
    );

    // All services share the bound.
    let mut statuses = Vec::new();
    for service in services.into_iter().take(3) {
        let request = Request::post("/").body(BufferedBody::default()).unwrap();
        statuses.push(service.oneshot(request).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [202, 503, 503]);
    assert_eq!(drain.in_flight().operations, 1);
}

#[tokio::test]
async fn a_refused_request_has_retry_after_and_releases_its_permit() {
    let operations = Operations::new(MemoryStore::new().max_operations(0));
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let service = layer.layer(service_fn(move |_: Request<RequestBody<BufferedBody>>| {
        counter.fetch_add(1, SeqCst);
        async { Ok::<_, Infallible>(Response::new(BufferedBody::default())) }
    }));
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert_eq!(drain.in_flight().operations, 0);
    assert_eq!(calls.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_is_a_503_after_the_create_timeout() {
    let store = Hooked::new(MemoryStore::new(), async |call, _| {
        if call == Call::Create {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let operations = Operations::new(store);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let service = layer
        .create_timeout(Duration::from_secs(3))
        .layer(service_fn(|_: Request<RequestBody<BufferedBody>>| async {
            panic!("the inner service must not be called");
            #[allow(unreachable_code)]
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        }));
    let start = tokio::time::Instant::now();
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    // The create may still take effect. The operation stays in flight for a
    // lease term, and is ended when it appears.
    assert_eq!(drain.in_flight().operations, 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(drain.in_flight().operations, 0);
}

#[tokio::test(start_paused = true)]
async fn a_create_with_a_lost_answer_is_retried_with_the_same_id() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&tries);
    let memory = MemoryStore::new();
    let store = Hooked::new(memory.clone(), move |call, when| {
        let fails = call == Call::Create && when == When::After && counter.fetch_add(1, SeqCst) < 3;
        async move {
            match fails {
                true => Err(tower_operations::store::StoreError::unavailable(
                    "the connection is lost",
                )),
                false => Ok(()),
            }
        }
    });
    let operations = Operations::new(store);
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let service = layer.layer(service_fn(move |_: Request<RequestBody<BufferedBody>>| {
        counter.fetch_add(1, SeqCst);
        async { Ok::<_, Infallible>(Response::new(BufferedBody::default())) }
    }));
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    assert_eq!(
        service.oneshot(request).await.unwrap().status(),
        StatusCode::ACCEPTED
    );
    assert!(drain.drain(Duration::from_secs(5)).await.is_clean());
    assert_eq!(
        (tries.load(SeqCst), calls.load(SeqCst), memory.len()),
        (4, 1, 1)
    );
}

#[tokio::test]
async fn the_inner_service_is_cloned_once_per_request() {
    #[derive(Debug)]
    struct CloneCounter(Arc<AtomicUsize>);

    impl Clone for CloneCounter {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, SeqCst);
            Self(Arc::clone(&self.0))
        }
    }

    impl Service<Request<RequestBody<BufferedBody>>> for CloneCounter {
        type Response = Response<BufferedBody>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<BufferedBody>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<RequestBody<BufferedBody>>) -> Self::Future {
            let is_detached = OperationHandle::from_extensions(request.extensions()).is_detached();
            assert_eq!(is_detached, request.method() == http::Method::GET);
            std::future::ready(Ok(Response::new(BufferedBody::default())))
        }
    }

    let clones = Arc::new(AtomicUsize::new(0));
    let operations = Operations::new(MemoryStore::new());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let mut service = layer.layer(CloneCounter(Arc::clone(&clones)));
    for request in [Request::get("/"), Request::post("/")] {
        let request = request.body(BufferedBody::default()).unwrap();
        service.ready().await.unwrap().call(request).await.unwrap();
    }
    assert!(drain.drain(Duration::from_secs(5)).await.is_clean());
    assert_eq!(clones.load(SeqCst), 2);
}
