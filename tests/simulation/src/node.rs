//! A node: an application in a group of tasks, which end together.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use test_customers::{Log, Random};
use tokio::{sync::mpsc, task::JoinError, time::sleep};
use tokio_util::task::AbortOnDropHandle;
use tower::{ServiceExt, service_fn, util::BoxCloneService};
use tower_operations::{
    BufferedBody, Idempotency, Operations, Owner, RecoveryStats,
    store::{AnyStore, LeaseConfig, NodeId},
    testing::{Environment, TaskGroup},
};
use tower_operations_conformance::checker::{Away, DrainEntry, Entry, Kill};

use crate::{
    Mutant,
    journal::Journal,
    stores::Stores,
    work::{ORDERED_PANIC, Renderer, out_of_order},
};

/// A short lease, so that operations are reclaimed soon.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// The maximum number of attempts.
pub(crate) const ATTEMPTS: u32 = 3;
/// The time that a report may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// The deadline of a drain.
const DRAIN: Duration = Duration::from_secs(4);
/// The time in which a drained node sends its last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// The largest result, in bytes.
const RESULT_LIMIT: u64 = 1_000_000;

type App = BoxCloneService<Request<BufferedBody>, Response<AnswerBody>, Infallible>;

type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// A node of a world.
pub(crate) struct Node {
    name: Arc<str>,
    number: usize,
    journal: Arc<Journal>,
    stores: Arc<Stores>,
    mutant: Option<Mutant>,
    state: Mutex<NodeState>,
    /// Locked during a disturbance.
    turn: tokio::sync::Mutex<()>,
    /// The error of the wall clock, in milliseconds.
    skew: Arc<AtomicI64>,
}

struct NodeState {
    process: Option<Process>,
    random: Random,
    /// The counters of all recoveries.
    recoveries: Vec<RecoveryStats>,
}

/// A process of the node, from its start to its end.
#[derive(Clone)]
struct Process {
    tasks: TaskGroup,
    environment: Environment,
    operations: Operations<AnyStore>,
    app: App,
    /// The number of requests that are being answered.
    requests: Arc<AtomicUsize>,
}

/// A request that is being answered.
struct RequestGuard(Arc<AtomicUsize>);

