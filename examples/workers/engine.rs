//! The workers of the engine, one after the other: each ends when its database is away
//! for a moment. What they were running goes on.

use std::{pin::Pin, time::Duration};

use apalis_core::{
    backend::ext::BackendExt,
    error::WorkerError,
    task::Task,
    worker::{builder::WorkerBuilder, context::WorkerContext},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tower_operations::run::{ApalisTask, NotRun};

use crate::queue::Queue;

/// How often an idle worker asks for tasks.
const INTERVAL: Duration = Duration::from_millis(50);
/// Before the next one begins.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Engine {
    pub(crate) queue: Queue,
    pub(crate) name: String,
}

type Running = Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>>;

impl Engine {
    /// Has tasks run by `worker` until it is to stop, and those that are running then
    /// are done.
    pub(crate) async fn run<W>(self, worker: W, stop: CancellationToken)
    where
        W: Service<Task<ApalisTask>, Response = (), Error = NotRun, Future: Send>,
        W: Clone + Send + 'static,
    {
        for start in 0.. {
            // The engine knows one that has ended for a while.
            let context = WorkerContext::new(&format!("{}-{start}", self.name));
            let mut running = self.start(&context, worker.clone());
            let ended = tokio::select! {
                ended = &mut running => ended,
                () = stop.cancelled() => {
                    // One that has not begun ends by itself when it does.
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
