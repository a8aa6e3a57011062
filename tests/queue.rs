//! Accepted requests that are dispatched through a queue to workers.

use test_support::hooked;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use hooked::{Call, Hooked, When};
use http::{Request, Response, StatusCode};
use tokio::{sync::mpsc, time::Instant};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, Dispatch, FailureKind, Idempotency, MemoryStore,
    OperationHandle, OperationId, Operations, Outcome, QueuedRequest, RecordedResponse,
    RequestBody, ResponseBody, RunOutcome, RunService, State,
    store::{
        Created, Lease, LeaseConfig, List, ListQuery, NewOperation, NodeId, Owner, Record,
        Repository, Store, StoreError, Watch, Written,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

fn front_lease() -> LeaseConfig {
    LeaseConfig::new(NodeId::named("front"), MINUTE)
}

/// Creates an operation of the front node. Returns its id and its message.
async fn create_with_message(
    store: &impl Repository<Output = tower_operations::RecordedResponse>,
) -> (OperationId, Bytes) {
    let new = NewOperation::new(OperationId::new())
        .with_owner(Some(Owner::new("ada")))
        .with_lease(front_lease());
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let request = Request::post("/reports")
        .header("authorization", "Bearer abc")
        .body(BufferedBody::from("Q3"))
        .unwrap();
    let message = QueuedRequest::new(&record, request).to_bytes();
    (record.operation().id().clone(), message)
}

#[derive(Clone, Default)]
struct Runs(Arc<AtomicUsize>);

macro_rules! worker {
    ($store:expr, $runs:expr, $seconds:expr) => {{
        let runs: Runs = $runs.clone();
        RunService::new(
            $store,
            service_fn(move |request: Request<BufferedBody>| {
                runs.0.fetch_add(1, SeqCst);
                async move {
                    assert!(!request.headers().contains_key("authorization"));
                    assert_eq!(request.extensions().get(), Some(&Owner::new("ada")));
                    assert_eq!(
                        OperationHandle::from_extensions(request.extensions()).attempt(),
                        1
                    );
                    assert_eq!(request.body().data(), "Q3");
                    tokio::time::sleep(Duration::from_secs($seconds)).await;
                    Ok::<_, Infallible>(Response::new(BufferedBody::from("done")))
                }
            }),
        )
    }};
}

fn message(bytes: &Bytes) -> QueuedRequest {
    QueuedRequest::from_bytes(bytes).unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_of_several_deliveries_runs() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = create_with_message(&store).await;
    let workers: Vec<_> = (0..4).map(|_| worker!(store.clone(), runs, 5)).collect();
    let mut deliveries = tokio::task::JoinSet::new();
    for worker in workers.iter().chain(&workers) {
        deliveries.spawn(worker.clone().oneshot(message(&bytes)));
    }
    let mut recorded = 0;
    for outcome in deliveries.join_all().await {
        match outcome.unwrap() {
            RunOutcome::Recorded(state) => {
                assert_eq!(state, State::Succeeded);
                recorded += 1;
            }
            outcome => assert_eq!(outcome, RunOutcome::Refused),
        }
    }
    assert_eq!((recorded, runs.0.load(SeqCst)), (1, 1));
    let record = store.get(&id).await.unwrap().unwrap();
    assert_eq!(record.attempts(), 1);
    // A delivery long afterwards is refused too.
    let late = workers[0].clone().oneshot(message(&bytes)).await.unwrap();
    assert_eq!((late, runs.0.load(SeqCst)), (RunOutcome::Refused, 1));
}

#[tokio::test(start_paused = true)]
async fn an_operation_canceled_in_the_queue_never_starts() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = create_with_message(&store).await;
    let record = store.get(&id).await.unwrap().unwrap();
    let stamp = record.stamp().unwrap();
    let write = store.force_finish(&id, stamp, Outcome::Canceled).await;
    assert!(matches!(write, Ok(Written::Done(_))));
    let outcome = worker!(store.clone(), runs, 0)
        .oneshot(message(&bytes))
        .await;
    assert_eq!(
        (outcome.unwrap(), runs.0.load(SeqCst)),
        (RunOutcome::Refused, 0)
    );
}

