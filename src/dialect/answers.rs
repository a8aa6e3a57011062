//! Helpers for building responses.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};

use super::{ApiError, Context};
use crate::operation::{BufferedBody, OperationView, PayloadView};

pub(super) const JSON: &str = "application/json";

/// The media type of JSON. A constant is validated once, and not each time it is used.
const JSON_TYPE: HeaderValue = HeaderValue::from_static(JSON);

/// Returns a response with a body of this media type.
#[inline]
pub(super) fn typed(
    status: StatusCode,
    media_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<BufferedBody> {
    let mut response = Response::new(BufferedBody::from(text));
    *response.status_mut() = status;
    let media_type = match media_type {
        JSON => JSON_TYPE,
        other => HeaderValue::from_static(other),
    };
    // An empty map reserves space for six fields, which most responses do not exceed.
    response.headers_mut().append(CONTENT_TYPE, media_type);
    response
}

/// Returns a response without a body.
pub(super) fn empty(status: StatusCode) -> Response<BufferedBody> {
    let mut response = Response::new(BufferedBody::default());
    *response.status_mut() = status;
    response
}

/// Returns the result of a terminal operation as a response: the recorded response, `200`
/// and JSON, or `204` if there is no result. Returns `None` for a failure without a
/// response. A recorded response of a success that is not final cannot be sent; a failure
/// is always sent with an error status.
pub(super) fn replayed(
    operation: &OperationView<'_>,
    context: &Context<'_>,
) -> Result<Option<Response<BufferedBody>>, ApiError> {
    Ok(match (operation.response(), operation.error_status()) {
        (Some(PayloadView::Response(recorded)), Some(status)) => {
            let mut response = context.replay.response(recorded);
            *response.status_mut() = status;
            Some(response)
        }
        (Some(PayloadView::Response(recorded)), None) if !recorded.is_final() => {
            let (id, status) = (operation.id(), recorded.status());
            tracing::error!(%id, %status, "result is not a final response, refused");
            return Err(ApiError::Unpresentable);
        }
        (Some(PayloadView::Response(recorded)), None) => Some(context.replay.response(recorded)),
        (Some(PayloadView::Json(value)), _) => {
            let mut text = Vec::new();
            value
                .to_json(&mut text)
                .map_err(|error| unpresentable(operation, &error))?;
            Some(typed(StatusCode::OK, JSON, text).private())
        }
        (None, Some(_)) => None,
        (None, None) => Some(empty(StatusCode::NO_CONTENT).private()),
    })
}

pub(super) fn unpresentable(operation: &OperationView<'_>, error: &serde_json::Error) -> ApiError {
    tracing::error!(id = %operation.id(), %error, "result not serialized");
    ApiError::Unpresentable
}

const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Setters for responses.
pub(super) trait AnswerExt: Sized {
    /// Sets a field, if there is a value and it is valid in a header.
    fn put(self, name: HeaderName, value: Option<impl AsRef<str>>) -> Self;

    /// Sets a field.
    fn set(self, name: HeaderName, value: HeaderValue) -> Self;

    /// Sets `Retry-After` in seconds, if the operation is not terminal.
    fn retry_after(self, context: &Context<'_>) -> Self {
        match context.retry_after {
            Some(seconds) => self.set(RETRY_AFTER, seconds.into()),
            None => self,
        }
    }

    /// Sets `Location` to the URL of the operation.
    fn location(self, context: &Context<'_>) -> Self {
        self.put(http::header::LOCATION, context.urls.status())
    }

    /// Marks the response as private to the client and not to be stored.
    fn private(self) -> Self {
        self.set(CACHE_CONTROL, PRIVATE)
    }

    /// Marks the response as not to be stored.
    fn no_store(self) -> Self {
        self.set(CACHE_CONTROL, NO_STORE)
    }
}

impl AnswerExt for Response<BufferedBody> {
    fn put(mut self, name: HeaderName, value: Option<impl AsRef<str>>) -> Self {
        match value.map(|value| HeaderValue::from_str(value.as_ref())) {
            Some(Ok(value)) => self = self.set(name, value),
            Some(Err(_)) => tracing::error!(%name, "header value invalid, field left out"),
            None => {}
        }
        self
    }

    fn set(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers_mut().insert(name, value);
        self
    }
}
