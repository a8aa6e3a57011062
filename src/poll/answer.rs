//! Answering a poll request.

use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode, Uri, header::ALLOW, request::Parts};
use tokio::time::Instant;

use super::{
    PollBody, PollFuture, conditional,
    context::{in_context, unavailable},
    end::{cancel, delete},
    events::events,
    find::{FoundRecord, find, find_now, visible},
    hold::{HoldUntil, hold},
    list::list,
    precondition::{self, NamedTags},
    replayed::{self, Sent},
    settings::Settings,
    stored_result,
    unknown::owner_of_part,
};
use crate::{
    body_digest::{digest, digest_now},
    dialect::{
        Action, Answer, ApiError, PollRequest, Replayed, RequestView, Shown, original_uri,
        path_is_below, unescaped,
    },
    operation::{BodyDigest, BufferedBody, OperationId, RecordedResponse},
    store::{Store, StoreError},
};

pub(super) fn answer<S: Store>(settings: &Arc<Settings<S>>, parts: Parts) -> PollFuture {
    let is_head = parts.method == Method::HEAD;
    let mut about = match parse_poll(settings, &parts) {
        Ok(PollRequest::Operation {
            id,
            action,
            wait,
            reason,
        }) => OperationPoll {
            id,
            action,
            max_body: match action {
                Action::Result => usize::MAX,
                _ => settings.inline_limit,
            },
            held_until: wait.map(|wait| Instant::now() + wait.min(settings.max_wait)),
            reason,
        },
        Ok(PollRequest::List(listing)) => {
            let settings = Arc::clone(settings);
            return PollFuture::waiting(is_head, async move {
                list(&settings, &parts, listing).await.map(PollBody::from)
            });
        }
        Err(fault) => {
            let Some(id) = id_of_unknown_part(settings, &parts, &fault) else {
                return PollFuture::ready(is_head, refuse_request(settings, &parts.method, &fault));
            };
            let settings = Arc::clone(settings);
            return PollFuture::waiting(is_head, async move {
                let none = find(&settings, &parts, &id, 0).await.err();
                let fault = none.unwrap_or(fault);
                refuse_request(&settings, &parts.method, &fault).map(PollBody::from)
            });
        }
    };
    // Most polls end here, without waiting.
    if about.held_until.is_none()
        && matches!(about.action, Action::Status | Action::Result)
        && let Some(found) = find_now(settings, &parts, &about.id, about.max_body)
    {
        match Replayed::take(show_record(settings, &parts, &about, found)) {
            Shown::Complete(response) => return PollFuture::ready(is_head, response),
            Shown::Replay(response, recorded) => {
                return complete_soon(settings, parts, response, recorded);
            }
            Shown::Apart(response, recorded) => {
                let settings = Arc::clone(settings);
                return PollFuture::waiting(is_head, async move {
                    let about = (&about.id, about.action);
                    stored_result::answer(&settings, &parts, about, response, &recorded).await
                });
            }
            Shown::Unread => about.max_body = usize::MAX,
        }
    }
    let settings = Arc::clone(settings);
    PollFuture::waiting(is_head, async move {
        let id = &about.id;
        let response = match about.action {
            Action::Status | Action::Result => {
                return read_and_show(&settings, &parts, about).await;
            }
            Action::Events => match find(&settings, &parts, id, about.max_body).await {
                Ok(record) => return events(&settings, parts, record),
                Err(fault) => settings.fault(&fault),
            },
            Action::Cancel(when_finished) => {
                let reason = about.reason.as_deref();
                return cancel(&settings, &parts, id, when_finished, reason).await;
            }
            Action::Delete => delete(&settings, &parts, id).await,
        };
        response.map(PollBody::from)
    })
}

