//! One object from which everything else is made.

mod shutdown;
mod spawn;

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, request::Parts};
pub use spawn::{Spawn, SpawnError};

use crate::{
    accept::AsyncAcceptLayer,
    dialect::{Dialect, ForwardingHeader, InvalidPublicUrl, RetryAfter},
    operation::{OperationId, RecordedResponse},
    owner::ExtractOwner,
    poll::PollService,
    run::{Dispatch, Dispatcher, InProcess, Recovery, RunLimits, Runtime},
    settings::SharedSettings,
    store::{Lease, LeaseConfig, Repository, Store, Watch},
};

/// Operations in one store: creates the layer, the poll service and the recovery, and
/// shuts them down.
///
/// Their common settings are set only here, so that they cannot disagree: the store, the
/// lease, the owner, the dialect, the URLs, and the bounds on requests in flight.
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
/// Clones share the store, the lease, the bounds and the shutdown. `D` is where requests
/// run: here, unless they are [dispatched](Self::dispatching).
#[must_use]
pub struct Operations<R, D = InProcess> {
    runtime: Arc<Runtime<R>>,
    shared: Arc<SharedSettings>,
    limits: RunLimits,
    runs: PhantomData<fn() -> D>,
}

impl<R> Operations<R> {
    /// Operations that are kept in `store` and run in this process.
    pub fn new(store: R) -> Self {
        Self::of(Runtime::new(store))
    }
}

impl<R, D: Dispatch> Operations<R, D> {
    /// Operations whose requests are put into the queue of an engine by `dispatch`, for
    /// workers elsewhere to run: a [`RunService`](crate::RunService) around the whole
    /// application takes them there. Requests that are not accepted pass to the inner
    /// service.
    ///
    /// The 202 is sent once the operation is in the store and its request in the queue. A
    /// request is accepted always, or [when preferred](AsyncAcceptLayer::when_preferred):
    /// there is no call here to wait for, so `Prefer: wait` is ignored. The number of
    /// requests on their way into the queue is bounded by
    /// [`max_in_flight`](Self::max_in_flight). The number in the queue is bounded only by
    /// the time that they [may be pending](Self::pending_timeout).
    ///
    /// If a request cannot be put into the queue, its operation fails as `not-dispatched`
    /// and the answer is 503. A request with an idempotency key would fail for the life of
    /// its key: it is left to the [recovery](Self::dispatching_recovery), if there is one,
    /// and the answer is 202. So is a request that is still on its way into the queue at the
    /// deadline of a drain.
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
        Self::of(Runtime::dispatching(store, Dispatcher::to(dispatch)))
    }
}

impl<R: Lease<Output = RecordedResponse>, D: Dispatch> Operations<R, D> {
    /// Returns the task that dispatches operations again that no worker has claimed in time,
    /// or whose worker has died. The task has to be spawned. An operation is started at most
    /// `attempts` times, on any workers; after that it fails as `attempts-exhausted`. With
    /// more than one attempt every request has to bear being run twice.
    ///
    /// An operation that no worker starts within the
    /// [time that it may be pending](Self::pending_timeout) fails as `timed-out`. After its
    /// first start it has the [time that it may run](Self::running_timeout) in addition,
    /// counted from its last change.
    pub fn dispatching_recovery(&self, attempts: u32) -> Recovery<R> {
        Recovery::new(Arc::clone(&self.runtime), self.limits).dispatch_again(attempts)
    }
}

impl<R: Lease<Output = RecordedResponse>> Operations<R> {
    /// Returns the task that ends, or [runs again](Recovery::rerun_with), the operations of
    /// nodes that died, and deletes expired operations. The task has to be spawned.
    pub fn recovery(&self) -> Recovery<R> {
        Recovery::new(Arc::clone(&self.runtime), self.limits)
    }
}

impl<R: Lease<Output = RecordedResponse>, D> Operations<R, D> {
    /// Returns a layer that accepts requests. Each route may have one of its own, with
    /// settings of its own.
    pub fn layer(&self) -> AsyncAcceptLayer<R, D> {
        let (runtime, shared) = (Arc::clone(&self.runtime), Arc::clone(&self.shared));
        AsyncAcceptLayer::of(runtime, shared, self.limits)
    }
}

