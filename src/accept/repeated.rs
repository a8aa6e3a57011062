//! The answer to a repeated request.

use http::request::Parts;

use super::{
    policy::Policy,
    refuse::Refusal,
    responder::{AcceptAnswer, CreatedOperation},
    submission::AcceptResult,
};
use crate::{
    dialect::{ApiError, Context, RequestName, Urls},
    operation::RecordedResponse,
    store::Record,
};

/// Returns the answer to a repetition of the request that created this operation. The repetition
/// gets the answer of the first request, unless the dialect hides the operation. `name` is the
/// key or the id that both requests have in common.
pub(super) fn repeated(
    policy: &Policy,
    parts: &Parts,
    record: &Record<RecordedResponse>,
    name: RequestName,
) -> AcceptResult {
    // The first request was answered with a 503, so this is not a reuse of its key.
    if record.was_not_dispatched() {
        return Err(Refusal::Unavailable);
    }
    let urls = policy.shared.locator.urls(parts, record.operation().id());
    if is_hidden(policy, record, &urls) {
        return Err(Refusal::deleted(record, name));
    }
    Ok(AcceptAnswer::Repeated(
        CreatedOperation::from_record(record),
        urls,
    ))
}

/// Returns whether the dialect answers as if the operation did not exist. Running
/// operations are always shown.
fn is_hidden(policy: &Policy, record: &Record<RecordedResponse>, urls: &Urls) -> bool {
    let operation = record.operation();
    if !operation.state().is_terminal() {
        return false;
    }
    let mut context = Context::new(urls, &policy.shared.replay);
    // The result is not read.
    context.inline_limit = 0;
    let status = policy.shared.dialect.status(&operation.view(), &context);
    matches!(status, Err(ApiError::NotFound { .. }))
}
