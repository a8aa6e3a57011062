//! The workers of the engine, one after the other: a worker of the engine ends when its
//! database is unreachable for a moment. Running tasks continue.

use std::{pin::Pin, time::Duration};

use apalis_core::{
    backend::ext::BackendExt,
    error::WorkerError,
    task::Task,
    worker::{builder::WorkerBuilder, context::WorkerContext},
};
use server::queue::Queue;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tower_operations_apalis::{ApalisTask, NotRun};

/// The interval at which an idle worker asks for tasks.
const INTERVAL: Duration = Duration::from_millis(50);
/// The pause before the next worker begins.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Engine {
    pub(crate) queue: Queue,
    pub(crate) name: String,
}

type Running = Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>>;

impl Engine {
    /// Runs tasks with `worker` until `stop`, and then until the running tasks have ended.
    pub(crate) async fn run<W>(self, worker: W, stop: CancellationToken)
    where
        W: Service<Task<ApalisTask>, Response = (), Error = NotRun, Future: Send>,
        W: Clone + Send + 'static,
    {
        for start in 0.. {
            // The engine remembers the name of an ended worker for a while.
            let context = WorkerContext::new(&format!("{}-{start}", self.name));
            let mut running = self.start(&context, worker.clone());
            let ended = tokio::select! {
                ended = &mut running => ended,
                () = stop.cancelled() => {
                    // A worker that has not started yet stops when it starts.
                    let _ = context.stop();
                    running.await
                }
            };
            if stop.is_cancelled() {
                return;
            }
            if let Err(error) = ended {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "a worker of the engine has ended");
            }
            sleep(PAUSE).await;
        }
    }

    fn start<W>(&self, context: &WorkerContext, worker: W) -> Running
    where
        W: Service<Task<ApalisTask>, Response = (), Error = NotRun, Future: Send>,
        W: Send + 'static,
    {
        macro_rules! start {
            ($queue:expr) => {{
                let worker = WorkerBuilder::new(context.clone())
                    .backend($queue.clone().poll_with_interval(INTERVAL))
                    .build(worker);
                Box::pin(worker.run())
            }};
        }
        match &self.queue {
            Queue::Postgres(queue) => start!(queue),
            Queue::Redis(queue) => start!(queue),
        }
    }
}
