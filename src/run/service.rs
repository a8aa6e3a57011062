use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    AcceptedRequest, AdmissionError, Drain, Hook, QueuedRequest, Readiness, Run, RunLimits,
    Runtime, TerminalHook, operate,
};
use crate::{
    BoxError,
    operation::{BufferedBody, RecordedResponse, State},
    results::{ResultStorage, ResultStore},
    store::{Lease, LeaseConfig, StoreError, Written},
};

/// A service that runs accepted requests and records their outcomes.
///
/// The layer runs its requests by itself. Use this service for accepted requests that come from
/// elsewhere, for example from your own queue. The future is ready once the outcome is recorded;
/// acknowledge the delivery then. If the future is dropped before, the operation is left to the
/// node that reclaims its lease.
///
/// A request that is delivered twice runs once at a time: the second delivery is
/// [`RunOutcome::Refused`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http::{Request, Response};
/// use tower::{ServiceExt, service_fn};
/// use tower_operations::{
///     AcceptedRequest, MemoryStore, OperationId, RunOutcome, RunService, State, BufferedBody,
///     store::{Created, NewOperation, Repository},
/// };
///
/// let app = service_fn(|_: Request<BufferedBody>| async {
///     Ok::<_, std::convert::Infallible>(Response::new(BufferedBody::from("done")))
/// });
/// let store = MemoryStore::new();
/// let Created::New(record) = store.create(NewOperation::new(OperationId::new())).await? else {
///     unreachable!("the id is new");
/// };
///
/// let request = Request::post("/reports").body(BufferedBody::default())?;
/// let ran = RunService::new(store, app)
///     .oneshot(AcceptedRequest::new(&record, request))
///     .await?;
/// assert_eq!(ran, RunOutcome::Recorded(State::Succeeded));
/// # Ok(())
/// # }
/// ```
pub struct RunService<S, R> {
    inner: S,
    node: Arc<Runtime<R>>,
    limits: RunLimits,
}

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunOutcome {
    /// The outcome of the operation is recorded.
    Recorded(State),
    /// Another node ended the operation, or holds it. Nothing remains to be done.
    Refused,
}

impl<S, R> RunService<S, R> {
    /// Creates a service that runs requests through `inner` and records outcomes in `store`.
    #[must_use]
    pub fn new(store: R, inner: S) -> Self {
        Self {
            inner,
            node: Arc::new(Runtime::new(store)),
            limits: RunLimits::default(),
        }
    }

    /// Returns the handle that drains this service and its clones. All handles of a service
    /// share one drain.
    #[must_use]
    pub fn drain_handle(&self) -> Drain {
        Drain::new(Arc::clone(&self.node.in_flight))
    }

    /// Returns the lease that this service renews while it runs. A run learns of the
    /// cancellation of its operation at once if the operation was created with this lease,
    /// otherwise within a third of the term.
    #[must_use]
    pub fn lease_config(&self) -> LeaseConfig {
        self.node.lease().clone()
    }

    /// Sets the lease of this service; a term of 30 seconds and a random node name by default.
    /// The name must differ from that of every other node, and of every earlier start of this
    /// node. The term is at least 100 milliseconds.
    ///
    /// # Panics
    /// Panics if the service was cloned before.
    #[must_use]
    pub fn lease(mut self, lease: LeaseConfig) -> Self {
        Arc::get_mut(&mut self.node)
            .expect("the lease is set before the service is cloned")
            .set_lease(lease);
        self
    }

    /// Sets how long a request may wait for the inner service to be ready; 1 hour by default,
    /// at most 30 days.
    #[must_use]
    pub fn pending_timeout(mut self, limit: Duration) -> Self {
        self.limits.set_pending(limit);
        self
    }

    /// Sets how long the inner service may take, its response body included; 1 hour by
    /// default, at most 30 days.
    #[must_use]
    pub fn running_timeout(mut self, limit: Duration) -> Self {
        self.limits.set_running(limit);
        self
    }

    /// Sets how long the inner service may continue after its operation was canceled, or at the
    /// end of a [drain](Drain::drain), to clean up, before it is dropped; half a second by
    /// default.
    #[must_use]
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.limits.set_grace(grace);
        self
    }

    /// Sets how many bytes of request bodies and results may be in memory at a time; 256 MiB by
    /// default. A message whose body has no room beside the others is not claimed, and the error
    /// says that another node may take it.
    /// [`Operations::max_bytes_in_flight`](crate::Operations::max_bytes_in_flight) says what counts.
    ///
    /// # Panics
    /// Panics if the service was cloned before.
    #[must_use]
    pub fn max_bytes_in_flight(mut self, bytes: usize) -> Self {
        let node = Arc::get_mut(&mut self.node);
        let node = node.expect("the bound is set before the service is cloned");
        node.in_flight.bytes().set_max(bytes);
        self
    }

    /// Sets the store for long results, and for the bodies of long requests, as
    /// [`Operations::result_store`](crate::Operations::result_store) does for the other nodes. A
    /// message whose body is in a result store is an error for a service without one.
    ///
    /// # Panics
    /// Panics if the service was cloned before.
    #[must_use]
    pub fn result_store(mut self, results: impl ResultStore) -> Self {
        let node = Arc::get_mut(&mut self.node);
        let node = node.expect("the result store is set before the service is cloned");
        node.results = Some(ResultStorage::new(results));
        self
    }

    /// Sets the greatest length in bytes of a response body that is recorded in the store of the
    /// operations; 256 KiB by default. A longer one goes to the [result store](Self::result_store).
    ///
    /// # Panics
    /// Panics if there is no result store, or if the service was cloned before.
    #[must_use]
    pub fn result_threshold(mut self, bytes: u64) -> Self {
        let node = Arc::get_mut(&mut self.node);
        let node = node.expect("the threshold is set before the service is cloned");
        let results = node.results.as_mut();
        let results = results.expect("the result store is set before its threshold");
        results.threshold = bytes;
        self
    }

    /// Sets the hook that is called when an operation has ended on this node, as
    /// [`Operations::on_terminal`](crate::Operations::on_terminal) does.
    ///
    /// # Panics
    /// Panics if the service was cloned before.
    #[must_use]
    pub fn on_terminal(mut self, hook: impl TerminalHook) -> Self {
        let node = Arc::get_mut(&mut self.node);
        let node = node.expect("the hook is set before the service is cloned");
        node.hook = Some(Hook::new(hook));
        self
    }

    /// Sets the largest response body that is recorded, in bytes; by default 8 MiB, and no limit with
    /// a [result store](Self::result_store).
    #[must_use]
    pub fn result_limit(mut self, bytes: u64) -> Self {
        self.limits.result = Some(bytes);
        self
    }
}

