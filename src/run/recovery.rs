//! Taking over what a dead node has left behind.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{BoxError, Service};
use tracing::Instrument;

use super::{
    AcceptedRequest, Node, RunLimits, Work, catch_panic::CatchPanic, heartbeat, operate,
    record::record as record_outcome, stored_request,
};
use crate::{
    operation::{FailureKind, OperationId, Outcome, RecordedResponse, WholeBody},
    store::{Lease, Record, StoreError, TakenOver},
};

/// Ends, or runs again, what nodes have left behind that died.
///
/// It is made by [`AsyncAcceptLayer::recovery`](crate::AsyncAcceptLayer::recovery)
/// and has to be spawned by every application whose store outlives it: without one
/// that runs somewhere, an operation whose node has died stays as it was.
///
/// An operation is left behind when its lease was not renewed for the lease's term.
/// Whoever finds it takes it over, under a higher fencing token, so that the holder
/// can write no more, should it still be there. Then the operation fails as
/// `interrupted`, or is [run again](Self::run_again).
///
/// Nothing is taken over until the store has been reachable from here for the term
/// of a lease, so that an outage of the store does not interrupt everything.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use axum::{Router, routing::put};
/// use tower_operations::{AsyncAcceptLayer, MemoryStore, PollService};
///
/// async fn render() -> &'static str { "done" }
///
/// let store = MemoryStore::new(); // one that outlives the process, in earnest
/// let layer = AsyncAcceptLayer::new(store.clone())
///     .may_run_again(|parts| parts.method == http::Method::PUT);
/// let recovery = layer.recovery();
/// let app: Router = Router::new()
///     .route("/reports", put(render).route_layer(layer))
///     .nest_service("/operations", PollService::new(store));
/// tokio::spawn(recovery.run_again(app.clone(), 3).run());
/// # }
/// ```
#[must_use = "nothing is recovered until it runs"]
pub struct Recovery<R> {
    node: Arc<Node<R>>,
    limits: RunLimits,
    interval: Duration,
    again: Option<RunAgain<R>>,
}

/// How what was left behind is run again.
struct RunAgain<R> {
    attempts: u32,
    /// Sets a request going, in a task of its own.
    go: Box<Go<R>>,
}

type Go<R> = dyn FnMut(Arc<Node<R>>, RunLimits, AcceptedRequest) + Send;

/// So many operations are taken over at a time.
const BATCH: usize = 64;

impl<R: Lease<Output = RecordedResponse>> Recovery<R> {
    pub(crate) fn new(node: Arc<Node<R>>, limits: RunLimits) -> Self {
        let interval = node.lease().term / 3;
        Self {
            node,
            limits,
            interval,
            again: None,
        }
    }

