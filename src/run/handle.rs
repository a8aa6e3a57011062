use std::{fmt, sync::Arc};

use http::Extensions;
use tokio_util::sync::CancellationToken;

use super::Work;
use crate::operation::{OperationId, Progress};

/// A handler's hold on the operation it is running for.
///
/// The layer puts it into the request's extensions. [`OperationHandle::of`]
/// always gives one: where no operation was accepted (a `GET`, a unit test, a
/// service without the layer) it is *detached* and reports into nothing, so a
/// handler needs no second version of itself.
///
/// ```
/// use http::Request;
/// use tower_operations::{OperationHandle, Progress};
///
/// async fn render(request: Request<String>) -> String {
///     let operation = OperationHandle::of(request.extensions());
///     for page in 1..=3 {
///         operation.progress(Progress::counted(page, 3).unit("pages"));
///     }
///     "done".into()
/// }
/// ```
#[derive(Clone)]
pub struct OperationHandle(Option<Arc<Work>>);

impl OperationHandle {
    pub(crate) fn new(work: Arc<Work>) -> Self {
        Self(Some(work))
    }

    /// A handle on no operation.
    #[must_use]
    pub fn detached() -> Self {
        Self(None)
    }

    /// The handle in a request's extensions, or a detached one.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
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
            Some(work) => work.stop_token().clone(),
            None => CancellationToken::new(),
        }
    }
}

impl fmt::Debug for OperationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperationHandle")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// Always succeeds; see [`OperationHandle::of`].
#[cfg(feature = "axum")]
impl<S: Sync> axum_core::extract::FromRequestParts<S> for OperationHandle {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.extensions))
    }
}
