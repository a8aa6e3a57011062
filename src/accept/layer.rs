use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use http::{Uri, request::Parts};
use tower_layer::Layer;

use super::{AsyncAccept, Idempotency, mode::Mode, policy::Policy};
use crate::{
    operation::RecordedResponse,
    run::{InProcess, RunLimits, Runtime},
    settings::SharedSettings,
    store::{IdempotencyKeys, KeyCapability, Lease},
};

/// Answers `202 Accepted` at once and runs the wrapped service in the
/// background. See the [module](crate::accept) for what happens when.
///
/// It is made by [`Operations::layer`](crate::Operations::layer), which has the settings
/// that it shares with the poll service and with other layers. Its own settings are those
/// that differ from route to route:
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
/// [`SingleNode`](crate::store::SingleNode) lends the latter. `D` is where requests run:
/// here, unless they are [dispatched](crate::Operations::dispatching).
#[must_use]
pub struct AsyncAcceptLayer<R, D = InProcess> {
    pub(super) node: Arc<Runtime<R>>,
    pub(super) policy: Arc<Policy>,
    /// Where requests are run.
    pub(super) run: PhantomData<fn() -> D>,
}

impl<R: Lease<Output = RecordedResponse>> AsyncAcceptLayer<R> {
    /// A layer that keeps its operations in `store`.
    ///
    /// This is [`Operations::new`](crate::Operations::new) with its
    /// [`layer`](crate::Operations::layer).
    pub fn new(store: R) -> Self {
        Self::of(
            Arc::new(Runtime::new(store)),
            Arc::default(),
            RunLimits::default(),
        )
    }
}

impl<R, D> AsyncAcceptLayer<R, D> {
    pub(crate) fn of(
        runtime: Arc<Runtime<R>>,
        shared: Arc<SharedSettings>,
        limits: RunLimits,
    ) -> Self {
        let dispatches = runtime.hand_off.is_some();
        Self {
            node: runtime,
            policy: Arc::new(Policy::new(shared, limits, dispatches)),
            run: PhantomData,
        }
    }
}

impl<R: IdempotencyKeys<Output = RecordedResponse>, D> AsyncAcceptLayer<R, D> {
    /// Runs a request once that comes twice; see [`Idempotency`].
    pub fn idempotency(self, rules: Idempotency) -> Self {
        self.node.keys.get_or_init(KeyCapability::of_store);
        self.with(|policy| policy.idempotency = Some(rules))
    }
}

impl<R> AsyncAcceptLayer<R> {
    /// Gives the inner service this much time for a real answer, and accepts
    /// the request when that is over. One and the same call goes on.
    ///
    /// A client can shorten the time with `Prefer: wait=N` (RFC 7240, section
    /// 4.3). If the client hangs up before, the call is dropped, as far as the
    /// server tells: hyper does not notice the hang-up of an HTTP/1.1 client that
    /// has pipelined a further request.
    pub fn after(self, limit: Duration) -> Self {
        self.with(|policy| policy.mode = Mode::After(limit))
    }

    /// Accepts a request when its handler says so, by
    /// [`OperationHandle::accept`](crate::OperationHandle::accept). If it
    /// returns before, its response goes out as it is. Request bodies stream,
    /// and [`body_limit`](Self::body_limit) is the handler's business.
    pub fn when_signaled(self) -> Self {
        self.with(|policy| policy.mode = Mode::Signaled)
    }

    /// The longest that `Prefer: wait=N` makes anybody wait; 30 seconds by
    /// default.
    pub fn max_wait(self, limit: Duration) -> Self {
        self.with(|policy| policy.max_wait = limit)
    }

    /// The largest response body that is recorded, in bytes; 8 MiB by default.
    /// A larger one makes the operation fail as `result-too-large`.
    pub fn result_limit(self, bytes: u64) -> Self {
        self.with(|policy| policy.run.result = bytes)
    }

    /// How long the inner service may go on after its operation was canceled,
    /// to tidy up, before it is dropped; half a second by default.
    pub fn cancel_grace(self, grace: Duration) -> Self {
        self.with(|policy| policy.run.set_grace(grace))
    }

    /// Which requests may be run again after the node that ran them has died: those
    /// that do the same when they are done twice. They are kept with their operation
    /// while that is live: method, target, headers and body, which is collected in
    /// every mode. Run a [recovery](crate::Operations::recovery).
    ///
    /// `Authorization`, `Proxy-Authorization`, `Cookie` and whatever is marked as
    /// sensitive is left out, unless [asked for](Self::store_credentials).
    pub fn rerun_if(self, predicate: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|policy| policy.set_rerun_if(Arc::new(predicate)))
    }
}

impl<R, D> AsyncAcceptLayer<R, D> {
    /// Which requests are accepted; the others pass through. By default
    /// [`accepts_by_default`](super::accepts_by_default).
    pub fn accept_if(self, predicate: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|policy| policy.set_accept_if(Arc::new(predicate)))
    }

    /// Accepts only requests that ask for it with `Prefer: respond-async`
    /// (RFC 7240, section 4.1); the others pass through. With `wait=N` in
    /// addition, the answer goes out as it is if it comes within N seconds.
    pub fn when_preferred(self) -> Self {
        self.with(|policy| policy.mode = Mode::Preferred)
    }

    /// The largest request body that is accepted, in bytes; 2 MiB by default. A
    /// limit that a layer outside sets should be more than 64 KiB above it: its
    /// error, where it comes first, is a body that could not be read (400).
    pub fn body_limit(self, bytes: u64) -> Self {
        self.with(|policy| policy.body_limit = bytes)
    }

    /// How long a request body may take to arrive; 30 seconds by default.
    pub fn body_timeout(self, limit: Duration) -> Self {
        self.with(|policy| policy.body_timeout = limit)
    }

    /// How long the store may take to answer whether the operation was created,
    /// tries included; 5 seconds by default. Then the answer is 503. Where requests are
    /// [dispatched](crate::Operations::dispatching) the engine has as long again, and what cannot be
    /// dispatched as long to be ended.
    pub fn create_timeout(self, limit: Duration) -> Self {
        self.with(|policy| policy.create_timeout = limit)
    }

    /// How long a request may wait for the inner service to be ready; 1 hour by
    /// default, 30 days at the most.
    pub fn pending_timeout(self, limit: Duration) -> Self {
        self.with(|policy| policy.run.set_pending(limit))
    }

    /// How long the inner service may take, its response body included; 1 hour
    /// by default, 30 days at the most.
    pub fn running_timeout(self, limit: Duration) -> Self {
        self.with(|policy| policy.run.set_running(limit))
    }

    /// Sets the function that gives the target by which the whole application knows a
    /// request, where this layer sees another. It is what a request is run again with, and
    /// what a relative `Location`, `Content-Location` or `Link` of the response is relative
    /// to.
    ///
    /// With the feature `axum` the default is axum's `OriginalUri`, so nested routers need
    /// nothing. Elsewhere the default is the request's URI.
    pub fn original_uri(self, target: impl Fn(&Parts) -> Uri + Send + Sync + 'static) -> Self {
        self.with(|policy| policy.set_original_uri(Arc::new(target)))
    }

    /// Keeps credentials with the requests that are [kept](Self::rerun_if) or
    /// [dispatched](crate::Operations::dispatching): whoever reads the store, or the queue, can read them.
    pub fn store_credentials(self) -> Self {
        self.with(|policy| policy.stores_credentials = true)
    }

    /// What kind of operations these are, for example `report`. It is kept with
    /// each of them.
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
