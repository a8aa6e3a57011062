//! Errors that this crate raises.

mod bound;
mod request_name;
mod wording;

use std::time::Duration;

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_RANGE, RETRY_AFTER},
};

pub use self::{bound::Bound, request_name::RequestName};
use super::{answers::NO_STORE, retry_after::whole_seconds};
use crate::operation::{BufferedBody, FailureKind, InvalidId, OperationId, Problem, State};

/// An error that this crate raises, as opposed to an error of the inner service.
///
/// Each error has a [`Problem`] whose type is `urn:tower-operations:` followed by a stable
/// name. Internal details, such as the error text of a store, are never part of the
/// problem.
///
/// | name | status | when |
/// | --- | --- | --- |
/// | `missing-id` | 400 | the request names no operation |
/// | `invalid-id` | 400 | the request names an invalid operation id |
/// | `invalid-wait` | 400 | `?wait=` is not a number of seconds |
/// | `invalid-query` | 400 | a parameter has an invalid value, is repeated, or is not supported |
/// | `invalid-precondition` | 400 | `If-Match` or `If-None-Match` is malformed |
/// | `not-found` | 404 | the operation is unknown, expired, or of another owner; or the sub-resource is unknown |
/// | `method-not-allowed` | 405 | the resource does not support the method |
/// | `body-timeout` | 408 | the request body arrived too slowly |
/// | `already-finished` | 409 | too late to cancel |
/// | `not-finished` | 409 | too early to delete |
/// | `idempotency-key-missing` | 400 | a key is required |
/// | `idempotency-key-invalid` | 400 | the key is not a string, too long or too short |
/// | `idempotency-key-in-use` | 409 | the first request with this key is still being answered |
/// | `idempotency-key-reused` | 422 | the key was used with another request |
/// | `operation-id-in-use` | 409 | the first request with this `Operation-Id` is still being answered |
/// | `operation-id-reused` | 422 | the `Operation-Id` was used with another request |
/// | `id-taken` | 409 | the id belongs to an operation of another owner |
/// | `canceled` | 410 | the operation was canceled and will never have a result |
/// | `operation-deleted` | 410 | the same request created an operation that its client deleted |
/// | `precondition-failed` | 412 | `If-Match` names another version, or `If-None-Match` the current one |
/// | `range-not-satisfiable` | 416 | `Range` begins after the end of the result |
/// | `body-too-large` | 413 | the request body is above the limit |
/// | `body-unreadable` | 400 | the request body ended with an error |
/// | `result-unreadable` | 500 | the result store does not have the result as it was recorded |
/// | `unpresentable` | 500 | the result cannot be written as JSON |
/// | `unsupported` | 501 | this service does not support the request |
/// | `overloaded` | 503 | the limit of operations or bytes in flight, of the store, or of event streams is reached |
/// | `shutting-down` | 503 | no new work is accepted |
/// | `unavailable` | 503 | the store is unavailable |
/// | as its kind | as its kind | the request failed before an operation existed |
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApiError {
    /// The request names no operation.
    MissingId,
    /// The request names an invalid operation id.
    InvalidId {
        /// The header field that contains the id, if it came in one.
        field: Option<&'static str>,
        /// The invalid id.
        value: Box<str>,
        /// The reason why the id is invalid.
        why: InvalidId,
    },
    /// `?wait=` is not a number of seconds.
    InvalidWait {
        /// The value.
        value: Box<str>,
    },
    /// A parameter has an invalid value.
    InvalidQuery {
        /// The parameter, by the name in the request.
        parameter: &'static str,
        /// The value.
        value: Box<str>,
        /// The allowed values in words, such as `a whole number`.
        allowed: Box<str>,
    },
    /// A parameter that takes one value is given more than once.
    RepeatedParameter {
        /// The parameter.
        parameter: &'static str,
    },
    /// The dialect defines this parameter, but this service does not support it.
    UnsupportedParameter {
        /// The parameter.
        parameter: &'static str,
    },
    /// The parameter is one of another dialect and has a different name in this one.
    ForeignParameter {
        /// The parameter.
        parameter: &'static str,
        /// The name in this dialect.
        name: &'static str,
    },
    /// `If-Match` or `If-None-Match` is neither `*` nor a list of entity tags (RFC 9110,
    /// section 13.1).
    InvalidPrecondition {
        /// The header field.
        field: &'static str,
    },
    /// The path below an operation names no sub-resource.
    NoSubResource {
        /// The preceding path segment. An operation with this id need not exist.
        id: OperationId,
        /// The requested sub-resource.
        name: String,
    },
    /// The operation does not exist.
    NotFound {
        /// The requested operation.
        id: OperationId,
    },
    /// The resource does not support the method.
    MethodNotAllowed {
        /// The supported methods, as in `Allow` (RFC 9110, section 10.2.1).
        allow: &'static str,
    },
    /// The request body arrived too slowly.
    BodyTimeout,
    /// The operation has ended: it is too late to cancel it.
    AlreadyFinished {
        /// The operation.
        id: OperationId,
        /// The state in which the operation ended.
        state: State,
    },
    /// The operation has not ended: it is too early to delete it.
    NotFinished {
        /// The operation.
        id: OperationId,
    },
    /// An `Idempotency-Key` is required.
    KeyMissing,
    /// The `Idempotency-Key` is not a string, too long or too short.
    KeyInvalid {
        /// The value that was sent; several fields are joined to one list.
        value: Box<str>,
        /// The minimum number of characters.
        shortest: usize,
    },
    /// The `Idempotency-Key` or the `Operation-Id` was used with another request.
    KeyReused {
        /// The key or the id.
        name: RequestName,
    },
    /// The first request with this `Idempotency-Key` or `Operation-Id` is still being
    /// answered.
    KeyInUse {
        /// The key or the id.
        name: RequestName,
        /// The delay before a retry.
        retry_after: Duration,
    },
    /// The id belongs to an operation of another owner.
    IdTaken {
        /// The id that the client chose.
        id: OperationId,
    },
    /// The same request created an operation that was deleted.
    Deleted {
        /// The operation.
        id: OperationId,
        /// The key or the id that identifies the request.
        name: RequestName,
    },
    /// The operation was canceled and will never have a result.
    Canceled {
        /// The operation.
        id: OperationId,
    },
    /// `If-Match` names another version, or `If-None-Match` the current one.
    PreconditionFailed {
        /// The header field.
        field: &'static str,
    },
    /// `Range` begins after the end of the result.
    RangeNotSatisfiable {
        /// The length of the result in bytes.
        length: u64,
    },
    /// The request body is above the limit.
    BodyTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The request body ended with an error.
    BodyUnreadable,
    /// The result store does not have the result as it was recorded.
    ResultUnreadable {
        /// The operation.
        id: OperationId,
    },
    /// The result cannot be written as JSON.
    Unpresentable,
    /// This service does not support the request.
    Unsupported {
        /// The unsupported operation or parameter.
        what: &'static str,
    },
    /// The limit of operations in flight, of the store, or of event streams is reached.
    Overloaded {
        /// The bound that was reached.
        bound: Bound,
        /// The delay before a retry.
        retry_after: Duration,
    },
    /// No new work is accepted.
    ShuttingDown {
        /// The delay before a retry.
        retry_after: Duration,
    },
    /// The store is unavailable.
    Unavailable {
        /// The delay before a retry.
        retry_after: Duration,
    },
    /// The inner service produced no response that could be sent, and no operation existed
    /// yet that could fail.
    Failed {
        /// The failure that the operation would have had.
        kind: FailureKind,
    },
}

