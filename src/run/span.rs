//! The spans of operations.

use http::request::Parts;
use tracing::{Span, level_filters::LevelFilter};

use crate::operation::OperationId;

/// Returns the current span; none if no subscriber is interested, which costs less to find out.
pub(crate) fn current_span() -> Span {
    match LevelFilter::current() {
        LevelFilter::OFF => Span::none(),
        _ => Span::current(),
    }
}

/// Returns a span for the operation, which outlives the span of its request and *follows
/// from* that span.
pub(crate) fn operation_span(id: &OperationId, parts: &Parts, cause: &Span) -> Span {
    if LevelFilter::current() == LevelFilter::OFF {
        return Span::none();
    }
    let span = tracing::info_span!(
        parent: None,
        "operation",
        operation.id = %id,
        http.request.method = %parts.method,
        url.path = parts.uri.path(),
    );
    span.follows_from(cause);
    span
}
