//! Accepted requests as tasks of apalis. What its PostgreSQL and Redis make of them is in
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

/// A handler that runs until it is let go, and counts.
#[derive(Clone, Default)]
struct Handler {
    runs: Arc<AtomicUsize>,
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
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
            handler.begun.notify_one();
            handler.go_on.notified().await;
            Ok(Response::new(BufferedBody::from("done")))
        })
    }
}

/// An operation of a front's, and its task.
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
    // Through the codec of an engine.
    let text = serde_json::to_string(&task).unwrap();
    let task = serde_json::from_str::<ApalisTask>(&text).unwrap();
    let id = record.operation().id().clone();
    (id, TaskBuilder::new(task).build())
}

async fn state(store: &MemoryStore, id: &OperationId) -> State {
    store.get(id).await.unwrap().unwrap().operation().state()
}

async fn ended(store: &MemoryStore, id: &OperationId) {
    let mut record = store.get(id).await.unwrap().unwrap();
    while !record.operation().state().is_terminal() {
        let since = record.version().unwrap();
        let changed = store.changed(id, since, Duration::from_secs(9)).await;
        record = changed.unwrap().expect("it is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_is_done_once_the_outcome_is_recorded() {
    let (store, handler) = (MemoryStore::new(), Handler::default());
    let (id, task) = accepted(&store).await;
    let mut running = std::pin::pin!(handler.worker(store.clone()).oneshot(task));
    let (minute, begun) = (Duration::from_secs(60), handler.begun.notified());
    tokio::select! {
        _ = &mut running => panic!("it is done before its handler is"),
        () = begun => {}
    }
    assert_eq!(state(&store, &id).await, State::Running);
    assert!(timeout(minute, &mut running).await.is_err());
    handler.go_on.notify_one();
    running.await.unwrap();
    assert_eq!(state(&store, &id).await, State::Succeeded);
}

/// Its task is delivered again later, and there is nothing left to do for it.
#[tokio::test(start_paused = true)]
async fn an_engine_that_gives_up_does_not_stop_what_runs() {
    let (store, handler) = (MemoryStore::new(), Handler::default());
    let (id, task) = accepted(&store).await;
    let mut worker = handler.worker(store.clone());
    let running = worker.ready().await.unwrap().call(task.clone());
    let begun = timeout(Duration::from_secs(60), handler.begun.notified()).await;
    assert!(begun.is_ok(), "it waits for the engine");
    drop(running);
    worker.clone().oneshot(task.clone()).await.unwrap();
    assert_eq!(state(&store, &id).await, State::Running);
    handler.go_on.notify_one();
    ended(&store, &id).await;
    worker.oneshot(task).await.unwrap();
    assert_eq!(state(&store, &id).await, State::Succeeded);
    assert_eq!(handler.runs.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_for_another_worker() {
    let handler = Handler::default();
    let task: ApalisTask = serde_json::from_str("\"\\u0002 of a later release\"").unwrap();
    let worker = handler.worker(MemoryStore::new());
    let begun = Instant::now();
    let run = worker.oneshot(TaskBuilder::new(task).build()).await;
    assert!(matches!(run, Err(NotRun::Message(_))));
    // Not at once: an engine would have it delivered here again, and give up soon.
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

/// Also what goes on running for a worker of the engine that is gone.
#[tokio::test(start_paused = true)]
async fn no_more_run_at_a_time_than_there_are_places() {
    let (store, handler) = (MemoryStore::new(), Handler::default());
    let mut worker = handler.worker(store.clone()).concurrency(2);
    let mut running = Vec::new();
    for _ in 0..2 {
        let (_, task) = accepted(&store).await;
        running.push(worker.ready().await.unwrap().call(task));
        handler.begun.notified().await;
    }
    drop(running);
    let mut another = worker.clone();
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    assert!(timeout(minute, another.ready()).await.is_err());
    handler.go_on.notify_one();
    timeout(second, another.ready()).await.unwrap().unwrap();
    assert!(timeout(minute, worker.ready()).await.is_err());
    drop(another);
    timeout(second, worker.ready()).await.unwrap().unwrap();
}

/// Front, queue and worker, each as it is.
#[tokio::test]
async fn what_a_front_accepts_is_run_by_an_apalis_worker() {
    let (store, handler) = (MemoryStore::new(), Handler::default());
    let queue = VecDequeBackend::new();
    let layer = Operations::dispatching(store.clone(), ApalisDispatch::new(queue.clone())).layer();
    let never = service_fn(|_: Request<RequestBody<BufferedBody>>| async {
        unreachable!("it is not run here");
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
        timeout(Duration::from_secs(9), handler.begun.notified())
            .await
            .expect("it comes out of the queue");
        handler.go_on.notify_one();
        ended(&store, &id).await;
        assert_eq!(state(&store, &id).await, State::Succeeded);
    }
    worker.abort();
}
