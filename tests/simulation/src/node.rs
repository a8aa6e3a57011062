//! A node: an application in a group of tasks, which end together.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected};
use test_customers::{Log, Random};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinError,
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;
use tower_operations::{
    BoxError, BufferedBody, OperationId, RecordedResponse, RecoveryStats,
    store::{Record, Store, StoreError, StoreResult},
    testing::{Environment, TaskGroup},
};
use tower_operations_conformance::checker::{Away, DrainEntry, Entry, Kill};

use crate::{
    Mutant, document,
    journal::Journal,
    process::{Process, Role},
    queue::Queue,
    results::{Bucket, TrapFault},
    stores::Stores,
    work::ORDERED_PANIC,
};

/// The deadline of a drain.
const DRAIN: Duration = Duration::from_secs(4);
/// The time in which a drained node sends its last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// The time of a stop that is shorter than a lease, after an eighth of it.
const SHORT_STOP: Duration = Duration::from_millis(1_000);

/// The place of a node in its world.
pub(crate) struct Site {
    pub(crate) name: Arc<str>,
    pub(crate) number: usize,
    pub(crate) role: Role,
    pub(crate) journal: Arc<Journal>,
    pub(crate) stores: Arc<Stores>,
    pub(crate) results: Arc<Bucket>,
    pub(crate) queue: Queue,
    pub(crate) mutant: Option<Mutant>,
}

