//! Errors of this crate's own making.

mod bound;
mod request_name;
mod wording;

use std::time::Duration;

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, RETRY_AFTER},
};

use super::{answers::NO_STORE, retry_after::whole_seconds};
use crate::operation::{BufferedBody, FailureKind, InvalidId, OperationId, Problem, State};

pub use self::{bound::Bound, request_name::RequestName};

/// An error of this crate's own making, as opposed to one of the inner service.
///
/// Each has a [`Problem`] whose type is `urn:tower-operations:` and a stable
/// name; what is inside (a store's error text, say) is never in it.
///
/// | name | status | when |
/// | --- | --- | --- |
/// | `missing-id` | 400 | the request names no operation |
/// | `invalid-id` | 400 | what it names cannot be one |
/// | `invalid-wait` | 400 | `?wait=` is no number of seconds |
/// | `invalid-query` | 400 | a parameter has no value that it can have, or several, or is not supported |
/// | `invalid-precondition` | 400 | `If-Match` or `If-None-Match` is malformed |
/// | `not-found` | 404 | unknown, expired, or somebody else's; or no sub-resource |
/// | `method-not-allowed` | 405 | there is no such method here |
/// | `body-timeout` | 408 | the request body came too slowly |
/// | `already-finished` | 409 | too late to cancel |
/// | `not-finished` | 409 | too early to forget |
/// | `idempotency-key-missing` | 400 | a key is required |
/// | `idempotency-key-invalid` | 400 | the key is no string, too long or too short |
/// | `idempotency-key-in-use` | 409 | the first request with it is still being answered |
/// | `idempotency-key-reused` | 422 | it came with another request before |
/// | `operation-id-in-use` | 409 | the first request with this `Operation-Id` is still being answered |
/// | `operation-id-reused` | 422 | it came with another request before |
/// | `id-taken` | 409 | the id is somebody else's |
/// | `canceled` | 410 | there is no result, and will be none |
/// | `operation-deleted` | 410 | the same request made an operation that its client deleted |
/// | `precondition-failed` | 412 | `If-Match` names another version, or `If-None-Match` this one |
/// | `body-too-large` | 413 | the request body is above the limit |
/// | `body-unreadable` | 400 | the request body ended with an error |
/// | `unpresentable` | 500 | the result cannot be written as JSON |
/// | `unsupported` | 501 | this service does not do that to operations |
/// | `overloaded` | 503 | as many operations as allowed are in flight or stored, or event streams open |
/// | `shutting-down` | 503 | no new work is taken |
/// | `unavailable` | 503 | the store is |
/// | as its kind | as its kind | there was no operation yet when it failed |
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApiError {
    /// The request names no operation.
    MissingId,
    /// What it names cannot be an operation.
    InvalidId {
        /// The header field that names it, if one does.
        field: Option<&'static str>,
        /// What it names.
        value: Box<str>,
        /// Why that is no id.
        why: InvalidId,
    },
    /// `?wait=` is no number of seconds.
    InvalidWait {
        /// Its value.
        value: Box<str>,
    },
    /// A parameter has no value that it can have.
    InvalidQuery {
        /// Which parameter, by the name it came by.
        parameter: &'static str,
        /// Its value.
        value: Box<str>,
        /// What it can be, as `a whole number`.
        allowed: Box<str>,
    },
    /// A parameter that has one value is given more than once.
    RepeatedParameter {
        /// Which parameter.
        parameter: &'static str,
    },
    /// The vocabulary has this parameter, and this service does not.
    UnsupportedParameter {
        /// Which parameter.
        parameter: &'static str,
    },
    /// Another vocabulary has this parameter, and it has another name here.
    ForeignParameter {
        /// Which parameter.
        parameter: &'static str,
        /// Its name here.
        name: &'static str,
    },
    /// `If-Match` or `If-None-Match` is neither `*` nor a list of entity tags (RFC 9110,
    /// section 13.1).
    InvalidPrecondition {
        /// Which of them.
        field: &'static str,
    },
    /// There is nothing at this path below an operation.
    NoSubResource {
        /// The segment before it, which may be an operation's or not.
        id: OperationId,
        /// What was asked for.
        name: String,
    },
    /// There is no operation.
    NotFound {
        /// The operation that was asked for.
        id: OperationId,
    },
    /// There is no such method here.
    MethodNotAllowed {
        /// The methods there are, as in `Allow` (RFC 9110, section 10.2.1).
        allow: &'static str,
    },
    /// The request body came too slowly.
    BodyTimeout,
    /// Too late to cancel.
    AlreadyFinished {
        /// The operation.
        id: OperationId,
        /// How it ended.
        state: State,
    },
    /// Too early to forget.
    NotFinished {
        /// The operation.
        id: OperationId,
    },
    /// An `Idempotency-Key` is required.
    KeyMissing,
    /// The `Idempotency-Key` is no string, too long or too short.
    KeyInvalid {
        /// What was sent as one; several fields as one list.
        value: Box<str>,
        /// How many characters it needs.
        shortest: usize,
    },
    /// The `Idempotency-Key` or the `Operation-Id` came with another request before.
    KeyReused {
        /// Which of them.
        name: RequestName,
    },
    /// The first request with this `Idempotency-Key` or `Operation-Id` is still being
    /// answered.
    KeyInUse {
        /// Which of them.
        name: RequestName,
        /// When to try again.
        retry_after: Duration,
    },
    /// The id is of another owner's operation.
    IdTaken {
        /// The id that the client chose.
        id: OperationId,
    },
    /// The same request made an operation that was deleted.
    Deleted {
        /// The operation.
        id: OperationId,
        /// What says that it is the same request.
        name: RequestName,
    },
    /// There is no result, and will be none.
    Canceled {
        /// The operation.
        id: OperationId,
    },
    /// `If-Match` names another version, or `If-None-Match` this one.
    PreconditionFailed {
        /// Which of them.
        field: &'static str,
    },
    /// The request body is above the limit.
    BodyTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The request body ended with an error.
    BodyUnreadable,
    /// The result cannot be written as JSON.
    Unpresentable,
    /// This service does not do that to operations.
    Unsupported {
        /// What it does not do: an operation or a parameter.
        what: &'static str,
    },
    /// As many operations as allowed are in flight or stored, or event streams open.
    Overloaded {
        /// Which bound was reached.
        bound: Bound,
        /// When to try again.
        retry_after: Duration,
    },
    /// No new work is taken.
    ShuttingDown {
        /// When to try again.
        retry_after: Duration,
    },
    /// The store is unavailable.
    Unavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// The inner service came to no answer that could go out, and there was no operation
    /// yet that could fail.
    Failed {
        /// As which it would have failed.
        kind: FailureKind,
    },
}

impl ApiError {
    /// What a path or a query names is no operation's id.
    #[must_use]
    pub fn invalid_id(text: &str, why: InvalidId) -> Self {
        Self::InvalidId {
            field: None,
            value: text.into(),
            why,
        }
    }

    /// A parameter has a value that it cannot have. `allowed` says what it can have, as
    /// `a whole number`.
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

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.describe().1
    }

    /// The error code: the last part of the problem's type.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.describe().0
    }

    /// The methods there are, if that is the question.
    #[must_use]
    pub fn allow(&self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed { allow } => Some(allow),
            _ => None,
        }
    }

    /// When trying again can help, in whole seconds.
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

    /// The fault as a problem.
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

    /// The fault as a response: its problem, with `Allow` or `Retry-After`
    /// where one belongs.
    #[must_use]
    pub fn into_response(self) -> Response<BufferedBody> {
        let mut response = self.problem().into_response();
        self.add_headers(response.headers_mut());
        response
    }

    /// Adds `Allow` or `Retry-After`, where one belongs and is not there yet.
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
    }
}