/// Answers a `GET` of an operation or of its result. Reads the body of the result only once the
/// answer replays it.
async fn read_and_show<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    mut about: OperationPoll,
) -> Response<PollBody> {
    let mut found = read(settings, parts, &about).await;
    loop {
        match Replayed::take(show_record(settings, parts, &about, found)) {
            Shown::Complete(response) => return response.map(PollBody::from),
            Shown::Replay(response, recorded) => {
                let response = complete(settings, parts, response, recorded).await;
                return response.map(PollBody::from);
            }
            Shown::Apart(response, recorded) => {
                let about = (&about.id, about.action);
                return stored_result::answer(settings, parts, about, response, &recorded).await;
            }
            Shown::Unread if about.max_body == usize::MAX => {
                let error = StoreError::refused("the store reads no body of this length");
                let fault = unavailable(settings, Some(&about.id), &error);
                return settings.fault(&fault).map(PollBody::from);
            }
            Shown::Unread => {
                about.max_body = usize::MAX;
                found = find(settings, parts, &about.id, about.max_body).await;
            }
        }
    }
}

/// Completes a replay, at once if its body is short.
fn complete_soon<S: Store>(
    settings: &Arc<Settings<S>>,
    parts: Parts,
    response: Response<BufferedBody>,
    recorded: RecordedResponse,
) -> PollFuture {
    let is_head = parts.method == Method::HEAD;
    if let Some(digest) = digest_now(&recorded) {
        let response = complete_with(settings, &parts, response, &recorded, &digest);
        return PollFuture::ready(is_head, response);
    }
    let settings = Arc::clone(settings);
    PollFuture::waiting(is_head, async move {
        let response = complete(&settings, &parts, response, recorded).await;
        response.map(PollBody::from)
    })
}

/// Completes a replay.
async fn complete<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    response: Response<BufferedBody>,
    recorded: RecordedResponse,
) -> Response<BufferedBody> {
    match digest(&recorded).await {
        Some(digest) => complete_with(settings, parts, response, &recorded, &digest),
        None => response,
    }
}

/// Completes a replay whose digest is known.
fn complete_with<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    mut response: Response<BufferedBody>,
    recorded: &RecordedResponse,
    digest: &BodyDigest,
) -> Response<BufferedBody> {
    let (method, headers) = (&parts.method, &parts.headers);
    match replayed::complete(method, headers, &mut response, recorded, digest) {
        Ok(Sent::Whole) => response,
        Ok(Sent::Nothing) => response.map(|_| BufferedBody::default()),
        Ok(Sent::Part(range)) => response.map(|body| body.data().slice(range).into()),
        Err(fault) => settings.fault(&fault),
    }
}

/// A request about one operation.
struct OperationPoll {
    id: OperationId,
    action: Action,
    /// The length in bytes up to which the body of the result is read.
    max_body: usize,
    /// The latest time of the answer, if the poll may be held. It counts from the receipt of the
    /// request (RFC 7240, section 4.3), so that a slow read does not prolong it.
    held_until: Option<Instant>,
    /// The reason for a cancellation.
    reason: Option<Box<str>>,
}

fn parse_poll<S: Store>(settings: &Settings<S>, parts: &Parts) -> Result<PollRequest, ApiError> {
    match parts.method {
        Method::HEAD => parse_as_method(&Method::GET, settings, parts),
        ref method => parse_as_method(method, settings, parts),
    }
}

/// Returns the id in a path if the operation must exist before its methods can be listed. The
/// segment that looks like an id may be the name of a part that no operation has.
fn id_of_unknown_part<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    fault: &ApiError,
) -> Option<OperationId> {
    fault.allow()?;
    match parse_as_method(&Method::GET, settings, parts) {
        Ok(PollRequest::Operation { id, .. }) => owner_of_part(settings, parts, &id).map(|_| id),
        _ => None,
    }
}

