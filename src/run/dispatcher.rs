//! Sending accepted requests off, and again.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;
use tower::BoxError;

use super::{
    AdmissionPermit, Dispatch, Leaving, QueuedRequest, Runtime, Take, Taken, afterwards,
    catch_panic::CatchPanic, dispatch::DynDispatch, log_end, retry_until_certain,
    runtime::SHORTEST,
};
use crate::{
    operation::{FailureKind, Outcome, RecordedResponse},
    store::{Lease, LeaseHandle, Record, Written},
};

/// Where a node hands requests off to.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    to: Arc<dyn DynDispatch>,
    /// How long a request may be on its way before it counts as lost.
    pub(crate) patience: Duration,
}

impl Dispatcher {
    pub(crate) fn to(dispatch: impl Dispatch) -> Self {
        Self {
            patience: dispatch.claimed_within().max(SHORTEST),
            to: Arc::new(dispatch),
        }
    }

    /// Puts a request into the queue, or says why not.
    async fn dispatch(
        &self,
        record: &Record<RecordedResponse>,
        stored: Bytes,
        at_most: Duration,
    ) -> Result<(), BoxError> {
        let queued = QueuedRequest::of(record, stored);
        // It is code of the application.
        let dispatch = CatchPanic::new(async { self.to.dispatch(queued).await });
        match timeout(at_most, dispatch).await {
            Ok(Ok(dispatched)) => dispatched,
            Ok(Err(panicked)) => {
                panicked.forget();
                Err("it panicked".into())
            }
            Err(_) => Err("the engine did not answer in time".into()),
        }
    }

    /// Puts the request of an operation that was taken over into the queue again.
    pub(super) async fn dispatch_again<R>(
        &self,
        node: &Runtime<R>,
        record: &Record<RecordedResponse>,
        stored: Bytes,
    ) where
        R: Lease<Output = RecordedResponse>,
    {
        let held = [held(record)];
        let mut lease = node.lease().clone();
        let dispatched = async {
            self.dispatch(record, stored, lease.term / 3).await?;
            // Not before it is on its way: until then it is for whoever looks next.
            lease.term = self.patience;
            node.store.renew(&lease, &held).await?;
            Ok::<_, BoxError>(())
        };
        if let Err(error) = dispatched.await {
            let (id, error) = (&held[0].id, &*error as &dyn std::error::Error);
            tracing::warn!(%id, error, "operation not dispatched again yet");
        }
    }
}

fn held(record: &Record<RecordedResponse>) -> LeaseHandle {
    LeaseHandle {
        id: record.operation().id().clone(),
        token: record.token(),
    }
}

impl<S, R> Take<S, R> for Dispatcher
where
    S: Send,
    R: Lease<Output = RecordedResponse>,
{
    /// Puts it into the queue. If that cannot be done in time the operation is ended,
    /// since nobody will do its work; or left to the recovery, if there is one and the
    /// client, when it comes again, will find this operation. It is left to the recovery
    /// too when the time of a drain is over first.
    async fn take(&self, leaving: Leaving<S, R>, tell: impl FnOnce(Taken) + Send) {
        let Leaving {
            node,
            record,
            stored,
            // In flight until it is certain.
            admitted,
            may_come_again,
            at_most,
            ..
        } = leaving;
        crash_point!("dispatching");
        let is_kept = stored.is_some();
        let dispatched = match stored {
            Some(stored) => tokio::select! {
                biased;
                dispatched = self.dispatch(&record, stored, at_most) => dispatched,
                () = node.in_flight.over().cancelled() => Err("the time of a drain was over".into()),
            },
            None => Err("it is too large to be kept".into()),
        };
        let Err(error) = dispatched else {
            crash_point!("dispatched");
            return tell(Taken::Yes(record));
        };
        let id = record.operation().id();
        tracing::error!(%id, error = &*error as &dyn std::error::Error, "operation not dispatched");
        drop(error);
        // At the end of a drain somebody else is to do it, whoever its client is.
        let is_over = node.in_flight.is_interrupting();
        let admitted = Arc::new(admitted);
        if (may_come_again || (is_over && is_kept)) && node.reruns() {
            tell(Taken::Yes(Arc::clone(&record)));
            if is_over {
                node.in_flight.left_to_others(id);
            }
            leave(&node, &record, at_most).await;
            if is_over {
                node.in_flight.has_left();
            }
        } else if end(&node, &record, &admitted, at_most).await {
            if is_over {
                node.in_flight.refused();
            }
            tell(Taken::No);
        } else {
            tell(Taken::Yes(record));
        }
    }
}

/// Leaves an operation to the recovery: at once, if the store hears of it in time, or
/// when its lease is over.
async fn leave<R>(node: &Runtime<R>, record: &Record<RecordedResponse>, at_most: Duration)
where
    R: Lease<Output = RecordedResponse>,
{
    let held = [held(record)];
    let released = tokio::select! {
        biased;
        released = timeout(at_most, node.store.release(&held)) => matches!(released, Ok(Ok(()))),
        () = node.in_flight.abandoned().cancelled() => false,
    };
    if !released {
        tracing::warn!(id = %held[0].id, "operation not released: it is dispatched once its lease is over");
    }
}

/// Ends an operation that nobody will do the work of. False if somebody has claimed it:
/// the engine had it after all.
async fn end<R>(
    node: &Arc<Runtime<R>>,
    record: &Record<RecordedResponse>,
    admitted: &Arc<AdmissionPermit>,
    at_most: Duration,
) -> bool
where
    R: Lease<Output = RecordedResponse>,
{
    let (held, node) = (held(record), Arc::clone(node));
    // In flight until it is ended, also if its client is answered before.
    let until_ended = Arc::clone(admitted);
    let ending = tokio::spawn(async move {
        let ended = retry_until_certain(&node, Some(&held.id), || {
            let outcome = Outcome::failed(FailureKind::NotDispatched);
            node.store.finish(&held.id, held.token, outcome, None)
        });
        // If it is never answered, its lease lapses.
        afterwards(&node.in_flight, until_ended, ended).await.ok()
    });
    match timeout(at_most, ending).await {
        Ok(Ok(Some(Written::Done(record)))) => {
            log_end(&record);
            true
        }
        // Or an earlier try has ended it.
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
