//! The spans of operations.

use http::request::Parts;
use tracing::{Span, level_filters::LevelFilter};

use crate::operation::OperationId;

/// Returns whether a subscriber may be interested in spans and events. This costs less than a
/// span.
pub(crate) fn has_subscriber() -> bool {
    LevelFilter::current() != LevelFilter::OFF
}

/// Returns the current span; none without a subscriber.
pub(crate) fn current_span() -> Span {
    match has_subscriber() {
        true => Span::current(),
        false => Span::none(),
    }
}

/// Returns a span for the operation, which outlives the span of its request and *follows
/// from* that span.
pub(crate) fn operation_span(id: &OperationId, parts: &Parts, cause: &Span) -> Span {
    if !has_subscriber() {
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