/// Returns how the dialect reads the request if it had this method.
fn parse_as_method<S: Store>(
    method: &Method,
    settings: &Settings<S>,
    parts: &Parts,
) -> Result<PollRequest, ApiError> {
    let path = unescaped(parts.uri.path());
    let path = match &settings.mounted_at {
        Some(at) if path_is_below(&path, at) => {
            settings.shared.polled_at(at);
            &path[at.len()..]
        }
        _ => {
            let original = original_uri(parts).map(Uri::path);
            if let Some(mount) = original.and_then(|path| path.strip_suffix(parts.uri.path())) {
                settings.shared.polled_at(mount);
            }
            &path
        }
    };
    let mut request = RequestView::new(method, path, parts.uri.query(), &parts.headers);
    let id = match &settings.operation_id {
        Some(find) => Some(
            find(parts)
                .filter(|id| !id.is_empty())
                .ok_or(ApiError::MissingId)?,
        ),
        None => None,
    };
    request.id = id.as_deref();
    request.lists = settings.powers.list.is_some();
    let ask = settings
        .shared
        .dialect
        .parse(&request)
        .map_err(|fault| match fault {
            // A read-only service allows no other methods.
            ApiError::MethodNotAllowed { .. } if settings.powers.ends.is_none() => {
                read_only(settings, &request)
            }
            fault => fault,
        })?;
    match ask {
        PollRequest::Operation {
            action: Action::Cancel(_) | Action::Delete,
            ..
        } if settings.powers.ends.is_none() => Err(read_only(settings, &request)),
        // Without notifications of changes there is no event stream.
        PollRequest::Operation {
            id,
            action: Action::Events,
            wait,
            reason,
        } if settings.powers.changed.is_none() => Ok(PollRequest::Operation {
            id,
            action: Action::Status,
            wait,
            reason,
        }),
        ask => Ok(ask),
    }
}

/// Returns the 405 of a read-only service. Its `Allow` has the reading methods, or only
/// `OPTIONS` for a path that `GET` cannot read.
fn read_only<S: Store>(settings: &Settings<S>, request: &RequestView<'_>) -> ApiError {
    let get = RequestView {
        method: &Method::GET,
        ..*request
    };
    let allow = match settings.shared.dialect.parse(&get) {
        Err(ApiError::MethodNotAllowed { .. }) => "OPTIONS",
        _ => "GET, HEAD, OPTIONS",
    };
    ApiError::MethodNotAllowed { allow }
}

/// Returns the answer to a request that the dialect rejects.
fn refuse_request<S: Store>(
    settings: &Settings<S>,
    method: &Method,
    fault: &ApiError,
) -> Response<BufferedBody> {
    match fault.allow() {
        Some(allow) if method == Method::OPTIONS => {
            let mut response = Response::new(BufferedBody::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(allow));
            response
        }
        _ => settings.fault(fault),
    }
}

/// Reads the operation, at once or after the poll was held.
async fn read<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    about: &OperationPoll,
) -> FoundRecord<S> {
    let record = find(settings, parts, &about.id, about.max_body).await?;
    let Some(deadline) = about.held_until else {
        return Ok(record);
    };
    let until = match about.action {
        Action::Status => {
            let etag = conditional::etag(&record);
            match precondition::of_read(&parts.headers, etag.as_ref()) {
                Ok(None) => HoldUntil::Terminal,
                Ok(Some(NamedTags::Any | NamedTags::This)) => HoldUntil::Changed,
                // The operation has changed already, or the error is returned when it is shown.
                Ok(Some(NamedTags::Others)) | Err(_) => return Ok(record),
            }
        }
        _ => HoldUntil::Terminal,
    };
    let found = hold(settings, parts, record, until, deadline, about.max_body).await;
    visible(settings, parts, &about.id, found)
}

/// Answers a `GET` with the operation that was found.
fn show_record<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    about: &OperationPoll,
    found: FoundRecord<S>,
) -> Response<BufferedBody> {
    let record = match found {
        Ok(record) => record,
        Err(fault) => return settings.fault(&fault),
    };
    let mut answer: Answer = in_context(settings, parts, &record, |context| {
        let view = record.operation().view();
        match about.action {
            Action::Result => settings.shared.dialect.result(&view, context),
            _ => settings.shared.dialect.status(&view, context),
        }
    });
    // The answer is completed in place, since a response is large.
    if let Ok(response) = &mut answer {
        // A replay gets a validator of its own.
        let is_replay = response.extensions().get::<Replayed>().is_some();
        if is_replay || about.action == Action::Result || !response.status().is_success() {
            conditional::vary(response);
        } else {
            let etag = conditional::etag(&record);
            match precondition::of_read(&parts.headers, etag.as_ref()) {
                Ok(Some(NamedTags::Any | NamedTags::This)) => {
                    *response = conditional::not_modified(etag, response);
                }
                Ok(Some(NamedTags::Others) | None) => conditional::validate(response, etag),
                Err(error) => answer = Err(error),
            }
        }
    }
    answer.unwrap_or_else(|fault| settings.fault(&fault))
}
