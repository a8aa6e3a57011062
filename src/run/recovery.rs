//! Reclaiming the operations of dead nodes.

mod looks;

mod ending;
mod reachability;
mod reclaimer;
mod stats;
mod sweep;
mod upkeep;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

pub use self::stats::RecoveryStats;
use self::{
    ending::EndingSlots,
    looks::RecoveryLooks,
    reclaimer::{Reclaimer, Rerun},
};
use super::{AcceptedRequest, Readiness, RunLimits, Runtime, operate, stored_request};
use crate::{
    BoxError, environment,
    operation::{BufferedBody, FailureKind, RecordedResponse},
    store::{Lease, Record},
};

/// The task that ends or reruns the operations of nodes that died.
///
/// The task is created by [`Operations::recovery`](crate::Operations::recovery). Every
/// application whose store outlives the process has to spawn it. Without a recovery, an
/// operation whose node has died stays pending or running.
///
/// An operation is left behind when its lease was not renewed for the lease's term. Recovery
/// reclaims the operation under a higher fencing token, so that a former holder that still lives
/// cannot write any more. Then the operation fails as `interrupted`, or is
/// [rerun](Self::rerun_with).
///
/// An operation that was [released](Lease::release) by a drained node, or held by a process that
/// certainly does not exist any more, is reclaimed at once. A node that is only silent may live
/// behind an outage of the store: an expired lease is not reclaimed until the store has been
/// reachable from here for the term of a lease.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use axum::{Router, routing::put};
/// use tower_operations::{MemoryStore, Operations};
///
/// async fn render() -> &'static str { "done" }
///
/// let operations = Operations::new(MemoryStore::new()); // in earnest, a store that lasts
/// let layer = operations.layer()
///     .rerun_if(|parts| parts.method == http::Method::PUT);
/// let app: Router = Router::new()
///     .route("/reports", put(render).route_layer(layer))
///     .nest_service("/operations", operations.poll_service());
/// tokio::spawn(operations.recovery().rerun_with(app.clone(), 3).run());
/// # }
/// ```
#[must_use = "nothing is recovered until it runs"]
pub struct Recovery<R> {
    node: Arc<Runtime<R>>,
    limits: RunLimits,
    interval: Duration,
    again: Option<Rerun<R>>,
    purges: bool,
    stats: RecoveryStats,
}

impl<R: Lease<Output = RecordedResponse>> Recovery<R> {
    pub(crate) fn new(node: Arc<Runtime<R>>, limits: RunLimits) -> Self {
        let interval = node.lease().term / 3;
        Self {
            node,
            limits,
            interval,
            again: None,
            purges: true,
            stats: RecoveryStats::default(),
        }
    }

