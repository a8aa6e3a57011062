//! Tower's readiness contract towards inner services, with a probe that panics
//! when called unready and with tower's own layers.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, buffer::Buffer, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, FailureKind, MemoryStore, Operation, OperationId,
    RecordedResponse, RequestBody, State,
    store::{Store, Watch},
};

type Body = RequestBody<BufferedBody>;

fn post() -> Request<BufferedBody> {
    Request::post("/").body(BufferedBody::default()).unwrap()
}

/// Sends a request, asserts a 202 and returns the id of the operation.
async fn accept<S, C>(service: &S) -> OperationId
where
    S: Service<Request<BufferedBody>, Response = Response<C>> + Clone,
    S::Error: std::fmt::Debug,
{
    let response = service.clone().oneshot(post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap();
    location.rsplit('/').next().unwrap().parse().unwrap()
}

/// Waits until the operation is in `state`.
async fn wait_for_state(
    store: &MemoryStore,
    id: &OperationId,
    state: State,
) -> Operation<RecordedResponse> {
    let mut record = store
        .get(id)
        .await
        .unwrap()
        .expect("a 202 is readable at once");
    while record.operation().state() != state {
        assert!(
            !record.operation().state().is_terminal(),
            "{:?}",
            record.operation()
        );
        let version = record.version().unwrap();
        record = store
            .changed(id, version, Duration::from_secs(30))
            .await
            .unwrap()
            .unwrap();
        assert_ne!(
            record.version(),
            Some(version),
            "{id} did not become {state}"
        );
    }
    record.operation().clone()
}

/// A service that is ready after two polls, once its gate is open. A call
/// without readiness panics. Readiness belongs to one clone and lasts for one
/// call.
struct Probe {
    gate: Arc<Gate>,
    polls: usize,
    is_ready: bool,
}

#[derive(Default)]
struct Gate {
    open: Mutex<(bool, Vec<Waker>)>,
    calls: AtomicUsize,
}

impl Gate {
    fn open(&self) {
        let mut gate = self.open.lock().unwrap();
        gate.0 = true;
        gate.1.drain(..).for_each(Waker::wake);
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self {
            gate: Arc::clone(&self.gate),
            polls: 0,
            is_ready: false,
        }
    }
}

impl Service<Request<Body>> for Probe {
    type Response = Response<BufferedBody>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<BufferedBody>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.polls += 1;
        if self.polls == 1 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut gate = self.gate.open.lock().unwrap();
        if !gate.0 {
            gate.1.push(context.waker().clone());
            return Poll::Pending;
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.is_ready),
            "called without having become ready"
        );
        self.polls = 0;
        self.gate.calls.fetch_add(1, SeqCst);
        std::future::ready(Ok(Response::new(BufferedBody::from("done"))))
    }
}

#[tokio::test]
async fn the_layer_is_ready_while_the_inner_service_is_not() {
    let gate = Arc::new(Gate::default());
    let store = MemoryStore::new();
    let probe = Probe {
        gate: Arc::clone(&gate),
        polls: 0,
        is_ready: false,
    };
    let service = AsyncAcceptLayer::new(store.clone()).layer(probe);
    let ids = [accept(&service).await, accept(&service).await];
    for id in &ids {
        assert_eq!(
            wait_for_state(&store, id, State::Pending).await.state(),
            State::Pending
        );
    }
    assert_eq!(gate.calls.load(SeqCst), 0);
    gate.open();
    for id in &ids {
        wait_for_state(&store, id, State::Succeeded).await;
    }
    assert_eq!(gate.calls.load(SeqCst), 2);
}

#[tokio::test]
async fn a_passed_through_request_waits_for_readiness() {
    let gate = Arc::new(Gate::default());
    gate.open();
    let probe = Probe {
        gate: Arc::clone(&gate),
        polls: 0,
        is_ready: false,
    };
    let service = AsyncAcceptLayer::new(MemoryStore::new()).layer(probe);
    let get = Request::get("/").body(BufferedBody::default()).unwrap();
    assert_eq!(service.oneshot(get).await.unwrap().status(), StatusCode::OK);
}

/// A service that counts concurrent calls. A call needs a permit to finish.
#[derive(Clone)]
struct ConcurrencyCounter {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    permits: Arc<Semaphore>,
}

impl ConcurrencyCounter {
    fn new() -> Self {
        Self {
            now: Arc::default(),
            most: Arc::default(),
            permits: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Service<Request<Body>> for ConcurrencyCounter {
    type Response = Response<BufferedBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<BufferedBody>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let Self { now, most, permits } = self.clone();
        Box::pin(async move {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            permits.acquire().await?.forget();
            now.fetch_sub(1, SeqCst);
            Ok(Response::new(BufferedBody::default()))
        })
    }
}

#[tokio::test]
async fn a_concurrency_limit_keeps_further_operations_pending() {
    let store = MemoryStore::new();
    let counter = ConcurrencyCounter::new();
    let service = ServiceBuilder::new()
        .layer(AsyncAcceptLayer::new(store.clone()))
        .concurrency_limit(2)
        .service(counter.clone());
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(accept(&service).await);
    }
    wait_for_state(&store, &ids[0], State::Running).await;
    wait_for_state(&store, &ids[1], State::Running).await;
    for id in &ids[2..] {
        wait_for_state(&store, id, State::Pending).await;
    }
    // Both are called, and stay within the limit.
    while counter.now.load(SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    counter.permits.add_permits(5);
    for id in &ids {
        wait_for_state(&store, id, State::Succeeded).await;
    }
    assert_eq!(counter.most.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_buffered_rate_limit_spreads_the_calls() {
    let store = MemoryStore::new();
    let limited = ServiceBuilder::new()
        .rate_limit(2, Duration::from_secs(10))
        .service(service_fn(|_: Request<Body>| async {
            Ok::<_, BoxError>(Response::new(BufferedBody::default()))
        }));
    let service = AsyncAcceptLayer::new(store.clone()).layer(Buffer::new(limited, 8));
    let start = tokio::time::Instant::now();
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(accept(&service).await);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    for id in &ids {
        wait_for_state(&store, id, State::Succeeded).await;
    }
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test]
async fn an_inner_load_shed_fails_operations_and_an_outer_one_never_sheds() {
    let store = MemoryStore::new();
    let counter = ConcurrencyCounter::new();
    let inside = ServiceBuilder::new()
        .load_shed()
        .layer(AsyncAcceptLayer::new(store.clone()))
        .load_shed()
        .concurrency_limit(1)
        .service(counter.clone());
    let first = accept(&inside).await;
    wait_for_state(&store, &first, State::Running).await;
    // The second request is accepted, and then shed by the inner layer.
    let second = accept(&inside).await;
    let shed = wait_for_state(&store, &second, State::Failed).await;
    assert_eq!(
        shed.problem().unwrap().type_uri(),
        FailureKind::InnerError.urn()
    );
    counter.permits.add_permits(1);
    wait_for_state(&store, &first, State::Succeeded).await;
}
