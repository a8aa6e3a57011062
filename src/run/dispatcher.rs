//! Dispatching accepted requests, for the first time and again.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    AdmissionPermit, Dispatch, QueuedRequest, Runtime, afterwards, catch_panic::CatchPanic,
    dispatch::DynDispatch, retry_until_certain, runtime::SHORTEST,
};
use crate::{
    BoxError, environment,
    operation::{FailureKind, Outcome, RecordedResponse},
    store::{Lease, LeaseHandle, Record, Written},
};

/// The queue that a node dispatches requests to.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    to: Arc<dyn DynDispatch>,
    /// The time within which a worker must claim a request before the request counts as
    /// lost.
    pub(crate) patience: Duration,
}

impl Dispatcher {
    pub(crate) fn to(dispatch: impl Dispatch) -> Self {
        Self {
            patience: dispatch.claimed_within().max(SHORTEST),
            to: Arc::new(dispatch),
        }
    }

    /// Puts a request into the queue, or returns the reason for a failure.
    async fn queue(
        &self,
        record: &Record<RecordedResponse>,
        stored: Bytes,
        at_most: Duration,
    ) -> Result<(), BoxError> {
        let queued = QueuedRequest::from_record(record, stored);
        // Panics are caught, since this is code of the application.
        let dispatch = CatchPanic::new(async { self.to.dispatch(queued).await });
        match timeout(at_most, dispatch).await {
            Ok(Ok(dispatched)) => dispatched,
            Ok(Err(panicked)) => {
                panicked.forget();
                Err("the queue panicked".into())
            }
            Err(_) => Err("the engine did not answer in time".into()),
        }
    }

    /// Puts the request of a reclaimed operation into the queue again.
    pub(super) async fn dispatch_again<R>(
        &self,
        node: &Runtime<R>,
        record: &Record<RecordedResponse>,
        stored: Bytes,
    ) where
        R: Lease<Output = RecordedResponse>,
    {
        let held = [lease_handle(record)];
        let mut lease = node.lease().clone();
        let dispatched = async {
            self.queue(record, stored, lease.term / 3).await?;
            // The lease is extended only once the request is queued: until then the next look
            // may reclaim the operation.
            lease.term = self.patience;
            node.store.renew(&lease, &held).await?;
            Ok::<_, BoxError>(())
        };
        if let Err(error) = dispatched.await {
            let (id, error) = (&held[0].id, &*error as &dyn std::error::Error);
            tracing::warn!(%id, error, "operation not redispatched, retrying");
        }
    }
}

fn lease_handle(record: &Record<RecordedResponse>) -> LeaseHandle {
    LeaseHandle {
        id: record.operation().id().clone(),
        token: record.token(),
    }
}

/// An accepted request on its way into the queue.
pub(crate) struct DispatchRequest<'a, R> {
    pub(crate) node: &'a Arc<Runtime<R>>,
    /// The record of the operation, which this node holds.
    pub(crate) record: Record<RecordedResponse>,
    /// The stored form of the request, if it is stored.
    pub(crate) stored: Option<Bytes>,
    /// The place in flight, kept until the result is certain.
    pub(crate) admitted: AdmissionPermit,
    /// Whether a repetition of the request finds the same operation.
    pub(crate) may_come_again: bool,
    /// The time within which it must be certain that the request is queued.
    pub(crate) at_most: Duration,
}

impl Dispatcher {
    /// Puts the request into the queue, and tells whether it will be run. If that does not
    /// succeed in time, the operation is ended, since no worker will run it. In two cases the
    /// operation is left to a recovery instead, if one runs: where a repetition by the client
    /// would find the operation, and where the time of a drain is over first.
    pub(crate) async fn dispatch<R>(&self, request: DispatchRequest<'_, R>, tell: impl FnOnce(bool))
    where
        R: Lease<Output = RecordedResponse>,
    {
        let DispatchRequest {
            node,
            record,
            stored,
            admitted,
            may_come_again,
            at_most,
        } = request;
        crash_point!("dispatching");
        let is_kept = stored.is_some();
        let dispatched = match stored {
            Some(stored) => tokio::select! {
                biased;
                dispatched = self.queue(&record, stored, at_most) => dispatched,
                () = node.in_flight.over().cancelled() => Err("the drain reached its deadline".into()),
            },
            None => Err("the request is too large to be stored".into()),
        };
        let Err(error) = dispatched else {
            crash_point!("dispatched");
            return tell(true);
        };
        let id = record.operation().id();
        tracing::error!(%id, error = &*error as &dyn std::error::Error, "operation not dispatched");
        drop(error);
        // At the end of a drain another node dispatches the operation, whether or not its
        // client repeats the request.
        let is_over = node.in_flight.is_interrupting();
        let admitted = Arc::new(admitted);
        if (may_come_again || (is_over && is_kept)) && node.reruns() {
            tell(true);
            if is_over {
                node.in_flight.left_to_others(id);
            }
            leave(node, &record, at_most).await;
            if is_over {
                node.in_flight.has_left();
            }
        } else {
            let has_ended = end(node, &record, &admitted, at_most).await;
            if has_ended && is_over {
                node.in_flight.refused();
            }
            tell(!has_ended);
        }
    }
}

/// Leaves an operation to the recovery: at once if the store confirms the release in time,
/// otherwise once the lease has expired.
async fn leave<R>(node: &Runtime<R>, record: &Record<RecordedResponse>, at_most: Duration)
where
    R: Lease<Output = RecordedResponse>,
{
    let held = [lease_handle(record)];
    let released = tokio::select! {
        biased;
        released = timeout(at_most, node.store.release(&held)) => matches!(released, Ok(Ok(()))),
        () = node.in_flight.abandoned().cancelled() => false,
    };
    if !released {
        tracing::warn!(id = %held[0].id, "operation not released, redispatched after its lease expires");
    }
}

/// Ends an operation that no worker will run. Returns false if a worker has claimed it: the
/// engine had the request after all.
async fn end<R>(
    node: &Arc<Runtime<R>>,
    record: &Record<RecordedResponse>,
    admitted: &Arc<AdmissionPermit>,
    at_most: Duration,
) -> bool
where
    R: Lease<Output = RecordedResponse>,
{
    let (held, node) = (lease_handle(record), Arc::clone(node));
    // The place in flight is kept until the operation is ended, even if its client is answered
    // earlier.
    let until_ended = Arc::clone(admitted);
    let ending = environment::spawn(async move {
        let ended = retry_until_certain(&node, Some(&held.id), || {
            let outcome = Outcome::failed(FailureKind::NotDispatched);
            node.store.finish(&held.id, held.token, outcome, None)
        });
        // If the store never answers, the lease expires.
        let ended = afterwards(&node.in_flight, until_ended, ended).await.ok();
        // The client may have been answered meanwhile.
        if let Some(Written::Done(record)) = &ended {
            node.ended(record);
        }
        ended
    });
    match timeout(at_most, ending).await {
        // The operation is lost to a worker, or an earlier try has ended it.
        Ok(Ok(Some(Written::Lost(record)))) => record.was_not_dispatched(),
        _ => true,
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}
