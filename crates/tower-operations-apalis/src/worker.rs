use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use apalis_core::task::Task;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;
use tower::{Service, ServiceExt};
use tower_operations::{
    run::{InvalidMessage, QueuedRequest, RunOutcome, RunService},
    store::StoreError,
};

use super::ApalisTask;

/// A service for `WorkerBuilder::build`, which runs the tasks of an apalis worker through a
/// [`RunService`].
///
/// A task is done, and so acknowledged, once the outcome of its operation is recorded,
/// or if there is nothing to do for it: the operation has ended, or somebody else runs
/// it.
///
/// Each run is a task of the runtime's own. A worker of the engine that gives up, since
/// its database was away for a moment, does not stop what it runs; the engine delivers
/// the task again, which then finds nothing to do.
pub struct ApalisWorker<S, R> {
    service: RunService<S, R>,
    places: PollSemaphore,
    /// For the next call.
    place: Option<OwnedSemaphorePermit>,
}

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

/// How long a worker that cannot run a task waits before it says so. Engines deliver
/// again at once, and give a task up that was delivered too often.
const BEFORE_THE_NEXT: Duration = Duration::from_secs(1);

impl<S, R> ApalisWorker<S, R> {
    /// Runs tasks through `service`, around the whole application.
    pub fn new(service: RunService<S, R>) -> Self {
        Self {
            service,
            places: PollSemaphore::new(Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))),
            place: None,
        }
    }

    /// How many tasks run at a time; as many as come by default. It is ready while there
    /// is a place, and clones share them: unlike a `ConcurrencyLimitLayer` on the
    /// `WorkerBuilder`, this counts what goes on running after a worker of the engine has
    /// given up.
    ///
    /// # Panics
    /// If it is above [`Semaphore::MAX_PERMITS`].
    #[must_use]
    pub fn concurrency(self, tasks: usize) -> Self {
        let places = Arc::new(Semaphore::new(tasks));
        Self {
            places: PollSemaphore::new(places),
            place: None,
            ..self
        }
    }
}

impl<S, R> Service<Task<ApalisTask>> for ApalisWorker<S, R>
where
    RunService<S, R>: Service<QueuedRequest, Response = RunOutcome, Error = StoreError>,
    RunService<S, R>: Clone + Send + 'static,
    <RunService<S, R> as Service<QueuedRequest>>::Future: Send,
{
    /// Results stay in the store.
    type Response = ();
    type Error = NotRun;
    type Future = ApalisFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), NotRun>> {
        if self.place.is_none() {
            self.place = ready!(self.places.poll_acquire(context));
        }
        Poll::Ready(Ok(()))
    }

    /// # Panics
    /// Unless it was ready.
    fn call(&mut self, task: Task<ApalisTask>) -> ApalisFuture {
        let place = self
            .place
            .take()
            .expect("a worker is called when it is ready");
        let service = self.service.clone();
        let run = tokio::spawn(async move {
            let _place = place;
            let run = async {
                service.oneshot(task.args.request()?).await?;
                Ok(())
            };
            let ran = run.await;
            if ran.is_err() {
                tokio::time::sleep(BEFORE_THE_NEXT).await;
            }
            ran
        });
        ApalisFuture(Box::pin(async {
            run.await.unwrap_or(Err(NotRun::Stopped))
        }))
    }
}

impl<S: Clone, R> Clone for ApalisWorker<S, R> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            places: self.places.clone(),
            place: None,
        }
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
        f.debug_struct("ApalisWorker")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ApalisFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApalisFuture").finish_non_exhaustive()
    }
}
