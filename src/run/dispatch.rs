//! Dispatching accepted requests to an engine that delivers them to workers.

use std::{future::Future, pin::Pin, time::Duration};

use super::QueuedRequest;
use crate::BoxError;

/// The queue of an engine, into which accepted requests are put. Every closure from a
/// [`QueuedRequest`] to a future is a `Dispatch`.
///
/// The future is ready when the engine has stored the request. The engine may still lose the
/// request, or deliver it late or twice: a worker's [`RunService`](super::RunService) claims the
/// operation before it runs anything, and a request that is not claimed in time is [dispatched
/// again](crate::Operations::dispatching_recovery).
pub trait Dispatch: Send + Sync + 'static {
    /// Puts a request into the queue.
    ///
    /// # Errors
    /// Returns an error if the engine may not have stored the request. The operation then fails
    /// as `not-dispatched`, unless a worker has claimed it already.
    fn dispatch(&self, request: QueuedRequest)
    -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Returns how long a request may be on its way to a worker before the request counts as
    /// lost and is dispatched again; 5 minutes by default, at least 100 milliseconds.
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

pub(super) type Dispatched<'a> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;

/// A type-erased [`Dispatch`].
pub(super) trait DynDispatch: Send + Sync {
    fn dispatch(&self, request: QueuedRequest) -> Dispatched<'_>;
}

impl<D: Dispatch> DynDispatch for D {
    fn dispatch(&self, request: QueuedRequest) -> Dispatched<'_> {
        Box::pin(Dispatch::dispatch(self, request))
    }
}

/// The default of [`Dispatch::claimed_within`].
pub(super) const PATIENCE: Duration = Duration::from_secs(5 * 60);
