//! What the repetition of a request gets.

use http::request::Parts;

use super::{
    policy::Policy,
    refuse::Refusal,
    responder::{AcceptAnswer, AcceptVerdict, CreatedOperation},
};
use crate::{
    dialect::{ApiError, Context, RequestName, Urls},
    operation::RecordedResponse,
    store::Record,
};

/// What a request gets that is the same, by `name`, as the one that made this operation:
/// what that one got, unless its client has been told that there is no such operation.
pub(super) fn repeated(
    policy: &Policy,
    parts: &Parts,
    record: &Record<RecordedResponse>,
    name: RequestName,
) -> AcceptVerdict {
    // It was answered with a 503: this is no other request.
    if record.was_not_dispatched() {
        return Err(Refusal::Unavailable);
    }
    let urls = policy.shared.locator.urls(parts, record.operation().id());
    if is_hidden(policy, record, &urls) {
        return Err(Refusal::deleted(record, name));
    }
    Ok(AcceptAnswer::Repeated(CreatedOperation::of(record), urls))
}

/// Whether the dialect answers as if there were no such operation. What goes on it shows.
fn is_hidden(policy: &Policy, record: &Record<RecordedResponse>, urls: &Urls) -> bool {
    let operation = record.operation();
    if !operation.state().is_terminal() {
        return false;
    }
    let mut context = Context::new(urls, &policy.shared.replay);
    // It is not going to be read.
    context.inline_limit = 0;
    let status = policy.shared.dialect.status(&operation.view(), &context);
    matches!(status, Err(ApiError::NotFound { .. }))
}