    /// Reruns the requests that [may be rerun](crate::AsyncAcceptLayer::rerun_if) through `app`.
    /// `app` is the whole application: it has to find the handler from the request alone. An
    /// operation is started at most `attempts` times, on all nodes together; after that it fails
    /// as `attempts-exhausted`. A drain interrupts an operation that was started that often. A
    /// request that may not be rerun fails as `interrupted`.
    ///
    /// The request comes without the credentials that were not stored. Its extensions have the
    /// [`OperationHandle`](crate::OperationHandle), which returns the number of the attempt, and
    /// the [`Owner`](crate::store::Owner), if there is one.
    pub fn rerun_with<S, B>(self, app: S, attempts: u32) -> Self
    where
        S: Service<Request<BufferedBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError> + Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        self.node.allow_reruns(attempts);
        let go = move |node: Arc<Runtime<R>>, limits, record: Record<_>, request: Bytes| {
            let Some(accepted) = restored(&node, &record, &request)? else {
                return Ok(false);
            };
            let app = app.clone();
            environment::spawn(operate(node, limits, app, Readiness::Unknown, accepted));
            Ok(true)
        };
        Self {
            again: Some(Rerun {
                attempts,
                // A drained node releases only operations with attempts left. The last attempt
                // of an operation without attempts therefore died with its process.
                given_up: FailureKind::AttemptsExhausted,
                go: Box::new(Mutex::new(go)),
            }),
            ..self
        }
    }

    /// Dispatches requests again that no worker has claimed in time, or whose worker has
    /// died.
    pub(crate) fn dispatch_again(self, attempts: u32) -> Self {
        self.node.allow_reruns(attempts);
        let go = |node: Arc<Runtime<R>>,
                  limits: RunLimits,
                  record: Record<RecordedResponse>,
                  request| {
            if is_late(&record, &limits) {
                return Err(FailureKind::TimedOut);
            }
            let admitted = node.in_flight.admit_anyway();
            environment::spawn(async move {
                let _admitted = admitted;
                if let Some(dispatcher) = &node.dispatcher {
                    dispatcher.dispatch_again(&node, &record, request).await;
                }
            });
            Ok(true)
        };
        Self {
            again: Some(Rerun {
                attempts,
                // A drained worker does not know how often the operation may be started, so the
                // last attempt may have been interrupted by a drain.
                given_up: FailureKind::Interrupted,
                go: Box::new(Mutex::new(go)),
            }),
            ..self
        }
    }

    /// Sets the interval at which recovery looks for expired leases; a third of the lease's term
    /// by default. Released operations are reclaimed as soon as the store [notifies of
    /// them](Lease::released), and at least every quarter of a term.
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Leaves the deletion of expired operations to the application, by
    /// [`Purge::purge`](crate::store::Purge::purge). By default recovery deletes expired
    /// operations once a term, 500 at a time, from stores that do not delete them by themselves:
    /// PostgreSQL and redb.
    pub fn without_purge(self) -> Self {
        Self {
            purges: false,
            ..self
        }
    }

    /// Returns counters that can be read while recovery runs.
    #[must_use]
    pub fn stats(&self) -> RecoveryStats {
        self.stats.clone()
    }

    /// Runs until the operations are [drained](crate::Drain). Operations that are reclaimed
    /// while the node closes are released again.
    pub async fn run(self) {
        let Self {
            node,
            limits,
            interval,
            again,
            purges,
            stats,
        } = self;
        let closed = node.in_flight.closed().clone();
        let upkeep = async {
            let purge = async {
                if purges {
                    upkeep::purge(&node, &stats).await;
                }
            };
            tokio::join!(
                purge,
                upkeep::look_after(&node, &stats),
                sweep::sweep(&node, &stats)
            );
        };
        let looks = RecoveryLooks {
            taker: Arc::new(Reclaimer {
                node: Arc::clone(&node),
                limits,
                again,
                ending: EndingSlots::new(),
                stats: stats.clone(),
            }),
            interval,
        };
        tokio::select! {
            biased;
            () = looks.run() => {}
            () = upkeep => {}
            () = closed.cancelled() => {}
        }
    }
}

/// Returns whether an operation has waited for a worker for too long. An operation that was
/// never started waits since its creation. A started one waits since its last start, and has the
/// running time of that worker in addition.
fn is_late(record: &Record<RecordedResponse>, limits: &RunLimits) -> bool {
    let metadata = record.operation().metadata();
    let (since, limit) = match record.attempts() {
        0 => (metadata.created_at(), limits.pending),
        _ => (metadata.updated_at(), limits.pending + limits.running),
    };
    let age = since.and_then(|since| environment::wall_clock().duration_since(since).ok());
    age.is_some_and(|age| age > limit)
}

/// Restores the request of a reclaimed operation, admitted on this node. Returns `None` if this node
/// has no result store to read the request from, or no room for it in memory: a recovery reclaims the
/// operation again once the lease of this node has expired.
fn restored<R>(
    node: &Runtime<R>,
    record: &Record<RecordedResponse>,
    request: &Bytes,
) -> Result<Option<AcceptedRequest>, FailureKind> {
    let mut stored = stored_request::restore(request).map_err(|error| {
        let id = record.operation().id();
        tracing::error!(%id, error, "stored request not read, operation failed");
        FailureKind::RequestUnreadable
    })?;
    if stored.reference.is_some() && node.results.is_none() {
        let id = record.operation().id();
        tracing::error!(%id, "request in a result store that this node lacks, operation left to others");
        return Ok(None);
    }
    // A body that is in the record is in memory already.
    let length = stored.body_length();
    if stored.reference.is_some() && node.in_flight.bytes().fits(length, None).is_err() {
        let id = record.operation().id();
        tracing::warn!(%id, length, "no room for the request, operation left to others");
        return Ok(None);
    }
    if let Some(owner) = record.owner() {
        stored.request.extensions_mut().insert(owner.clone());
    }
    stored.count_in(node.in_flight.bytes());
    let accepted = AcceptedRequest::again(record, stored);
    Ok(Some(accepted.admitted(node.in_flight.admit_anyway())))
}

impl<R> fmt::Debug for Recovery<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovery")
            .field("interval", &self.interval)
            .field("attempts", &self.again.as_ref().map(|again| again.attempts))
            .finish_non_exhaustive()
    }
}