impl<R: Repository + Watch, D> Operations<R, D> {
    /// Returns the service that answers polls, cancels and requests for results. Mount it at
    /// the [public path](Self::public_path).
    pub fn poll_service(&self) -> PollService<R> {
        PollService::of(Arc::clone(&self.runtime), Arc::clone(&self.shared))
    }
}

impl<R: Store, D> Operations<R, D> {
    /// Returns a service that only reads: nothing can be canceled (405), and no poll is held.
    pub fn read_only_poll_service(&self) -> PollService<R> {
        PollService::reading(Arc::clone(&self.runtime), Arc::clone(&self.shared))
    }
}

impl<R, D> Operations<R, D> {
    fn of(runtime: Runtime<R>) -> Self {
        Self {
            runtime: Arc::new(runtime),
            shared: Arc::default(),
            limits: RunLimits::default(),
            runs: PhantomData,
        }
    }

    /// Sets the function that extracts the owner of a request. Each owner sees the own
    /// operations alone; those of others are unknown (404). Without this, an operation has
    /// no owner, and everybody who knows its id sees it.
    ///
    /// A closure keeps owners in the store as it names them. A
    /// [`HmacOwner`](crate::HmacOwner) keeps them as keyed hashes.
    ///
    /// # Panics
    /// As [`lease`](Self::lease): a layer that was made before would create operations without
    /// an owner.
    pub fn owner(mut self, owner: impl ExtractOwner) -> Self {
        self.own_runtime();
        self.with(|shared| shared.owner = Some(Arc::new(owner)))
    }

    /// Sets the wording of answers; [`Plain`](crate::dialect::Plain) by default.
    pub fn dialect(self, dialect: impl Dialect) -> Self {
        self.with(|shared| shared.dialect = Arc::new(dialect))
    }

    /// Sets the path of the operations as clients know it, `/operations` by default.
    /// `Location` begins with it. Requests at and below it pass the layer, so that the layer
    /// can wrap an application that has the poll service inside.
    ///
    /// Under a nested router this is the whole path, for example `/api/v1/operations`.
    pub fn public_path(self, path: &str) -> Self {
        self.with(|shared| shared.locator.set_at(path))
    }

    /// Makes `Location` absolute: `url`, then the [public path](Self::public_path).
    ///
    /// # Errors
    /// [`InvalidPublicUrl`] unless it is `http` or `https`, with a host, and perhaps a port
    /// and a path; without user information, a query or a fragment.
    pub fn public_url(mut self, url: &str) -> Result<Self, InvalidPublicUrl> {
        Arc::make_mut(&mut self.shared).locator.set_base(url)?;
        Ok(self)
    }

    /// Makes `Location` absolute by the scheme and the host in `Forwarded` (RFC 7239), for
    /// requests from a trusted proxy. `trusted` recognizes the proxy by its address, for
    /// example, or by a secret that it adds. The last of several elements counts, which the
    /// nearest proxy added. A host without a scheme has the scheme of the
    /// [public URL](Self::public_url). Without a valid host, and for the path, the public URL
    /// is used.
    ///
    /// Do not trust every request: clients could then choose where other clients are sent.
    pub fn trust_forwarded(self, trusted: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        let (by, trusted) = (ForwardingHeader::Standard, Arc::new(trusted));
        self.with(|shared| shared.locator.set_trusted(by, trusted))
    }

    /// Makes `Location` absolute like [`trust_forwarded`](Self::trust_forwarded), by
    /// `X-Forwarded-Proto` and `X-Forwarded-Host`. Only one of the two settings can be used,
    /// since a client may send the header of the other.
    pub fn trust_x_forwarded(
        self,
        trusted: impl Fn(&Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (by, trusted) = (ForwardingHeader::Older, Arc::new(trusted));
        self.with(|shared| shared.locator.set_trusted(by, trusted))
    }

    /// Sets `Location` as a function of the request and the id. White space around it is
    /// left out; an empty text is no `Location`.
    ///
    /// The parts have the request's extensions, for example axum's `OriginalUri`. Do not
    /// build it from an untrusted `Host`.
    pub fn location(
        self,
        location: impl Fn(&Parts, &OperationId) -> String + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.locator.set_hook(Arc::new(location)))
    }

