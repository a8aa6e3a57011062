use std::time::Duration;

use apalis_core::backend::{BackendConfig, TaskSink};
use tower::BoxError;
use tower_operations::run::{Dispatch, QueuedRequest};

use super::ApalisTask;

/// The default time that a task may be in the queue.
const CLAIMED_WITHIN: Duration = Duration::from_secs(5 * 60);

/// A [`Dispatch`] into the queue of an apalis backend, on PostgreSQL, Redis or any other one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use apalis_core::{backend::dequeue::VecDequeBackend, worker::builder::WorkerBuilder};
/// use axum::{Router, body::Body, http::Request, routing::post};
/// use tower_operations::{MemoryStore, Operations, RunService};
/// use tower_operations_apalis::{ApalisDispatch, ApalisWorker};
///
/// async fn render() -> &'static str { "done" }
///
/// let store = MemoryStore::new(); // one that front and workers share, in earnest
/// let queue = VecDequeBackend::new(); // and `PostgresStorage`, or `RedisStorage`
/// let operations = Operations::dispatching(store.clone(), ApalisDispatch::new(queue.clone()));
/// tokio::spawn(operations.dispatching_recovery(3).run());
/// let front: Router = Router::new()
///     .route("/reports", post(render).route_layer(operations.layer()))
///     .nest_service("/operations", operations.poll_service());
///
/// // Elsewhere: the same routes, without the layer.
/// let app: Router = Router::new().route("/reports", post(render));
/// let app = app.map_request(|request: Request<_>| request.map(Body::new));
/// let worker = WorkerBuilder::new("one")
///     .backend(queue)
///     .build(ApalisWorker::new(RunService::new(store, app)));
/// tokio::spawn(worker.run());
/// # use tower::ServiceExt;
/// # let request = Request::post("/reports").body(Body::empty())?;
/// # let accepted = front.clone().oneshot(request).await?;
/// # let operation = accepted.headers()["location"].to_str()?;
/// # let request = Request::get(format!("{operation}/result")).header("prefer", "wait=5");
/// # let result = front.oneshot(request.body(Body::empty())?).await?;
/// # assert_eq!(axum::body::to_bytes(result.into_body(), 100).await?, "done");
/// # Ok(())
/// # }
/// ```
///
/// The store decides about attempts, leases and cancellations. The engine's own attempts,
/// results and waiting are not used.
#[derive(Debug, Clone)]
pub struct ApalisDispatch<Q> {
    queue: Q,
    claimed_within: Duration,
}

impl<Q> ApalisDispatch<Q> {
    /// Creates a dispatch into this queue. Each request is pushed into a clone of the queue.
    pub fn new(queue: Q) -> Self {
        Self {
            queue,
            claimed_within: CLAIMED_WITHIN,
        }
    }

    /// Sets how long a task may be in the queue before it counts as lost and is dispatched
    /// again; 5 minutes by default. A task that arrives later has nothing to do. Choose a time
    /// longer than the longest that a request normally waits: otherwise a slow queue gets more
    /// tasks than there are operations.
    #[must_use]
    pub fn claimed_within(self, limit: Duration) -> Self {
        Self {
            claimed_within: limit,
            ..self
        }
    }
}

impl<Q> Dispatch for ApalisDispatch<Q>
where
    Q: BackendConfig<Args = ApalisTask> + TaskSink<ApalisTask, Q::Kind>,
    Q: Clone + Send + Sync + 'static,
{
    /// Pushes a task with this request. The engine chooses a new id for the task at each
    /// dispatch: some engines accept only ids of their own form, and no id twice.
    async fn dispatch(&self, request: QueuedRequest) -> Result<(), BoxError> {
        let mut queue = self.queue.clone();
        Ok(queue.push((&request).into()).await?)
    }

    fn claimed_within(&self) -> Duration {
        self.claimed_within
    }
}
