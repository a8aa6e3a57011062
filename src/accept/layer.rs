use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use http::{Uri, request::Parts};
use tower_layer::Layer;

use super::{AsyncAccept, Idempotency, mode::Mode, policy::Policy};
use crate::{
    operation::RecordedResponse,
    run::{InProcess, LONGEST, LONGEST_WAIT, RunLimits, Runtime},
    settings::SharedSettings,
    store::{IdempotencyKeys, KeyCapability, Lease},
};

/// A layer that answers `202 Accepted` at once and runs the wrapped service in the
/// background. The [module](crate::accept) describes the steps.
///
/// The layer is created by [`Operations::layer`](crate::Operations::layer). The
/// `Operations` have the settings that are shared with the poll service and other layers.
/// The settings of the layer are those that differ from route to route:
///
/// ```
/// use axum::{Router, routing::post};
/// use tower_operations::{MemoryStore, Operations};
///
/// async fn report() -> &'static str { "done" }
/// async fn export() -> &'static str { "done" }
///
/// let operations = Operations::new(MemoryStore::new()).max_in_flight(200);
/// let layer = operations.layer();
/// let app: Router = Router::new()
///     .route("/reports", post(report).route_layer(layer.clone()))
///     .route("/exports", post(export).route_layer(layer.body_limit(64 * 1024 * 1024)))
///     .nest_service("/operations", operations.poll_service());
/// ```
///
/// The store has to be [`Repository`](crate::store::Repository) and [`Lease`];
/// [`SingleNode`](crate::store::SingleNode) adds `Lease` to a `Repository`. `D` says where
/// requests run: in this process, unless they are [dispatched](crate::Operations::dispatching).
#[must_use]
pub struct AsyncAcceptLayer<R, D = InProcess> {
    pub(super) node: Arc<Runtime<R>>,
    pub(super) policy: Arc<Policy>,
    /// The place where requests run.
    pub(super) run: PhantomData<fn() -> D>,
}

impl<R: Lease<Output = RecordedResponse>> AsyncAcceptLayer<R> {
    /// Creates a layer that keeps its operations in `store`.
    ///
    /// This is [`Operations::new`](crate::Operations::new) with its
    /// [`layer`](crate::Operations::layer).
    pub fn new(store: R) -> Self {
        Self::from_runtime(
            Arc::new(Runtime::new(store)),
            Arc::default(),
            RunLimits::default(),
        )
    }
}

impl<R, D> AsyncAcceptLayer<R, D> {
    pub(crate) fn from_runtime(
        runtime: Arc<Runtime<R>>,
        shared: Arc<SharedSettings>,
        limits: RunLimits,
    ) -> Self {
        let dispatches = runtime.dispatcher.is_some();
        Self {
            node: runtime,
            policy: Arc::new(Policy::new(shared, limits, dispatches)),
            run: PhantomData,
        }
    }
}

impl<R: IdempotencyKeys<Output = RecordedResponse>, D> AsyncAcceptLayer<R, D> {
    /// Sets how repeated requests are recognized, so that their work runs once; see
    /// [`Idempotency`].
    pub fn idempotency(self, rules: Idempotency) -> Self {
        self.node.keys.get_or_init(KeyCapability::of_store);
        self.with(|policy| policy.idempotency = Some(rules))
    }
}

impl<R> AsyncAcceptLayer<R> {
    /// Gives the inner service this much time to answer directly. After that time the request is
    /// accepted, and the same call continues in the background.
    ///
    /// The time begins with the complete request, so it includes the wait for a key and for a
    /// service that is not ready. If the operation cannot be created when the time is over, the
    /// client gets the direct answer, when it comes.
    ///
    /// A client can shorten the time with `Prefer: wait=N` (RFC 7240, section 4.3). If the
    /// client disconnects before the time is over, the call is dropped, provided that the server
    /// notices: hyper does not notice that an HTTP/1.1 client with a pipelined request has
    /// disconnected.
    pub fn after(self, limit: Duration) -> Self {
        self.with(|policy| policy.mode = Mode::After(limit))
    }

    /// Accepts a request when its handler calls
    /// [`OperationHandle::accept`](crate::OperationHandle::accept). If the handler returns
    /// without that call, its response is sent as it is. Request bodies stream, so the handler
    /// limits them, and [`body_limit`](Self::body_limit) does not.
    pub fn when_signaled(self) -> Self {
        self.with(|policy| policy.mode = Mode::Signaled)
    }

    /// Sets the longest time that `Prefer: wait=N` holds an answer; 30 seconds by default.
    pub fn max_wait(self, limit: Duration) -> Self {
        self.with(|policy| policy.max_wait = limit)
    }

    /// Sets the largest response body that is recorded, in bytes; that of the
    /// [`Operations`](crate::Operations::result_limit) by default. A larger body makes the
    /// operation fail as `result-too-large`.
    pub fn result_limit(self, bytes: u64) -> Self {
        self.with(|policy| policy.run.result = Some(bytes))
    }

