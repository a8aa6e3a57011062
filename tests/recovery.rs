//! What a node leaves behind that dies, is cut off, or is drained: several nodes
//! on one store, with a paused clock.

use test_support::hooked;

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
    Operations, Progress, Recovery, RequestBody, State,
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

fn handler<F>(handler: impl Fn(OperationHandle) -> F + Send + Sync + 'static) -> Handler
where
    F: Future<Output = Response<BufferedBody>> + Send + 'static,
{
    Arc::new(move |operation| Box::pin(handler(operation)))
}

fn hangs() -> Handler {
    handler(async |_| std::future::pending().await)
}

fn answers(text: &'static str) -> Handler {
    handler(move |_| async move { Response::new(BufferedBody::from(text)) })
}

/// One process with a whole application: its layer around a handler.
/// The owner that a request says, if any.
fn by_header(parts: &http::request::Parts) -> Option<Owner> {
    let tenant = parts.headers.get("x-tenant")?;
    Some(Owner::new(tenant.to_str().ok()?))
}

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
        let died = Arc::clone(&dead);
        let store = Hooked::new(memory.clone(), move |_, _| {
            let died = died.load(SeqCst);
            async move {
                // Whatever a dead node says is not heard.
                if died {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        Self::on(name, store, dead, runs, handler, set)
    }

    fn on(
        name: &'static str,
        store: Hooked,
        dead: Arc<AtomicBool>,
        runs: &Runs,
        handler: Handler,
        set: impl FnOnce(AsyncAcceptLayer<Hooked>) -> AsyncAcceptLayer<Hooked>,
    ) -> Self {
        let operations = Operations::new(store)
            .owner(by_header)
            .lease(LeaseConfig::new(NodeId::named(name), TERM));
        let (layer, drain) = (set(operations.layer()), operations.drain_handle());
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
        let app = layer.layer(BoxCloneService::new(inner));
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

    /// Posts a report, which is accepted.
    async fn post(&self) -> OperationId {
        let response = self.send(report()).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let location = response.headers()["location"].to_str().unwrap();
        let id = location.rsplit('/').next().unwrap().parse().unwrap();
        sleep(Duration::from_millis(10)).await; // it begins
        id
    }

    fn recovers(&self) {
        tokio::spawn(self.operations.recovery().run());
    }

    fn runs_again(&self, attempts: u32) {
        tokio::spawn(self.recovery(attempts).run());
    }

    /// A recovery that runs again what this node or others have left, once it runs.
    fn recovery(&self, attempts: u32) -> Recovery<Hooked> {
        let app = self.app.clone();
        let app = service_fn(move |request| {
            let app = app.clone();
            async move {
                app.oneshot(request)
                    .await
                    .map(|it| it.map(BufferedBody::from))
            }
        });
        self.operations.recovery().rerun_with(app, attempts)
    }

    fn dies(&self) {
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

fn repeatable(layer: AsyncAcceptLayer<Hooked>) -> AsyncAcceptLayer<Hooked> {
    layer.rerun_if(|parts| parts.uri.path() == "/reports")
}

/// Waits until it has ended, and says how.
async fn ended(memory: &MemoryStore, id: &OperationId) -> (State, Option<String>, Duration) {
    let begun = Instant::now();
    loop {
        let record = memory.get(id).await.unwrap().unwrap();
        let operation = record.operation();
        if operation.state().is_terminal() {
            let problem = operation.problem().map(|it| it.type_uri().to_owned());
            return (operation.state(), problem, begun.elapsed());
        }
        assert!(begun.elapsed() < Duration::from_secs(3600), "it never ends");
        sleep(Duration::from_millis(100)).await;
    }
}

fn urn(kind: FailureKind) -> Option<String> {
    Some(kind.urn().to_owned())
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_node_was_running_is_interrupted_by_another() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hangs(), repeatable);
    let second = Node::start("second", &memory, &runs, hangs(), plain);
    second.recovers();
    let id = first.post().await;
    // As long as it lives, nobody takes it away.
    sleep(10 * TERM).await;
    let record = memory.get(&id).await.unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Running);

    first.dies();
    let (state, problem, took) = ended(&memory, &id).await;
    assert_eq!(
        (state, problem),
        (State::Failed, urn(FailureKind::Interrupted))
    );
    // Renewed ten seconds before at the most, and looked for every ten.
    assert!(
        took > TERM - TERM / 3 && took < TERM + TERM / 3 + Duration::from_secs(1),
        "{took:?}"
    );
    let record = memory.get(&id).await.unwrap().unwrap();
    assert_eq!(record.node(), Some(&NodeId::named("second")));
    assert_eq!(runs.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn expired_leases_are_looked_for_at_the_interval() {
    for interval in [TERM / 3, TERM / 10, 2 * TERM] {
        let memory = MemoryStore::new();
        let lease = LeaseConfig::default().with_term(TERM);
        let recovery = Operations::new(memory.clone()).lease(lease).recovery();
        tokio::spawn(recovery.interval(interval).run());
        sleep(3 * TERM).await;
        let mut late = Vec::new();
        for step in 0..100 {
            let lease = LeaseConfig::new(NodeId::named("dead"), TERM);
            let id = OperationId::new();
            let new = NewOperation::new(id.clone()).with_lease(lease);
            memory.create(new).await.unwrap();
            let (_, _, took) = ended(&memory, &id).await;
            late.push(took.saturating_sub(TERM));
            sleep(step * Duration::from_millis(100)).await;
        }
        let (least, most) = (*late.iter().min().unwrap(), *late.iter().max().unwrap());
        // `ended` looks ten times a second.
        let slack = Duration::from_millis(150);
        assert!(most <= interval + slack, "{most:?} late at {interval:?}");
        assert!(least < interval / 2, "{least:?} late at {interval:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_is_run_again_by_another_and_ends_once() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let (wake, woken) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(AtomicBool::new(false)),
    );
    let late = handler({
        let (wake, woken) = (Arc::clone(&wake), Arc::clone(&woken));
        move |_| {
            let (wake, woken) = (Arc::clone(&wake), Arc::clone(&woken));
            async move {
                wake.notified().await;
                woken.store(true, SeqCst);
                Response::new(BufferedBody::from("the first, late"))
            }
        }
    });
    let first = Node::start("first", &memory, &runs, late, repeatable);
    let second = Node::start("second", &memory, &runs, answers("the second"), repeatable);
    second.runs_again(3);
    let id = first.post().await;
    first.dies();
    let (state, ..) = ended(&memory, &id).await;
    assert_eq!(state, State::Succeeded);
    let before = memory.get(&id).await.unwrap().unwrap();
    assert_eq!(
        &before.operation().result().unwrap().body()[..],
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

    // The first comes back to life, and has nothing to say any more.
    first.dead.store(false, SeqCst);
    wake.notify_one();
    sleep(2 * TERM).await;
    assert_eq!(memory.get(&id).await.unwrap().unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_lost_its_lease_stops() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let canceled = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&canceled);
    let watches = handler(move |operation: OperationHandle| {
        let seen = Arc::clone(&seen);
        async move {
            operation.cancellation().cancelled().await;
            seen.store(true, SeqCst);
            std::future::pending().await
        }
    });
    let first = Node::start("first", &memory, &runs, watches, plain);
    let second = Node::start("second", &memory, &runs, hangs(), plain);
    second.recovers();
    let id = first.post().await;
    first.dies();
    ended(&memory, &id).await;
    assert!(!canceled.load(SeqCst));
    first.dead.store(false, SeqCst);
    // A renewal that hangs is given up after a third of the term.
    sleep(TERM).await;
    assert!(canceled.load(SeqCst));
    assert!(first.drain.drain(TERM).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_kills_its_node_is_started_as_often_as_allowed() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let names = ["1", "2", "3", "4", "5", "6"];
    let start = |name| {
        let node = Node::start(name, &memory, &runs, hangs(), repeatable);
        node.runs_again(3);
        node
    };
    let mut node = start(names[0]);
    let id = node.post().await;
    for name in &names[1..] {
        // Whoever runs it dies of it.
        let runs_before = runs.lock().unwrap().len();
        node.dies();
        node = start(name);
        let begun = Instant::now();
        while runs.lock().unwrap().len() == runs_before && begun.elapsed() < 5 * TERM {
            sleep(Duration::from_millis(100)).await;
        }
    }
    let (state, problem, _) = ended(&memory, &id).await;
    assert_eq!(
        (state, problem),
        (State::Failed, urn(FailureKind::AttemptsExhausted))
    );
    let attempts: Vec<_> = runs.lock().unwrap().iter().map(|run| run.attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_run_again_is_interrupted() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let others =
        |layer: AsyncAcceptLayer<Hooked>| layer.rerun_if(|parts| parts.uri.path() == "/exports");
    let first = Node::start("first", &memory, &runs, hangs(), others);
    let second = Node::start("second", &memory, &runs, answers("done"), others);
    second.runs_again(3);
    let id = first.post().await;
    first.dies();
    let (state, problem, _) = ended(&memory, &id).await;
    assert_eq!(
        (state, problem),
        (State::Failed, urn(FailureKind::Interrupted))
    );
    assert_eq!(runs.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_drain_releases_is_run_again_within_a_second_by_a_node_that_is_up() {
    // Wherever between two looks the other node is.
    for since in [0, 1, 2, 5, 8, 11, 40] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let first = Node::start("first", &memory, &runs, hangs(), repeatable);
        let second = Node::start("second", &memory, &runs, answers("done"), repeatable);
        first.runs_again(3);
        second.runs_again(3);
        let ids = [first.post().await, first.post().await];
        sleep(Duration::from_secs(since)).await;
        let report = first.drain.drain(Duration::ZERO).await;
        assert_eq!(report.released.len(), 2, "{report:?}");
        for id in ids {
            let (state, _, took) = ended(&memory, &id).await;
            assert_eq!(state, State::Succeeded);
            assert!(took < Duration::from_secs(1), "after {since} s: {took:?}");
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
        Node::on(name, store, Arc::default(), &runs, handler, plain)
    };
    let slow = handler(async |operation: OperationHandle| {
        for minute in 0..60 {
            sleep(Duration::from_secs(60)).await;
            operation.progress(Progress::from_count(minute, 60));
        }
        Response::new(BufferedBody::from("done"))
    });
    let first = start("first", slow);
    let second = start("second", hangs());
    // It is quicker to look than the first is to renew.
    let every = Duration::from_millis(500);
    tokio::spawn(second.operations.recovery().interval(every).run());
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
    assert_eq!(ended(&memory, &id).await.0, State::Succeeded);
}

/// A process that is stopped and continued, or a machine that sleeps.
#[tokio::test(start_paused = true)]
async fn a_node_that_slept_keeps_what_nobody_took() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let slow = handler(async |_| {
        sleep(100 * TERM).await;
        Response::new(BufferedBody::from("done"))
    });
    let only = Node::start("only", &memory, &runs, slow, plain);
    let every = Duration::from_millis(500);
    tokio::spawn(only.operations.recovery().interval(every).run());
    let id = only.post().await;
    sleep(2 * TERM).await;
    for _ in 0..20 {
        tokio::time::advance(2 * TERM).await;
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(ended(&memory, &id).await.0, State::Succeeded);
    assert_eq!(runs.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_started_is_run_again_too() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let dead = Arc::new(AtomicBool::new(false));
    let died = Arc::clone(&dead);
    // It dies before it can start anything.
    let store = Hooked::new(memory.clone(), move |call, _| {
        if call == Call::Start {
            died.store(true, SeqCst);
        }
        let died = died.load(SeqCst);
        async move {
            if died {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    let first = Node::on("first", store, dead, &runs, hangs(), repeatable);
    let second = Node::start("second", &memory, &runs, answers("done"), repeatable);
    second.runs_again(1);
    let id = first.post().await;
    assert_eq!(ended(&memory, &id).await.0, State::Succeeded);
    let runs = runs.lock().unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!((runs[0].node, runs[0].attempt), ("second", 1));
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_what_may_be_run_again_to_others() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hangs(), repeatable);
    first.runs_again(3);
    let id = first.post().await;
    let report = first.drain.drain(Duration::from_secs(5)).await;
    assert_eq!(report.released, std::slice::from_ref(&id));
    assert!(report.interrupted.is_empty() && report.unrecorded.is_empty());
    assert!(!report.is_clean());
    let record = memory.get(&id).await.unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Running);

    let second = Node::start("second", &memory, &runs, answers("done"), repeatable);
    second.runs_again(3);
    let (state, _, took) = ended(&memory, &id).await;
    assert_eq!(state, State::Succeeded);
    // Nobody has to wait for the lease, or for the store to prove itself.
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_released_is_taken_over_at_once_and_what_has_lapsed_is_not() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hangs(), repeatable);
    let second = Node::start("second", &memory, &runs, hangs(), repeatable);
    let _does_not_look = first.recovery(3);
    let (released, lapsed) = (first.post().await, second.post().await);
    second.dies();
    // Longer than any lease: nobody has looked meanwhile.
    sleep(2 * TERM).await;
    first.drain.drain(Duration::ZERO).await;

    let third = Node::start("third", &memory, &runs, answers("done"), repeatable);
    third.runs_again(3);
    let (state, _, took) = ended(&memory, &released).await;
    assert_eq!(state, State::Succeeded);
    assert!(took < Duration::from_secs(1), "{took:?}");
    // It may be this node that could not reach the store.
    let (state, _, took) = ended(&memory, &lapsed).await;
    assert_eq!(state, State::Succeeded);
    assert!(took > TERM / 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn credentials_and_another_target_are_kept_where_that_is_asked_for() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let set = |layer: AsyncAcceptLayer<Hooked>| {
        repeatable(layer)
            .store_credentials()
            .original_uri(|_| "/v2/reports".parse().unwrap())
    };
    let first = Node::start("first", &memory, &runs, hangs(), set);
    let second = Node::start("second", &memory, &runs, answers("done"), set);
    second.runs_again(3);
    let id = first.post().await;
    first.dies();
    assert_eq!(ended(&memory, &id).await.0, State::Succeeded);
    let runs = runs.lock().unwrap();
    assert!(runs[1].authorization);
    assert_eq!(runs[1].target, "/v2/reports");
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn a_request_to_a_nested_router_is_run_again_with_its_original_uri() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hangs(), repeatable);
    let second = Node::start("second", &memory, &runs, answers("done"), repeatable);
    second.runs_again(3);
    let mut request = report();
    let original = axum::extract::OriginalUri("/api/v1/reports?year=2026".parse().unwrap());
    request.extensions_mut().insert(original);
    let response = first.send(request).await;
    let location = response.headers()["location"].to_str().unwrap();
    let id = location.rsplit('/').next().unwrap().parse().unwrap();
    first.dies();
    assert_eq!(ended(&memory, &id).await.0, State::Succeeded);
    assert_eq!(runs.lock().unwrap()[1].target, "/api/v1/reports?year=2026");
}

#[tokio::test(start_paused = true)]
async fn every_mode_can_be_run_again() {
    for mode in ["after", "signaled", "preferred"] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let set = |layer: AsyncAcceptLayer<Hooked>| match mode {
            "after" => repeatable(layer).after(Duration::from_secs(1)),
            "signaled" => repeatable(layer).when_signaled(),
            _ => repeatable(layer).when_preferred(),
        };
        let accepts = handler(async |operation: OperationHandle| {
            operation.accept().await.unwrap();
            std::future::pending().await
        });
        let done = handler(async |operation: OperationHandle| {
            operation.accept().await.unwrap();
            Response::new(BufferedBody::from("done"))
        });
        let first = Node::start("first", &memory, &runs, accepts, set);
        let second = Node::start("second", &memory, &runs, done, set);
        second.runs_again(2);
        let mut request = report();
        let prefer = "respond-async".parse().unwrap();
        request.headers_mut().insert("prefer", prefer);
        let response = first.send(request).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED, "{mode}");
        let location = response.headers()["location"].to_str().unwrap();
        let id = location.rsplit('/').next().unwrap().parse().unwrap();
        first.dies();
        assert_eq!(ended(&memory, &id).await.0, State::Succeeded, "{mode}");
        let runs = runs.lock().unwrap();
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[1].body, runs[0].body);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_whose_creation_stayed_in_doubt_ends_and_is_never_run() {
    for set in [plain, repeatable] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let cut = Arc::new(AtomicBool::new(true));
        let is_cut = Arc::clone(&cut);
        // It is created, but nobody is told.
        let store = Hooked::new(memory.clone(), move |call, when| {
            let cut = is_cut.load(SeqCst) && (call, when) == (Call::Create, When::After);
            std::future::ready(match cut {
                true => Err(StoreError::unavailable("the connection was lost")),
                false => Ok(()),
            })
        });
        let first = Node::on("first", store, Arc::default(), &runs, hangs(), set);
        first.runs_again(3);
        let response = first.send(report()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(memory.len(), 1);
        sleep(10 * TERM).await;
        assert!(runs.lock().unwrap().is_empty());
        // Everything there is has ended.
        assert!(first.drain.drain(Duration::ZERO).await.is_clean());
        let query = tower_operations::store::ListQuery::new(Some(Owner::new("ada")), 10);
        let page = tower_operations::store::List::list(&memory, &query);
        let records = page.await.unwrap().records;
        let problem = records[0].operation().problem().unwrap();
        assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
    }
}

#[tokio::test(start_paused = true)]
async fn who_cancels_what_is_being_run_again_has_the_last_word() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hangs(), repeatable);
    let second = Node::start("second", &memory, &runs, hangs(), repeatable);
    second.runs_again(3);
    let id = first.post().await;
    first.dies();
    while runs.lock().unwrap().len() < 2 {
        sleep(Duration::from_secs(1)).await;
    }
    let record = memory.get(&id).await.unwrap().unwrap();
    let outcome = tower_operations::Outcome::Canceled;
    let canceled = memory.force_finish(&id, record.version().unwrap(), outcome);
    assert!(matches!(canceled.await.unwrap(), Written::Done(_)));
    let begun = Instant::now();
    assert!(second.drain.drain(TERM).await.is_clean());
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "it is dropped at once"
    );
    assert_eq!(ended(&memory, &id).await.0, State::Canceled);
}

/// A damaged row, or a value that the store cannot hold.
#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_to_end_keeps_no_other_from_ending() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hangs(), plain);
    let other = Node::start("other", &memory, &runs, hangs(), plain);
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let store = Hooked::new(memory.clone(), move |call, when| {
        let is_try = (call, when) == (Call::Finish, When::Before);
        counted.fetch_add(usize::from(is_try), SeqCst);
        std::future::ready(Ok(()))
    });
    let refused = Arc::clone(&store.unending);
    let second = Node::on("second", store, Arc::default(), &runs, hangs(), plain);
    second.recovers();

    let (bad, good) = (first.post().await, first.post().await);
    refused.lock().unwrap().insert(bad.clone());
    first.dies();
    let (_, problem, _) = ended(&memory, &good).await;
    assert_eq!(problem, urn(FailureKind::Interrupted));
    // Nor does it keep those that are left later.
    let late = other.post().await;
    other.dies();
    let (.., took) = ended(&memory, &late).await;
    assert!(took < 2 * TERM, "{took:?}");

    // It is tried a few times, and not in every round.
    sleep(10 * TERM).await;
    let record = memory.get(&bad).await.unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Running);
    let tried = tries.load(SeqCst);
    assert!(tried < 20, "{tried} times");
    // Once that can be done, it is.
    refused.lock().unwrap().clear();
    let (_, problem, took) = ended(&memory, &bad).await;
    assert_eq!(problem, urn(FailureKind::Interrupted));
    assert!(took < 20 * TERM, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_ended_holds_up_no_drain() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hangs(), plain);
    let store = Hooked::new(memory.clone(), |_, _| std::future::ready(Ok(())));
    let refused = Arc::clone(&store.unending);
    let second = Node::on("second", store, Arc::default(), &runs, hangs(), plain);
    second.recovers();
    let bad = first.post().await;
    refused.lock().unwrap().insert(bad);
    first.dies();
    sleep(3 * TERM).await;
    let report = second.drain.drain(100 * TERM).await;
    assert!(report.is_clean() && report.took < TERM, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_renewed_keeps_no_other_from_being_renewed() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let store = Hooked::new(memory.clone(), |_, _| std::future::ready(Ok(())));
    let refused = Arc::clone(&store.unrenewable);
    let first = Node::on("first", store, Arc::default(), &runs, hangs(), plain);
    let second = Node::start("second", &memory, &runs, hangs(), plain);
    second.recovers();
    let mut ids = Vec::new();
    for _ in 0..9 {
        ids.push(first.post().await);
    }
    refused.lock().unwrap().insert(ids[4].clone());
    sleep(10 * TERM).await;
    for (number, id) in ids.iter().enumerate() {
        let record = memory.get(id).await.unwrap().unwrap();
        let is_held = record.node() == Some(&NodeId::named("first"));
        assert_eq!(is_held, number != 4, "{number}");
    }
}

/// What cuts a look for what was left behind, while the store is about to answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cut {
    /// The store is slow.
    Late,
    /// The node is drained.
    Drained,
    /// Whoever had spawned the recovery drops it.
    Dropped,
}

async fn is_taken(memory: &MemoryStore, id: &OperationId) -> bool {
    let record = memory.get(id).await.unwrap().unwrap();
    record.node() == Some(&NodeId::named("second"))
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_over_is_in_somebodys_hands_whatever_cuts_the_look() {
    for cut in [Cut::Late, Cut::Drained, Cut::Dropped] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let first = Node::start("first", &memory, &runs, hangs(), plain);
        let id = first.post().await;
        first.dies();
        // It is taken, and the answer comes later.
        let (inside, this) = (memory.clone(), id.clone());
        let store = Hooked::new(memory.clone(), move |call, when| {
            let (memory, id) = (inside.clone(), this.clone());
            async move {
                if (call, when) == (Call::Reclaim, When::After) && is_taken(&memory, &id).await {
                    sleep(TERM / 2).await;
                }
                Ok(())
            }
        });
        let second = Node::on("second", store, Arc::default(), &runs, hangs(), plain);
        let recovery = tokio::spawn(second.operations.recovery().run());
        while !is_taken(&memory, &id).await {
            sleep(Duration::from_millis(100)).await;
        }
        match cut {
            Cut::Late => {}
            Cut::Drained => {
                let report = second.drain.drain(TERM).await;
                assert!(report.is_clean(), "{report:?}");
                assert!(report.took > TERM / 3, "it does not wait: {report:?}");
                let third = Node::start("third", &memory, &runs, hangs(), plain);
                third.recovers();
            }
            Cut::Dropped => recovery.abort(),
        }
        let (_, problem, took) = ended(&memory, &id).await;
        assert_eq!(problem, urn(FailureKind::Interrupted));
        assert!(took < TERM * 3 / 4, "{cut:?}: {took:?}");
    }
}

/// A clone of the application is made for each.
#[tokio::test(start_paused = true)]
async fn an_application_that_panics_as_it_is_cloned_keeps_no_other_from_ending() {
    #[derive(Debug)]
    struct Fragile;

    impl Clone for Fragile {
        fn clone(&self) -> Self {
            panic!("it cannot be cloned");
        }
    }

    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hangs(), repeatable);
    let ids = [first.post().await, first.post().await, first.post().await];
    first.dies();
    let second = Node::start("second", &memory, &runs, hangs(), repeatable);
    let fragile = Fragile;
    let app = service_fn(move |_: Request<BufferedBody>| {
        let _ = &fragile;
        async { Ok::<_, Infallible>(Response::new(BufferedBody::default())) }
    });
    tokio::spawn(second.operations.recovery().rerun_with(app, 3).run());
    let begun = Instant::now();
    for id in &ids {
        let (_, problem, _) = ended(&memory, id).await;
        assert_eq!(problem, urn(FailureKind::Panicked));
    }
    assert!(begun.elapsed() < 2 * TERM, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_drain_interrupts_what_was_started_as_often_as_it_may_be() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hangs(), repeatable);
    let second = Node::start("second", &memory, &runs, hangs(), repeatable);
    let third = Node::start("third", &memory, &runs, hangs(), repeatable);
    first.runs_again(2);
    let id = first.post().await;
    let report = first.drain.drain(Duration::from_secs(1)).await;
    assert_eq!(report.released, std::slice::from_ref(&id));

    second.runs_again(2);
    while runs.lock().unwrap().len() < 2 {
        sleep(Duration::from_millis(100)).await;
    }
    third.runs_again(2);
    let report = second.drain.drain(Duration::from_secs(1)).await;
    assert_eq!(report.interrupted, std::slice::from_ref(&id), "{report:?}");
    let (_, problem, _) = ended(&memory, &id).await;
    assert_eq!(problem, urn(FailureKind::Interrupted));
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_what_was_not_started_for_the_last_time_to_others() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    // It is never ready, so nothing is started.
    let operations = Operations::new(Hooked::new(memory.clone(), |_, _| {
        std::future::ready(Ok(()))
    }));
    let layer = repeatable(operations.layer());
    let none = Arc::new(tokio::sync::Semaphore::new(0));
    let full = tower::limit::ConcurrencyLimit::with_semaphore(
        service_fn(|_: Request<RequestBody<BufferedBody>>| async {
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        }),
        none,
    );
    let _does_not_look = operations.recovery().rerun_with(
        service_fn(|_: Request<BufferedBody>| async {
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        }),
        1,
    );
    let response = layer.layer(full).oneshot(report()).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap();
    let id: OperationId = location.rsplit('/').next().unwrap().parse().unwrap();
    let report = operations.drain(Duration::from_secs(1)).await;
    assert_eq!(report.released, std::slice::from_ref(&id), "{report:?}");

    let second = Node::start("second", &memory, &runs, answers("done"), repeatable);
    second.runs_again(1);
    assert_eq!(ended(&memory, &id).await.0, State::Succeeded);
}

/// Leaves so many behind, and finds out how long those take to end about whose end the store
/// says something.
async fn ended_beside_those_that_hang(hanging: usize, others: usize) -> Vec<Duration> {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hangs(), plain);
    let store = Hooked::new(memory.clone(), |_, _| std::future::ready(Ok(())));
    let silent = Arc::clone(&store.hanging);
    let second = Node::on("second", store, Arc::default(), &runs, hangs(), plain);
    for _ in 0..hanging {
        let id = first.post().await;
        silent.lock().unwrap().insert(id);
    }
    let mut good = Vec::new();
    for _ in 0..others {
        good.push(first.post().await);
    }
    first.dies();
    second.recovers();
    let mut took = Vec::new();
    for id in good {
        let (_, problem, after) = ended(&memory, &id).await;
        assert_eq!(problem, urn(FailureKind::Interrupted));
        took.push(after);
    }
    took
}

#[tokio::test(start_paused = true)]
async fn what_the_store_says_nothing_of_as_it_is_ended_keeps_no_other_waiting() {
    let took: Duration = ended_beside_those_that_hang(20, 20).await.iter().sum();
    // They lapse, and are ended in the same round.
    assert!(took < TERM + TERM / 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn as_many_as_can_be_ended_at_once_keep_others_waiting_for_a_term_at_the_most() {
    let took: Duration = ended_beside_those_that_hang(100, 5).await.iter().sum();
    // They lapse, are looked for, and have a place after a term.
    assert!(took < 3 * TERM, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_released_while_another_node_looks_is_not_left_until_its_next_look() {
    let (memory, runs) = (MemoryStore::new(), Runs::default());
    let first = Node::start("first", &memory, &runs, hangs(), repeatable);
    first.runs_again(3);
    let looking = Arc::new(Notify::new());
    let looks = Arc::clone(&looking);
    let store = Hooked::new(memory.clone(), move |call, when| {
        let looks = Arc::clone(&looks);
        async move {
            // It has found nothing, and says so later.
            if (call, when) == (Call::Reclaim, When::After) {
                looks.notify_waiters();
                sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
    });
    let second = Node::on(
        "second",
        store,
        Arc::default(),
        &runs,
        answers("done"),
        repeatable,
    );
    second.runs_again(3);
    let id = first.post().await;
    looking.notified().await;
    let report = first.drain.drain(Duration::ZERO).await;
    assert_eq!(report.released, std::slice::from_ref(&id));
    let (state, _, took) = ended(&memory, &id).await;
    assert_eq!(state, State::Succeeded);
    assert!(took < Duration::from_secs(4), "{took:?}");
}