    /// Sets the `Retry-After` of answers;
    /// [`AdaptiveRetryAfter`](crate::dialect::AdaptiveRetryAfter) by default. It is also
    /// sent with a 503.
    pub fn retry_after(self, retry_after: impl RetryAfter) -> Self {
        self.with(|shared| shared.retry_after = Arc::new(retry_after))
    }

    /// Sets which header fields of a recorded response a replay repeats; by default all
    /// except those of [`not_replayed`](crate::dialect::not_replayed).
    pub fn replay_headers(
        self,
        keep: impl Fn(&HeaderName) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.replay = shared.replay.clone().keeping(keep))
    }

    /// Changes the header of each replayed response: `change` gets the recorded response,
    /// and the fields that are sent for it.
    ///
    /// Content that users have made is replayed from the origin of the operations. To keep
    /// browsers from showing it there, send it as an attachment:
    ///
    /// ```
    /// use http::{HeaderValue, header::CONTENT_DISPOSITION};
    /// use tower_operations::{MemoryStore, Operations};
    ///
    /// let operations = Operations::new(MemoryStore::new()).map_replay(|recorded, fields| {
    ///     if recorded.media_type() != Some("application/json") {
    ///         fields.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    ///     }
    /// });
    /// ```
    pub fn map_replay(
        self,
        change: impl Fn(&RecordedResponse, &mut HeaderMap) + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.replay = shared.replay.clone().changed(change))
    }

    /// Sets how long a request may wait for the inner service to be ready; 1 hour by
    /// default, at most 30 days. A layer may have a limit of its own.
    pub fn pending_timeout(mut self, limit: Duration) -> Self {
        self.limits.set_pending(limit);
        self
    }

    /// Sets how long the inner service may take, its response body included; 1 hour by
    /// default, at most 30 days. A layer may have a limit of its own.
    pub fn running_timeout(mut self, limit: Duration) -> Self {
        self.limits.set_running(limit);
        self
    }

    /// Sets the largest response body that is recorded, in bytes; 8 MiB by default. A larger
    /// one makes the operation fail as `result-too-large`. A layer may have a limit of its
    /// own.
    pub fn result_limit(mut self, bytes: u64) -> Self {
        self.limits.result = bytes;
        self
    }

    /// Sets how long the inner service may go on after its operation was canceled, to tidy
    /// up, before it is dropped; half a second by default. A layer may have a grace of its
    /// own.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.limits.set_grace(grace);
        self
    }

    /// Sets the name of this node and the term of its leases: how long it may be silent
    /// before another node reclaims what it runs. By default the name is random and the
    /// term 30 seconds. The term is at least a tenth of a second.
    ///
    /// The name must differ from that of every other node, and of every earlier start of
    /// this one.
    ///
    /// # Panics
    /// If a layer, a service, a recovery, a drain handle or a clone was made before.
    pub fn lease(mut self, lease: LeaseConfig) -> Self {
        self.own_runtime().set_lease(lease);
        self
    }

    /// Sets how many requests may be accepted, pending or running at a time; 10,000 by
    /// default. Past it the answer is 503. A request that was
    /// [dispatched](Self::dispatching) does not count once it is in the queue.
    ///
    /// Each may hold a request body in memory, so this number times the
    /// [`body_limit`](AsyncAcceptLayer::body_limit) may be needed by the process: set both
    /// to the memory that is available.
    ///
    /// # Panics
    /// As [`lease`](Self::lease).
    pub fn max_in_flight(mut self, operations: usize) -> Self {
        self.own_runtime().in_flight.set_max(operations);
        self
    }

    /// Sets how many of them may be of one owner, so that no owner shuts out the others; a
    /// quarter of [`max_in_flight`](Self::max_in_flight) by default. Requests without an
    /// owner count as one owner's. Past it the answer is 503. It applies where
    /// [owners](Self::owner) are known.
    ///
    /// # Panics
    /// As [`lease`](Self::lease).
    pub fn max_in_flight_per_owner(mut self, operations: usize) -> Self {
        self.own_runtime().in_flight.set_max_per_owner(operations);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut SharedSettings)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    fn own_runtime(&mut self) -> &mut Runtime<R> {
        Arc::get_mut(&mut self.runtime)
            .expect("the owner, the lease and the bounds are set before anything is made")
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
