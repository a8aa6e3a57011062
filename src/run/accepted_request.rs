use std::sync::Arc;

use http::Request;
use tracing::Span;

use super::{
    AdmissionPermit, BufferedRequest, OperationHandle, RunContext,
    span::{current_span, operation_span},
    stored_request::StoredRequest,
};
use crate::{
    operation::{BufferedBody, OperationId, RecordedResponse},
    store::{NewOperation, Placed, Record},
};

/// An accepted request whose operation exists and has not run yet.
///
/// The extensions of the request hold the [`OperationHandle`].
#[derive(Debug)]
#[must_use = "an accepted request that is dropped is never run"]
pub struct AcceptedRequest {
    pub(super) work: Arc<RunContext>,
    pub(super) request: Box<BufferedRequest>,
    pub(super) span: Span,
    pub(crate) admitted: Option<AdmissionPermit>,
}

impl AcceptedRequest {
    /// Creates the request of the operation that `record` shows. The caller has to hold the
    /// operation: `record` is what the store returned when the caller created or reclaimed it.
    pub fn new(record: &Record<RecordedResponse>, request: Request<BufferedBody>) -> Self {
        Self::from_record(record, Box::new(request.into()), false, &current_span())
    }

    /// Creates the request of an operation without an HTTP request.
    pub(crate) fn of_work(record: &Record<RecordedResponse>) -> Self {
        let operation = record.operation();
        let span = tracing::info_span!(
            parent: None,
            "operation",
            operation.id = %operation.id(),
            operation.name = operation.metadata().name(),
        );
        span.follows_from(current_span());
        let request = Request::new(BufferedBody::default());
        Self::within(record, Box::new(request.into()), false, span)
    }

    /// Creates the request from its stored form, for a rerun.
    pub(super) fn again(record: &Record<RecordedResponse>, request: StoredRequest) -> Self {
        Self::from_record(record, Box::new(request.into()), true, &current_span())
    }

    /// Creates the request; `kept` says whether the store has everything for a rerun.
    /// `cause` is the span of the original request.
    pub(crate) fn from_record(
        record: &Record<RecordedResponse>,
        request: Box<BufferedRequest>,
        kept: bool,
        cause: &Span,
    ) -> Self {
        let span = operation_span(record.operation().id(), &request.parts, cause);
        Self::within(record, request, kept, span)
    }

    /// Creates the request of an operation that was created at once.
    pub(crate) fn from_new(
        new: &NewOperation,
        placed: Placed,
        request: Box<BufferedRequest>,
        span: Span,
    ) -> Self {
        let work = RunContext::new(new.id.clone(), new.token, 1)
            .kept(new.request().is_some())
            .started(new.is_running)
            .placed(Some(placed));
        Self::of_context(work, request, span)
    }

    /// Creates the request, whose run is within this span.
    pub(crate) fn within(
        record: &Record<RecordedResponse>,
        request: Box<BufferedRequest>,
        kept: bool,
        span: Span,
    ) -> Self {
        let id = record.operation().id().clone();
        // A start that the store has already counted is not counted again.
        let is_started = record.started_by() == Some(record.token());
        let attempt = record.attempts() + u32::from(!is_started);
        let work = RunContext::new(id, record.token(), attempt);
        Self::of_context(work.kept(kept).started(is_started), request, span)
    }

    fn of_context(work: RunContext, mut request: Box<BufferedRequest>, span: Span) -> Self {
        let work = Arc::new(work);
        request
            .parts
            .extensions
            .insert(OperationHandle::new(Arc::clone(&work)));
        Self {
            work,
            request,
            span,
            admitted: None,
        }
    }

    /// Adds the place in flight, for a request that was already admitted here.
    pub(crate) fn admitted(mut self, admitted: AdmissionPermit) -> Self {
        self.admitted = Some(admitted);
        self
    }

    /// Returns the id of the operation.
    #[must_use]
    pub fn id(&self) -> &OperationId {
        &self.work.id
    }
}
