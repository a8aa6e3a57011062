//! What the layer owes to the services inside it: tower's readiness contract,
//! with a probe that panics when called unready and with tower's own layers.

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

/// Sends a request that is to be accepted, and gives the operation's id.
async fn accepted<S, C>(service: &S) -> OperationId
where
    S: Service<Request<BufferedBody>, Response = Response<C>> + Clone,
    S::Error: std::fmt::Debug,
{
    let response = service.clone().oneshot(post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap();
    location.rsplit('/').next().unwrap().parse().unwrap()
}

/// Waits for the operation to leave the states before `state`.
async fn reached(
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

/// Ready only after it was polled twice and its gate is open; panics when
/// called otherwise. Readiness belongs to one clone and lasts for one call.
struct Probe {
    gate: Arc<Gate>,
    polled: usize,
    ready: bool,
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
            polled: 0,
            ready: false,
        }
    }
}

impl Service<Request<Body>> for Probe {
    type Response = Response<BufferedBody>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<BufferedBody>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.polled += 1;
        if self.polled == 1 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut gate = self.gate.open.lock().unwrap();
        if !gate.0 {
            gate.1.push(context.waker().clone());
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without having become ready"
        );
        self.polled = 0;
        self.gate.calls.fetch_add(1, SeqCst);
        std::future::ready(Ok(Response::new(BufferedBody::from("done"))))
    }
}

#[tokio::test]
async fn the_front_is_ready_while_the_inner_service_is_not() {
    let gate = Arc::new(Gate::default());
    let store = MemoryStore::new();
    let probe = Probe {
        gate: Arc::clone(&gate),
        polled: 0,
        ready: false,
    };
    let service = AsyncAcceptLayer::new(store.clone()).layer(probe);
    let ids = [accepted(&service).await, accepted(&service).await];
    for id in &ids {
        assert_eq!(
            reached(&store, id, State::Pending).await.state(),
            State::Pending
        );
    }
    assert_eq!(gate.calls.load(SeqCst), 0);
    gate.open();
    for id in &ids {
        reached(&store, id, State::Succeeded).await;
    }
    assert_eq!(gate.calls.load(SeqCst), 2);
}

#[tokio::test]
async fn what_passes_through_is_called_when_ready_too() {
    let gate = Arc::new(Gate::default());
    gate.open();
    let probe = Probe {
        gate: Arc::clone(&gate),
        polled: 0,
        ready: false,
    };
    let service = AsyncAcceptLayer::new(MemoryStore::new()).layer(probe);
    let get = Request::get("/").body(BufferedBody::default()).unwrap();
    assert_eq!(service.oneshot(get).await.unwrap().status(), StatusCode::OK);
}

/// A service that says how many of its calls go on at the same time, and waits
/// for permits to finish.
#[derive(Clone)]
struct Counted {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    permits: Arc<Semaphore>,
}

impl Counted {
    fn new() -> Self {
        Self {
            now: Arc::default(),
            most: Arc::default(),
            permits: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Service<Request<Body>> for Counted {
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
async fn a_concurrency_limit_keeps_the_others_pending() {
    let store = MemoryStore::new();
    let counted = Counted::new();
    let service = ServiceBuilder::new()
        .layer(AsyncAcceptLayer::new(store.clone()))
        .concurrency_limit(2)
        .service(counted.clone());
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(accepted(&service).await);
    }
    reached(&store, &ids[0], State::Running).await;
    reached(&store, &ids[1], State::Running).await;
    for id in &ids[2..] {
        reached(&store, id, State::Pending).await;
    }
    counted.permits.add_permits(5);
    for id in &ids {
        reached(&store, id, State::Succeeded).await;
    }
    assert_eq!(counted.most.load(SeqCst), 2);
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
    let begun = tokio::time::Instant::now();
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(accepted(&service).await);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    for id in &ids {
        reached(&store, id, State::Succeeded).await;
    }
    assert_eq!(begun.elapsed().as_secs(), 20);
}

#[tokio::test]
async fn load_shed_inside_makes_operations_fail_and_outside_never_sheds() {
    let store = MemoryStore::new();
    let counted = Counted::new();
    let inside = ServiceBuilder::new()
        .load_shed()
        .layer(AsyncAcceptLayer::new(store.clone()))
        .load_shed()
        .concurrency_limit(1)
        .service(counted.clone());
    let first = accepted(&inside).await;
    reached(&store, &first, State::Running).await;
    // Accepted all the same, and then shed by the inner one.
    let second = accepted(&inside).await;
    let shed = reached(&store, &second, State::Failed).await;
    assert_eq!(
        shed.problem().unwrap().type_uri(),
        FailureKind::InnerError.urn()
    );
    counted.permits.add_permits(1);
    reached(&store, &first, State::Succeeded).await;
}