    /// Runs again what [may be](crate::AsyncAcceptLayer::may_run_again), through
    /// `app`, which is the whole application: it has to find its way to the handler
    /// from the request alone. An operation is started `attempts` times at the most,
    /// on whichever nodes; after that it fails as `attempts-exhausted`. What may not
    /// be run again fails as `interrupted`.
    ///
    /// The request comes without the credentials that were not kept. In its
    /// extensions are the [`OperationHandle`](crate::OperationHandle), which knows
    /// the attempt, and the [`Owner`](crate::store::Owner), if there is one.
    pub fn run_again<S, B>(self, app: S, attempts: u32) -> Self
    where
        S: Service<Request<WholeBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError> + Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        self.node.runs_again.store(true, SeqCst);
        let go = move |node, limits, accepted| {
            // Boxed once: on its way into a task a future is moved many times.
            tokio::spawn(Box::pin(operate(node, limits, app.clone(), accepted)));
        };
        Self {
            again: Some(RunAgain {
                attempts,
                go: Box::new(go),
            }),
            ..self
        }
    }

    /// How often it looks; a third of the lease's term by default.
    pub fn every(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Looks after what was left behind, until the layer is
    /// [drained](crate::Drain).
    pub async fn run(mut self) {
        let closed = self.node.in_flight.closed().clone();
        let watch = async {
            let mut reachable = None;
            loop {
                // A store that panics is a store that is unavailable.
                let looked = CatchPanic::new(self.look(&mut reachable)).await;
                if let Err(panicked) = looked {
                    panicked.forget();
                }
                sleep(self.interval).await;
            }
        };
        tokio::select! {
            () = watch => {}
            () = closed.cancelled() => {}
        }
    }

    /// Looks once; `reachable` is since when the store has been.
    async fn look(&mut self, reachable: &mut Option<Instant>) {
        let term = self.node.lease().term;
        // Whatever becomes of this look, if it does not end well.
        let before = reachable.take();
        let nobody = OperationId::new();
        if !matches!(
            timeout(term / 3, self.node.store.get(&nobody)).await,
            Ok(Ok(None))
        ) {
            return;
        }
        let since = before.unwrap_or_else(Instant::now);
        if since.elapsed() < term {
            *reachable = Some(since);
            return;
        }
        // What this node itself was too slow to renew is not for others.
        heartbeat::renew(&self.node, &self.node.in_flight.held()).await;
        loop {
            let limit = match &self.again {
                Some(_) => self.node.in_flight.room().min(BATCH),
                None => BATCH,
            };
            match self.take_over(limit).await {
                Ok(taken) if taken < limit || limit == 0 => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = error.chain(), "nothing could be taken over");
                    return;
                }
            }
        }
        *reachable = Some(since);
    }

    async fn take_over(&mut self, limit: usize) -> Result<usize, StoreError> {
        let lease = self.node.lease();
        crash_point!("taking-over");
        let taking = self.node.store.take_over(lease, limit);
        let taken = timeout(lease.term / 3, taking)
            .await
            .unwrap_or_else(|_| Err(StoreError::unavailable("it did not answer in time")))?;
        let count = taken.len();
        if count > 0 {
            crash_point!("taken-over");
        }
        let mut ending = JoinSet::new();
        for taken in taken {
            let id = taken.record.operation().id();
            tracing::warn!(%id, attempts = taken.record.attempts(), "taken over");
            let record = Arc::clone(&taken.record);
            if let Err(kind) = self.go_on(taken) {
                ending.spawn(end(Arc::clone(&self.node), record, kind).in_current_span());
            }
        }
        while ending.join_next().await.is_some() {}
        Ok(count)
    }

    /// Runs it again, or says how it fails.
    fn go_on(&mut self, taken: TakenOver<RecordedResponse>) -> Result<(), FailureKind> {
        let TakenOver { record, request } = taken;
        let (Some(again), Some(request)) = (&mut self.again, request) else {
            return Err(FailureKind::Interrupted);
        };
        if record.attempts() >= again.attempts {
            return Err(FailureKind::AttemptsExhausted);
        }
        let mut request = stored_request::restore(&request).map_err(|error| {
            let id = record.operation().id();
            tracing::error!(%id, error, "a stored request cannot be read");
            FailureKind::Interrupted
        })?;
        if let Some(owner) = record.owner() {
            request.extensions_mut().insert(owner.clone());
        }
        let accepted = AcceptedRequest::kept(&record, request, true)
            .admitted(self.node.in_flight.admit_anyway());
        crash_point!("running-again");
        (again.go)(Arc::clone(&self.node), self.limits, accepted);
        Ok(())
    }
}

/// Ends an operation that was taken over.
async fn end<R>(node: Arc<Node<R>>, record: Arc<Record<RecordedResponse>>, kind: FailureKind)
where
    R: Lease<Output = RecordedResponse>,
{
    let id = record.operation().id().clone();
    let work = Arc::new(Work::new(id, record.token(), record.attempts()));
    let _admitted = node.in_flight.admit_anyway();
    // Its lease is renewed until that is recorded.
    let Some(_entered) = node.in_flight.enter(Arc::clone(&work)) else {
        return;
    };
    heartbeat::ensure(&node);
    // An error was logged where it happened.
    let _ = record_outcome(&node, &work, Outcome::failed(kind)).await;
}

impl<R> fmt::Debug for Recovery<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovery")
            .field("interval", &self.interval)
            .field("attempts", &self.again.as_ref().map(|again| again.attempts))
            .finish_non_exhaustive()
    }
}
