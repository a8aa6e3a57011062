//! Sending accepted requests off, and again.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::timeout;
use tower::BoxError;

use super::{
    Dispatch, Leaving, Node, QueuedRequest, Take, Taken, dispatch::AnyDispatch, until_answered,
};
use crate::{
    operation::{FailureKind, Outcome, Problem, RecordedResponse},
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
            patience: dispatch.claimed_within(),
            to: Arc::new(dispatch),
        }
    }

    /// Ends an operation that nobody will do the work of; says whether somebody does it
    /// all the same.
    async fn give_up<R>(
        node: &Arc<Node<R>>,
        record: &Record<RecordedResponse>,
        at_most: Duration,
    ) -> bool
    where
        R: Lease<Output = RecordedResponse>,
    {
        let (id, token) = (record.operation().id().clone(), record.token());
        let node = Arc::clone(node);
        let ending = tokio::spawn(async move {
            let ended = until_answered(node.in_flight.abandoned(), || {
                let outcome = Outcome::failed(FailureKind::NotDispatched);
                node.store.finish(&id, token, outcome, None)
            });
            // If it is never answered, its lease lapses.
            ended.await.ok()
        });
        match timeout(at_most, ending).await {
            // A worker has claimed it, or an earlier try to end it has done so.
            Ok(Ok(Some(Write::Lost(record)))) => {
                let ended_as = record.operation().problem().map(Problem::type_uri);
                ended_as != Some(FailureKind::NotDispatched.urn())
            }
            _ => false,
        }
    }

    /// Puts the request of an operation that was taken over into the queue again.
    pub(super) async fn hand_off_again<R>(
        &self,
        node: &Node<R>,
        record: &Record<RecordedResponse>,
        request: QueuedRequest,
    ) where
        R: Lease<Output = RecordedResponse>,
    {
        let held = [Held {
            id: record.operation().id().clone(),
            token: record.token(),
        }];
        let mut lease = node.lease().clone();
        // Not before it is on its way: until then it is for whoever looks next.
        let error = match timeout(lease.term / 3, self.to.dispatch(request)).await {
            Ok(Ok(())) => {
                lease.term = self.patience;
                let renewed = node.store.renew(&lease, &held).await;
                renewed.err().map(Into::into)
            }
            Ok(Err(error)) => Some(error),
            Err(_) => Some("the engine did not answer in time".into()),
        };
        if let Some(error) = error {
            let id = &held[0].id;
            let error: BoxError = error;
            tracing::warn!(%id, error = &*error as &dyn std::error::Error, "not dispatched again yet");
        }
    }
}

impl<S, R> Take<S, R> for HandOff
where
    S: Send,
    R: Lease<Output = RecordedResponse>,
{
    /// Puts it into the queue. If that cannot be done in time the operation is ended:
    /// nobody will do its work.
    async fn take(&self, leaving: Leaving<S, R>, tell: impl FnOnce(Taken) + Send) {
        let Leaving {
            node,
            record,
            stored,
            // In flight until it is certain.
            admitted: _admitted,
            at_most,
            ..
        } = leaving;
        // What is handed off is always kept.
        let queued = QueuedRequest::of(&record, stored.unwrap_or_default());
        crash_point!("dispatching");
        let error: BoxError = match timeout(at_most, self.to.dispatch(queued)).await {
            Ok(Ok(())) => {
                crash_point!("dispatched");
                return tell(Taken::Yes(record));
            }
            Ok(Err(error)) => error,
            Err(_) => "the engine did not answer in time".into(),
        };
        let id = record.operation().id();
        tracing::error!(%id, error = &*error as &dyn std::error::Error, "not dispatched");
        // The engine may have had it after all.
        let is_taken = Self::give_up(&node, &record, at_most).await;
        tell(if is_taken {
            Taken::Yes(record)
        } else {
            Taken::No
        });
    }
}

impl fmt::Debug for HandOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOff")
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}
