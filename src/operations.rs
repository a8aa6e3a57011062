//! The object that creates layers, poll services and recoveries.

mod settings;

mod shutdown;
mod spawn;

use std::{fmt, marker::PhantomData, sync::Arc};

pub use spawn::{Spawn, SpawnError};

use crate::{
    accept::AsyncAcceptLayer,
    operation::RecordedResponse,
    poll::PollService,
    run::{Dispatch, Dispatcher, InProcess, Recovery, RunLimits, Runtime},
    settings::SharedSettings,
    store::{Lease, Repository, Store, Watch},
};

/// The operations of one store. Creates the layer, the poll service and the recovery, and shuts
/// them down.
///
/// The settings that these have in common are set only here, so that they cannot disagree: the
/// store, the lease, the owner, the dialect, the URLs, and the bounds on requests in flight.
///
/// ```
/// # async fn serve(listener: tokio::net::TcpListener, signal: tokio::sync::oneshot::Receiver<()>) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use axum::{Router, http::request::Parts, routing::post};
/// use tower_operations::{MemoryStore, Operations, Owner, dialect::Azure};
///
/// #[derive(Clone)]
/// struct Tenant(String); // put into the extensions by your authentication
///
/// async fn render() -> &'static str { "the report" }
///
/// let operations = Operations::new(MemoryStore::new())
///     .owner(|parts: &Parts| parts.extensions.get().map(|Tenant(name)| Owner::new(name.as_str())))
///     .dialect(Azure::default())
///     .public_url("https://api.example.com")?;
/// let render = post(render).route_layer(operations.layer().after(Duration::from_secs(2)));
/// let app: Router = Router::new()
///     .route("/reports", render)
///     .nest_service("/operations", operations.poll_service().listing());
/// tokio::spawn(operations.recovery().run());
/// axum::serve(listener, app)
///     .with_graceful_shutdown(operations.drain_on(async { drop(signal.await) }, Duration::from_secs(25)))
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// Clones share the store, the lease, the bounds and the shutdown. `D` says where requests run:
/// in this process, unless they are [dispatched](Self::dispatching).
#[must_use]
pub struct Operations<R, D = InProcess> {
    runtime: Arc<Runtime<R>>,
    shared: Arc<SharedSettings>,
    limits: RunLimits,
    runs: PhantomData<fn() -> D>,
}

impl<R> Operations<R> {
    /// Creates operations that are kept in `store` and run in this process.
    pub fn new(store: R) -> Self {
        Self::from_runtime(Runtime::new(store))
    }
}

impl<R, D: Dispatch> Operations<R, D> {
    /// Creates operations whose requests `dispatch` puts into the queue of an engine. Workers
    /// elsewhere take the requests from the queue and run them, by a
    /// [`RunService`](crate::RunService) around the whole application. Requests that are not
    /// accepted pass to the inner service.
    ///
    /// The 202 is sent once the operation is in the store and its request in the queue. A
    /// request is accepted always, or [when preferred](AsyncAcceptLayer::when_preferred).
    /// `Prefer: wait` is ignored, since there is no call here to wait for. The number of
    /// requests on their way into the queue is bounded by
    /// [`max_in_flight`](Self::max_in_flight). The number of requests in the queue is bounded
    /// only by the time that they [may be pending](Self::pending_timeout).
    ///
    /// If a request cannot be put into the queue, its operation fails as `not-dispatched` and
    /// the answer is 503. Two kinds of requests are left to the
    /// [recovery](Self::dispatching_recovery) instead, with a 202, if there is a recovery. The
    /// first is a request with an idempotency key, which would otherwise fail for the life of
    /// its key. The second is a request that is still on its way into the queue when the time
    /// for a drain is over.
    ///
    /// ```compile_fail
    /// use std::time::Duration;
    /// use tower_operations::{MemoryStore, Operations, QueuedRequest};
    ///
    /// let operations = Operations::dispatching(MemoryStore::new(), |_: QueuedRequest| async {
    ///     Ok::<_, std::io::Error>(())
    /// });
    /// operations.layer().after(Duration::from_secs(1)); // all but this compiles
    /// ```
    pub fn dispatching(store: R, dispatch: D) -> Self {
        Self::from_runtime(Runtime::dispatching(store, Dispatcher::to(dispatch)))
    }
}

impl<R: Lease<Output = RecordedResponse>, D: Dispatch> Operations<R, D> {
    /// Returns the task that dispatches operations again that no worker has claimed in time, or
    /// whose worker has died. The application has to spawn the task. An operation is started at
    /// most `attempts` times, on all workers together; after that it fails as
    /// `attempts-exhausted`. With more than one attempt every request must tolerate being run
    /// twice.
    ///
    /// An operation that no worker starts within the [time that it may be
    /// pending](Self::pending_timeout) fails as `timed-out`. After its first start an operation
    /// has the [time that it may run](Self::running_timeout) in addition, counted from its last
    /// change.
    pub fn dispatching_recovery(&self, attempts: u32) -> Recovery<R> {
        Recovery::new(Arc::clone(&self.runtime), self.limits).dispatch_again(attempts)
    }
}

impl<R: Lease<Output = RecordedResponse>> Operations<R> {
    /// Returns the task that ends or [reruns](Recovery::rerun_with) the operations of nodes that
    /// died, and deletes expired operations. The application has to spawn the task.
    pub fn recovery(&self) -> Recovery<R> {
        Recovery::new(Arc::clone(&self.runtime), self.limits)
    }
}

impl<R: Lease<Output = RecordedResponse>, D> Operations<R, D> {
    /// Returns a layer that accepts requests. Each route may have its own layer, with its own
    /// settings.
    pub fn layer(&self) -> AsyncAcceptLayer<R, D> {
        let (runtime, shared) = (Arc::clone(&self.runtime), Arc::clone(&self.shared));
        AsyncAcceptLayer::from_runtime(runtime, shared, self.limits)
    }
}

impl<R: Repository + Watch, D> Operations<R, D> {
    /// Returns the service that answers polls, cancels and requests for results. Mount it at
    /// the [public path](Self::public_path).
    pub fn poll_service(&self) -> PollService<R> {
        PollService::from_runtime(Arc::clone(&self.runtime), Arc::clone(&self.shared))
    }
}

impl<R: Store, D> Operations<R, D> {
    /// Returns a service that only reads: nothing can be canceled (405), and no poll is held.
    pub fn read_only_poll_service(&self) -> PollService<R> {
        PollService::reading(Arc::clone(&self.runtime), Arc::clone(&self.shared))
    }
}

impl<R, D> Clone for Operations<R, D> {
    fn clone(&self) -> Self {
        Self {
            runtime: Arc::clone(&self.runtime),
            shared: Arc::clone(&self.shared),
            limits: self.limits,
            runs: PhantomData,
        }
    }
}

impl<R, D> fmt::Debug for Operations<R, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations")
            .field("shared", &self.shared)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
