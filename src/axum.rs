//! Types of this crate as responses and extractors of axum.

use std::convert::Infallible;

use ::axum::{
    body::Body,
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};

use crate::{
    dialect::{Accepted, ApiError, Preferences},
    operation::{Operation, OperationId, Payload, Problem},
    run::{NotAccepted, OperationHandle},
};

/// The 202 as a response; see [`Accepted::into_response`].
impl IntoResponse for Accepted<'_> {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}

/// A 200 with the operation; see [`Operation::into_response`].
impl<T: Payload> IntoResponse for Operation<T> {
    fn into_response(self) -> Response {
        Self::into_response(self, StatusCode::OK).map(Body::new)
    }
}

/// The problem as a response; see [`ApiError::into_response`].
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}

/// The problem as a response; see [`Problem::into_response`].
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}

/// A 503 of the type `urn:tower-operations:unavailable`, with `Retry-After`. A layer replaces
/// this response by one in its dialect.
impl IntoResponse for NotAccepted {
    fn into_response(self) -> Response {
        let retry_after = std::time::Duration::from_secs(1);
        let mut response = IntoResponse::into_response(ApiError::Unavailable { retry_after });
        response.extensions_mut().insert(self);
        response
    }
}

/// An extractor that always succeeds; see [`OperationHandle::from_extensions`].
impl<S: Sync> FromRequestParts<S> for OperationHandle {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_extensions(&parts.extensions))
    }
}

/// Extracts the id of the operation that the handler runs for.
impl<S: Sync> FromRequestParts<S> for OperationId {
    /// A 500: the handler is not behind a layer, or its request was not accepted yet.
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let handle = OperationHandle::from_extensions(&parts.extensions);
        handle.id().cloned().ok_or_else(|| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
                .with_title("The request is no operation")
        })
    }
}

/// An extractor that always succeeds: a malformed `Prefer` is ignored (RFC 7240, section 2).
impl<S: Sync> FromRequestParts<S> for Preferences {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_headers(&parts.headers))
    }
}
