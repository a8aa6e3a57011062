use std::{fmt, sync::Arc};

use http::Extensions;
use tokio_util::sync::CancellationToken;

use super::{AcceptDenied, RunContext};
use crate::{
    dialect::ApiError,
    operation::{OperationId, Problem, Progress},
};

/// A handler's hold on the operation it is running for.
///
/// The layer puts it into the request's extensions. [`OperationHandle::from_extensions`]
/// always gives one: where no operation was accepted (a `GET`, a unit test, a
/// service without the layer) it is *detached* and reports into nothing, so a
/// handler needs no second version of itself.
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

    /// A handle on no operation.
    #[must_use]
    pub fn detached() -> Self {
        Self(None)
    }

    /// The handle in a request's extensions, or a detached one.
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(Self::detached)
    }

    /// The operation; `None` if the handle is detached.
    #[must_use]
    pub fn id(&self) -> Option<&OperationId> {
        self.0.as_ref().map(|work| &work.id)
    }

    /// Whether there is no operation behind this handle.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.0.is_none()
    }

    /// Which attempt at the operation this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.as_ref().map_or(1, |work| work.attempt)
    }

    /// Accepts the operation: returns once it is durably created, and the client
    /// gets its `202`. From then on the work goes on whatever the client does.
    ///
    /// Under a layer that accepts [signaled](crate::AsyncAcceptLayer::when_signaled)
    /// the handler calls this once it knows that the request is good, and best
    /// once it has read its body; if it returns before, its response goes out as
    /// it is, and there is no operation. Under one that accepts
    /// [after](crate::AsyncAcceptLayer::after) a time, it ends that time.
    /// Elsewhere, and when called again, it returns at once.
    ///
    /// Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`NotAccepted`] if the operation could not be created, or if it is too
    /// late for that. The handler is to answer.
    pub async fn accept(&self) -> Result<(), NotAccepted> {
        match self.0.as_ref().and_then(|work| work.gate()) {
            Some(gate) => gate.accept().await.map_err(|denied| match denied {
                AcceptDenied::Failed => NotAccepted::Unavailable,
                AcceptDenied::TooLate => NotAccepted::TooLate,
            }),
            None => Ok(()),
        }
    }

    /// Says how far the work has come.
    ///
    /// Reports are cheap: they are written a few times a second at the most,
    /// and the latest is what counts. The last one is written in any case.
    pub fn progress(&self, progress: Progress) {
        if let Some(work) = &self.0 {
            work.report(progress);
        }
    }

    /// Canceled when the operation is: by a client, because another node has
    /// taken it over, or because this one shuts down; never, if the handle is
    /// detached. Some moments later the
    /// handler's future is dropped; what was moved to other tasks or threads
    /// should watch this token.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        match &self.0 {
            Some(work) => work.handler_token(),
            None => CancellationToken::new(),
        }
    }
}

/// Why [`OperationHandle::accept`] did not accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAccepted {
    /// The store did not take the operation.
    #[error("the operation could not be created")]
    Unavailable,
    /// The request has been answered, or its client is gone.
    #[error("it is too late to accept the operation")]
    TooLate,
}

impl From<NotAccepted> for Problem {
    /// A 503 of the type `urn:tower-operations:unavailable`.
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
