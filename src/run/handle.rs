use std::{fmt, sync::Arc};

use http::Extensions;
use tokio_util::sync::CancellationToken;

use super::{AcceptDenied, RunContext};
use crate::{
    dialect::ApiError,
    operation::{OperationId, Problem, Progress},
};

/// The handle by which a handler reports on and accepts its operation.
///
/// The layer puts the handle into the request's extensions. [`OperationHandle::from_extensions`]
/// always returns a handle, so one handler serves requests with and without an operation.
/// Without an accepted operation (a `GET`, a unit test, a service without the layer) the handle
/// is *detached*: its reports are discarded.
///
/// ```
/// use http::Request;
/// use tower_operations::{OperationHandle, Progress};
///
/// async fn render(request: Request<String>) -> String {
///     let operation = OperationHandle::from_extensions(request.extensions());
///     for page in 1..=3 {
///         operation.progress(Progress::from_count(page, 3).with_unit("pages"));
///     }
///     "done".into()
/// }
/// ```
#[derive(Clone)]
pub struct OperationHandle(Option<Arc<RunContext>>);

impl OperationHandle {
    pub(crate) fn new(work: Arc<RunContext>) -> Self {
        Self(Some(work))
    }

    /// Returns a handle on no operation.
    #[must_use]
    pub fn detached() -> Self {
        Self(None)
    }

    /// Returns the handle in a request's extensions, or a detached one.
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(Self::detached)
    }

    /// Returns the id of the operation; `None` if the handle is detached.
    #[must_use]
    pub fn id(&self) -> Option<&OperationId> {
        self.0.as_ref().map(|work| &work.id)
    }

    /// Returns whether the handle has no operation.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the number of this attempt at the operation, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.as_ref().map_or(1, |work| work.attempt)
    }

    /// Accepts the operation. The future is ready once the operation is durable, and the client
    /// gets its `202`. From then on the work does not depend on the client.
    ///
    /// Under a layer that accepts [when signaled](crate::AsyncAcceptLayer::when_signaled) the
    /// handler calls this once it knows that the request is valid, best after it has read the
    /// body. If the handler returns before, its response is sent as it is and there is no
    /// operation. Under a layer that accepts [after](crate::AsyncAcceptLayer::after) a time, the
    /// call ends that time. Under other layers, and when called again, the future is ready at
    /// once.
    ///
    /// Dropping the future does not undo the call.
    ///
    /// # Errors
    /// Returns [`NotAccepted`] if the operation could not be created, or if it is too late to
    /// create the operation. The handler has to answer then.
    pub async fn accept(&self) -> Result<(), NotAccepted> {
        match self.0.as_ref().and_then(|work| work.gate()) {
            Some(gate) => gate.accept().await.map_err(|denied| match denied {
                AcceptDenied::Failed => NotAccepted::Unavailable,
                AcceptDenied::TooLate => NotAccepted::TooLate,
            }),
            None => Ok(()),
        }
    }

    /// Reports the progress of the work.
    ///
    /// Reports are cheap: the latest report is written at most four times a second, and the last
    /// report is always written.
    pub fn progress(&self, progress: Progress) {
        if let Some(work) = &self.0 {
            work.signals.report(progress);
        }
    }

    /// Returns a token that is canceled with the operation: when a client cancels it, when
    /// another node has reclaimed it, or when this node shuts down. The token of a detached
    /// handle is never canceled. After the [grace](crate::AsyncAcceptLayer::cancel_grace) the
    /// handler's future is dropped. Work on other tasks or threads should watch this token.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        match &self.0 {
            Some(work) => work.handler_token(),
            None => CancellationToken::new(),
        }
    }
}

/// The error of [`OperationHandle::accept`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAccepted {
    /// The store did not store the operation.
    #[error("the operation could not be created")]
    Unavailable,
    /// The request has been answered, or its client has disconnected.
    #[error("it is too late to accept the operation")]
    TooLate,
}

impl From<NotAccepted> for Problem {
    /// Returns a 503 of the type `urn:tower-operations:unavailable`.
    fn from(_: NotAccepted) -> Self {
        ApiError::Unavailable {
            retry_after: std::time::Duration::from_secs(1),
        }
        .problem()
    }
}

impl fmt::Debug for OperationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperationHandle")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