    /// Sets how long the inner service may continue after its operation was canceled, to clean
    /// up, before it is dropped; that of the [`Operations`](crate::Operations::cancel_grace) by
    /// default.
    pub fn cancel_grace(self, grace: Duration) -> Self {
        self.with(|policy| policy.run.set_grace(grace))
    }

    /// Sets which requests may be rerun after the node that ran them has died. Choose requests
    /// that have the same effect when they run twice. A chosen request is stored with its
    /// operation while the operation is live: method, URI, headers and body. The body of such a
    /// request is collected in every mode. Reruns need a
    /// [recovery](crate::Operations::recovery).
    ///
    /// `Authorization`, `Proxy-Authorization`, `Cookie` and fields that are marked as
    /// sensitive are left out, unless [asked for](Self::store_credentials).
    pub fn rerun_if(self, predicate: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|policy| policy.set_rerun_if(Arc::new(predicate)))
    }
}

impl<R, D> AsyncAcceptLayer<R, D> {
    /// Sets which requests are accepted; the others pass through.
    /// [`accepts_by_default`](super::accepts_by_default) by default.
    pub fn accept_if(self, predicate: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|policy| policy.set_accept_if(Arc::new(predicate)))
    }

    /// Accepts only requests with `Prefer: respond-async` (RFC 7240, section 4.1); the
    /// others pass through. With `wait=N` in addition, an answer that comes within N seconds
    /// is sent as it is.
    pub fn when_preferred(self) -> Self {
        self.with(|policy| policy.mode = Mode::Preferred)
    }

    /// Sets the largest request body that is accepted, in bytes; 2 MiB by default. A limit of
    /// an outer layer should be more than 64 KiB above it: an error of that limit is a body
    /// that could not be read (400).
    pub fn body_limit(self, bytes: u64) -> Self {
        self.with(|policy| policy.body_limit = bytes)
    }

    /// Sets how long a request body may take to arrive; 30 seconds by default, at most 30 days.
    pub fn body_timeout(self, limit: Duration) -> Self {
        self.with(|policy| policy.body_timeout = limit.min(LONGEST))
    }

    /// Sets how long the store may take to answer whether the operation was created, retries
    /// included; 5 seconds by default, at most 15 minutes. After that the answer is 503. The
    /// [result store](crate::Operations::result_store) has the same time before, for the body of a
    /// long request that is stored. Where requests are [dispatched](crate::Operations::dispatching)
    /// the engine has the same time in addition, and so has the end of an operation that cannot be
    /// dispatched.
    pub fn create_timeout(self, limit: Duration) -> Self {
        self.with(|policy| policy.create_timeout = limit.min(LONGEST_WAIT))
    }

    /// Sets how long a request may wait for the inner service to be ready; that of the
    /// [`Operations`](crate::Operations::pending_timeout) by default, at most 30 days.
    pub fn pending_timeout(self, limit: Duration) -> Self {
        self.with(|policy| policy.run.set_pending(limit))
    }

    /// Sets how long the inner service may take, its response body included; that of the
    /// [`Operations`](crate::Operations::running_timeout) by default, at most 30 days.
    pub fn running_timeout(self, limit: Duration) -> Self {
        self.with(|policy| policy.run.set_running(limit))
    }

    /// Sets the function that returns the URI that the client asked for, where this layer sees
    /// another URI. A request is rerun with the returned URI, and a relative `Location`,
    /// `Content-Location` or `Link` of the response is resolved against it.
    ///
    /// With the feature `axum` the default is axum's `OriginalUri`, so nested routers need
    /// nothing. Elsewhere the default is the request's URI.
    pub fn original_uri(self, target: impl Fn(&Parts) -> Uri + Send + Sync + 'static) -> Self {
        self.with(|policy| policy.set_original_uri(Arc::new(target)))
    }

    /// Stores credentials with the requests that are [stored](Self::rerun_if) or
    /// [dispatched](crate::Operations::dispatching): everybody who can read the store, or the
    /// queue, can read them.
    pub fn store_credentials(self) -> Self {
        self.with(|policy| policy.stores_credentials = true)
    }

    /// Sets the name of the operations, for example `report`. The name is stored with each
    /// operation.
    pub fn operation_name(self, name: impl Into<Arc<str>>) -> Self {
        self.with(|policy| policy.name = Some(name.into()))
    }

    fn with(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(Arc::make_mut(&mut self.policy));
        self
    }
}

impl<S, R, D> Layer<S> for AsyncAcceptLayer<R, D> {
    type Service = AsyncAccept<S, R>;

    /// Clones two reference counts: it allocates and spawns nothing.
    fn layer(&self, inner: S) -> AsyncAccept<S, R> {
        AsyncAccept::new(inner, Arc::clone(&self.node), Arc::clone(&self.policy))
    }
}

impl<R, D> Clone for AsyncAcceptLayer<R, D> {
    fn clone(&self) -> Self {
        Self {
            node: Arc::clone(&self.node),
            policy: Arc::clone(&self.policy),
            run: PhantomData,
        }
    }
}

impl<R, D> fmt::Debug for AsyncAcceptLayer<R, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncAcceptLayer")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
