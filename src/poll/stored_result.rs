//! Answers whose body is in the result store.

use std::{ops::Range, time::Duration};

use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_DISPOSITION, LOCATION},
    request::Parts,
};

use super::{
    PollBody,
    context::unavailable,
    replayed::{self, Sent},
    settings::Settings,
};
use crate::{
    dialect::{Action, ApiError},
    operation::{BufferedBody, OperationId, RecordedResponse},
    results::{ResultChunks, ResultKey, StoredBody},
    run::{guarded, guarded_chunks, guarded_for},
    store::{FencingToken, Store, StoreError},
};

/// Answers with the head of a replay, and with as much of its body as the request asks for. The
/// result resource may refer to a signed URL instead.
pub(super) async fn answer<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    (id, action): (&OperationId, Action),
    mut response: Response<BufferedBody>,
    recorded: &RecordedResponse,
) -> Response<PollBody> {
    let sent = match (response.status(), recorded.known_digest()) {
        (StatusCode::OK, Some(digest)) => {
            let (method, headers) = (&parts.method, &parts.headers);
            replayed::complete(method, headers, &mut response, recorded, &digest)
        }
        _ => Ok(Sent::Whole),
    };
    if action == Action::Result
        && matches!(sent, Ok(Sent::Whole | Sent::Part(_)))
        && may_redirect(settings, parts, &response, recorded)
    {
        match redirect(settings, id, recorded).await {
            Ok(None) => {}
            Ok(Some(elsewhere)) => return elsewhere,
            Err(fault) => return settings.fault(&fault).map(PollBody::from),
        }
    }
    match sent {
        Ok(sent) => with_body(settings, parts, id, response, recorded, sent).await,
        Err(fault) => settings.fault(&fault).map(PollBody::from),
    }
}

/// Returns whether a download from the storage would be the same for the client. The storage sends
/// the body as a 200, with four of the fields that the service sent.
fn may_redirect<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    response: &Response<BufferedBody>,
    recorded: &RecordedResponse,
) -> bool {
    let is_text = |name| {
        let mut values = response.headers().get_all(name).iter();
        values.all(|value: &HeaderValue| value.to_str().is_ok())
    };
    parts.method == Method::GET
        && recorded.status() == StatusCode::OK
        && !recorded.has_trailers()
        && settings.shared.dialect.redirects_results()
        && settings.shared.replay.is_default()
        && is_text(CONTENT_DISPOSITION)
}

/// The time that the result store has to sign a URL.
const TO_SIGN: Duration = Duration::from_secs(5);

/// Returns a 303 to a signed URL, if the result store has one.
async fn redirect<S: Store>(
    settings: &Settings<S>,
    id: &OperationId,
    recorded: &RecordedResponse,
) -> Result<Option<Response<PollBody>>, ApiError> {
    let (Some(results), Some(uploader)) = (&settings.runtime.results, recorded.uploader()) else {
        return Ok(None);
    };
    let key = ResultKey::new(id.clone(), FencingToken::from_number(uploader));
    let signed = guarded_for(TO_SIGN, async { results.store.signed_url(&key).await });
    let url = match signed.await {
        Ok(None) => return Ok(None),
        Ok(Some(url)) => url.to_string(),
        Err(error) => {
            let error = error.report();
            tracing::warn!(%id, error, "result URL not signed, result sent by this node");
            return Ok(None);
        }
    };
    let Ok(mut url) = HeaderValue::try_from(url) else {
        return Ok(None);
    };
    // A missing result is found out here, since the storage would answer in its own way.
    drop(open(settings, &key, 0..1).await?);
    let mut response = Response::new(BufferedBody::default().into());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    // Everyone who has the URL can use it.
    url.set_sensitive(true);
    headers.insert(LOCATION, url);
    let private = HeaderValue::from_static("private, no-store");
    headers.insert(CACHE_CONTROL, private);
    Ok(Some(response))
}

/// Answers with the head of a replay and its whole body, whatever the conditions of the request.
pub(super) async fn whole<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
    response: Response<BufferedBody>,
    recorded: &RecordedResponse,
) -> Response<PollBody> {
    with_body(settings, parts, id, response, recorded, Sent::Whole).await
}

async fn with_body<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
    response: Response<BufferedBody>,
    recorded: &RecordedResponse,
    sent: Sent,
) -> Response<PollBody> {
    match body_of(settings, parts, id, recorded, sent).await {
        Ok(body) => response.map(|_| body),
        Err(fault) => settings.fault(&fault).map(PollBody::from),
    }
}

async fn body_of<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
    recorded: &RecordedResponse,
    sent: Sent,
) -> Result<PollBody, ApiError> {
    let unreadable = || ApiError::ResultUnreadable { id: id.clone() };
    let digest = recorded.known_digest().ok_or_else(unreadable)?;
    let uploader = recorded.uploader().ok_or_else(unreadable)?;
    let length = recorded.body_len() as u64;
    let range = match sent {
        Sent::Nothing => return Ok(BufferedBody::default().into()),
        Sent::Whole => 0..length,
        Sent::Part(range) => range.start as u64..range.end as u64,
    };
    let key = ResultKey::new(id.clone(), FencingToken::from_number(uploader));
    let chunks = match parts.method {
        Method::HEAD => None,
        _ => Some(open(settings, &key, range.clone()).await?),
    };
    Ok(PollBody::stored(match range == (0..length) {
        true => StoredBody::whole(key, chunks, length, digest, recorded.trailers()),
        false => StoredBody::part(key, chunks, range),
    }))
}

/// Opens a part of a body.
async fn open<S: Store>(
    settings: &Settings<S>,
    key: &ResultKey,
    range: Range<u64>,
) -> Result<ResultChunks, ApiError> {
    let opened = match &settings.runtime.results {
        Some(results) => guarded(async { results.store.get(key, range).await }).await,
        None => Err(StoreError::refused("this node has no result store")),
    };
    let error = match opened {
        Ok(Some(chunks)) => return Ok(guarded_chunks(chunks)),
        Ok(None) => StoreError::refused("the result store does not have it"),
        Err(error) if error.is_transient() => {
            return Err(unavailable(settings, Some(&key.id), &error));
        }
        Err(error) => error,
    };
    let id = &key.id;
    tracing::error!(%id, error = error.report(), "result not read");
    Err(ApiError::ResultUnreadable { id: id.clone() })
}
