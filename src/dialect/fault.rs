use std::time::Duration;

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{ALLOW, RETRY_AFTER},
};

use super::retry_after::whole_seconds;
use crate::operation::{FailureKind, OperationId, Problem, State, WholeBody};

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
/// | `id-taken` | 409 | the id is somebody else's |
/// | `canceled` | 410 | there is no result, and will be none |
/// | `operation-deleted` | 410 | the key made an operation that its client deleted |
/// | `precondition-failed` | 412 | `If-Match` names another version |
/// | `body-too-large` | 413 | the request body is above the limit |
/// | `body-unreadable` | 400 | the request body ended with an error |
/// | `unpresentable` | 500 | the result cannot be written as JSON |
/// | `unsupported` | 501 | this service does not do that to operations |
/// | `overloaded` | 503 | as many operations as allowed are in flight, or event streams open |
/// | `shutting-down` | 503 | no new work is taken |
/// | `unavailable` | 503 | the store is |
/// | as its kind | as its kind | there was no operation yet when it failed |
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request names no operation.
    MissingId,
    /// What it names cannot be an operation.
    InvalidId,
    /// `?wait=` is no number of seconds.
    InvalidWait,
    /// A parameter has no value that it can have.
    InvalidQuery {
        /// Which parameter.
        parameter: &'static str,
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
    KeyInvalid,
    /// The `Idempotency-Key` came with another request before.
    KeyReused,
    /// The first request with this `Idempotency-Key` is still being answered.
    KeyInUse {
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
    },
    /// There is no result, and will be none.
    Canceled {
        /// The operation.
        id: OperationId,
    },
    /// `If-Match` names another version.
    PreconditionFailed,
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
    /// As many operations as allowed are in flight, or event streams open.
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

/// A bound that keeps a service from being overloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// How many operations are in flight.
    InFlight,
    /// How many of one owner's are.
    InFlightPerOwner,
    /// How many event streams are open.
    Streams,
    /// How many of one owner's are.
    StreamsPerOwner,
}

impl Bound {
    fn title(self) -> &'static str {
        match self {
            Self::InFlight => "Too many operations are in flight",
            Self::InFlightPerOwner => "Too many operations are in flight for this owner",
            Self::Streams => "Too many event streams are open",
            Self::StreamsPerOwner => "Too many event streams are open for this owner",
        }
    }
}

