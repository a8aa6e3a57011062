//! Failures in the terms that dialects share.

use std::borrow::Cow;

use http::{Response, StatusCode};

use super::{
    ApiError,
    answers::{AnswerExt, JSON},
    object::Object,
};
use crate::operation::{BufferedBody, OperationView, Problem, State, in_one_word};

/// The code, message and status of a failure, and whether a retry can succeed.
pub(super) struct ErrorWords<'a> {
    pub(super) code: Cow<'a, str>,
    pub(super) message: &'a str,
    pub(super) status: StatusCode,
    pub(super) retryable: bool,
}

fn message(problem: &Problem) -> &str {
    let text = problem.detail().or(problem.title());
    text.unwrap_or("The operation failed.")
}

impl ErrorWords<'static> {
    const CANCELED: Self = Self {
        code: Cow::Borrowed("Canceled"),
        message: "The operation was canceled.",
        status: StatusCode::GONE,
        retryable: false,
    };
}

impl<'a> ErrorWords<'a> {
    /// Describes an error of this crate, with its problem.
    pub(super) fn of_fault(fault: &ApiError, problem: &'a Problem) -> Self {
        Self {
            code: in_one_word(fault.code()).into(),
            message: message(problem),
            status: fault.status(),
            retryable: problem.is_retryable(),
        }
    }

    /// Adds the members `code` and `message`.
    pub(super) fn fill(&self, object: Object) -> Object {
        object
            .value("code", &self.code)
            .value("message", self.message)
    }

    /// Returns the response `{"error":{"code","message"}}`.
    pub(super) fn response(&self, status: StatusCode) -> Response<BufferedBody> {
        Object::new()
            .object("error", |error| self.fill(error))
            .into_error(status, JSON)
            .no_store()
    }

    /// Returns a status after which clients do not poll again.
    pub(super) fn lasting_status(&self) -> StatusCode {
        match self.status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            status if status.is_client_error() => status,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    /// Describes an operation that has failed or was canceled.
    pub(super) fn from_operation(operation: &OperationView<'a>) -> Option<Self> {
        if operation.state() == State::Canceled {
            return Some(ErrorWords::CANCELED);
        }
        Some(Self {
            code: operation.error_code()?,
            message: message(operation.problem()?),
            status: operation.error_status()?,
            retryable: operation.is_retryable(),
        })
    }
}
