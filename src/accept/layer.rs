use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use http::{Uri, request::Parts};
use tower_layer::Layer;

use super::{AsyncAccept, ExtractOwner, Idempotency, PlainOwner, mode::Mode, policy::Policy};
use crate::{
    dialect::{Dialect, ForwardingHeader, InvalidPublicUrl, RetryAfter},
    operation::{OperationId, RecordedResponse},
    run::{Drain, InProcess, Recovery, Runtime},
    store::{IdempotencyKeys, KeyCapability, Lease, LeaseConfig, MemoryStore, Owner},
};

/// Answers `202 Accepted` at once and runs the wrapped service in the
/// background. See the [module](crate::accept) for what happens when.
///
/// Clones share the store, the bound on what is in flight and the drain, and
/// differ in everything else, so one layer serves many routes:
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::post};
/// use tower_operations::{AsyncAcceptLayer, MemoryStore, PollService};
///
/// async fn report() -> &'static str { "done" }
/// async fn export() -> &'static str { "done" }
///
/// let store = MemoryStore::new();
/// let layer = AsyncAcceptLayer::new(store.clone()).max_in_flight(200);
/// let app: Router = Router::new()
///     .route("/reports", post(report).route_layer(layer.clone()))
///     .route("/exports", post(export).route_layer(layer.body_limit(64 * 1024 * 1024)))
///     .nest_service("/operations", PollService::new(store));
/// ```
///
/// The store has to be [`Repository`](crate::store::Repository) and [`Lease`];
/// [`SingleNode`](crate::store::SingleNode) lends the latter. `D` is where requests are
/// run: here, unless it [hands them off](AsyncAcceptLayer::hand_off).
#[must_use]
pub struct AsyncAcceptLayer<R, D = InProcess> {
    pub(super) node: Arc<Runtime<R>>,
    pub(super) policy: Arc<Policy>,
    /// Where requests are run.
    pub(super) run: PhantomData<fn() -> D>,
}

impl<R: Lease<Output = RecordedResponse>> AsyncAcceptLayer<R> {
    /// A layer that keeps its operations in `store`.
    pub fn new(store: R) -> Self {
        Self {
            node: Arc::new(Runtime::new(store)),
            policy: Arc::default(),
            run: PhantomData,
        }
    }

    /// The same, with the handle that shuts it down.
    pub fn with_drain(store: R) -> (Self, Drain) {
        let layer = Self::new(store);
        let drain = Drain::new(Arc::clone(&layer.node.in_flight));
        (layer, drain)
    }
}

impl<R: Lease<Output = RecordedResponse>> AsyncAcceptLayer<R> {
    /// What ends, or runs again, the operations that dead nodes have left behind; it
    /// has to be spawned. Its limits are this layer's.
    pub fn recovery(&self) -> Recovery<R> {
        Recovery::new(Arc::clone(&self.node), self.policy.run)
    }
}

impl<R: IdempotencyKeys<Output = RecordedResponse>, D> AsyncAcceptLayer<R, D> {
    /// Runs a request once that comes twice; see [`Idempotency`].
    pub fn idempotency(self, rules: Idempotency) -> Self {
        self.node.keys.get_or_init(KeyCapability::of_store);
        self.with(|policy| policy.idempotency = Some(rules))
    }
}

impl<D> AsyncAcceptLayer<MemoryStore, D> {
    /// Whose a request is. Without this every operation is nobody's, and there
    /// for everybody who knows its id. Give the
    /// [`PollService`](crate::PollService::owner) the same.
    pub fn owner(self, owner: impl Fn(&Parts) -> Option<Owner> + Send + Sync + 'static) -> Self {
        self.owner_with(PlainOwner::new(owner))
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
    /// every mode. Somebody has to [recover](Self::recovery) them.
    ///
    /// `Authorization`, `Proxy-Authorization`, `Cookie` and whatever is marked as
    /// sensitive is left out, unless [asked for](Self::store_credentials).
    pub fn rerun_if(self, predicate: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|policy| policy.set_rerun_if(Arc::new(predicate)))
    }
}

impl<R, D> AsyncAcceptLayer<R, D> {
    /// Whose a request is: by a [`HmacOwner`](super::HmacOwner), which keeps
    /// owners as keyed hashes, by a [`PlainOwner`](super::PlainOwner), which does
    /// not, or by a type of yours. Give the
    /// [`PollService`](crate::PollService::owner_with) the same.
    pub fn owner_with(self, owner: impl ExtractOwner) -> Self {
        self.with(|policy| policy.set_owner(Arc::new(owner)))
    }

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

