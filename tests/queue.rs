//! Accepted requests that go through a queue to workers elsewhere.

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

fn front() -> LeaseConfig {
    LeaseConfig::new(NodeId::named("front"), MINUTE)
}

/// An operation of a front's, and its message.
async fn accepted(
    store: &impl Repository<Output = tower_operations::RecordedResponse>,
) -> (OperationId, Bytes) {
    let new = NewOperation::new(OperationId::new())
        .with_owner(Some(Owner::new("ada")))
        .with_lease(front());
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
async fn of_all_deliveries_of_a_message_one_runs() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = accepted(&store).await;
    let workers: Vec<_> = (0..4).map(|_| worker!(store.clone(), runs, 5)).collect();
    let mut deliveries = tokio::task::JoinSet::new();
    for worker in workers.iter().chain(&workers) {
        deliveries.spawn(worker.clone().oneshot(message(&bytes)));
    }
    let mut recorded = 0;
    for ran in deliveries.join_all().await {
        match ran.unwrap() {
            RunOutcome::Recorded(state) => {
                assert_eq!(state, State::Succeeded);
                recorded += 1;
            }
            ran => assert_eq!(ran, RunOutcome::Refused),
        }
    }
    assert_eq!((recorded, runs.0.load(SeqCst)), (1, 1));
    let record = store.get(&id).await.unwrap().unwrap();
    assert_eq!(record.attempts(), 1);
    // Long afterwards.
    let late = workers[0].clone().oneshot(message(&bytes)).await.unwrap();
    assert_eq!((late, runs.0.load(SeqCst)), (RunOutcome::Refused, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_canceled_meanwhile_is_never_started() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = accepted(&store).await;
    let record = store.get(&id).await.unwrap().unwrap();
    let version = record.version().unwrap();
    let write = store.force_finish(&id, version, Outcome::Canceled).await;
    assert!(matches!(write, Ok(Written::Done(_))));
    let ran = worker!(store.clone(), runs, 0)
        .oneshot(message(&bytes))
        .await;
    assert_eq!(
        (ran.unwrap(), runs.0.load(SeqCst)),
        (RunOutcome::Refused, 0)
    );
}

/// A cancel stops the work on the worker that has it.
#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_the_worker() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = accepted(&store).await;
    let running = tokio::spawn(worker!(store.clone(), runs, 3600).oneshot(message(&bytes)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let record = store.get(&id).await.unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Running);
    let (version, begun) = (record.version().unwrap(), Instant::now());
    store
        .force_finish(&id, version, Outcome::Canceled)
        .await
        .unwrap();
    assert_eq!(running.await.unwrap().unwrap(), RunOutcome::Refused);
    assert!(begun.elapsed() <= Duration::from_secs(1));
}

/// The queue has lost it, or is far too slow: whoever recovers ends it, and what comes
/// out of the queue later finds nothing to do.
#[tokio::test(start_paused = true)]
async fn what_the_queue_has_lost_is_recovered() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = accepted(&store).await;
    let operations =
        Operations::new(store.clone()).lease(LeaseConfig::new(NodeId::named("recovering"), MINUTE));
    let recovery = tokio::spawn(operations.recovery().run());
    let failed = loop {
        let record = store.get(&id).await.unwrap().unwrap();
        if let Some(problem) = record.operation().problem() {
            break problem.type_uri().to_owned();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!(failed, FailureKind::Interrupted.urn());
    let late = worker!(store.clone(), runs, 0)
        .oneshot(message(&bytes))
        .await;
    assert_eq!(
        (late.unwrap(), runs.0.load(SeqCst)),
        (RunOutcome::Refused, 0)
    );
    recovery.abort();
}

/// A claim whose answer is lost is an error, after which the message is delivered again.
/// It may have happened: then the operation is left to its lease.
#[tokio::test(start_paused = true)]
async fn a_claim_in_doubt_runs_nothing() {
    for lost_answer in [false, true] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let (id, bytes) = accepted(&memory).await;
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
        let again = worker.oneshot(message(&bytes)).await.unwrap();
        let (expected, attempts) = match lost_answer {
            true => (RunOutcome::Refused, 0),
            false => (RunOutcome::Recorded(State::Succeeded), 1),
        };
        assert_eq!((again, runs.0.load(SeqCst)), (expected, attempts));
        let record = memory.get(&id).await.unwrap().unwrap();
        assert_eq!(record.attempts(), attempts as u32);
    }
}

/// A queue in memory, and the layer before it.
struct Handed {
    store: MemoryStore,
    queue: mpsc::UnboundedReceiver<Bytes>,
    operations: Operations<MemoryStore, Queue>,
    layer: AsyncAcceptLayer<MemoryStore, Queue>,
    fails: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

/// Puts messages into the queue, unless it is told to fail.
#[derive(Clone)]
struct Queue {
    into: mpsc::UnboundedSender<Bytes>,
    fails: Arc<AtomicUsize>,
    claimed_within: Duration,
    /// How often something was to be put into it.
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
            // It is lost, or only the answer is.
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

impl Handed {
    fn off(fails: usize) -> Self {
        Self::within(fails, 5 * MINUTE)
    }

    fn within(fails: usize, claimed_within: Duration) -> Self {
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
        let to = Queue {
            into,
            fails: Arc::clone(&fails),
            claimed_within,
            calls: Arc::clone(&calls),
        };
        let ada = |_: &http::request::Parts| Some(Owner::new("ada"));
        let operations = set(Operations::dispatching(store.clone(), to).owner(ada));
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
        let never = service_fn(|_: Request<RequestBody<BufferedBody>>| async {
            unreachable!("it is not run here");
            #[allow(unreachable_code)]
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        });
        let request = Request::post("/reports")
            .header("authorization", "Bearer abc")
            .header(name, value)
            .body(BufferedBody::from("Q3"));
        let service = self.layer.layer(never);
        service.oneshot(request.unwrap()).await.unwrap()
    }

    fn delivered(&mut self) -> QueuedRequest {
        message(&self.queue.try_recv().expect("it is in the queue"))
    }

    async fn only_one(&self) -> Arc<Record<RecordedResponse>> {
        let query = ListQuery::new(Some(Owner::new("ada")), 10);
        let mut records = self.store.list(&query).await.unwrap().records;
        assert_eq!(records.len(), 1);
        records.remove(0)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_off_is_accepted_and_run_elsewhere() {
    let mut handed = Handed::off(0);
    let begun = Instant::now();
    let response = handed.post("wait=9").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(
        begun.elapsed(),
        Duration::ZERO,
        "there is nothing to wait for"
    );
    assert!(!response.headers().contains_key("preference-applied"));
    assert_eq!(handed.only_one().await.operation().state(), State::Pending);
    let runs = Runs::default();
    let queued = handed.delivered();
    let ran = worker!(handed.store.clone(), runs, 5).oneshot(queued).await;
    assert_eq!(ran.unwrap(), RunOutcome::Recorded(State::Succeeded));
    let record = handed.only_one().await;
    assert_eq!(record.operation().result().unwrap().body(), "done");
    assert_eq!((runs.0.load(SeqCst), record.attempts()), (1, 1));
}

/// Never a 202 for work that nobody will do.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_dispatched_fails_and_says_so() {
    for fails in [1, 3] {
        let handed = Handed::off(fails);
        let response = handed.post("").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
        let record = handed.only_one().await;
        let problem = record.operation().problem().unwrap();
        assert_eq!(problem.type_uri(), FailureKind::NotDispatched.urn());
    }
}

/// The engine says no, but a worker has the request already.
#[tokio::test(start_paused = true)]
async fn what_a_worker_has_claimed_is_accepted_whatever_the_engine_says() {
    let mut handed = Handed::off(2);
    let runs = Runs::default();
    let worker = worker!(handed.store.clone(), runs, 60);
    let (into, mut queue) = mpsc::unbounded_channel();
    std::mem::swap(&mut handed.queue, &mut queue);
    drop(into);
    let working = tokio::spawn(async move {
        let delivered = queue.recv().await.expect("it is in the queue");
        worker.oneshot(message(&delivered)).await
    });
    let response = handed.post("").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let ran = working.await.unwrap().unwrap();
    assert_eq!(ran, RunOutcome::Recorded(State::Succeeded));
    assert_eq!(runs.0.load(SeqCst), 1);
}

/// What the queue has lost, and what a dead worker has left, is dispatched again, so
/// often and no more.
#[tokio::test(start_paused = true)]
async fn what_is_lost_is_dispatched_again_up_to_its_attempts() {
    let mut handed = Handed::off(0);
    let recovery = handed.operations.dispatching_recovery(2);
    let recovery = tokio::spawn(recovery.run());
    assert_eq!(handed.post("").await.status(), StatusCode::ACCEPTED);
    let lost = handed.delivered();
    let again = message(&handed.queue.recv().await.expect("it is dispatched again"));
    assert_eq!(again.id(), lost.id());
    // The first one comes late.
    let runs = Runs::default();
    let late = worker!(handed.store.clone(), runs, 0).oneshot(lost).await;
    assert_eq!(
        (late.unwrap(), runs.0.load(SeqCst)),
        (RunOutcome::Refused, 0)
    );

    // Two workers die of it.
    for attempt in 1..=2 {
        let queued = match attempt {
            1 => again.clone(),
            _ => message(&handed.queue.recv().await.expect("it is dispatched again")),
        };
        let dying = RunService::new(
            handed.store.clone(),
            service_fn(move |request: Request<BufferedBody>| async move {
                let operation = OperationHandle::from_extensions(request.extensions());
                assert_eq!(operation.attempt(), attempt);
                std::future::pending::<Result<Response<BufferedBody>, Infallible>>().await
            }),
        );
        let dies = tokio::time::timeout(Duration::from_secs(1), dying.oneshot(queued));
        assert!(dies.await.is_err());
        assert_eq!(handed.only_one().await.attempts(), attempt);
    }
    let failed = loop {
        let record = handed.only_one().await;
        if let Some(problem) = record.operation().problem() {
            break problem.type_uri().to_owned();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!(failed, FailureKind::AttemptsExhausted.urn());
    assert!(handed.queue.try_recv().is_err());
    recovery.abort();
}

/// A worker that is stopped gives up what it runs: it is dispatched again.
#[tokio::test(start_paused = true)]
async fn what_a_drained_worker_gives_up_is_run_by_another() {
    let mut handed = Handed::off(0);
    let recovery = tokio::spawn(handed.operations.dispatching_recovery(2).run());
    handed.post("").await;
    let queued = handed.delivered();
    assert_eq!(queued.owner(), Some(&Owner::new("ada")));
    let first = RunService::new(
        handed.store.clone(),
        service_fn(|_: Request<BufferedBody>| {
            std::future::pending::<Result<Response<BufferedBody>, Infallible>>()
        }),
    );
    let drain = first.drain_handle();
    let running = tokio::spawn(first.clone().oneshot(queued.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = drain.drain(Duration::from_secs(1)).await;
    assert_eq!(report.released, [queued.id().clone()]);
    assert_eq!(running.await.unwrap().unwrap(), RunOutcome::Refused);
    // What it gets now is for another.
    assert!(first.oneshot(queued).await.is_err());

    let again = message(&handed.queue.recv().await.expect("it is dispatched again"));
    let second = RunService::new(
        handed.store.clone(),
        service_fn(|request: Request<BufferedBody>| async move {
            assert_eq!(
                OperationHandle::from_extensions(request.extensions()).attempt(),
                2
            );
            Ok::<_, Infallible>(Response::new(BufferedBody::from("done")))
        }),
    );
    let ran = second.oneshot(again).await.unwrap();
    assert_eq!(ran, RunOutcome::Recorded(State::Succeeded));
    recovery.abort();
}

/// Whether it may be tried again is for its client to say: it was not the request that
/// killed anybody.
#[tokio::test(start_paused = true)]
async fn what_a_drained_worker_gives_up_after_the_last_attempt_is_interrupted() {
    let mut handed = Handed::off(0);
    let recovery = tokio::spawn(handed.operations.dispatching_recovery(1).run());
    // Until it may look for leases that have lapsed.
    tokio::time::sleep(2 * MINUTE).await;
    handed.post("").await;
    let queued = handed.delivered();
    let worker = RunService::new(
        handed.store.clone(),
        service_fn(|_: Request<BufferedBody>| {
            std::future::pending::<Result<Response<BufferedBody>, Infallible>>()
        }),
    );
    let drain = worker.drain_handle();
    tokio::spawn(worker.oneshot(queued));
    tokio::time::sleep(Duration::from_secs(1)).await;
    drain.drain(Duration::from_secs(1)).await;
    let failed = loop {
        let record = handed.only_one().await;
        if let Some(problem) = record.operation().problem() {
            break problem.type_uri().to_owned();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!(failed, FailureKind::Interrupted.urn());
    recovery.abort();
}

const KEY: &str = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"";

/// Its client will come again with its key, and is to find work that somebody does.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_dispatched_but_has_a_key_is_left_to_the_recovery() {
    let mut handed = Handed::off(1);
    handed.layer = handed.layer.idempotency(Idempotency::optional());
    let recovery = tokio::spawn(handed.operations.dispatching_recovery(3).run());
    let first = handed.post_with("idempotency-key", KEY).await;
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    let begun = Instant::now();
    tokio::time::sleep(MINUTE).await;
    handed.fails.store(0, SeqCst);
    let queued = message(&handed.queue.recv().await.expect("it is dispatched again"));
    assert!(begun.elapsed() < 2 * MINUTE, "{:?}", begun.elapsed());
    let again = handed.post_with("idempotency-key", KEY).await;
    assert_eq!(again.status(), StatusCode::ACCEPTED);
    assert_eq!(again.headers()["location"], first.headers()["location"]);
    let runs = Runs::default();
    let ran = worker!(handed.store.clone(), runs, 1).oneshot(queued).await;
    assert_eq!(ran.unwrap(), RunOutcome::Recorded(State::Succeeded));
    assert_eq!(runs.0.load(SeqCst), 1);
    recovery.abort();
}

/// Without a recovery it fails, and its client is not told otherwise the next time.
#[tokio::test(start_paused = true)]
async fn what_failed_because_no_queue_took_it_is_no_202_the_second_time() {
    let id = KEY.trim_matches('"');
    for (name, value) in [("idempotency-key", KEY), ("operation-id", id)] {
        let mut handed = Handed::off(1);
        let rules = Idempotency::optional().client_ids();
        handed.layer = handed.layer.idempotency(rules);
        for fails in [1, 0] {
            handed.fails.store(fails, SeqCst);
            let response = handed.post_with(name, value).await;
            let status = response.status();
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
            assert!(!response.headers().contains_key("location"));
        }
        let record = handed.only_one().await;
        let problem = record.operation().problem().unwrap();
        assert_eq!(problem.type_uri(), FailureKind::NotDispatched.urn());
    }
}

/// What has waited nearly as long as it may has its whole time once a worker has it, also
/// if that one is busy.
#[tokio::test(start_paused = true)]
async fn what_is_claimed_late_is_not_taken_from_who_runs_it() {
    let mut handed = Handed::off(0);
    let recovery = tokio::spawn(handed.operations.dispatching_recovery(3).run());
    let runs = Runs::default();
    let worker = worker!(handed.store.clone(), runs, 120);
    handed.post("").await;
    let early = handed.delivered();
    handed.post("").await;
    let late = handed.delivered();
    // Its heartbeat goes, and not when the second one comes.
    tokio::time::sleep(5 * MINUTE - Duration::from_secs(15)).await;
    let early = tokio::spawn(worker.clone().oneshot(early));
    tokio::time::sleep(Duration::from_secs(14)).await;
    let late = tokio::spawn(worker.oneshot(late));
    for run in [early, late] {
        let ran = run.await.unwrap().unwrap();
        assert_eq!(ran, RunOutcome::Recorded(State::Succeeded));
    }
    assert_eq!(runs.0.load(SeqCst), 2);
    assert!(handed.queue.try_recv().is_err(), "it was dispatched again");
    recovery.abort();
}

/// It was started once, and there are no workers any more. How long it waits is told by
/// the times that are recorded, which no test can pause.
#[tokio::test]
async fn what_no_worker_takes_up_again_times_out() {
    let tenth = Duration::from_millis(100);
    let term = |name| LeaseConfig::new(NodeId::named(name), tenth);
    let mut handed = Handed::with(0, tenth, |operations| {
        operations
            .lease(term("front"))
            .pending_timeout(3 * tenth)
            .running_timeout(6 * tenth)
    });
    let recovery = tokio::spawn(handed.operations.dispatching_recovery(9).run());
    handed.post("").await;
    let runs = Runs::default();
    let worker = worker!(handed.store.clone(), runs, 3600).lease(term("worker"));
    let dies = tokio::time::timeout(tenth / 2, worker.oneshot(handed.delivered()));
    assert!(dies.await.is_err());
    let begun = Instant::now();
    let mut record = handed.only_one().await;
    while !record.operation().state().is_terminal() {
        let (id, since) = (record.operation().id(), record.version().unwrap());
        let changed = handed.store.changed(id, since, MINUTE).await;
        record = changed.unwrap().expect("it is kept");
        assert!(begun.elapsed() < MINUTE, "it never ends: {record:?}");
    }
    let problem = record.operation().problem().unwrap();
    assert_eq!(problem.type_uri(), FailureKind::TimedOut.urn());
    assert!(begun.elapsed() >= 8 * tenth, "{:?}", begun.elapsed());
    handed.delivered();
    assert_eq!(runs.0.load(SeqCst), 1);
    recovery.abort();
}

/// A drain waits for a claim that is on its way, and gives up what was claimed.
#[tokio::test(start_paused = true)]
async fn what_is_claimed_while_a_worker_is_drained_is_given_up() {
    let memory = MemoryStore::new();
    let (id, bytes) = accepted(&memory).await;
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
    let running = tokio::spawn(worker.oneshot(message(&bytes)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = drain.drain(Duration::from_secs(9)).await;
    assert_eq!(report.released, [id]);
    assert_eq!(running.await.unwrap().unwrap(), RunOutcome::Refused);
    let recovering = LeaseConfig::new(NodeId::named("recovering"), MINUTE);
    let left = memory.reclaim(&recovering, 9).await.unwrap();
    assert_eq!(left.len(), 1, "it waits for its lease to be over");
}

/// What a queue has lost all at once does not come back all at once.
#[tokio::test(start_paused = true)]
async fn no_more_is_dispatched_again_at_a_time_than_may_be_in_flight() {
    let handed = Handed::with(0, 5 * MINUTE, |operations| operations.max_in_flight(2));
    for _ in 0..7 {
        handed.post("").await;
    }
    handed.fails.store(3, SeqCst);
    handed.calls.store(0, SeqCst);
    let recovery = tokio::spawn(handed.operations.dispatching_recovery(2).run());
    let begun = Instant::now();
    // Each hangs for a third of a lease, and is given up then.
    while handed.calls.load(SeqCst) == 0 {
        assert!(begun.elapsed() < 9 * MINUTE, "nothing is dispatched again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(handed.calls.load(SeqCst), 2);
    recovery.abort();
}

/// A front whose queue never answers, before a store that is out of order where this
/// says so.
fn stuck(
    hook: impl Fn(Call, When) -> std::future::Ready<Result<(), StoreError>> + Send + Sync + 'static,
) -> (Operations<Hooked, Stuck>, MemoryStore) {
    let store = MemoryStore::new();
    let hooked = Hooked::new(store.clone(), hook);
    (Operations::dispatching(hooked, Stuck), store)
}

struct Stuck;

impl Dispatch for Stuck {
    async fn dispatch(&self, _: QueuedRequest) -> Result<(), BoxError> {
        std::future::pending().await
    }
}

async fn one_of(store: &MemoryStore) -> Arc<Record<RecordedResponse>> {
    let query = ListQuery::new(None, 10);
    let mut records = store.list(&query).await.unwrap().records;
    assert_eq!(records.len(), 1);
    records.remove(0)
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_into_a_queue_is_answered_at_the_deadline_of_a_drain() {
    for (recovers, store_is_down) in [(true, false), (false, false), (true, true), (false, true)] {
        let (operations, store) = stuck(move |call, when| {
            let ends = matches!(call, Call::Finish | Call::Release) && when == When::Before;
            std::future::ready(match ends && store_is_down {
                true => Err(StoreError::unavailable("it is down")),
                false => Ok(()),
            })
        });
        let _recovery = recovers.then(|| operations.dispatching_recovery(3));
        let layer = operations.layer().create_timeout(MINUTE);
        let service = layer.layer(service_fn(|_: Request<RequestBody<BufferedBody>>| {
            std::future::pending::<Result<Response<BufferedBody>, Infallible>>()
        }));
        let post = Request::post("/reports")
            .body(BufferedBody::from("Q3"))
            .unwrap();
        let begun = Instant::now();
        let answering = tokio::spawn(async move {
            let response = service.oneshot(post).await.unwrap();
            (begun.elapsed().as_secs(), response)
        });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let report = operations.drain(Duration::from_secs(3)).await;
        let (at, response) = tokio::time::timeout(Duration::from_secs(1), answering)
            .await
            .expect("it is answered")
            .unwrap();
        let case = format!("recovers: {recovers}, store is down: {store_is_down}, {report:?}");
        assert!(report.took <= Duration::from_secs(4), "{case}");
        let record = one_of(&store).await;
        let id = record.operation().id().clone();
        match recovers {
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
                let failed = Some(FailureKind::NotDispatched.urn());
                assert_eq!(problem, failed.filter(|_| !store_is_down), "{case}");
                let counted = (report.refused, report.unanswered);
                let expected = if store_is_down { (0, 1) } else { (1, 0) };
                assert_eq!(counted, expected, "{case}");
            }
        }
        assert!(!report.is_clean(), "{case}");
    }
}

/// A task each goes on until the store answers: there are never more of them than may be
/// in flight.
#[tokio::test(start_paused = true)]
async fn what_was_not_dispatched_stays_in_flight_until_it_is_ended() {
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let (operations, store) = stuck(move |call, _| {
        std::future::ready(match call == Call::Finish && down.load(SeqCst) {
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
        assert_eq!((operations.in_flight(), store.len()), (1, 1));
    }
    is_down.store(false, SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(operations.in_flight(), 0);
    let record = one_of(&store).await;
    assert_eq!(record.operation().state(), State::Failed);
    // A drain does not wait for the store: its clients have their answers.
    is_down.store(true, SeqCst);
    service.oneshot(post()).await.unwrap();
    let report = operations.drain(MINUTE).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_claimed_as_the_time_of_a_drain_is_over_is_given_up_at_once() {
    let memory = MemoryStore::new();
    let (id, bytes) = accepted(&memory).await;
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
    let running = tokio::spawn(worker.oneshot(message(&bytes)));
    tokio::task::yield_now().await;
    // It is claimed half a second after that.
    let report = drain.drain(Duration::from_millis(2500)).await;
    assert_eq!(report.released, [id]);
    assert_eq!(report.took, Duration::from_secs(3));
    assert_eq!(running.await.unwrap().unwrap(), RunOutcome::Refused);
}

#[tokio::test(start_paused = true)]
async fn what_is_canceled_or_deleted_just_before_its_start_is_never_called() {
    for is_deleted in [false, true] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let (id, bytes) = accepted(&memory).await;
        let inside = memory.clone();
        let store = Hooked::new(memory, move |call, when| {
            let (memory, id) = (inside.clone(), id.clone());
            async move {
                if (call, when) != (Call::Start, When::Before) {
                    return Ok(());
                }
                let version = async || memory.get(&id).await.unwrap().unwrap().version().unwrap();
                let before = version().await;
                memory.force_finish(&id, before, Outcome::Canceled).await?;
                if is_deleted {
                    memory.delete(&id, version().await).await?;
                }
                Ok(())
            }
        });
        let ran = worker!(store, runs, 0).oneshot(message(&bytes)).await;
        assert_eq!(
            (ran.unwrap(), runs.0.load(SeqCst)),
            (RunOutcome::Refused, 0)
        );
    }
}
