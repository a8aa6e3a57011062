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
/// A task is done, and so acknowledged, once the outcome of its operation is recorded. A task is
/// also done if nothing remains to be done: the operation has ended, or another worker runs it.
///
/// Each run is a task of the runtime. A worker of the engine that stops, for example because its
/// database was away for a moment, does not stop its runs. The engine delivers the task again,
/// and that delivery has nothing to do.
pub struct ApalisWorker<S, R> {
    service: RunService<S, R>,
    places: PollSemaphore,
    /// The place for the next call.
    place: Option<OwnedSemaphorePermit>,
}

/// The reason why a task was not run to its end here. The engine has to deliver the task again,
/// to another worker or later.
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

/// The time that a worker waits before it reports that it cannot run a task. Engines deliver
/// such a task again at once, and drop a task that was delivered too often.
const BEFORE_THE_NEXT: Duration = Duration::from_secs(1);

impl<S, R> ApalisWorker<S, R> {
    /// Creates a worker that runs tasks through `service`, around the whole application.
    pub fn new(service: RunService<S, R>) -> Self {
        Self {
            service,
            places: PollSemaphore::new(Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))),
            place: None,
        }
    }

    /// Sets how many tasks run at a time; without a bound by default. The worker is ready while
    /// there is a place, and clones share the places. Unlike a `ConcurrencyLimitLayer` on the
    /// `WorkerBuilder`, this bound counts runs that continue after a worker of the engine has
    /// stopped.
    ///
    /// # Panics
    /// Panics if `tasks` is above [`Semaphore::MAX_PERMITS`].
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
    /// The response is empty: results stay in the store.
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
    /// Panics unless the worker was ready.
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