/// The first message has room whatever its length, since it is alone.
#[tokio::test(start_paused = true)]
async fn a_worker_claims_no_message_whose_body_has_no_room() {
    let store = MemoryStore::new();
    let hangs = service_fn(async |request: Request<BufferedBody>| {
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(request);
        Ok::<_, Infallible>(Response::new(BufferedBody::default()))
    });
    let worker = RunService::new(store.clone(), hangs).max_bytes_in_flight(5_000);
    let mut messages = Vec::new();
    for _ in 0..2 {
        let new = NewOperation::new(OperationId::new()).with_lease(front_lease());
        let Created::New(record) = store.create(new).await.unwrap() else {
            panic!("the id is new");
        };
        let body = BufferedBody::from(vec![b'x'; 6_000]);
        messages.push(
            QueuedRequest::new(&record, Request::post("/reports").body(body).unwrap()).to_bytes(),
        );
    }
    let drain = worker.drain_handle();
    let first = tokio::spawn(worker.clone().oneshot(message(&messages[0])));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(drain.in_flight().bytes, 6_000);
    let error = worker
        .clone()
        .oneshot(message(&messages[1]))
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(matches!(
        first.await.unwrap(),
        Ok(RunOutcome::Recorded(State::Succeeded))
    ));
    assert_eq!(drain.in_flight().bytes, 0);
    let second = worker.oneshot(message(&messages[1])).await.unwrap();
    assert_eq!(second, RunOutcome::Recorded(State::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn a_message_leaves_the_memory_once_its_body_is_read() {
    let store = MemoryStore::new();
    let (_, bytes) = create_with_message(&store).await;
    let reads = service_fn(async |request: Request<BufferedBody>| {
        drop(request);
        tokio::time::sleep(Duration::from_secs(10)).await;
        Ok::<_, Infallible>(Response::new(BufferedBody::default()))
    });
    let run = tokio::spawn(RunService::new(store, reads).oneshot(message(&bytes)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(bytes.is_unique() && !run.is_finished());
    assert!(run.await.unwrap().is_ok());
}

/// A cancel stops the run on its worker.
#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_the_worker() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = create_with_message(&store).await;
    let run_task = tokio::spawn(worker!(store.clone(), runs, 3600).oneshot(message(&bytes)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let record = store.get(&id).await.unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Running);
    let (stamp, start) = (record.stamp().unwrap(), Instant::now());
    store
        .force_finish(&id, stamp, Outcome::Canceled)
        .await
        .unwrap();
    assert_eq!(run_task.await.unwrap().unwrap(), RunOutcome::Refused);
    assert!(start.elapsed() <= Duration::from_secs(1));
}

/// The queue has lost the message or is too slow. The recovery ends the operation, and
/// a later delivery is refused.
#[tokio::test(start_paused = true)]
async fn an_operation_lost_by_the_queue_is_ended_by_the_recovery() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = create_with_message(&store).await;
    let operations =
        Operations::new(store.clone()).lease(LeaseConfig::new(NodeId::named("recovering"), MINUTE));
    let recovery = tokio::spawn(operations.recovery().run());
    let problem = loop {
        let record = store.get(&id).await.unwrap().unwrap();
        if let Some(problem) = record.operation().problem() {
            break problem.type_uri().to_owned();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!(problem, FailureKind::Interrupted.urn());
    let late = worker!(store.clone(), runs, 0)
        .oneshot(message(&bytes))
        .await;
    assert_eq!(
        (late.unwrap(), runs.0.load(SeqCst)),
        (RunOutcome::Refused, 0)
    );
    recovery.abort();
}

/// A claim with a lost answer is an error, and the message is delivered again. A claim
/// that took effect leaves the operation to its lease.
#[tokio::test(start_paused = true)]
async fn an_uncertain_claim_runs_nothing() {
    for lost_answer in [false, true] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let (id, bytes) = create_with_message(&memory).await;
        let tries = Arc::new(AtomicUsize::new(0));
        let when_it_fails = if lost_answer {
            When::After
        } else {
            When::Before
        };
        let store = Hooked::new(memory.clone(), move |call, when| {
            let fails =
                (call, when) == (Call::Claim, when_it_fails) && tries.fetch_add(1, SeqCst) == 0;
            std::future::ready(match fails {
                true => Err(StoreError::unavailable("cut")),
                false => Ok(()),
            })
        });
        let worker = worker!(store, runs, 0);
        let error = worker.clone().oneshot(message(&bytes)).await.unwrap_err();
        assert!(error.is_transient());
        assert_eq!(runs.0.load(SeqCst), 0);
        let second = worker.oneshot(message(&bytes)).await.unwrap();
        let (expected, attempts) = match lost_answer {
            true => (RunOutcome::Refused, 0),
            false => (RunOutcome::Recorded(State::Succeeded), 1),
        };
        assert_eq!((second, runs.0.load(SeqCst)), (expected, attempts));
        let record = memory.get(&id).await.unwrap().unwrap();
        assert_eq!(record.attempts(), attempts as u32);
    }
}

/// A queue in memory, and the layer that dispatches to it.
struct DispatchSetup {
    store: MemoryStore,
    queue: mpsc::UnboundedReceiver<Bytes>,
    operations: Operations<MemoryStore, Queue>,
    layer: AsyncAcceptLayer<MemoryStore, Queue>,
    fails: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

/// Puts messages into the queue, or fails as `fails` says.
#[derive(Clone)]
struct Queue {
    into: mpsc::UnboundedSender<Bytes>,
    fails: Arc<AtomicUsize>,
    claimed_within: Duration,
    /// The number of dispatches.
    calls: Arc<AtomicUsize>,
}

impl Dispatch for Queue {
    fn claimed_within(&self) -> Duration {
        self.claimed_within
    }

    async fn dispatch(&self, request: QueuedRequest) -> Result<(), BoxError> {
        self.calls.fetch_add(1, SeqCst);
        match self.fails.load(SeqCst) {
            0 => Ok(self.into.send(request.to_bytes())?),
            // The message is lost, or only the answer is.
            1 => Err("the queue is down".into()),
            2 => {
                self.into.send(request.to_bytes())?;
                tokio::time::sleep(Duration::from_secs(3)).await;
                Err("the connection was cut".into())
            }
            _ => std::future::pending().await,
        }
    }
}

impl DispatchSetup {
    fn with_failure(fails: usize) -> Self {
        Self::with_claim_time(fails, 5 * MINUTE)
    }

    fn with_claim_time(fails: usize, claimed_within: Duration) -> Self {
        Self::with(fails, claimed_within, |operations| operations)
    }

    fn with(
        fails: usize,
        claimed_within: Duration,
        set: impl FnOnce(Operations<MemoryStore, Queue>) -> Operations<MemoryStore, Queue>,
    ) -> Self {
        let store = MemoryStore::new();
        let (into, queue) = mpsc::unbounded_channel();
        let fails = Arc::new(AtomicUsize::new(fails));
        let calls = Arc::default();
        let dispatch = Queue {
            into,
            fails: Arc::clone(&fails),
            claimed_within,
            calls: Arc::clone(&calls),
        };
        let ada = |_: &http::request::Parts| Some(Owner::new("ada"));
        let operations = set(Operations::dispatching(store.clone(), dispatch).owner(ada));
        Self {
            store,
            queue,
            layer: operations.layer(),
            operations,
            fails,
            calls,
        }
    }

    async fn post(&self, prefer: &str) -> Response<ResponseBody<BufferedBody>> {
        self.post_with("prefer", prefer).await
    }

    async fn post_with(&self, name: &str, value: &str) -> Response<ResponseBody<BufferedBody>> {
        let unused_service = service_fn(|_: Request<RequestBody<BufferedBody>>| async {
            unreachable!("the request is not run here");
            #[allow(unreachable_code)]
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        });
        let request = Request::post("/reports")
            .header("authorization", "Bearer abc")
            .header(name, value)
            .body(BufferedBody::from("Q3"));
        let service = self.layer.layer(unused_service);
        service.oneshot(request.unwrap()).await.unwrap()
    }

    fn delivery(&mut self) -> QueuedRequest {
        message(&self.queue.try_recv().expect("the message is in the queue"))
    }

    async fn only_operation(&self) -> Record<RecordedResponse> {
        let query = ListQuery::new(Some(Owner::new("ada")), 10);
        let mut records = self.store.list(&query).await.unwrap().records;
        assert_eq!(records.len(), 1);
        records.remove(0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_dispatched_operation_is_accepted_and_run_by_a_worker() {
    let mut setup = DispatchSetup::with_failure(0);
    let start = Instant::now();
    let response = setup.post("wait=9").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(
        start.elapsed(),
        Duration::ZERO,
        "there is nothing to wait for"
    );
    assert!(!response.headers().contains_key("preference-applied"));
    assert_eq!(
        setup.only_operation().await.operation().state(),
        State::Pending
    );
    let runs = Runs::default();
    let queued = setup.delivery();
    let outcome = worker!(setup.store.clone(), runs, 5).oneshot(queued).await;
    assert_eq!(outcome.unwrap(), RunOutcome::Recorded(State::Succeeded));
    let record = setup.only_operation().await;
    assert_eq!(
        record.operation().result().unwrap().body().unwrap(),
        b"done"
    );
    assert_eq!((runs.0.load(SeqCst), record.attempts()), (1, 1));
}

/// A 202 is never sent for work that nobody will do.
#[tokio::test(start_paused = true)]
async fn a_failed_dispatch_is_a_503_and_fails_the_operation() {
    for fails in [1, 3] {
        let setup = DispatchSetup::with_failure(fails);
        let response = setup.post("").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
        let record = setup.only_operation().await;
        let problem = record.operation().problem().unwrap();
        assert_eq!(problem.type_uri(), FailureKind::NotDispatched.urn());
    }
}

/// The dispatch fails, but a worker already has the request.
#[tokio::test(start_paused = true)]
async fn a_claimed_operation_is_accepted_despite_a_failed_dispatch() {
    let mut setup = DispatchSetup::with_failure(2);
    let runs = Runs::default();
    let worker = worker!(setup.store.clone(), runs, 60);
    let (into, mut queue) = mpsc::unbounded_channel();
    std::mem::swap(&mut setup.queue, &mut queue);
    drop(into);
    let worker_task = tokio::spawn(async move {
        let delivery = queue.recv().await.expect("the message is in the queue");
        worker.oneshot(message(&delivery)).await
    });
    let response = setup.post("").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let outcome = worker_task.await.unwrap().unwrap();
    assert_eq!(outcome, RunOutcome::Recorded(State::Succeeded));
    assert_eq!(runs.0.load(SeqCst), 1);
}

/// An operation that the queue lost or a dead worker left is dispatched again, at most
/// up to its attempts.
#[tokio::test(start_paused = true)]
async fn a_lost_operation_is_redispatched_up_to_its_attempts() {
    let mut setup = DispatchSetup::with_failure(0);
    let recovery = setup.operations.dispatching_recovery(2);
    let recovery = tokio::spawn(recovery.run());
    assert_eq!(setup.post("").await.status(), StatusCode::ACCEPTED);
    let lost_message = setup.delivery();
    let redelivery = message(
        &setup
            .queue
            .recv()
            .await
            .expect("the operation is dispatched again"),
    );
    assert_eq!(redelivery.id(), lost_message.id());
    // The first message arrives late.
    let runs = Runs::default();
    let late = worker!(setup.store.clone(), runs, 0)
        .oneshot(lost_message)
        .await;
    assert_eq!(
        (late.unwrap(), runs.0.load(SeqCst)),
        (RunOutcome::Refused, 0)
    );

    // Two workers die while they run the operation.
    for attempt in 1..=2 {
        let queued = match attempt {
            1 => redelivery.clone(),
            _ => message(
                &setup
                    .queue
                    .recv()
                    .await
                    .expect("the operation is dispatched again"),
            ),
        };
        let dying_worker = RunService::new(
            setup.store.clone(),
            service_fn(move |request: Request<BufferedBody>| async move {
                let operation = OperationHandle::from_extensions(request.extensions());
                assert_eq!(operation.attempt(), attempt);
                std::future::pending::<Result<Response<BufferedBody>, Infallible>>().await
            }),
        );
        let run = tokio::time::timeout(Duration::from_secs(1), dying_worker.oneshot(queued));
        assert!(run.await.is_err());
        assert_eq!(setup.only_operation().await.attempts(), attempt);
    }
    let problem = loop {
        let record = setup.only_operation().await;
        if let Some(problem) = record.operation().problem() {
            break problem.type_uri().to_owned();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!(problem, FailureKind::AttemptsExhausted.urn());
    assert!(setup.queue.try_recv().is_err());
    recovery.abort();
}

/// A drained worker releases what it runs, and the operation is dispatched again.
#[tokio::test(start_paused = true)]
async fn an_operation_released_by_a_drained_worker_is_run_by_another() {
    let mut setup = DispatchSetup::with_failure(0);
    let recovery = tokio::spawn(setup.operations.dispatching_recovery(2).run());
    setup.post("").await;
    let queued = setup.delivery();
    assert_eq!(queued.owner(), Some(&Owner::new("ada")));
    let first = RunService::new(
        setup.store.clone(),
        service_fn(|_: Request<BufferedBody>| {
            std::future::pending::<Result<Response<BufferedBody>, Infallible>>()
        }),
    );
    let drain = first.drain_handle();
    let run_task = tokio::spawn(first.clone().oneshot(queued.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = drain.drain(Duration::from_secs(1)).await;
    assert_eq!(report.released, [queued.id().clone()]);
    assert_eq!(run_task.await.unwrap().unwrap(), RunOutcome::Refused);
    // A drained worker refuses further messages with an error.
    assert!(first.oneshot(queued).await.is_err());

    let redelivery = message(
        &setup
            .queue
            .recv()
            .await
            .expect("the operation is dispatched again"),
    );
    let second = RunService::new(
        setup.store.clone(),
        service_fn(|request: Request<BufferedBody>| async move {
            assert_eq!(
                OperationHandle::from_extensions(request.extensions()).attempt(),
                2
            );
            Ok::<_, Infallible>(Response::new(BufferedBody::from("done")))
        }),
    );
    let outcome = second.oneshot(redelivery).await.unwrap();
    assert_eq!(outcome, RunOutcome::Recorded(State::Succeeded));
    recovery.abort();
}

/// The client decides whether to retry: the request did not kill the worker.
#[tokio::test(start_paused = true)]
async fn an_operation_released_after_its_last_attempt_is_interrupted() {
    let mut setup = DispatchSetup::with_failure(0);
    let recovery = tokio::spawn(setup.operations.dispatching_recovery(1).run());
    // The recovery reclaims expired leases only after some time.
    tokio::time::sleep(2 * MINUTE).await;
    setup.post("").await;
    let queued = setup.delivery();
    let worker = RunService::new(
        setup.store.clone(),
        service_fn(|_: Request<BufferedBody>| {
            std::future::pending::<Result<Response<BufferedBody>, Infallible>>()
        }),
    );
    let drain = worker.drain_handle();
    tokio::spawn(worker.oneshot(queued));
    tokio::time::sleep(Duration::from_secs(1)).await;
    drain.drain(Duration::from_secs(1)).await;
    let problem = loop {
        let record = setup.only_operation().await;
        if let Some(problem) = record.operation().problem() {
            break problem.type_uri().to_owned();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!(problem, FailureKind::Interrupted.urn());
    recovery.abort();
}

const KEY: &str = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"";

/// The client repeats the request with its key and must find work that somebody does.
#[tokio::test(start_paused = true)]
async fn a_failed_dispatch_with_a_key_is_left_to_the_recovery() {
    let mut setup = DispatchSetup::with_failure(1);
    setup.layer = setup.layer.idempotency(Idempotency::optional());
    let recovery = tokio::spawn(setup.operations.dispatching_recovery(3).run());
    let first = setup.post_with("idempotency-key", KEY).await;
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    let start = Instant::now();
    tokio::time::sleep(MINUTE).await;
    setup.fails.store(0, SeqCst);
    let queued = message(
        &setup
            .queue
            .recv()
            .await
            .expect("the operation is dispatched again"),
    );
    assert!(start.elapsed() < 2 * MINUTE, "{:?}", start.elapsed());
    let second = setup.post_with("idempotency-key", KEY).await;
    assert_eq!(second.status(), StatusCode::ACCEPTED);
    assert_eq!(second.headers()["location"], first.headers()["location"]);
    let runs = Runs::default();
    let outcome = worker!(setup.store.clone(), runs, 1).oneshot(queued).await;
    assert_eq!(outcome.unwrap(), RunOutcome::Recorded(State::Succeeded));
    assert_eq!(runs.0.load(SeqCst), 1);
    recovery.abort();
}

/// Without a recovery the operation fails, and a repetition gets the same 503.
#[tokio::test(start_paused = true)]
async fn a_repetition_of_a_failed_dispatch_is_a_503_too() {
    let id = KEY.trim_matches('"');
    for (name, value) in [("idempotency-key", KEY), ("operation-id", id)] {
        let mut setup = DispatchSetup::with_failure(1);
        let rules = Idempotency::optional().client_ids();
        setup.layer = setup.layer.idempotency(rules);
        for fails in [1, 0] {
            setup.fails.store(fails, SeqCst);
            let response = setup.post_with(name, value).await;
            let status = response.status();
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
            assert!(!response.headers().contains_key("location"));
        }
        let record = setup.only_operation().await;
        let problem = record.operation().problem().unwrap();
        assert_eq!(problem.type_uri(), FailureKind::NotDispatched.urn());
    }
}

/// An operation that is claimed late has its whole running time, even on a busy
/// worker.
#[tokio::test(start_paused = true)]
async fn an_operation_claimed_late_is_not_reclaimed_from_its_worker() {
    let mut setup = DispatchSetup::with_failure(0);
    let recovery = tokio::spawn(setup.operations.dispatching_recovery(3).run());
    let runs = Runs::default();
    let worker = worker!(setup.store.clone(), runs, 120);
    setup.post("").await;
    let early = setup.delivery();
    setup.post("").await;
    let late = setup.delivery();
    // The heartbeat of the worker runs from the first message on.
    tokio::time::sleep(5 * MINUTE - Duration::from_secs(15)).await;
    let early = tokio::spawn(worker.clone().oneshot(early));
    tokio::time::sleep(Duration::from_secs(14)).await;
    let late = tokio::spawn(worker.oneshot(late));
    for run in [early, late] {
        let outcome = run.await.unwrap().unwrap();
        assert_eq!(outcome, RunOutcome::Recorded(State::Succeeded));
    }
    assert_eq!(runs.0.load(SeqCst), 2);
    assert!(
        setup.queue.try_recv().is_err(),
        "an operation was dispatched again"
    );
    recovery.abort();
}

/// The operation was started once, and there are no workers any more. The waiting time
/// is measured by recorded times, which no test can pause.
#[tokio::test]
async fn an_operation_that_no_worker_claims_again_times_out() {
    let tenth = Duration::from_millis(100);
    let term = |name| LeaseConfig::new(NodeId::named(name), tenth);
    let mut setup = DispatchSetup::with(0, tenth, |operations| {
        operations
            .lease(term("front"))
            .pending_timeout(3 * tenth)
            .running_timeout(6 * tenth)
    });
    let recovery = tokio::spawn(setup.operations.dispatching_recovery(9).run());
    setup.post("").await;
    let runs = Runs::default();
    let worker = worker!(setup.store.clone(), runs, 3600).lease(term("worker"));
    let run = tokio::time::timeout(tenth / 2, worker.oneshot(setup.delivery()));
    assert!(run.await.is_err());
    let start = Instant::now();
    let mut record = setup.only_operation().await;
    while !record.operation().state().is_terminal() {
        let (id, since) = (record.operation().id(), record.version().unwrap());
        let changed = setup.store.changed(id, since, MINUTE).await;
        record = changed.unwrap().expect("the operation exists");
        assert!(
            start.elapsed() < MINUTE,
            "the operation never ends: {record:?}"
        );
    }
    let problem = record.operation().problem().unwrap();
    assert_eq!(problem.type_uri(), FailureKind::TimedOut.urn());
    assert!(start.elapsed() >= 8 * tenth, "{:?}", start.elapsed());
    setup.delivery();
    assert_eq!(runs.0.load(SeqCst), 1);
    recovery.abort();
}

/// A drain waits for a claim in progress, and releases the claimed operation.
#[tokio::test(start_paused = true)]
async fn an_operation_claimed_during_a_drain_is_released() {
    let memory = MemoryStore::new();
    let (id, bytes) = create_with_message(&memory).await;
    let store = Hooked::new(memory.clone(), |call, when| async move {
        if (call, when) == (Call::Claim, When::After) {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        Ok(())
    });
    let worker = RunService::new(
        store,
        service_fn(|_: Request<BufferedBody>| {
            std::future::pending::<Result<Response<BufferedBody>, Infallible>>()
        }),
    );
    let drain = worker.drain_handle();
    let run_task = tokio::spawn(worker.oneshot(message(&bytes)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = drain.drain(Duration::from_secs(9)).await;
    assert_eq!(report.released, [id]);
    assert_eq!(run_task.await.unwrap().unwrap(), RunOutcome::Refused);
    let recovering = LeaseConfig::new(NodeId::named("recovering"), MINUTE);
    let reclaimed = memory.reclaim(&recovering, 9).await.unwrap();
    assert_eq!(reclaimed.len(), 1, "the operation was not released");
}

/// Operations that a queue lost together are not all dispatched again together.
#[tokio::test(start_paused = true)]
async fn redispatches_are_bounded_by_the_operations_in_flight() {
    let setup = DispatchSetup::with(0, 5 * MINUTE, |operations| operations.max_in_flight(2));
    for _ in 0..7 {
        setup.post("").await;
    }
    setup.fails.store(3, SeqCst);
    setup.calls.store(0, SeqCst);
    let recovery = tokio::spawn(setup.operations.dispatching_recovery(2).run());
    let start = Instant::now();
    // Each dispatch hangs for a third of a lease term and is then abandoned.
    while setup.calls.load(SeqCst) == 0 {
        assert!(start.elapsed() < 9 * MINUTE, "nothing is dispatched again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(setup.calls.load(SeqCst), 2);
    recovery.abort();
}

/// A front whose queue never answers, over a store with this hook.
fn hanging_front(
    hook: impl Fn(Call, When) -> std::future::Ready<Result<(), StoreError>> + Send + Sync + 'static,
) -> (Operations<Hooked, HangingQueue>, MemoryStore) {
    let store = MemoryStore::new();
    let hooked = Hooked::new(store.clone(), hook);
    (Operations::dispatching(hooked, HangingQueue), store)
}

struct HangingQueue;

impl Dispatch for HangingQueue {
    async fn dispatch(&self, _: QueuedRequest) -> Result<(), BoxError> {
        std::future::pending().await
    }
}

async fn only_operation(store: &MemoryStore) -> Record<RecordedResponse> {
    let query = ListQuery::new(None, 10);
    let mut records = store.list(&query).await.unwrap().records;
    assert_eq!(records.len(), 1);
    records.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_request_in_dispatch_is_answered_at_the_deadline_of_a_drain() {
    for (has_recovery, store_is_down) in
        [(true, false), (false, false), (true, true), (false, true)]
    {
        let (operations, store) = hanging_front(move |call, when| {
            let ends = matches!(call, Call::Finish | Call::Release) && when == When::Before;
            std::future::ready(match ends && store_is_down {
                true => Err(StoreError::unavailable("it is down")),
                false => Ok(()),
            })
        });
        let _recovery = has_recovery.then(|| operations.dispatching_recovery(3));
        let layer = operations.layer().create_timeout(MINUTE);
        let service = layer.layer(service_fn(|_: Request<RequestBody<BufferedBody>>| {
            std::future::pending::<Result<Response<BufferedBody>, Infallible>>()
        }));
        let post = Request::post("/reports")
            .body(BufferedBody::from("Q3"))
            .unwrap();
        let start = Instant::now();
        let pending_answer = tokio::spawn(async move {
            let response = service.oneshot(post).await.unwrap();
            (start.elapsed().as_secs(), response)
        });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let report = operations.drain(Duration::from_secs(3)).await;
        let (at, response) = tokio::time::timeout(Duration::from_secs(1), pending_answer)
            .await
            .expect("the request is answered")
            .unwrap();
        let case = format!("recovers: {has_recovery}, store is down: {store_is_down}, {report:?}");
        assert!(report.took <= Duration::from_secs(4), "{case}");
        let record = only_operation(&store).await;
        let id = record.operation().id().clone();
        match has_recovery {
            true => {
                assert_eq!((at, response.status()), (3, StatusCode::ACCEPTED), "{case}");
                assert_eq!(record.operation().state(), State::Pending, "{case}");
                assert_eq!(report.released, [id], "{case}");
                assert_eq!((report.refused, report.unanswered), (0, 0), "{case}");
            }
            false => {
                let expected = if store_is_down { 4 } else { 3 };
                assert_eq!(at, expected, "{case}");
                assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{case}");
                assert!(response.headers().contains_key("retry-after"));
                let problem = record
                    .operation()
                    .problem()
                    .map(tower_operations::Problem::type_uri);
                let expected_problem = Some(FailureKind::NotDispatched.urn());
                assert_eq!(
                    problem,
                    expected_problem.filter(|_| !store_is_down),
                    "{case}"
                );
                let counts = (report.refused, report.unanswered);
                let expected = if store_is_down { (0, 1) } else { (1, 0) };
                assert_eq!(counts, expected, "{case}");
            }
        }
        assert!(!report.is_clean(), "{case}");
    }
}

/// Each failed dispatch has a task that runs until the store answers. The bound on
/// operations in flight bounds these tasks too.
#[tokio::test(start_paused = true)]
async fn a_failed_dispatch_stays_in_flight_until_it_is_ended() {
    let is_down = Arc::new(AtomicBool::new(true));
    let store_is_down = Arc::clone(&is_down);
    let (operations, store) = hanging_front(move |call, _| {
        std::future::ready(match call == Call::Finish && store_is_down.load(SeqCst) {
            true => Err(StoreError::unavailable("it is down")),
            false => Ok(()),
        })
    });
    let operations = operations.max_in_flight(1);
    let layer = operations.layer().create_timeout(Duration::from_secs(1));
    let service = layer.layer(service_fn(|_: Request<RequestBody<BufferedBody>>| {
        std::future::pending::<Result<Response<BufferedBody>, Infallible>>()
    }));
    let post = || {
        Request::post("/reports")
            .body(BufferedBody::from("Q3"))
            .unwrap()
    };
    for _ in 0..3 {
        let response = service.clone().oneshot(post()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!((operations.in_flight().operations, store.len()), (1, 1));
    }
    is_down.store(false, SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(operations.in_flight().operations, 0);
    let record = only_operation(&store).await;
    assert_eq!(record.operation().state(), State::Failed);
    // A drain does not wait for the store, because the clients have their answers.
    is_down.store(true, SeqCst);
    service.oneshot(post()).await.unwrap();
    let report = operations.drain(MINUTE).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_operation_claimed_at_the_deadline_of_a_drain_is_released_at_once() {
    let memory = MemoryStore::new();
    let (id, bytes) = create_with_message(&memory).await;
    let store = Hooked::new(memory.clone(), |call, when| async move {
        if (call, when) == (Call::Claim, When::After) {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        Ok(())
    });
    let worker = RunService::new(
        store,
        service_fn(|_: Request<BufferedBody>| {
            std::future::pending::<Result<Response<BufferedBody>, Infallible>>()
        }),
    );
    let drain = worker.drain_handle();
    let run_task = tokio::spawn(worker.oneshot(message(&bytes)));
    tokio::task::yield_now().await;
    // The claim succeeds half a second after the deadline.
    let report = drain.drain(Duration::from_millis(2500)).await;
    assert_eq!(report.released, [id]);
    assert_eq!(report.took, Duration::from_secs(3));
    assert_eq!(run_task.await.unwrap().unwrap(), RunOutcome::Refused);
}

#[tokio::test(start_paused = true)]
async fn an_operation_canceled_or_deleted_just_before_its_start_never_runs() {
    for is_deleted in [false, true] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let (id, bytes) = create_with_message(&memory).await;
        let hook_memory = memory.clone();
        let store = Hooked::new(memory, move |call, when| {
            let (memory, id) = (hook_memory.clone(), id.clone());
            async move {
                if (call, when) != (Call::Start, When::Before) {
                    return Ok(());
                }
                let stamp = async || memory.get(&id).await.unwrap().unwrap().stamp().unwrap();
                let before = stamp().await;
                memory.force_finish(&id, before, Outcome::Canceled).await?;
                if is_deleted {
                    memory.delete(&id, stamp().await).await?;
                }
                Ok(())
            }
        });
        let outcome = worker!(store, runs, 0).oneshot(message(&bytes)).await;
        assert_eq!(
            (outcome.unwrap(), runs.0.load(SeqCst)),
            (RunOutcome::Refused, 0)
        );
    }
}
