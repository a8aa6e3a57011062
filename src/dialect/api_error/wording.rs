//! The texts of the problems.

use std::fmt::{self, Write as _};

use http::StatusCode;

use super::{ApiError, RequestName};
use crate::operation::{State, cut};

/// The maximum length in bytes of a sub-resource name that is quoted.
const NAME: usize = 256;

impl ApiError {
    /// Returns the code, the status and the title.
    pub(super) fn describe(&self) -> (&'static str, StatusCode, &'static str) {
        use RequestName::{Id, Key};
        use StatusCode as Status;
        match self {
            Self::MissingId => (
                "missing-id",
                Status::BAD_REQUEST,
                "An operation id is missing",
            ),
            Self::InvalidId { .. } => (
                "invalid-id",
                Status::BAD_REQUEST,
                "This is not an operation id",
            ),
            Self::InvalidWait { .. } => (
                "invalid-wait",
                Status::BAD_REQUEST,
                "wait takes whole seconds",
            ),
            Self::InvalidQuery { .. }
            | Self::RepeatedParameter { .. }
            | Self::UnsupportedParameter { .. }
            | Self::ForeignParameter { .. } => (
                "invalid-query",
                Status::BAD_REQUEST,
                "A parameter is invalid",
            ),
            Self::InvalidPrecondition { .. } => (
                "invalid-precondition",
                Status::BAD_REQUEST,
                "A precondition is malformed",
            ),
            Self::NotFound { .. } => ("not-found", Status::NOT_FOUND, "There is no such operation"),
            Self::NoSubResource { .. } => (
                "not-found",
                Status::NOT_FOUND,
                "There is no such sub-resource",
            ),
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
            Self::KeyInvalid { .. } => (
                "idempotency-key-invalid",
                Status::BAD_REQUEST,
                "Idempotency-Key is invalid",
            ),
            Self::KeyReused { name: Key(_) } => (
                "idempotency-key-reused",
                Status::UNPROCESSABLE_ENTITY,
                "Idempotency-Key was used for another request",
            ),
            Self::KeyReused { name: Id(_) } => (
                "operation-id-reused",
                Status::UNPROCESSABLE_ENTITY,
                "Operation-Id was used for another request",
            ),
            Self::KeyInUse { name: Key(_), .. } => (
                "idempotency-key-in-use",
                Status::CONFLICT,
                "A request with this Idempotency-Key is still being answered",
            ),
            Self::KeyInUse { name: Id(_), .. } => (
                "operation-id-in-use",
                Status::CONFLICT,
                "A request with this Operation-Id is still being answered",
            ),
            Self::IdTaken { .. } => ("id-taken", Status::CONFLICT, "This id is taken"),
            Self::Deleted { .. } => (
                "operation-deleted",
                Status::GONE,
                "The operation was deleted",
            ),
            Self::Canceled { .. } => ("canceled", Status::GONE, "The operation was canceled"),
            Self::PreconditionFailed { .. } => (
                "precondition-failed",
                Status::PRECONDITION_FAILED,
                "A precondition does not hold",
            ),
            Self::ResultUnreadable { .. } => (
                "result-unreadable",
                Status::INTERNAL_SERVER_ERROR,
                "The result cannot be read",
            ),
            Self::RangeNotSatisfiable { .. } => (
                "range-not-satisfiable",
                Status::RANGE_NOT_SATISFIABLE,
                "The range is outside of the result",
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

    /// Returns the detail: what is wrong with this request, and what helps.
    pub(super) fn detail(&self) -> Option<String> {
        Some(match self {
            Self::MissingId => {
                "The request names no operation, by its path or by its query.".to_owned()
            }
            Self::InvalidId { field, value, why } => {
                let what = field.unwrap_or("The id");
                format!("{what} is {}: {why}.", Quoted(value))
            }
            Self::InvalidWait { value } => no_value("wait", value, "whole seconds, such as 10"),
            Self::KeyMissing => "Send Idempotency-Key: one string in double quotes, another one \
                                 for each request."
                .to_owned(),
            Self::KeyInvalid { value, shortest } => format!(
                "Idempotency-Key is {}: a key is one string in double quotes, of {shortest} to \
                 255 characters.",
                Quoted(value)
            ),
            Self::KeyReused { name } => format!(
                "{name} was used for another request. Repeat that request as it was, or choose \
                 another {}.",
                name.field()
            ),
            Self::KeyInUse { name, .. } => format!(
                "The first request with {name} has no answer yet. Send this one again later."
            ),
            Self::InvalidQuery {
                parameter,
                value,
                allowed,
            } => no_value(parameter, value, allowed),
            Self::RepeatedParameter { parameter } => {
                format!("The parameter {parameter} is given more than once.")
            }
            Self::ForeignParameter { parameter, name } => {
                format!("The parameter {parameter} is not supported. Its name here is {name}.")
            }
            Self::UnsupportedParameter { parameter } => {
                format!("The parameter {parameter} is not supported.")
            }
            Self::Unsupported { what } => format!("{what} is not supported."),
            Self::InvalidPrecondition { field } => {
                format!("{field} is * or a list of entity tags in double quotes.")
            }
            Self::PreconditionFailed { field } if *field == "If-None-Match" => {
                "If-None-Match names the current version.".to_owned()
            }
            Self::PreconditionFailed { field } => {
                format!("{field} does not name the current version.")
            }
            Self::NoSubResource { id, name } => {
                let slash = if name.starts_with(':') { "" } else { "/" };
                let name = cut(name.as_str().into(), NAME);
                format!("There is no sub-resource {id}{slash}{name}.")
            }
            Self::NotFound { id } => format!("There is no operation {id}."),
            Self::MethodNotAllowed { allow } => format!("The methods here are {allow}."),
            Self::AlreadyFinished { id, state } if *state == State::Canceled => {
                format!("The operation {id} was canceled already.")
            }
            Self::AlreadyFinished { id, state } => {
                format!("The operation {id} has {state} already.")
            }
            Self::NotFinished { id } => format!("The operation {id} has not ended yet."),
            Self::IdTaken { id } => format!("The id {id} is in use. Choose another one."),
            Self::Deleted { id, name } => format!(
                "This request created the operation {id}, which was deleted. Another {} creates \
                 another operation.",
                name.field()
            ),
            Self::Canceled { id } => format!("The operation {id} was canceled."),
            Self::ResultUnreadable { id } => {
                format!("The result of the operation {id} is missing or damaged.")
            }
            Self::RangeNotSatisfiable { length } => format!("The result has {length} bytes."),
            Self::BodyTooLarge { limit } => format!("At most {limit} bytes are accepted."),
            Self::BodyTimeout
            | Self::BodyUnreadable
            | Self::Unpresentable
            | Self::Overloaded { .. }
            | Self::ShuttingDown { .. }
            | Self::Unavailable { .. }
            | Self::Failed { .. } => return None,
        })
    }
}

fn no_value(parameter: &str, value: &str, allowed: &str) -> String {
    let value = Quoted(value);
    format!("{value} is not a value of {parameter}, which takes {allowed}.")
}

/// The maximum number of characters of a value that are quoted.
const REPEATED: usize = 64;

/// A value from the client, shortened, with unprintable characters escaped.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut letters = self.0.chars();
        for letter in letters.by_ref().take(REPEATED) {
            write!(f, "{}", letter.escape_debug())?;
        }
        f.write_str(match letters.next() {
            Some(_) => "\u{2026}\"",
            None => "\"",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_are_short_and_printable() {
        let quoted = |text: &str| Quoted(text).to_string();
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("Q3 gr\u{fc}n"), "\"Q3 gr\u{fc}n\"");
        assert_eq!(quoted("a\nb\0\u{202e}"), r#""a\nb\0\u{202e}""#);
        assert_eq!(quoted(r#"say "a\b""#), r#""say \"a\\b\"""#);
        let (fits, long) = ("x".repeat(64), "\u{fc}".repeat(10_000));
        assert_eq!(quoted(&fits), format!("\"{fits}\""));
        assert_eq!(
            quoted(&long),
            format!("\"{}\u{2026}\"", "\u{fc}".repeat(64))
        );
    }
}
