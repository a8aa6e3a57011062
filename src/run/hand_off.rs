//! Sending accepted requests off, and again.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;
use tower::BoxError;

use super::{
    Dispatch, Leaving, Node, QueuedRequest, Take, Taken, catch_panic::CatchPanic,
    dispatch::AnyDispatch, log_end, node::SHORTEST, until_answered,
};
use crate::{
    operation::{FailureKind, Outcome, RecordedResponse},
    store::{Held, Lease, Record, Write},
};

/// Where a node hands requests off to.
#[derive(Clone)]
pub(crate) struct HandOff {
    to: Arc<dyn AnyDispatch>,
    /// How long a request may be on its way before it counts as lost.
    pub(crate) patience: Duration,
}

impl HandOff {
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
        node: &Node<R>,
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

fn held(record: &Record<RecordedResponse>) -> Held {
    Held {
        id: record.operation().id().clone(),
        token: record.token(),
    }
}

impl<S, R> Take<S, R> for HandOff
where
    S: Send,
    R: Lease<Output = RecordedResponse>,
{
    /// Puts it into the queue. If that cannot be done in time the operation is ended,
    /// since nobody will do its work; or left to the recovery, if there is one and the
    /// client, when it comes again, will find this operation.
    async fn take(&self, leaving: Leaving<S, R>, tell: impl FnOnce(Taken) + Send) {
        let Leaving {
            node,
            record,
            stored,
            // In flight until it is certain.
            admitted: _admitted,
            may_come_again,
            at_most,
            ..
        } = leaving;
        crash_point!("dispatching");
        let dispatched = match stored {
            Some(stored) => self.dispatch(&record, stored, at_most).await,
            None => Err("it is too large to be kept".into()),
        };
        let Err(error) = dispatched else {
            crash_point!("dispatched");
            return tell(Taken::Yes(record));
        };
        let id = record.operation().id();
        tracing::error!(%id, error = &*error as &dyn std::error::Error, "operation not dispatched");
        drop(error);
        let will_be_done = match may_come_again && node.runs_again() {
            true => {
                leave(&node, &record, at_most).await;
                true
            }
            false => !end(&node, &record, at_most).await,
        };
        tell(match will_be_done {
            true => Taken::Yes(record),
            false => Taken::No,
        });
    }
}

/// Leaves an operation to the recovery: at once, if the store hears of it in time, or
/// when its lease is over.
async fn leave<R>(node: &Node<R>, record: &Record<RecordedResponse>, at_most: Duration)
where
    R: Lease<Output = RecordedResponse>,
{
    let held = [held(record)];
    let released = timeout(at_most, node.store.release(&held)).await;
    if !matches!(released, Ok(Ok(()))) {
        tracing::warn!(id = %held[0].id, "operation not released: it is dispatched once its lease is over");
    }
}

/// Ends an operation that nobody will do the work of. False if somebody has claimed it:
/// the engine had it after all.
async fn end<R>(node: &Arc<Node<R>>, record: &Record<RecordedResponse>, at_most: Duration) -> bool
where
    R: Lease<Output = RecordedResponse>,
{
    let (held, node) = (held(record), Arc::clone(node));
    let ending = tokio::spawn(async move {
        let ended = until_answered(&node, || {
            let outcome = Outcome::failed(FailureKind::NotDispatched);
            node.store.finish(&held.id, held.token, outcome, None)
        });
        // If it is never answered, its lease lapses.
        ended.await.ok()
    });
    match timeout(at_most, ending).await {
        Ok(Ok(Some(Write::Done(record)))) => {
            log_end(&record);
            true
        }
        // Or an earlier try has ended it.
        Ok(Ok(Some(Write::Lost(record)))) => record.was_not_dispatched(),
        _ => true,
    }
}

impl fmt::Debug for HandOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOff")
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}