/// A node of a world.
pub(crate) struct Node {
    site: Site,
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
    pub(crate) fn start(site: Site, random: Random) -> Self {
        let node = Self {
            site,
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
        &self.site.name
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

    /// Ends the process at once, and starts another one after `pause`. The end may come at a place
    /// of an upload.
    pub(crate) async fn kill(&self, pause: impl Future<Output = ()>) {
        let _turn = self.turn.lock().await;
        let Some(process) = self.process() else {
            return;
        };
        let mut at = None;
        if self.draws_trap() {
            let (results, number) = (&self.site.results, self.site.number);
            let killed = results.trap_upload(number, TrapFault::Kill).await;
            at = killed.then(|| self.site.journal.now());
        }
        self.site.stores.crash(&process.tasks).await;
        let at = at.unwrap_or_else(|| self.site.journal.now());
        self.end();
        pause.await;
        self.run();
        self.site.journal.add(&Entry::Kill(Kill {
            node: (*self.site.name).into(),
            at,
            back: Some(self.site.journal.now()),
        }));
    }

    /// Draws whether a fault waits for an upload.
    fn draws_trap(&self) -> bool {
        match self.site.role {
            Role::Server => self.state().random.one_in(2),
            Role::Front => false,
            // There are few workers.
            Role::Worker => true,
        }
    }

    /// Stops the process for a while, which the process does not notice. The stop may come at a
    /// place of an upload.
    pub(crate) async fn stop(&self, pause: Duration) {
        let _turn = self.turn.lock().await;
        let Some(process) = self.process() else {
            return;
        };
        if self.draws_trap() {
            let (results, number) = (&self.site.results, self.site.number);
            results.trap_upload(number, TrapFault::Stop).await;
        }
        let begin = self.site.journal.now();
        process.tasks.suspend();
        sleep(pause).await;
        self.go_on(&process, begin);
    }

    /// Stops the process for less than a lease after it finished an upload, before it records the
    /// outcome. Sends to `stopped` meanwhile, or drops it if no upload comes in time.
    pub(crate) async fn stop_after_upload(&self, stopped: oneshot::Sender<()>) {
        let (Ok(_turn), Some(process)) = (self.turn.try_lock(), self.process()) else {
            return;
        };
        if !self.site.results.stop_after_upload(self.site.number).await {
            return;
        }
        let begin = self.site.journal.now();
        sleep(SHORT_STOP / 8).await;
        // The other node waits for this.
        let _ = stopped.send(());
        sleep(SHORT_STOP).await;
        self.go_on(&process, begin);
    }

    /// Continues a process that was stopped at `begin`.
    fn go_on(&self, process: &Process, begin: u64) {
        self.site.stores.network().resume(self.site.number);
        process.tasks.resume();
        self.site.journal.add(&Entry::Away(Away {
            node: Some((*self.site.name).into()),
            begin,
            end: self.site.journal.now(),
        }));
    }

    /// Shuts the process down gracefully after `before`, and starts another one.
    pub(crate) async fn drain(&self, before: impl Future<Output = ()>) {
        let _turn = self.turn.lock().await;
        before.await;
        let Some(process) = self.process() else {
            return;
        };
        let begin = self.site.journal.now();
        let drain = process.drain.clone();
        let drain = async move { drain.drain(DRAIN).await };
        if self.site.mutant != Some(Mutant::DrainCutsOff) {
            let drained = process.environment.spawn(drain).await;
            drained.expect("a drain does not panic");
        }
        // The listener is closed, and the last requests are answered.
        let process = self.state().process.take().expect("the node is running");
        for _ in 0..LAST_ANSWERS.as_millis() / 10 {
            if process.requests.load(SeqCst) == 0 || self.site.mutant == Some(Mutant::DrainCutsOff)
            {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.site.stores.exit(&process.tasks).await;
        self.site.journal.add(&Entry::Drain(DrainEntry {
            node: (*self.site.name).into(),
            begin,
            end: self.site.journal.now(),
        }));
        self.run();
    }

    /// Sends a request to the node. Returns `None` if the connection is refused or lost.
    pub(crate) async fn answer(&self, request: Request<Bytes>) -> Option<Response<Bytes>> {
        let (process, back) = self.connect().await?;
        let guard = RequestGuard::new(&process.requests);
        let app = process.app.clone()?;
        let path = request.uri().path().to_owned();
        let answer = process.environment.spawn(async move {
            let _guard = guard;
            let Ok(response) = app.oneshot(request.map(BufferedBody::from)).await;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map(Collected::to_bytes);
            body.map(|body| Response::from_parts(parts, body))
        });
        // A client that goes away is noticed.
        let answer = unless_lost(AbortOnDropHandle::new(answer).await)?;
        let answer = answer.unwrap_or_else(|error| broken_off(&error));
        let is_document = path == "/reports" || path.ends_with("/result");
        if is_document && answer.status().is_success() && !document::is_whole(answer.body()) {
            let violation = format!("{path}: the answer is no document of a run");
            self.site.results.add_violation(violation);
        }
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
        let app = process.app.clone()?;
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

    /// Reads an operation from the store. Returns `None` if the process has ended.
    pub(crate) async fn read(
        &self,
        id: OperationId,
    ) -> Option<StoreResult<Option<Record<RecordedResponse>>>> {
        let process = self.process()?;
        let store = process.store.clone();
        let reading = process
            .environment
            .spawn(async move { store.get(&id).await });
        reading.await.ok()
    }

    /// Ends the process at once, for longer than a kill.
    pub(crate) async fn power_off(&self) {
        if let Some(process) = self.process() {
            self.site.stores.crash(&process.tasks).await;
        }
        self.end();
    }

    /// Ends the process at once.
    pub(crate) fn end(&self) {
        if let Some(process) = self.state().process.take() {
            process.tasks.abort();
        }
    }

    /// Starts a process.
    pub(crate) fn run(&self) {
        let tasks = TaskGroup::new();
        let mut state = self.state();
        let (journal, skew) = (Arc::clone(&self.site.journal), Arc::clone(&self.skew));
        let environment = Environment::new()
            .seed(state.random.next_u64())
            .tasks(tasks.clone())
            .wall_clock(move || {
                let now = journal.wall_clock();
                let skew = skew.load(SeqCst);
                let size = Duration::from_millis(skew.unsigned_abs());
                if skew < 0 { now - size } else { now + size }
            });
        let (process, recovery) = Process::start(&self.site, &environment, tasks);
        state.recoveries.extend(recovery);
        state.process = Some(process);
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
        f.debug_tuple("Node").field(&self.site.name).finish()
    }
}

/// Returns the answer that says the same as a body that broke off: a 503 during an outage of the
/// result store, otherwise the 500 of a result that cannot be read.
fn broken_off(error: &BoxError) -> Response<Bytes> {
    let error = error.downcast_ref::<StoreError>();
    let (status, problem) = match error.is_some_and(StoreError::is_transient) {
        true => (StatusCode::SERVICE_UNAVAILABLE, "{}"),
        false => (
            StatusCode::INTERNAL_SERVER_ERROR,
            r#"{"type":"urn:tower-operations:result-unreadable"}"#,
        ),
    };
    let mut response = Response::new(Bytes::from_static(problem.as_bytes()));
    *response.status_mut() = status;
    response
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
