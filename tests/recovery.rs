//! Recovery of operations whose node dies, is cut off or is drained: several nodes
//! on one store. The clock is paused.

use test_support::{hooked, ready_later::ReadyLater};

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use hooked::{Call, Hooked, When};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneService};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, Drain, FailureKind, MemoryStore, OperationHandle, OperationId,
    Operations, Progress, Recovery, RequestBody, ResponseBody, State,
    store::{LeaseConfig, NewOperation, NodeId, Owner, Repository, Store, StoreError, Written},
};

const TERM: Duration = Duration::from_secs(30);

/// One call of the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    node: &'static str,
    operation: Option<String>,
    attempt: u32,
    owner: Option<Owner>,
    target: String,
    body: Bytes,
    authorization: bool,
}

type Runs = Arc<Mutex<Vec<Run>>>;
type Handler = Arc<
    dyn Fn(OperationHandle) -> Pin<Box<dyn Future<Output = Response<BufferedBody>> + Send>>
        + Send
        + Sync,
>;

/// The service of a node, without and with its layer.
type Inner =
    BoxCloneService<Request<RequestBody<BufferedBody>>, Response<BufferedBody>, Infallible>;
type Layered =
    BoxCloneService<Request<BufferedBody>, Response<ResponseBody<BufferedBody>>, Infallible>;

