use std::sync::Arc;

use http::Request;
use tracing::Span;

use super::{Admitted, OperationHandle, Work};
use crate::{
    operation::{OperationId, RecordedResponse, WholeBody},
    store::Record,
};

/// A request whose operation exists, on its way to being run.
///
/// Its extensions hold the [`OperationHandle`].
#[derive(Debug)]
#[must_use = "an accepted request that is dropped is never run"]
pub struct AcceptedRequest {
    pub(super) work: Arc<Work>,
    /// On the heap: on its way to the service it is handed on many times.
    pub(super) request: Box<Request<WholeBody>>,
    pub(super) span: Span,
    pub(super) admitted: Option<Admitted>,
}

impl AcceptedRequest {
    /// The request of the operation that `record` shows, held by whoever
    /// created it, or took it over, and got this record for that.
    pub fn new(record: &Record<RecordedResponse>, request: Request<WholeBody>) -> Self {
        Self::kept(record, request, false)
    }

    /// The same; the store may have what is needed to run it again.
    pub(crate) fn kept(
        record: &Record<RecordedResponse>,
        request: impl Into<Box<Request<WholeBody>>>,
        kept: bool,
    ) -> Self {
        let mut request = request.into();
        let id = record.operation().id().clone();
        let span = operation_span(&id, &request);
        // Whose start is counted already is not counted again.
        let is_started = record.started_by() == Some(record.token());
        let attempt = record.attempts() + u32::from(!is_started);
        let work = Work::new(id, record.token(), attempt);
        let work = Arc::new(work.kept(kept));
        request
            .extensions_mut()
            .insert(OperationHandle::new(Arc::clone(&work)));
        Self {
            work,
            request,
            span,
            admitted: None,
        }
    }

    /// The same, admitted here already.
    pub(crate) fn admitted(mut self, admitted: Admitted) -> Self {
        self.admitted = Some(admitted);
        self
    }

    /// The operation.
    #[must_use]
    pub fn id(&self) -> &OperationId {
        &self.work.id
    }
}

/// A span of its own for the operation, which outlives that of its request:
/// it *follows from* the span that is current now.
pub(crate) fn operation_span<B>(id: &OperationId, request: &Request<B>) -> Span {
    let span = tracing::info_span!(
        parent: None,
        "operation",
        operation.id = %id,
        http.request.method = %request.method(),
        url.path = request.uri().path(),
    );
    span.follows_from(Span::current());
    span
}
