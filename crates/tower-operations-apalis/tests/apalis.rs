//! Accepted requests as tasks of apalis. The PostgreSQL and Redis engines of apalis are tested in
//! `tests/workers.rs`.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use apalis_core::{
    backend::dequeue::VecDequeBackend,
    task::{Task, builder::TaskBuilder},
    worker::{builder::WorkerBuilder, context::WorkerContext},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Operations, QueuedRequest, RequestBody, RunService,
    State,
    store::{Created, LeaseConfig, NewOperation, NodeId, Owner, Repository, Store, Watch},
};
use tower_operations_apalis::{ApalisDispatch, ApalisTask, ApalisWorker, NotRun};

/// A handler that counts its runs and completes when notified.
#[derive(Clone, Default)]
struct Handler {
    runs: Arc<AtomicUsize>,
    started: Arc<Notify>,
    completed: Arc<Notify>,
}

impl Handler {
    fn worker(&self, store: MemoryStore) -> ApalisWorker<Self, MemoryStore> {
        ApalisWorker::new(RunService::new(store, self.clone()))
    }
}

impl Service<Request<BufferedBody>> for Handler {
    type Response = Response<BufferedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<BufferedBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<BufferedBody>) -> Self::Future {
        let handler = self.clone();
        Box::pin(async move {
            assert_eq!(request.body().data(), "Q3 \u{fc}");
            handler.runs.fetch_add(1, SeqCst);
            handler.started.notify_one();
            handler.completed.notified().await;
            Ok(Response::new(BufferedBody::from("done")))
        })
    }
}

/// Creates an operation as the accepting node does, and its task.
async fn accepted(store: &MemoryStore) -> (OperationId, Task<ApalisTask>) {
    let new = NewOperation::new(OperationId::new())
        .with_owner(Some(Owner::new("ada")))
        .with_lease(LeaseConfig::new(
            NodeId::named("front"),
            Duration::from_secs(60),
        ));
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let request = Request::post("/reports").body(BufferedBody::from("Q3 \u{fc}"));
    let request = QueuedRequest::new(&record, request.unwrap());
    assert_eq!(request.owner(), Some(&Owner::new("ada")));
    let task = ApalisTask::from(&request);
    // Encodes and decodes the task as an engine does.
    let text = serde_json::to_string(&task).unwrap();
    let task = serde_json::from_str::<ApalisTask>(&text).unwrap();
    let id = record.operation().id().clone();
    (id, TaskBuilder::new(task).build())
}

async fn state(store: &MemoryStore, id: &OperationId) -> State {
    store.get(id).await.unwrap().unwrap().operation().state()
}

async fn wait_for_end(store: &MemoryStore, id: &OperationId) {
    let mut record = store.get(id).await.unwrap().unwrap();
    while !record.operation().state().is_terminal() {
        let since = record.version().unwrap();
        let changed = store.changed(id, since, Duration::from_secs(9)).await;
        record = changed.unwrap().expect("the operation exists");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_completes_once_the_outcome_is_recorded() {
    let (store, handler) = (MemoryStore::new(), Handler::default());
    let (id, task) = accepted(&store).await;
    let mut running = std::pin::pin!(handler.worker(store.clone()).oneshot(task));
    let (minute, started) = (Duration::from_secs(60), handler.started.notified());
    tokio::select! {
        _ = &mut running => panic!("the task is done before its handler"),
        () = started => {}
    }
    assert_eq!(state(&store, &id).await, State::Running);
    assert!(timeout(minute, &mut running).await.is_err());
    handler.completed.notify_one();
    running.await.unwrap();
    assert_eq!(state(&store, &id).await, State::Succeeded);
}

/// The engine redelivers the task, and the redelivery does not run the operation again.
#[tokio::test(start_paused = true)]
async fn a_run_survives_its_dropped_task() {
    let (store, handler) = (MemoryStore::new(), Handler::default());
    let (id, task) = accepted(&store).await;
    let mut worker = handler.worker(store.clone());
    let running = worker.ready().await.unwrap().call(task.clone());
    let started = timeout(Duration::from_secs(60), handler.started.notified()).await;
    assert!(
        started.is_ok(),
        "the run does not depend on the engine polling it"
    );
    drop(running);
    worker.clone().oneshot(task.clone()).await.unwrap();
    assert_eq!(state(&store, &id).await, State::Running);
    handler.completed.notify_one();
    wait_for_end(&store, &id).await;
    worker.oneshot(task).await.unwrap();
    assert_eq!(state(&store, &id).await, State::Succeeded);
    assert_eq!(handler.runs.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_task_fails_after_a_delay() {
    let handler = Handler::default();
    let task: ApalisTask = serde_json::from_str("\"\\u0002 of a later release\"").unwrap();
    let worker = handler.worker(MemoryStore::new());
    let begun = Instant::now();
    let run = worker.oneshot(TaskBuilder::new(task).build()).await;
    assert!(matches!(run, Err(NotRun::Message(_))));
    // An immediate error would be redelivered here until the engine exhausts its attempts.
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

/// Runs whose task was dropped count too.
#[tokio::test(start_paused = true)]
async fn concurrency_limits_running_tasks() {
    let (store, handler) = (MemoryStore::new(), Handler::default());
    let mut worker = handler.worker(store.clone()).concurrency(2);
    let mut running = Vec::new();
    for _ in 0..2 {
        let (_, task) = accepted(&store).await;
        running.push(worker.ready().await.unwrap().call(task));
        handler.started.notified().await;
    }
    drop(running);
    let mut another = worker.clone();
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    assert!(timeout(minute, another.ready()).await.is_err());
    handler.completed.notify_one();
    timeout(second, another.ready()).await.unwrap().unwrap();
    assert!(timeout(minute, worker.ready()).await.is_err());
    drop(another);
    timeout(second, worker.ready()).await.unwrap().unwrap();
}

/// An accepting layer, a queue and a worker of apalis.
#[tokio::test]
async fn an_apalis_worker_runs_accepted_requests() {
    let (store, handler) = (MemoryStore::new(), Handler::default());
    let queue = VecDequeBackend::new();
    let layer = Operations::dispatching(store.clone(), ApalisDispatch::new(queue.clone())).layer();
    let never = service_fn(|_: Request<RequestBody<BufferedBody>>| async {
        unreachable!("the accepting node does not run requests");
        #[allow(unreachable_code)]
        Ok::<_, Infallible>(Response::new(BufferedBody::default()))
    });
    let context = WorkerContext::new("one");
    let worker = WorkerBuilder::new(context.clone())
        .backend(queue)
        .build(handler.worker(store.clone()));
    let worker = tokio::spawn(worker.run());
    for _ in 0..3 {
        let request = Request::post("/reports").body(BufferedBody::from(Bytes::from("Q3 \u{fc}")));
        let front = layer.clone().layer(never);
        let response = front.oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let location = response.headers()["location"].to_str().unwrap();
        let id: OperationId = location.rsplit('/').next().unwrap().parse().unwrap();
        timeout(Duration::from_secs(9), handler.started.notified())
            .await
            .expect("the task is delivered");
        handler.completed.notify_one();
        wait_for_end(&store, &id).await;
        assert_eq!(state(&store, &id).await, State::Succeeded);
    }
    worker.abort();
}
