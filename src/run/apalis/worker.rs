use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use apalis_core::task::Task;
use tower::{Service, ServiceExt};

use super::ApalisTask;
use crate::{
    run::{InvalidMessage, QueuedRequest, Ran, RunService},
    store::StoreError,
};

/// Runs the tasks of an apalis worker through a [`RunService`]: what
/// `WorkerBuilder::build` takes.
///
/// A task is done, and so acknowledged, once the outcome of its operation is recorded,
/// or if there is nothing to do for it: the operation has ended, or somebody else runs
/// it.
///
/// Each run is a task of the runtime's own. A worker of the engine that gives up, since
/// its database was away for a moment, does not stop what it runs; the engine delivers
/// the task again, which then finds nothing to do.
///
/// It is always ready. How many run at a time is said by a `ConcurrencyLimitLayer` on
/// the `WorkerBuilder`.
#[derive(Clone)]
pub struct ApalisWorker<S, R>(RunService<S, R>);

/// Why a task was not run to its end here. The engine is to deliver it again, to another
/// worker or later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotRun {
    /// This release cannot read the message.
    #[error(transparent)]
    Message(#[from] InvalidMessage),
    /// The store did not answer, or this node is shutting down.
    #[error("the operation could not be claimed, or its outcome not recorded")]
    Store(#[from] StoreError),
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    Stopped,
}

/// How long a worker that cannot claim waits before it says so. Engines deliver again at
/// once, and would have it ask a store that is away as fast as it can.
const BEFORE_THE_NEXT: Duration = Duration::from_secs(1);

impl<S, R> ApalisWorker<S, R> {
    /// Runs tasks through `service`, around the whole application.
    pub fn new(service: RunService<S, R>) -> Self {
        Self(service)
    }
}

impl<S, R> Service<Task<ApalisTask>> for ApalisWorker<S, R>
where
    RunService<S, R>: Service<QueuedRequest, Response = Ran, Error = StoreError>,
    RunService<S, R>: Clone + Send + 'static,
    <RunService<S, R> as Service<QueuedRequest>>::Future: Send,
{
    /// Results stay in the store.
    type Response = ();
    type Error = NotRun;
    type Future = ApalisFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotRun>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<ApalisTask>) -> ApalisFuture {
        let service = self.0.clone();
        let run = tokio::spawn(async move {
            let request = task.args.request()?;
            if let Err(error) = service.oneshot(request).await {
                tokio::time::sleep(BEFORE_THE_NEXT).await;
                return Err(error.into());
            }
            Ok(())
        });
        ApalisFuture(Box::pin(async {
            run.await.unwrap_or(Err(NotRun::Stopped))
        }))
    }
}

/// The future of [`ApalisWorker`].
#[must_use = "futures do nothing unless polled"]
pub struct ApalisFuture(Pin<Box<dyn Future<Output = Result<(), NotRun>> + Send>>);

impl Future for ApalisFuture {
    type Output = Result<(), NotRun>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<S, R> fmt::Debug for ApalisWorker<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApalisWorker").field(&self.0).finish()
    }
}

impl fmt::Debug for ApalisFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApalisFuture").finish_non_exhaustive()
    }
}
