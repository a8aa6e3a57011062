//! The context of an answer, and the answer of a store that failed.

use std::time::Duration;

use http::request::Parts;

use super::settings::Settings;
use crate::{
    dialect::{ApiError, Context, Urls, whole_seconds},
    environment,
    operation::OperationId,
    store::{Record, Store, StoreError},
};

/// Returns the API error for a failed store, about one operation or in general.
#[cold]
pub(super) fn unavailable<S: Store>(
    settings: &Settings<S>,
    id: Option<&OperationId>,
    error: &StoreError,
) -> ApiError {
    let id = id.map(tracing::field::display);
    tracing::error!(
        id,
        error = error.report(),
        "operation not read, store unavailable"
    );
    ApiError::Unavailable {
        retry_after: settings.shared.retry_after.retry_after(Duration::ZERO),
    }
}

/// Calls `f` with everything that a dialect needs to answer with `record`.
pub(super) fn in_context<S: Store, T>(
    settings: &Settings<S>,
    parts: &Parts,
    record: &Record<S::Output>,
    answer: impl FnOnce(&Context<'_>) -> T,
) -> T {
    let urls = settings.shared.locator.urls(parts, record.operation().id());
    answer(&context(settings, parts, record, &urls))
}

/// Returns the context of an operation at `urls`, as a dialect needs it.
pub(super) fn context<'a, S: Store>(
    settings: &'a Settings<S>,
    parts: &'a Parts,
    record: &Record<S::Output>,
    urls: &'a Urls,
) -> Context<'a> {
    let operation = record.operation();
    let mut context = Context::new(urls, &settings.shared.replay);
    context.inline_limit = settings.inline_limit;
    context.query = parts.uri.query();
    if !operation.state().is_terminal() {
        let created = operation.metadata().created_at();
        let age = created.and_then(|at| environment::wall_clock().duration_since(at).ok());
        let pause = settings
            .shared
            .retry_after
            .retry_after(age.unwrap_or_default());
        context.retry_after = Some(whole_seconds(pause));
    }
    context
}
