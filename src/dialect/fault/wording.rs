//! Words and statuses of faults.

use http::StatusCode;

use super::{Bound, Fault};
use crate::operation::Problem;

impl Fault {
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

    /// The error code, the status, and the title.
    pub(super) fn describe(&self) -> (&'static str, StatusCode, &'static str) {
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