impl ApiError {
    /// Creates the error for an invalid id in a path or a query.
    #[must_use]
    pub fn invalid_id(text: &str, why: InvalidId) -> Self {
        Self::InvalidId {
            field: None,
            value: text.into(),
            why,
        }
    }

    /// Creates the error for a parameter with an invalid value. `allowed` describes the
    /// valid values, such as `a whole number`.
    #[must_use]
    pub fn invalid_query(parameter: &'static str, value: &str, allowed: &str) -> Self {
        Self::InvalidQuery {
            parameter,
            value: value.into(),
            allowed: allowed.into(),
        }
    }

    pub(super) fn invalid_wait(text: &str) -> Self {
        Self::InvalidWait { value: text.into() }
    }

    /// Returns the status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.describe().1
    }

    /// Returns the error code: the last part of the problem's type.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.describe().0
    }

    /// Returns the supported methods, if the error concerns the method.
    #[must_use]
    pub fn allow(&self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed { allow } => Some(allow),
            _ => None,
        }
    }

    /// Returns the delay before a retry in whole seconds, if a retry can help.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::KeyInUse { retry_after, .. }
            | Self::Overloaded { retry_after, .. }
            | Self::ShuttingDown { retry_after }
            | Self::Unavailable { retry_after } => Some(whole_seconds(*retry_after)),
            _ => None,
        }
    }

    /// Returns the error as a problem.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (code, status, title) = self.describe();
        let problem = Problem::new(status)
            .with_type(format!("urn:tower-operations:{code}"))
            .with_title(title);
        match self.detail() {
            Some(detail) => problem.with_detail(detail),
            None => problem,
        }
    }

    /// Returns the error as a response: its problem, with `Allow`, `Retry-After` or
    /// `Content-Range` if the error has one.
    #[must_use]
    pub fn into_response(self) -> Response<BufferedBody> {
        let mut response = self.problem().into_response();
        self.add_headers(response.headers_mut());
        response
    }

    /// Adds `Cache-Control`, and `Allow`, `Retry-After` or `Content-Range` if the error has one. Keeps
    /// fields that are already set.
    pub(crate) fn add_headers(&self, headers: &mut http::HeaderMap) {
        let mut add = |name: HeaderName, value| {
            headers.entry(name).or_insert(value);
        };
        add(CACHE_CONTROL, NO_STORE);
        if let Some(allow) = self.allow() {
            add(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = self.retry_after() {
            add(RETRY_AFTER, seconds.into());
        }
        if let Self::RangeNotSatisfiable { length } = self
            && let Ok(range) = HeaderValue::try_from(format!("bytes */{length}"))
        {
            add(CONTENT_RANGE, range);
        }
    }
}