    /// How many requests are being accepted, pending or running at the most,
    /// 10,000 by default; past it the answer is 503. The bound is shared with all
    /// clones. What was [handed off](Self::hand_off) does not count once it is in the queue.
    ///
    /// A repetition of a request that was accepted needs no place: it is answered as ever,
    /// while few come at the same moment (see [`Idempotency`]).
    ///
    /// Each of them may hold a request body in memory, so this number times
    /// [`body_limit`](Self::body_limit) is what can be asked of the process: set
    /// both to what it has.
    pub fn max_in_flight(self, operations: usize) -> Self {
        self.node.in_flight.set_max(operations);
        self
    }

    /// How many of them may be one owner's, so that nobody shuts the others out; a quarter
    /// of [`max_in_flight`](Self::max_in_flight) by default. Requests on nobody's behalf
    /// are one owner's here. Past it the answer is 503. It counts where
    /// [owners](Self::owner_with) are known, and is shared with all clones.
    pub fn max_in_flight_per_owner(self, operations: usize) -> Self {
        self.node.in_flight.set_max_per_owner(operations);
        self
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
    /// [handed off](Self::hand_off) the engine has as long again, and what cannot be
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
    /// [handed off](Self::hand_off): whoever reads the store, or the queue, can read them.
    pub fn store_credentials(self) -> Self {
        self.with(|policy| policy.stores_credentials = true)
    }

    /// The name of this node, and the term of its leases: how long it may be silent
    /// before another takes over what it runs. By default it has no name of its own,
    /// and 30 seconds.
    ///
    /// The node's name must differ from that of every other one, and of every earlier
    /// start of this one. Set it before the layer is used, on one of its clones: they
    /// share it. A term is a tenth of a second at the least.
    pub fn lease(self, lease: LeaseConfig) -> Self {
        self.node.set_lease(lease);
        self
    }

    /// The path under which the operations are, `/operations` by default.
    /// Requests at and below it pass through, so that the layer can wrap an
    /// application that has a [`PollService`](crate::PollService) inside, and
    /// `Location` begins with it.
    pub fn public_path(self, path: &str) -> Self {
        self.with(|policy| policy.locator.set_at(path))
    }

    /// Makes `Location` absolute: `url`, then the path of the operation.
    ///
    /// # Errors
    /// [`InvalidPublicUrl`] unless it is `http` or `https`, with a host, and perhaps a port
    /// and a path; without user information, a query or a fragment.
    pub fn public_url(mut self, url: &str) -> Result<Self, InvalidPublicUrl> {
        Arc::make_mut(&mut self.policy).locator.set_base(url)?;
        Ok(self)
    }

    /// Makes `Location` absolute by the scheme and the host that a proxy says in
    /// `Forwarded` (RFC 7239), for the requests that come from one that is trusted: by
    /// its address, for example, or a secret that it adds. Of several elements the last
    /// counts, which is the nearest proxy's. A host without a scheme has the scheme of the
    /// [base URL](Self::public_url). Where no host is said, or none that can be one, and for
    /// the path, the base URL is as it was set.
    ///
    /// To trust everybody is to let clients choose where others are sent.
    pub fn trust_forwarded(self, trusted: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        let (by, trusted) = (ForwardingHeader::Standard, Arc::new(trusted));
        self.with(|policy| policy.locator.set_trusted(by, trusted))
    }

    /// The same for a proxy that says it in `X-Forwarded-Proto` and `X-Forwarded-Host`.
    /// One of the two can be trusted, not both: a client may send the other.
    pub fn trust_x_forwarded(
        self,
        trusted: impl Fn(&Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (by, trusted) = (ForwardingHeader::Older, Arc::new(trusted));
        self.with(|policy| policy.locator.set_trusted(by, trusted))
    }

    /// `Location` as a function of the request and the id. White space around
    /// it is left out; an empty one is no `Location`.
    ///
    /// The parts have the request's extensions, for example axum's
    /// `OriginalUri`. Do not build it from an untrusted `Host`.
    pub fn location(
        self,
        location: impl Fn(&Parts, &OperationId) -> String + Send + Sync + 'static,
    ) -> Self {
        self.with(|policy| policy.locator.set_hook(Arc::new(location)))
    }

    /// When clients are asked to come back; by default
    /// [`AdaptiveRetryAfter`](crate::dialect::AdaptiveRetryAfter). It also goes
    /// with a 503.
    pub fn retry_after(self, retry_after: impl RetryAfter) -> Self {
        self.with(|policy| policy.retry_after = Arc::new(retry_after))
    }

    /// How answers are worded; by default [`Plain`](crate::dialect::Plain).
    pub fn dialect(self, dialect: impl Dialect) -> Self {
        self.with(|policy| policy.dialect = Arc::new(dialect))
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