fn handler<F>(handler: impl Fn(OperationHandle) -> F + Send + Sync + 'static) -> Handler
where
    F: Future<Output = Response<BufferedBody>> + Send + 'static,
{
    Arc::new(move |operation| Box::pin(handler(operation)))
}

fn hang() -> Handler {
    handler(async |_| std::future::pending().await)
}

fn respond(text: &'static str) -> Handler {
    handler(move |_| async move { Response::new(BufferedBody::from(text)) })
}

/// Returns the owner that a request names, if any.
fn header_owner(parts: &http::request::Parts) -> Option<Owner> {
    let tenant = parts.headers.get("x-tenant")?;
    Some(Owner::new(tenant.to_str().ok()?))
}

/// One process with a whole application: a layer around a handler.
struct Node {
    app: BoxCloneService<Request<BufferedBody>, Response<Bytes>, Infallible>,
    operations: Operations<Hooked>,
    drain: Drain,
    dead: Arc<AtomicBool>,
}

impl Node {
    fn start(
        name: &'static str,
        memory: &MemoryStore,
        runs: &Runs,
        handler: Handler,
        set: impl FnOnce(AsyncAcceptLayer<Hooked>) -> AsyncAcceptLayer<Hooked>,
    ) -> Self {
        let dead = Arc::new(AtomicBool::new(false));
        let is_dead = Arc::clone(&dead);
        let store = Hooked::new(memory.clone(), move |_, _| {
            let is_dead = is_dead.load(SeqCst);
            async move {
                // Calls of a dead node never return.
                if is_dead {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        Self::with_store(name, store, dead, runs, handler, set)
    }

    fn with_store(
        name: &'static str,
        store: Hooked,
        dead: Arc<AtomicBool>,
        runs: &Runs,
        handler: Handler,
        set: impl FnOnce(AsyncAcceptLayer<Hooked>) -> AsyncAcceptLayer<Hooked>,
    ) -> Self {
        Self::with_service(name, store, dead, runs, handler, |layer, inner| {
            BoxCloneService::new(set(layer).layer(inner))
        })
    }

    fn with_service(
        name: &'static str,
        store: Hooked,
        dead: Arc<AtomicBool>,
        runs: &Runs,
        handler: Handler,
        layered: impl FnOnce(AsyncAcceptLayer<Hooked>, Inner) -> Layered,
    ) -> Self {
        let operations = Operations::new(store)
            .owner(header_owner)
            .lease(LeaseConfig::new(NodeId::named(name), TERM));
        let (layer, drain) = (operations.layer(), operations.drain_handle());
        let runs = Arc::clone(runs);
        let inner = service_fn(move |request: Request<RequestBody<BufferedBody>>| {
            let (runs, handler) = (Arc::clone(&runs), Arc::clone(&handler));
            async move {
                let operation = OperationHandle::from_extensions(request.extensions());
                let owner = request.extensions().get::<Owner>().cloned();
                let target = request.uri().to_string();
                let authorization = request.headers().contains_key("authorization");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                runs.lock().unwrap().push(Run {
                    node: name,
                    operation: operation.id().map(ToString::to_string),
                    attempt: operation.attempt(),
                    owner,
                    target,
                    body,
                    authorization,
                });
                Ok::<_, Infallible>(handler(operation).await)
            }
        });
        let app = layered(layer, BoxCloneService::new(inner));
        let app = service_fn(move |request: Request<BufferedBody>| {
            let app = app.clone();
            async move {
                let response = app.oneshot(request).await?;
                let (parts, body) = response.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                Ok(Response::from_parts(parts, body))
            }
        });
        Self {
            app: BoxCloneService::new(app),
            operations,
            drain,
            dead,
        }
    }

    async fn send(&self, request: Request<BufferedBody>) -> Response<Bytes> {
        let Ok(response) = self.app.clone().oneshot(request).await;
        response
    }

    /// Posts a report and asserts that it is accepted.
    async fn post(&self) -> OperationId {
        let response = self.send(report()).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let location = response.headers()["location"].to_str().unwrap();
        let id = location.rsplit('/').next().unwrap().parse().unwrap();
        sleep(Duration::from_millis(10)).await; // the run starts
        id
    }

    fn start_recovery(&self) {
        tokio::spawn(self.operations.recovery().run());
    }

    fn start_reruns(&self, attempts: u32) {
        tokio::spawn(self.recovery(attempts).run());
    }

    /// A recovery that reruns operations of this node and of others.
    fn recovery(&self, attempts: u32) -> Recovery<Hooked> {
        let app = self.app.clone();
        let app = service_fn(move |request| {
            let app = app.clone();
            async move {
                app.oneshot(request)
                    .await
                    .map(|response| response.map(BufferedBody::from))
            }
        });
        self.operations.recovery().rerun_with(app, attempts)
    }

    fn kill(&self) {
        self.dead.store(true, SeqCst);
    }
}

fn report() -> Request<BufferedBody> {
    Request::post("/reports?for=ada")
        .header("authorization", "Bearer s3cret")
        .header("x-tenant", "ada")
        .body("{\"pages\":3}".into())
        .unwrap()
}

fn plain(layer: AsyncAcceptLayer<Hooked>) -> AsyncAcceptLayer<Hooked> {
    layer
}

fn rerunnable(layer: AsyncAcceptLayer<Hooked>) -> AsyncAcceptLayer<Hooked> {
    layer.rerun_if(|parts| parts.uri.path() == "/reports")
}

/// Waits for the end of an operation. Returns its state, its problem and the waiting
/// time.
async fn wait_for_end(memory: &MemoryStore, id: &OperationId) -> (State, Option<String>, Duration) {
    let start = Instant::now();
    loop {
        let record = memory.get(id).await.unwrap().unwrap();
        let operation = record.operation();
        if operation.state().is_terminal() {
            let problem = operation
                .problem()
                .map(|problem| problem.type_uri().to_owned());
            return (operation.state(), problem, start.elapsed());
        }
        assert!(
            start.elapsed() < Duration::from_secs(3600),
            "the operation never ends"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

fn urn(kind: FailureKind) -> Option<String> {
    Some(kind.urn().to_owned())
}

#[tokio::test(start_paused = true)]
async fn operations_of_a_dead_node_are_interrupted_by_another_node() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hang(), rerunnable);
    let second = Node::start("second", &memory, &runs, hang(), plain);
    second.start_recovery();
    let id = first.post().await;
    // A live node keeps its operation.
    sleep(10 * TERM).await;
    let record = memory.get(&id).await.unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Running);

    first.kill();
    let (state, problem, took) = wait_for_end(&memory, &id).await;
    assert_eq!(
        (state, problem),
        (State::Failed, urn(FailureKind::Interrupted))
    );
    // The last renewal was at most ten seconds before, and the recovery looks every ten.
    assert!(
        took > TERM - TERM / 3 && took < TERM + TERM / 3 + Duration::from_secs(1),
        "{took:?}"
    );
    let record = memory.get(&id).await.unwrap().unwrap();
    assert_eq!(record.node(), Some(&NodeId::named("second")));
    assert_eq!(runs.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn expired_leases_are_reclaimed_at_the_interval() {
    for interval in [TERM / 3, TERM / 10, 2 * TERM] {
        let memory = MemoryStore::new();
        let lease = LeaseConfig::default().with_term(TERM);
        let recovery = Operations::new(memory.clone()).lease(lease).recovery();
        tokio::spawn(recovery.interval(interval).run());
        sleep(3 * TERM).await;
        let mut delays = Vec::new();
        for step in 0..100 {
            let lease = LeaseConfig::new(NodeId::named("dead"), TERM);
            let id = OperationId::new();
            let new = NewOperation::new(id.clone()).with_lease(lease);
            memory.create(new).await.unwrap();
            let (_, _, took) = wait_for_end(&memory, &id).await;
            delays.push(took.saturating_sub(TERM));
            sleep(step * Duration::from_millis(100)).await;
        }
        let (least, most) = (*delays.iter().min().unwrap(), *delays.iter().max().unwrap());
        // `wait_for_end` looks ten times a second.
        let slack = Duration::from_millis(150);
        assert!(most <= interval + slack, "{most:?} late at {interval:?}");
        assert!(least < interval / 2, "{least:?} late at {interval:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rerunnable_operation_is_rerun_by_another_node_and_ends_once() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let (wake, is_awake) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(AtomicBool::new(false)),
    );
    let late = handler({
        let (wake, is_awake) = (Arc::clone(&wake), Arc::clone(&is_awake));
        move |_| {
            let (wake, is_awake) = (Arc::clone(&wake), Arc::clone(&is_awake));
            async move {
                wake.notified().await;
                is_awake.store(true, SeqCst);
                Response::new(BufferedBody::from("the first, late"))
            }
        }
    });
    let first = Node::start("first", &memory, &runs, late, rerunnable);
    let second = Node::start("second", &memory, &runs, respond("the second"), rerunnable);
    second.start_reruns(3);
    let id = first.post().await;
    first.kill();
    let (state, ..) = wait_for_end(&memory, &id).await;
    assert_eq!(state, State::Succeeded);
    let before = memory.get(&id).await.unwrap().unwrap();
    assert_eq!(
        before.operation().result().unwrap().body().unwrap(),
        b"the second"
    );
    assert_eq!(before.attempts(), 2);

    let run = |node, attempt, owner, authorization| Run {
        node,
        operation: Some(id.to_string()),
        attempt,
        owner,
        target: "/reports?for=ada".into(),
        body: "{\"pages\":3}".into(),
        authorization,
    };
    let expected = [
        run("first", 1, None, true),
        run("second", 2, Some(Owner::new("ada")), false),
    ];
    assert_eq!(*runs.lock().unwrap(), expected);

    // The first node comes back to life and can write nothing.
    first.dead.store(false, SeqCst);
    wake.notify_one();
    sleep(2 * TERM).await;
    assert_eq!(memory.get(&id).await.unwrap().unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_lost_its_lease_stops() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let canceled = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&canceled);
    let watch_cancellation = handler(move |operation: OperationHandle| {
        let flag = Arc::clone(&flag);
        async move {
            operation.cancellation().cancelled().await;
            flag.store(true, SeqCst);
            std::future::pending().await
        }
    });
    let first = Node::start("first", &memory, &runs, watch_cancellation, plain);
    let second = Node::start("second", &memory, &runs, hang(), plain);
    second.start_recovery();
    let id = first.post().await;
    first.kill();
    wait_for_end(&memory, &id).await;
    assert!(!canceled.load(SeqCst));
    first.dead.store(false, SeqCst);
    // A renewal that hangs is abandoned after a third of the term.
    sleep(TERM).await;
    assert!(canceled.load(SeqCst));
    assert!(first.drain.drain(TERM).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_kills_its_nodes_starts_at_most_its_attempts() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let names = ["1", "2", "3", "4", "5", "6"];
    let start = |name| {
        let node = Node::start(name, &memory, &runs, hang(), rerunnable);
        node.start_reruns(3);
        node
    };
    let mut node = start(names[0]);
    let id = node.post().await;
    for name in &names[1..] {
        // Each node that runs the request dies.
        let runs_before = runs.lock().unwrap().len();
        node.kill();
        node = start(name);
        let since = Instant::now();
        while runs.lock().unwrap().len() == runs_before && since.elapsed() < 5 * TERM {
            sleep(Duration::from_millis(100)).await;
        }
    }
    let (state, problem, _) = wait_for_end(&memory, &id).await;
    assert_eq!(
        (state, problem),
        (State::Failed, urn(FailureKind::AttemptsExhausted))
    );
    let attempts: Vec<_> = runs.lock().unwrap().iter().map(|run| run.attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_may_not_be_rerun_is_interrupted() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let others =
        |layer: AsyncAcceptLayer<Hooked>| layer.rerun_if(|parts| parts.uri.path() == "/exports");
    let first = Node::start("first", &memory, &runs, hang(), others);
    let second = Node::start("second", &memory, &runs, respond("done"), others);
    second.start_reruns(3);
    let id = first.post().await;
    first.kill();
    let (state, problem, _) = wait_for_end(&memory, &id).await;
    assert_eq!(
        (state, problem),
        (State::Failed, urn(FailureKind::Interrupted))
    );
    assert_eq!(runs.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn operations_released_by_a_drain_are_rerun_within_a_second() {
    // The drain starts at different times between two looks of the other node.
    for delay in [0, 1, 2, 5, 8, 11, 40] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let first = Node::start("first", &memory, &runs, hang(), rerunnable);
        let second = Node::start("second", &memory, &runs, respond("done"), rerunnable);
        first.start_reruns(3);
        second.start_reruns(3);
        let ids = [first.post().await, first.post().await];
        sleep(Duration::from_secs(delay)).await;
        let report = first.drain.drain(Duration::ZERO).await;
        assert_eq!(report.released.len(), 2, "{report:?}");
        for id in ids {
            let (state, _, took) = wait_for_end(&memory, &id).await;
            assert_eq!(state, State::Succeeded);
            assert!(took < Duration::from_secs(1), "after {delay} s: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_interrupts_nothing() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let down = Arc::new(AtomicBool::new(false));
    let start = |name, handler| {
        let is_down = Arc::clone(&down);
        let store = Hooked::new(memory.clone(), move |_, when| {
            let answer = match (is_down.load(SeqCst), when) {
                (true, When::Before) => Err(StoreError::unavailable("down")),
                _ => Ok(()),
            };
            std::future::ready(answer)
        });
        Node::with_store(name, store, Arc::default(), &runs, handler, plain)
    };
    let slow = handler(async |operation: OperationHandle| {
        for minute in 0..60 {
            sleep(Duration::from_secs(60)).await;
            operation.progress(Progress::from_count(minute, 60));
        }
        Response::new(BufferedBody::from("done"))
    });
    let first = start("first", slow);
    let second = start("second", hang());
    // The recovery looks more often than the first node renews.
    let interval = Duration::from_millis(500);
    tokio::spawn(second.operations.recovery().interval(interval).run());
    let id = first.post().await;
    for outage in [TERM / 2, 2 * TERM, 20 * TERM] {
        sleep(3 * TERM).await;
        down.store(true, SeqCst);
        sleep(outage).await;
        down.store(false, SeqCst);
        sleep(3 * TERM).await;
        let record = memory.get(&id).await.unwrap().unwrap();
        assert_eq!(record.operation().state(), State::Running, "{outage:?}");
        assert_eq!(record.node(), Some(&NodeId::named("first")));
    }
    assert_eq!(wait_for_end(&memory, &id).await.0, State::Succeeded);
}

/// A process that is stopped and continued, or a machine that sleeps.
#[tokio::test(start_paused = true)]
async fn a_node_that_slept_keeps_its_operations() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let slow = handler(async |_| {
        sleep(100 * TERM).await;
        Response::new(BufferedBody::from("done"))
    });
    let only = Node::start("only", &memory, &runs, slow, plain);
    let interval = Duration::from_millis(500);
    tokio::spawn(only.operations.recovery().interval(interval).run());
    let id = only.post().await;
    sleep(2 * TERM).await;
    for _ in 0..20 {
        tokio::time::advance(2 * TERM).await;
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(wait_for_end(&memory, &id).await.0, State::Succeeded);
    assert_eq!(runs.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_was_not_started_is_rerun_too() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let dead = Arc::new(AtomicBool::new(false));
    let is_dead = Arc::clone(&dead);
    // The node dies before it can start a run.
    let store = Hooked::new(memory.clone(), move |call, _| {
        if call == Call::Start {
            is_dead.store(true, SeqCst);
        }
        let is_dead = is_dead.load(SeqCst);
        async move {
            if is_dead {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    let pending = |layer, inner| {
        let layer: AsyncAcceptLayer<_> = rerunnable(layer);
        BoxCloneService::new(layer.layer(ReadyLater::new(inner)))
    };
    let first = Node::with_service("first", store, dead, &runs, hang(), pending);
    let second = Node::start("second", &memory, &runs, respond("done"), rerunnable);
    second.start_reruns(1);
    let id = first.post().await;
    assert_eq!(wait_for_end(&memory, &id).await.0, State::Succeeded);
    let runs = runs.lock().unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!((runs[0].node, runs[0].attempt), ("second", 1));
}

#[tokio::test(start_paused = true)]
async fn a_drain_releases_rerunnable_operations_to_other_nodes() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hang(), rerunnable);
    first.start_reruns(3);
    let id = first.post().await;
    let report = first.drain.drain(Duration::from_secs(5)).await;
    assert_eq!(report.released, std::slice::from_ref(&id));
    assert!(report.interrupted.is_empty() && report.unrecorded.is_empty());
    assert!(!report.is_clean());
    let record = memory.get(&id).await.unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Running);

    let second = Node::start("second", &memory, &runs, respond("done"), rerunnable);
    second.start_reruns(3);
    let (state, _, took) = wait_for_end(&memory, &id).await;
    assert_eq!(state, State::Succeeded);
    // The rerun waits neither for the lease to expire nor for a time of contact with the
    // store.
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn released_operations_are_reclaimed_at_once_and_lapsed_ones_are_not() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hang(), rerunnable);
    let second = Node::start("second", &memory, &runs, hang(), rerunnable);
    let _idle_recovery = first.recovery(3);
    let (released, lapsed) = (first.post().await, second.post().await);
    second.kill();
    // This is longer than any lease, and no recovery runs meanwhile.
    sleep(2 * TERM).await;
    first.drain.drain(Duration::ZERO).await;

    let third = Node::start("third", &memory, &runs, respond("done"), rerunnable);
    third.start_reruns(3);
    let (state, _, took) = wait_for_end(&memory, &released).await;
    assert_eq!(state, State::Succeeded);
    assert!(took < Duration::from_secs(1), "{took:?}");
    // The third node waits, because it may itself have been cut off from the store.
    let (state, _, took) = wait_for_end(&memory, &lapsed).await;
    assert_eq!(state, State::Succeeded);
    assert!(took > TERM / 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn credentials_and_the_original_uri_are_stored_on_request() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let set = |layer: AsyncAcceptLayer<Hooked>| {
        rerunnable(layer)
            .store_credentials()
            .original_uri(|_| "/v2/reports".parse().unwrap())
    };
    let first = Node::start("first", &memory, &runs, hang(), set);
    let second = Node::start("second", &memory, &runs, respond("done"), set);
    second.start_reruns(3);
    let id = first.post().await;
    first.kill();
    assert_eq!(wait_for_end(&memory, &id).await.0, State::Succeeded);
    let runs = runs.lock().unwrap();
    assert!(runs[1].authorization);
    assert_eq!(runs[1].target, "/v2/reports");
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn a_request_to_a_nested_router_is_rerun_with_its_original_uri() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hang(), rerunnable);
    let second = Node::start("second", &memory, &runs, respond("done"), rerunnable);
    second.start_reruns(3);
    let mut request = report();
    let original = axum::extract::OriginalUri("/api/v1/reports?year=2026".parse().unwrap());
    request.extensions_mut().insert(original);
    let response = first.send(request).await;
    let location = response.headers()["location"].to_str().unwrap();
    let id = location.rsplit('/').next().unwrap().parse().unwrap();
    first.kill();
    assert_eq!(wait_for_end(&memory, &id).await.0, State::Succeeded);
    assert_eq!(runs.lock().unwrap()[1].target, "/api/v1/reports?year=2026");
}

#[tokio::test(start_paused = true)]
async fn an_authenticating_layer_recognizes_a_rerun_by_its_handle() {
    for (trusts_handles, expected) in [(true, State::Succeeded), (false, State::Failed)] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let first = Node::start("first", &memory, &runs, hang(), rerunnable);
        let second = Node::start("second", &memory, &runs, respond("done"), rerunnable);
        let app = second.app.clone();
        let authenticated = service_fn(move |request: Request<BufferedBody>| {
            let app = app.clone();
            let has_handle = request.extensions().get::<OperationHandle>().is_some();
            let may_pass = trusts_handles && has_handle;
            async move {
                if !may_pass && !request.headers().contains_key("authorization") {
                    let mut refused = Response::new(BufferedBody::default());
                    *refused.status_mut() = StatusCode::UNAUTHORIZED;
                    return Ok(refused);
                }
                let response: Result<_, Infallible> = app.oneshot(request).await;
                response.map(|response| response.map(BufferedBody::from))
            }
        });
        let recovery = second.operations.recovery().rerun_with(authenticated, 3);
        tokio::spawn(recovery.run());
        let id = first.post().await;
        first.kill();
        assert_eq!(wait_for_end(&memory, &id).await.0, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn operations_of_every_mode_can_be_rerun() {
    for mode in ["after", "signaled", "preferred"] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let set = |layer: AsyncAcceptLayer<Hooked>| match mode {
            "after" => rerunnable(layer).after(Duration::from_secs(1)),
            "signaled" => rerunnable(layer).when_signaled(),
            _ => rerunnable(layer).when_preferred(),
        };
        let accept_and_hang = handler(async |operation: OperationHandle| {
            operation.accept().await.unwrap();
            std::future::pending().await
        });
        let accept_and_respond = handler(async |operation: OperationHandle| {
            operation.accept().await.unwrap();
            Response::new(BufferedBody::from("done"))
        });
        let first = Node::start("first", &memory, &runs, accept_and_hang, set);
        let second = Node::start("second", &memory, &runs, accept_and_respond, set);
        second.start_reruns(2);
        let mut request = report();
        let prefer = "respond-async".parse().unwrap();
        request.headers_mut().insert("prefer", prefer);
        let response = first.send(request).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED, "{mode}");
        let location = response.headers()["location"].to_str().unwrap();
        let id = location.rsplit('/').next().unwrap().parse().unwrap();
        first.kill();
        assert_eq!(
            wait_for_end(&memory, &id).await.0,
            State::Succeeded,
            "{mode}"
        );
        let runs = runs.lock().unwrap();
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[1].body, runs[0].body);
    }
}

#[tokio::test(start_paused = true)]
async fn an_uncertain_create_ends_and_never_runs() {
    for set in [plain, rerunnable] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let cut = Arc::new(AtomicBool::new(true));
        let is_cut = Arc::clone(&cut);
        // The operation is created, but the answer is lost.
        let store = Hooked::new(memory.clone(), move |call, when| {
            let cut = is_cut.load(SeqCst) && (call, when) == (Call::Create, When::After);
            std::future::ready(match cut {
                true => Err(StoreError::unavailable("the connection was lost")),
                false => Ok(()),
            })
        });
        let first = Node::with_store("first", store, Arc::default(), &runs, hang(), set);
        first.start_reruns(3);
        let response = first.send(report()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(memory.len(), 1);
        sleep(10 * TERM).await;
        assert!(runs.lock().unwrap().is_empty());
        // All operations have ended.
        assert!(first.drain.drain(Duration::ZERO).await.is_clean());
        let query = tower_operations::store::ListQuery::new(Some(Owner::new("ada")), 10);
        let page = tower_operations::store::List::list(&memory, &query);
        let records = page.await.unwrap().records;
        let problem = records[0].operation().problem().unwrap();
        assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_during_a_rerun_wins() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hang(), rerunnable);
    let second = Node::start("second", &memory, &runs, hang(), rerunnable);
    second.start_reruns(3);
    let id = first.post().await;
    first.kill();
    while runs.lock().unwrap().len() < 2 {
        sleep(Duration::from_secs(1)).await;
    }
    let record = memory.get(&id).await.unwrap().unwrap();
    let outcome = tower_operations::Outcome::Canceled;
    let canceled = memory.force_finish(&id, record.stamp().unwrap(), outcome);
    assert!(matches!(canceled.await.unwrap(), Written::Done(_)));
    let start = Instant::now();
    assert!(second.drain.drain(TERM).await.is_clean());
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "the run is dropped at once"
    );
    assert_eq!(wait_for_end(&memory, &id).await.0, State::Canceled);
}

/// The store refuses to end one operation, as with a damaged row or a value that it
/// cannot hold.
#[tokio::test(start_paused = true)]
async fn an_operation_that_the_store_refuses_to_end_does_not_block_others() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hang(), plain);
    let other = Node::start("other", &memory, &runs, hang(), plain);
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&tries);
    let store = Hooked::new(memory.clone(), move |call, when| {
        let is_try = (call, when) == (Call::Finish, When::Before);
        counter.fetch_add(usize::from(is_try), SeqCst);
        std::future::ready(Ok(()))
    });
    let refused_ids = Arc::clone(&store.unending);
    let second = Node::with_store("second", store, Arc::default(), &runs, hang(), plain);
    second.start_recovery();

    let (bad, good) = (first.post().await, first.post().await);
    refused_ids.lock().unwrap().insert(bad.clone());
    first.kill();
    let (_, problem, _) = wait_for_end(&memory, &good).await;
    assert_eq!(problem, urn(FailureKind::Interrupted));
    // An operation that is left later is not blocked either.
    let late = other.post().await;
    other.kill();
    let (.., took) = wait_for_end(&memory, &late).await;
    assert!(took < 2 * TERM, "{took:?}");

    // The end is tried a few times, and not in every round.
    sleep(10 * TERM).await;
    let record = memory.get(&bad).await.unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Running);
    let tried = tries.load(SeqCst);
    assert!(tried < 20, "{tried} times");
    // The operation ends once the store accepts it.
    refused_ids.lock().unwrap().clear();
    let (_, problem, took) = wait_for_end(&memory, &bad).await;
    assert_eq!(problem, urn(FailureKind::Interrupted));
    assert!(took < 20 * TERM, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_cannot_be_ended_delays_no_drain() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hang(), plain);
    let store = Hooked::new(memory.clone(), |_, _| std::future::ready(Ok(())));
    let refused_ids = Arc::clone(&store.unending);
    let second = Node::with_store("second", store, Arc::default(), &runs, hang(), plain);
    second.start_recovery();
    let bad = first.post().await;
    refused_ids.lock().unwrap().insert(bad);
    first.kill();
    sleep(3 * TERM).await;
    let report = second.drain.drain(100 * TERM).await;
    assert!(report.is_clean() && report.took < TERM, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_does_not_block_other_renewals() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let store = Hooked::new(memory.clone(), |_, _| std::future::ready(Ok(())));
    let refused_ids = Arc::clone(&store.unrenewable);
    let first = Node::with_store("first", store, Arc::default(), &runs, hang(), plain);
    let second = Node::start("second", &memory, &runs, hang(), plain);
    second.start_recovery();
    let mut ids = Vec::new();
    for _ in 0..9 {
        ids.push(first.post().await);
    }
    refused_ids.lock().unwrap().insert(ids[4].clone());
    sleep(10 * TERM).await;
    for (number, id) in ids.iter().enumerate() {
        let record = memory.get(id).await.unwrap().unwrap();
        let is_renewed = record.node() == Some(&NodeId::named("first"));
        assert_eq!(is_renewed, number != 4, "{number}");
    }
}

/// An interruption of a reclaim while the store is about to answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Interruption {
    /// The store is slow.
    Late,
    /// The node is drained.
    Drained,
    /// The task of the recovery is aborted.
    Dropped,
}

async fn is_reclaimed(memory: &MemoryStore, id: &OperationId) -> bool {
    let record = memory.get(id).await.unwrap().unwrap();
    record.node() == Some(&NodeId::named("second"))
}

#[tokio::test(start_paused = true)]
async fn a_reclaimed_operation_is_ended_despite_an_interrupted_reclaim() {
    for interruption in [
        Interruption::Late,
        Interruption::Drained,
        Interruption::Dropped,
    ] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let first = Node::start("first", &memory, &runs, hang(), plain);
        let id = first.post().await;
        first.kill();
        // The operation is reclaimed, and the answer comes later.
        let (hook_memory, hook_id) = (memory.clone(), id.clone());
        let store = Hooked::new(memory.clone(), move |call, when| {
            let (memory, id) = (hook_memory.clone(), hook_id.clone());
            async move {
                if (call, when) == (Call::Reclaim, When::After) && is_reclaimed(&memory, &id).await
                {
                    sleep(TERM / 2).await;
                }
                Ok(())
            }
        });
        let second = Node::with_store("second", store, Arc::default(), &runs, hang(), plain);
        let recovery = tokio::spawn(second.operations.recovery().run());
        while !is_reclaimed(&memory, &id).await {
            sleep(Duration::from_millis(100)).await;
        }
        match interruption {
            Interruption::Late => {}
            Interruption::Drained => {
                let report = second.drain.drain(TERM).await;
                assert!(report.is_clean(), "{report:?}");
                assert!(
                    report.took > TERM / 3,
                    "the drain does not wait: {report:?}"
                );
                let third = Node::start("third", &memory, &runs, hang(), plain);
                third.start_recovery();
            }
            Interruption::Dropped => recovery.abort(),
        }
        let (_, problem, took) = wait_for_end(&memory, &id).await;
        assert_eq!(problem, urn(FailureKind::Interrupted));
        assert!(took < TERM * 3 / 4, "{interruption:?}: {took:?}");
    }
}

/// The application is cloned for each rerun.
#[tokio::test(start_paused = true)]
async fn an_application_whose_clone_panics_does_not_block_other_operations() {
    #[derive(Debug)]
    struct Fragile;

    impl Clone for Fragile {
        fn clone(&self) -> Self {
            panic!("on purpose");
        }
    }

    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hang(), rerunnable);
    let ids = [first.post().await, first.post().await, first.post().await];
    first.kill();
    let second = Node::start("second", &memory, &runs, hang(), rerunnable);
    let fragile = Fragile;
    let app = service_fn(move |_: Request<BufferedBody>| {
        let _ = &fragile;
        async { Ok::<_, Infallible>(Response::new(BufferedBody::default())) }
    });
    tokio::spawn(second.operations.recovery().rerun_with(app, 3).run());
    let start = Instant::now();
    for id in &ids {
        let (_, problem, _) = wait_for_end(&memory, id).await;
        assert_eq!(problem, urn(FailureKind::Panicked));
    }
    assert!(start.elapsed() < 2 * TERM, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_drain_interrupts_an_operation_after_its_last_attempt() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hang(), rerunnable);
    let second = Node::start("second", &memory, &runs, hang(), rerunnable);
    let third = Node::start("third", &memory, &runs, hang(), rerunnable);
    first.start_reruns(2);
    let id = first.post().await;
    let report = first.drain.drain(Duration::from_secs(1)).await;
    assert_eq!(report.released, std::slice::from_ref(&id));

    second.start_reruns(2);
    while runs.lock().unwrap().len() < 2 {
        sleep(Duration::from_millis(100)).await;
    }
    third.start_reruns(2);
    let report = second.drain.drain(Duration::from_secs(1)).await;
    assert_eq!(report.interrupted, std::slice::from_ref(&id), "{report:?}");
    let (_, problem, _) = wait_for_end(&memory, &id).await;
    assert_eq!(problem, urn(FailureKind::Interrupted));
}

#[tokio::test(start_paused = true)]
async fn a_drain_releases_an_operation_before_its_last_attempt() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    // The service is never ready, so nothing is started.
    let operations = Operations::new(Hooked::new(memory.clone(), |_, _| {
        std::future::ready(Ok(()))
    }));
    let layer = rerunnable(operations.layer());
    let no_permits = Arc::new(tokio::sync::Semaphore::new(0));
    let unready_service = tower::limit::ConcurrencyLimit::with_semaphore(
        service_fn(|_: Request<RequestBody<BufferedBody>>| async {
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        }),
        no_permits,
    );
    let _idle_recovery = operations.recovery().rerun_with(
        service_fn(|_: Request<BufferedBody>| async {
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        }),
        1,
    );
    let response = layer
        .layer(unready_service)
        .oneshot(report())
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap();
    let id: OperationId = location.rsplit('/').next().unwrap().parse().unwrap();
    let report = operations.drain(Duration::from_secs(1)).await;
    assert_eq!(report.released, std::slice::from_ref(&id), "{report:?}");

    let second = Node::start("second", &memory, &runs, respond("done"), rerunnable);
    second.start_reruns(1);
    assert_eq!(wait_for_end(&memory, &id).await.0, State::Succeeded);
}

/// Leaves operations behind, of which `hanging` get no answer of the store when they
/// are ended. Returns how long the others take to end.
async fn times_to_end_beside_hanging_ones(hanging: usize, others: usize) -> Vec<Duration> {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hang(), plain);
    let store = Hooked::new(memory.clone(), |_, _| std::future::ready(Ok(())));
    let silent = Arc::clone(&store.hanging);
    let second = Node::with_store("second", store, Arc::default(), &runs, hang(), plain);
    for _ in 0..hanging {
        let id = first.post().await;
        silent.lock().unwrap().insert(id);
    }
    let mut good = Vec::new();
    for _ in 0..others {
        good.push(first.post().await);
    }
    first.kill();
    second.start_recovery();
    let mut took = Vec::new();
    for id in good {
        let (_, problem, after) = wait_for_end(&memory, &id).await;
        assert_eq!(problem, urn(FailureKind::Interrupted));
        took.push(after);
    }
    took
}

#[tokio::test(start_paused = true)]
async fn operations_without_an_answer_of_the_store_delay_no_others() {
    let took: Duration = times_to_end_beside_hanging_ones(20, 20).await.iter().sum();
    // The others expire and end in the same round.
    assert!(took < TERM + TERM / 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn operations_beyond_the_concurrent_ends_wait_at_most_a_term() {
    let took: Duration = times_to_end_beside_hanging_ones(100, 5).await.iter().sum();
    // The others expire, are reclaimed, and get a permit after a term.
    assert!(took < 3 * TERM, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operation_released_during_a_reclaim_is_reclaimed_soon_after() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hang(), rerunnable);
    first.start_reruns(3);
    let reclaim_started = Arc::new(Notify::new());
    let hook_notify = Arc::clone(&reclaim_started);
    let store = Hooked::new(memory.clone(), move |call, when| {
        let hook_notify = Arc::clone(&hook_notify);
        async move {
            // The reclaim has found nothing, and its answer comes later.
            if (call, when) == (Call::Reclaim, When::After) {
                hook_notify.notify_waiters();
                sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
    });
    let second = Node::with_store(
        "second",
        store,
        Arc::default(),
        &runs,
        respond("done"),
        rerunnable,
    );
    second.start_reruns(3);
    let id = first.post().await;
    reclaim_started.notified().await;
    let report = first.drain.drain(Duration::ZERO).await;
    assert_eq!(report.released, std::slice::from_ref(&id));
    let (state, _, took) = wait_for_end(&memory, &id).await;
    assert_eq!(state, State::Succeeded);
    assert!(took < Duration::from_secs(4), "{took:?}");
}
