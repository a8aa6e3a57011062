//! From a request to its answer.

use std::{sync::Arc, time::SystemTime};

use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, IF_NONE_MATCH},
    request::Parts,
};

use super::{
    PollFuture, conditional,
    end::{cancel, forget},
    hold::{Until, hold},
    settings::Settings,
};
use crate::{
    dialect::{Answer, Ask, Context, Fault, Inquiry, Intent, path_is_below, whole_seconds},
    operation::{OperationId, WholeBody},
    store::{Found, Record, Store, StoreError},
};

pub(super) fn answer<S: Store>(settings: &Arc<Settings<S>>, parts: Parts) -> PollFuture {
    let method = parts.method.clone();
    let ask = match ask(settings, &parts) {
        Ok(ask) => ask,
        Err(fault) => return PollFuture::ready(&method, refused(settings, &method, &fault)),
    };
    // Most polls end here, without waiting for anything.
    if ask.wait.is_none()
        && matches!(ask.intent, Intent::Status | Intent::Result)
        && let Some(found) = settings.store.get_now(&ask.id)
    {
        return PollFuture::ready(&method, shown(settings, &parts, &ask, found));
    }
    let settings = Arc::clone(settings);
    PollFuture::waiting(&method, async move {
        let found = match ask.intent {
            Intent::Status | Intent::Result => read(&settings, &parts, &ask).await,
            Intent::Cancel(when_finished) => {
                return cancel(&settings, &parts, &ask.id, when_finished).await;
            }
            Intent::Forget => return forget(&settings, &parts, &ask.id).await,
        };
        shown(&settings, &parts, &ask, found)
    })
}

fn ask<S: Store>(settings: &Settings<S>, parts: &Parts) -> Result<Ask, Fault> {
    let method = match parts.method {
        Method::HEAD => &Method::GET,
        ref method => method,
    };
    let path = parts.uri.path();
    let path = match &settings.mounted_at {
        Some(at) if path_is_below(path, at) => &path[at.len()..],
        _ => path,
    };
    let mut inquiry = Inquiry::new(method, path, parts.uri.query(), &parts.headers);
    let id = match &settings.operation_id {
        Some(find) => Some(
            find(parts)
                .filter(|id| !id.is_empty())
                .ok_or(Fault::MissingId)?,
        ),
        None => None,
    };
    inquiry.id = id.as_deref();
    // Whoever only reads allows nothing else.
    let reads_only = |fault| match fault {
        Fault::MethodNotAllowed { .. } if settings.powers.ends.is_none() => READ_ONLY,
        fault => fault,
    };
    let ask = settings.dialect.ask(&inquiry).map_err(reads_only)?;
    match ask.intent {
        Intent::Cancel(_) | Intent::Forget if settings.powers.ends.is_none() => Err(READ_ONLY),
        _ => Ok(ask),
    }
}

/// There is no such method where nothing can be ended.
const READ_ONLY: Fault = Fault::MethodNotAllowed {
    allow: "GET, HEAD, OPTIONS",
};

/// The answer to what the dialect does not take for a question.
fn refused<S: Store>(
    settings: &Settings<S>,
    method: &Method,
    fault: &Fault,
) -> Response<WholeBody> {
    match fault.allow() {
        Some(allow) if method == Method::OPTIONS => {
            let mut response = Response::new(WholeBody::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(allow));
            response
        }
        _ => settings.fault(fault),
    }
}

/// The operation, at once or when it is worth showing.
async fn read<S: Store>(settings: &Settings<S>, parts: &Parts, ask: &Ask) -> Found<S::Output> {
    let found = match settings.store.get_now(&ask.id) {
        Some(found) => found,
        None => settings.store.get(&ask.id).await,
    };
    let Some(record) = found? else {
        return Ok(None);
    };
    let Some(wait) = ask.wait.filter(|_| is_visible(&record)) else {
        return Ok(Some(record));
    };
    let until = match ask.intent {
        Intent::Status => {
            let etag = conditional::etag(&record);
            match conditional::names(&parts.headers, &IF_NONE_MATCH, etag.as_ref()) {
                None => Until::Terminal,
                Some(true) => Until::Changed,
                // It has changed already.
                Some(false) => return Ok(Some(record)),
            }
        }
        _ => Until::Terminal,
    };
    hold(settings, record, until, wait).await
}

/// Shows what was found to a `GET`.
fn shown<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    ask: &Ask,
    found: Found<S::Output>,
) -> Response<WholeBody> {
    let record = match visible(settings, &ask.id, found) {
        Ok(record) => record,
        Err(fault) => return settings.fault(&fault),
    };
    in_context(settings, parts, &record, |context| {
        let view = record.operation().view();
        if ask.intent == Intent::Result {
            return settings.dialect.result(&view, context);
        }
        let etag = conditional::etag(&record);
        if conditional::names(&parts.headers, &IF_NONE_MATCH, etag.as_ref()) == Some(true) {
            return Ok(conditional::not_modified(etag, context.retry_after));
        }
        let mut response = settings.dialect.status(&view, context)?;
        if response.status().is_success() {
            conditional::validate(&mut response, etag);
        }
        Ok(response)
    })
}

/// The record, if it is there for whoever asks.
pub(super) fn visible<S: Store>(
    settings: &Settings<S>,
    id: &OperationId,
    found: Found<S::Output>,
) -> Result<Arc<Record<S::Output>>, Fault> {
    match found {
        Ok(Some(record)) if is_visible(&record) => Ok(record),
        Ok(_) => Err(Fault::NotFound { id: id.clone() }),
        Err(error) => Err(unavailable(settings, &error)),
    }
}

/// Nobody is asking on anybody's behalf, so only what is nobody's is there.
fn is_visible<T>(record: &Record<T>) -> bool {
    record.owner().is_none()
}

pub(super) fn unavailable<S: Store>(settings: &Settings<S>, error: &StoreError) -> Fault {
    tracing::error!(error = error.chain(), "operations are unavailable");
    Fault::Unavailable {
        retry_after: settings.retry_after.retry_after(std::time::Duration::ZERO),
    }
}

/// Gives a dialect what it needs to answer with `record`.
pub(super) fn in_context<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    record: &Record<S::Output>,
    answer: impl FnOnce(&Context<'_>) -> Answer,
) -> Response<WholeBody> {
    let operation = record.operation();
    let urls = settings.locator.urls(parts, operation.id());
    let mut context = Context::new(&urls, &settings.replay);
    context.inline_limit = settings.inline_limit;
    if !operation.state().is_terminal() {
        let created = operation.metadata().created_at();
        let age = created.and_then(|at| SystemTime::now().duration_since(at).ok());
        let pause = settings.retry_after.retry_after(age.unwrap_or_default());
        context.retry_after = Some(whole_seconds(pause));
    }
    answer(&context).unwrap_or_else(|fault| settings.fault(&fault))
}