impl<S, B, R> Service<AcceptedRequest> for RunService<S, R>
where
    S: Service<Request<BufferedBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
    R: Lease<Output = RecordedResponse>,
{
    type Response = RunOutcome;
    /// The error of a run without a recorded outcome: the store did not answer until the node
    /// was abandoned, or the node is shutting down and did not begin. Give the request to
    /// another node.
    type Error = StoreError;
    type Future = RunFuture;

    /// Returns `Ready` always. The future awaits the readiness of the inner service, while the
    /// operation is pending.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, accepted: AcceptedRequest) -> RunFuture {
        let node = Arc::clone(&self.node);
        if node.in_flight.closed().is_cancelled() {
            let closed = StoreError::unavailable("this node is shutting down");
            return RunFuture(Box::pin(std::future::ready(Err(closed))));
        }
        RunFuture(operate(
            node,
            self.limits,
            self.inner.clone(),
            Readiness::Unknown,
            accepted,
        ))
    }
}

/// Runs a request that comes through a queue. The operation is claimed first, so a message runs
/// once, whatever the queue does. A worker that dies after its claim leaves the operation to the
/// node that reclaims its lease.
impl<S, B, R> Service<QueuedRequest> for RunService<S, R>
where
    S: Service<Request<BufferedBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
    R: Lease<Output = RecordedResponse>,
{
    type Response = RunOutcome;
    /// The error of a run without a recorded outcome, as for an [`AcceptedRequest`]: the message
    /// has to be delivered again.
    type Error = StoreError;
    type Future = RunFuture;

    /// Returns `Ready` always.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, queued: QueuedRequest) -> RunFuture {
        let Self {
            inner,
            node,
            limits,
        } = self.clone();
        RunFuture(Box::pin(async move {
            // Admitted before the claim: a drain waits for admitted requests, and releases
            // what was claimed meanwhile.
            let admitted = node.in_flight.admit().map_err(|refused| match refused {
                AdmissionError::Closed => StoreError::unavailable("this node is shutting down"),
                AdmissionError::Full | AdmissionError::FullForOwner => {
                    StoreError::unavailable("this node is at its bound on requests in flight")
                }
            })?;
            match claim(&node, queued).await? {
                Some(accepted) => {
                    let accepted = accepted.admitted(admitted);
                    operate(node, limits, inner, Readiness::Unknown, accepted).await
                }
                None => Ok(RunOutcome::Refused),
            }
        }))
    }
}

/// Claims the operation of a message for this node. Returns `None` if the operation has ended,
/// or is claimed by another node.
async fn claim<R>(
    node: &Runtime<R>,
    queued: QueuedRequest,
) -> Result<Option<AcceptedRequest>, StoreError>
where
    R: Lease<Output = RecordedResponse>,
{
    let mut stored = queued.request().map_err(StoreError::refused)?;
    let length = stored.body_length();
    if stored.reference.is_some() && node.results.is_none() {
        return Err(StoreError::refused(
            "the body of the request is in a result store, and this node has none",
        ));
    }
    if node.in_flight.bytes().fits(length, None).is_err() {
        return Err(StoreError::unavailable(
            "this node is at its bound on bytes in flight",
        ));
    }
    stored.count_in(node.in_flight.bytes());
    let held = queued.lease_handle().clone();
    drop(queued);
    // If the answer is lost, this node holds the operation under a token that it does not know.
    // The lease expires, and a recovery reclaims the operation.
    crash_point!("claiming");
    let claimed = node.store.claim(node.lease(), &held).await?;
    crash_point!("claimed");
    let record = match claimed {
        Written::Done(record) => record,
        Written::Lost(_) | Written::Gone => return Ok(None),
    };
    if let Some(owner) = record.owner() {
        stored.request.extensions_mut().insert(owner.clone());
    }
    // The dispatching node keeps the request. Only that node knows how often the operation may
    // be started: it dispatches the request again if this worker releases the operation, or ends
    // the operation.
    node.allow_reruns(u32::MAX);
    Ok(Some(AcceptedRequest::again(&record, stored)))
}

/// The future of [`RunService`].
#[must_use = "futures do nothing unless polled"]
pub struct RunFuture(Run);

impl Future for RunFuture {
    type Output = Result<RunOutcome, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<S: Clone, R> Clone for RunService<S, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            node: Arc::clone(&self.node),
            limits: self.limits,
        }
    }
}

impl<S, R> fmt::Debug for RunService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunService")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RunFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunFuture").finish_non_exhaustive()
    }
}