impl Fault {
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
            Self::KeyInUse { retry_after }
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
        match self {
            Self::KeyInvalid => problem.with_detail(
                "A key is one string in double quotes, of 1 to 255 characters, or of 16 to 255 \
                 where nobody has to say who they are.",
            ),
            Self::InvalidQuery { parameter } => {
                problem.with_detail(format!("This is no value for {parameter}."))
            }
            Self::RepeatedParameter { parameter } => problem.with_detail(format!(
                "The parameter {parameter} is given more than once."
            )),
            Self::UnsupportedParameter { parameter } => {
                problem.with_detail(format!("The parameter {parameter} is not supported."))
            }
            Self::Unsupported { what } => problem.with_detail(format!("{what} is not supported.")),
            Self::InvalidPrecondition { field } => problem.with_detail(format!(
                "{field} is * or a list of entity tags in double quotes."
            )),
            Self::NoSubResource { id, name } => {
                problem.with_detail(format!("There is no sub-resource {id}/{name}."))
            }
            Self::NotFound { id } => problem.with_detail(format!("There is no operation {id}.")),
            Self::AlreadyFinished { id, state } => {
                problem.with_detail(format!("The operation {id} has {state} already."))
            }
            Self::NotFinished { id } => {
                problem.with_detail(format!("The operation {id} is still going on."))
            }
            Self::IdTaken { id } => {
                problem.with_detail(format!("The id {id} is in use. Choose another one."))
            }
            Self::Deleted { id } => problem.with_detail(format!(
                "This request made the operation {id}, which was deleted. Another \
                 Idempotency-Key makes another operation."
            )),
            Self::Canceled { id } => {
                problem.with_detail(format!("The operation {id} was canceled."))
            }
            Self::BodyTooLarge { limit } => {
                problem.with_detail(format!("At most {limit} bytes are accepted."))
            }
            _ => problem,
        }
    }

    /// The fault as a response: its problem, with `Allow` or `Retry-After`
    /// where one belongs.
    #[must_use]
    pub fn into_response(self) -> Response<WholeBody> {
        let mut response = self.problem().into_response();
        self.add_headers(response.headers_mut());
        response
    }

    /// Adds `Allow` or `Retry-After`, where one belongs and is not there yet.
    pub(crate) fn add_headers(&self, headers: &mut http::HeaderMap) {
        let mut add = |name: HeaderName, value| {
            headers.entry(name).or_insert(value);
        };
        if let Some(allow) = self.allow() {
            add(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = self.retry_after() {
            add(RETRY_AFTER, seconds.into());
        }
    }

    /// The same, where the parameter `cursor` has another name.
    pub(super) fn named(&self, cursor: &'static str) -> Self {
        match self {
            Self::InvalidQuery {
                parameter: "cursor",
            } => Self::InvalidQuery { parameter: cursor },
            fault => fault.clone(),
        }
    }

    fn describe(&self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as Status;
        match self {
            Self::MissingId => (
                "missing-id",
                Status::BAD_REQUEST,
                "An operation id is missing",
            ),
            Self::InvalidId => ("invalid-id", Status::BAD_REQUEST, "This is no operation id"),
            Self::InvalidWait => (
                "invalid-wait",
                Status::BAD_REQUEST,
                "wait takes whole seconds",
            ),
            Self::InvalidQuery { .. }
            | Self::RepeatedParameter { .. }
            | Self::UnsupportedParameter { .. } => (
                "invalid-query",
                Status::BAD_REQUEST,
                "A parameter is invalid",
            ),
            Self::InvalidPrecondition { .. } => (
                "invalid-precondition",
                Status::BAD_REQUEST,
                "A precondition is malformed",
            ),
            Self::NotFound { .. } | Self::NoSubResource { .. } => {
                ("not-found", Status::NOT_FOUND, "There is no such operation")
            }
            Self::MethodNotAllowed { .. } => (
                "method-not-allowed",
                Status::METHOD_NOT_ALLOWED,
                "This method is not allowed here",
            ),
            Self::BodyTimeout => (
                "body-timeout",
                Status::REQUEST_TIMEOUT,
                "The request body did not arrive in time",
            ),
            Self::AlreadyFinished { .. } => (
                "already-finished",
                Status::CONFLICT,
                "The operation has finished already",
            ),
            Self::NotFinished { .. } => (
                "not-finished",
                Status::CONFLICT,
                "The operation has not finished yet",
            ),
            Self::KeyMissing => (
                "idempotency-key-missing",
                Status::BAD_REQUEST,
                "Idempotency-Key is missing",
            ),
            Self::KeyInvalid => (
                "idempotency-key-invalid",
                Status::BAD_REQUEST,
                "Idempotency-Key is invalid",
            ),
            Self::KeyReused => (
                "idempotency-key-reused",
                Status::UNPROCESSABLE_ENTITY,
                "Idempotency-Key was used for another request",
            ),
            Self::KeyInUse { .. } => (
                "idempotency-key-in-use",
                Status::CONFLICT,
                "A request with this Idempotency-Key is still being answered",
            ),
            Self::IdTaken { .. } => ("id-taken", Status::CONFLICT, "This id is taken"),
            Self::Deleted { .. } => (
                "operation-deleted",
                Status::GONE,
                "The operation was deleted",
            ),
            Self::Canceled { .. } => ("canceled", Status::GONE, "The operation was canceled"),
            Self::PreconditionFailed => (
                "precondition-failed",
                Status::PRECONDITION_FAILED,
                "The operation is at another version",
            ),
            Self::BodyTooLarge { .. } => (
                "body-too-large",
                Status::PAYLOAD_TOO_LARGE,
                "The request body is too large",
            ),
            Self::BodyUnreadable => (
                "body-unreadable",
                Status::BAD_REQUEST,
                "The request body could not be read",
            ),
            Self::Unpresentable => (
                "unpresentable",
                Status::INTERNAL_SERVER_ERROR,
                "The result cannot be shown",
            ),
            Self::Unsupported { .. } => (
                "unsupported",
                Status::NOT_IMPLEMENTED,
                "This is not supported",
            ),
            Self::Overloaded { bound, .. } => {
                ("overloaded", Status::SERVICE_UNAVAILABLE, bound.title())
            }
            Self::ShuttingDown { .. } => (
                "shutting-down",
                Status::SERVICE_UNAVAILABLE,
                "The service is shutting down",
            ),
            Self::Unavailable { .. } => (
                "unavailable",
                Status::SERVICE_UNAVAILABLE,
                "Operations are unavailable at the moment",
            ),
            Self::Failed { kind } => (kind.code(), kind.status(), kind.title()),
        }
    }
}