impl RequestGuard {
    fn new(requests: &Arc<AtomicUsize>) -> Self {
        requests.fetch_add(1, SeqCst);
        Self(Arc::clone(requests))
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Node {
    /// Creates a node and starts it.
    pub(crate) fn start(
        number: usize,
        journal: &Arc<Journal>,
        stores: &Arc<Stores>,
        mutant: Option<Mutant>,
        random: Random,
    ) -> Self {
        let node = Self {
            name: format!("node-{number}").into(),
            number,
            journal: Arc::clone(journal),
            stores: Arc::clone(stores),
            mutant,
            state: Mutex::new(NodeState {
                process: None,
                random,
                recoveries: Vec::new(),
            }),
            turn: tokio::sync::Mutex::default(),
            skew: Arc::default(),
        };
        node.run();
        node
    }

    /// Returns the name of the node in the log.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns how many operations the node has reclaimed.
    pub(crate) fn reclaims(&self) -> u64 {
        let state = self.state();
        state.recoveries.iter().map(RecoveryStats::reclaimed).sum()
    }

    /// Sets the error of the wall clock, in milliseconds.
    pub(crate) fn set_skew(&self, milliseconds: i64) {
        self.skew.store(milliseconds, SeqCst);
    }

    /// Ends the process at once, and starts another one after a pause.
    pub(crate) async fn kill(&self, pause: Duration) {
        let _turn = self.turn.lock().await;
        let Some(process) = self.process() else {
            return;
        };
        self.stores.crash(&process.tasks).await;
        let at = self.journal.now();
        self.end();
        sleep(pause).await;
        self.run();
        self.journal.add(&Entry::Kill(Kill {
            node: (*self.name).into(),
            at,
            back: Some(self.journal.now()),
        }));
    }

    /// Stops the process for a while, which the process does not notice.
    pub(crate) async fn stop(&self, pause: Duration) {
        let _turn = self.turn.lock().await;
        let Some(process) = self.process() else {
            return;
        };
        let begin = self.journal.now();
        process.tasks.suspend();
        sleep(pause).await;
        process.tasks.resume();
        self.journal.add(&Entry::Away(Away {
            node: Some((*self.name).into()),
            begin,
            end: self.journal.now(),
        }));
    }

    /// Shuts the process down gracefully after `before`, and starts another one.
    pub(crate) async fn drain(&self, before: impl Future<Output = ()>) {
        let _turn = self.turn.lock().await;
        before.await;
        let Some(process) = self.process() else {
            return;
        };
        let begin = self.journal.now();
        let operations = process.operations.clone();
        let drain = async move { operations.drain(DRAIN).await };
        if self.mutant != Some(Mutant::DrainCutsOff) {
            let drained = process.environment.spawn(drain).await;
            drained.expect("a drain does not panic");
        }
        // The listener is closed, and the last requests are answered.
        let process = self.state().process.take().expect("the node is running");
        for _ in 0..LAST_ANSWERS.as_millis() / 10 {
            if process.requests.load(SeqCst) == 0 || self.mutant == Some(Mutant::DrainCutsOff) {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.stores.exit(&process.tasks).await;
        self.journal.add(&Entry::Drain(DrainEntry {
            node: (*self.name).into(),
            begin,
            end: self.journal.now(),
        }));
        self.run();
    }

    /// Sends a request to the node. Returns `None` if the connection is refused or lost.
    pub(crate) async fn answer(&self, request: Request<Bytes>) -> Option<Response<Bytes>> {
        let (process, back) = self.connect().await?;
        let guard = RequestGuard::new(&process.requests);
        let app = process.app.clone();
        let answer = process.environment.spawn(async move {
            let _guard = guard;
            let Ok(response) = app.oneshot(request.map(BufferedBody::from)).await;
            let (parts, body) = response.into_parts();
            let Ok(body) = body.collect().await;
            Response::from_parts(parts, body.to_bytes())
        });
        // A client that goes away is noticed.
        let answer = unless_lost(AbortOnDropHandle::new(answer).await)?;
        sleep(back).await;
        Some(answer)
    }

    /// Sends a request for a stream to the node, and appends the body to `body` as it comes.
    /// Returns the head once the body has ended, and `None` if the connection is refused or lost.
    pub(crate) async fn stream(
        &self,
        request: Request<Bytes>,
        body: &mut Vec<u8>,
    ) -> Option<Response<()>> {
        let (process, _) = self.connect().await?;
        let guard = RequestGuard::new(&process.requests);
        let app = process.app.clone();
        let (sender, mut sent) = mpsc::unbounded_channel();
        let answer = process.environment.spawn(async move {
            let _guard = guard;
            let Ok(response) = app.oneshot(request.map(BufferedBody::from)).await;
            let (parts, mut body) = response.into_parts();
            while let Some(Ok(frame)) = body.frame().await {
                // The task ends when the client goes away.
                let _ = sender.send(frame.into_data().unwrap_or_default());
            }
            Response::from_parts(parts, ())
        });
        let answer = AbortOnDropHandle::new(answer);
        while let Some(data) = sent.recv().await {
            body.extend_from_slice(&data);
        }
        unless_lost(answer.await)
    }

    /// Returns the process that a connection reaches, and the time that an answer takes to come
    /// back.
    async fn connect(&self) -> Option<(Process, Duration)> {
        let (process, there, back) = {
            let mut state = self.state();
            let there = state.random.between(0, 2);
            let back = state.random.between(0, 2);
            (state.process.clone(), there, back)
        };
        sleep(Duration::from_millis(there)).await;
        let process = process.filter(|process| !process.tasks.is_aborted())?;
        Some((process, Duration::from_millis(back)))
    }

    /// Ends the process at once.
    pub(crate) fn end(&self) {
        if let Some(process) = self.state().process.take() {
            process.tasks.abort();
        }
    }

    fn run(&self) {
        let tasks = TaskGroup::new();
        let mut state = self.state();
        let (journal, skew) = (Arc::clone(&self.journal), Arc::clone(&self.skew));
        let environment = Environment::new()
            .seed(state.random.next_u64())
            .tasks(tasks.clone())
            .wall_clock(move || {
                let now = journal.wall_clock();
                let skew = skew.load(SeqCst);
                let size = Duration::from_millis(skew.unsigned_abs());
                if skew < 0 { now - size } else { now + size }
            });
        let _entered = environment.enter();
        let store = self.stores.open(self.number, &tasks);
        let operations = Operations::new(store)
            .owner(match self.mutant {
                Some(Mutant::OwnerIgnored) => everybody,
                _ => tenant,
            })
            .lease(LeaseConfig::new(NodeId::new(), LEASE))
            .running_timeout(TIMEOUT)
            .result_limit(RESULT_LIMIT);
        let app = self.app(&operations, &tasks);
        let recovery = operations.recovery().rerun_with(app.clone(), ATTEMPTS);
        state.recoveries.push(recovery.stats());
        if self.mutant != Some(Mutant::NoRecovery) {
            drop(environment.spawn(recovery.run()));
        }
        state.process = Some(Process {
            tasks,
            environment: environment.clone(),
            operations,
            app,
            requests: Arc::default(),
        });
    }

    fn app(&self, operations: &Operations<AnyStore>, tasks: &TaskGroup) -> App {
        let renderer = Renderer {
            journal: Arc::clone(&self.journal),
            node: Arc::clone(&self.name),
            tasks: tasks.clone(),
        };
        let layer = operations
            .layer()
            .idempotency(Idempotency::optional().client_ids())
            .rerun_if(|_| true);
        let reports = tower::Layer::layer(
            &layer,
            service_fn(move |request| renderer.clone().render(request)),
        );
        let polls = operations
            .poll_service()
            .mounted_at("/operations")
            .listing();
        let ignores_last_event = self.mutant == Some(Mutant::LastEventIgnored);
        BoxCloneService::new(service_fn(move |request: Request<BufferedBody>| {
            let (reports, polls) = (reports.clone(), polls.clone());
            let request = match ignores_last_event {
                true => without_last_event(request),
                false => request,
            };
            async move {
                match request.uri().path() {
                    "/reports" => match reports.oneshot(request).await {
                        Ok(response) => Ok(response.map(boxed)),
                        Err(error) => Ok(out_of_order(&error).map(boxed)),
                    },
                    _ => {
                        let Ok(response) = polls.oneshot(request).await;
                        Ok(response.map(boxed))
                    }
                }
            }
        }))
    }

    fn process(&self) -> Option<Process> {
        self.state().process.clone()
    }

    fn state(&self) -> MutexGuard<'_, NodeState> {
        // A panic within a critical section fails the simulation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.name).finish()
    }
}

/// Returns the owner of a request.
fn tenant(parts: &Parts) -> Option<Owner> {
    let tenant = parts.headers.get("x-tenant")?.to_str().ok()?;
    Some(Owner::new(tenant))
}

/// Returns the same owner for every request.
fn everybody(_: &Parts) -> Option<Owner> {
    Some(Owner::new("everybody"))
}

/// Returns the answer of a task that serves a connection, which ends with the task.
fn unless_lost<A>(answered: Result<A, JoinError>) -> Option<A> {
    match answered.map_err(JoinError::try_into_panic) {
        Ok(answer) => Some(answer),
        Err(Ok(panic)) if panic.downcast_ref() != Some(&ORDERED_PANIC) => {
            std::panic::resume_unwind(panic)
        }
        Err(_) => None,
    }
}

fn boxed<B>(body: B) -> AnswerBody
where
    B: http_body::Body<Data = Bytes, Error: fmt::Debug> + Send + 'static,
{
    let is_sound = |error| panic!("a body without errors: {error:?}");
    UnsyncBoxBody::new(body.map_err(is_sound))
}

/// Returns a request without its `Last-Event-ID`.
fn without_last_event(mut request: Request<BufferedBody>) -> Request<BufferedBody> {
    request.headers_mut().remove("last-event-id");
    request
}
