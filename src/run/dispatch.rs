//! Giving accepted requests to an engine that takes them to workers elsewhere.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::timeout;
use tower::BoxError;

use super::{Node, QueuedRequest, until_answered};
use crate::{
    operation::{FailureKind, Outcome, RecordedResponse},
    store::{Held, Lease, Record, Write},
};

/// The queue of an engine, as seen by who puts accepted requests into it. Any closure
/// from a [`QueuedRequest`] to a future is one.
///
/// It is done when the engine has the request as safely as it keeps anything. The engine
/// may lose it all the same, deliver it late or twice: a worker's
/// [`RunService`](super::RunService) claims the operation before it runs anything, and
/// what is not claimed in time is
/// [dispatched again](crate::AsyncAcceptLayer::dispatching_recovery).
pub trait Dispatch: Send + Sync + 'static {
    /// Puts a request into the queue.
    ///
    /// # Errors
    /// If the engine may not have taken it. The operation fails as `not-dispatched` then,
    /// unless a worker has claimed it already.
    fn dispatch(&self, request: QueuedRequest)
    -> impl Future<Output = Result<(), BoxError>> + Send;

    /// How long a request may be on its way to a worker before it counts as lost and is
    /// dispatched again; 5 minutes unless said.
    fn claimed_within(&self) -> Duration {
        PATIENCE
    }
}

impl<F, A, E> Dispatch for F
where
    F: Fn(QueuedRequest) -> A + Send + Sync + 'static,
    A: Future<Output = Result<(), E>> + Send,
    E: Into<BoxError>,
{
    async fn dispatch(&self, request: QueuedRequest) -> Result<(), BoxError> {
        self(request).await.map_err(Into::into)
    }
}

/// Requests are run where they were accepted: the default of
/// [`AsyncAcceptLayer`](crate::AsyncAcceptLayer).
#[derive(Debug, Clone, Copy)]
pub struct InProcess {
    _none: (),
}

type Dispatched<'a> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;

/// A [`Dispatch`] whose type is out of sight.
trait AnyDispatch: Send + Sync {
    fn dispatch(&self, request: QueuedRequest) -> Dispatched<'_>;
}

impl<D: Dispatch> AnyDispatch for D {
    fn dispatch(&self, request: QueuedRequest) -> Dispatched<'_> {
        Box::pin(Dispatch::dispatch(self, request))
    }
}

/// Where a node hands requests off to.
#[derive(Clone)]
pub(crate) struct HandOff {
    to: Arc<dyn AnyDispatch>,
    /// How long a request may be on its way before it counts as lost.
    pub(crate) patience: Duration,
}

/// Until a worker has claimed it, unless said.
pub(super) const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// What became of handing off.
pub(crate) enum HandedOff {
    /// The engine has it, or a worker has it already.
    Taken,
    /// The operation has failed, or will.
    NotDispatched,
}

impl HandOff {
    pub(crate) fn to(dispatch: impl Dispatch) -> Self {
        Self {
            patience: dispatch.claimed_within(),
            to: Arc::new(dispatch),
        }
    }

    /// Puts the request of an operation that this node holds into the queue. If that
    /// cannot be done within `at_most` the operation is ended: nobody will do its work.
    pub(crate) async fn hand_off<R>(
        &self,
        node: &Arc<Node<R>>,
        record: &Record<RecordedResponse>,
        request: QueuedRequest,
        at_most: Duration,
    ) -> HandedOff
    where
        R: Lease<Output = RecordedResponse>,
    {
        crash_point!("dispatching");
        let error: BoxError = match timeout(at_most, self.to.dispatch(request)).await {
            Ok(Ok(())) => {
                crash_point!("dispatched");
                return HandedOff::Taken;
            }
            Ok(Err(error)) => error,
            Err(_) => "the engine did not answer in time".into(),
        };
        let id = record.operation().id().clone();
        tracing::error!(%id, error = &*error as &dyn std::error::Error, "not dispatched");
        let (node, token) = (Arc::clone(node), record.token());
        let ending = tokio::spawn(async move {
            let ended = until_answered(node.in_flight.abandoned(), || {
                let outcome = Outcome::failed(FailureKind::NotDispatched);
                node.store.finish(&id, token, outcome, None)
            });
            // If it is never answered, its lease lapses.
            ended.await.ok()
        });
        match timeout(at_most, ending).await {
            // A worker has claimed it: the engine had it after all.
            Ok(Ok(Some(Write::Lost(record)))) if !record.operation().state().is_terminal() => {
                HandedOff::Taken
            }
            _ => HandedOff::NotDispatched,
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

impl fmt::Debug for HandOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOff")
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}
