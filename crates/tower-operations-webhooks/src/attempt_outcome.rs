use std::{fmt, time::Duration};

use http::StatusCode;

/// The outcome of an [`Attempt`](crate::Attempt).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The receiver has the webhook: it answered 2xx.
    Delivered {
        /// The status of the answer.
        status: StatusCode,
    },
    /// The attempt failed, and can be repeated.
    #[non_exhaustive]
    Failed {
        /// The status of the answer, if there was one.
        status: Option<StatusCode>,
        /// The delay that a receiver asks for with 429 or 503.
        retry_after: Option<Duration>,
        /// The reason.
        reason: FailureReason,
    },
    /// The receiver wants no more webhooks: it answered 410. Its endpoint should be disabled.
    Gone,
}

impl AttemptOutcome {
    /// Returns the status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Delivered { status } => Some(*status),
            Self::Failed { status, .. } => *status,
            Self::Gone => Some(StatusCode::GONE),
        }
    }

    /// Returns the outcome that a status means.
    pub(crate) fn of_status(status: StatusCode, retry_after: Option<Duration>) -> Self {
        let reason = match status {
            StatusCode::GONE => return Self::Gone,
            _ if status.is_success() => return Self::Delivered { status },
            _ if status.is_redirection() => FailureReason::Redirect,
            _ => FailureReason::Status,
        };
        let is_busy = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ]
        .contains(&status);
        Self::Failed {
            status: Some(status),
            retry_after: retry_after.filter(|_| is_busy),
            reason,
        }
    }

    /// Returns the outcome of an attempt without an answer.
    pub(crate) fn without_answer(reason: FailureReason) -> Self {
        Self::Failed {
            status: None,
            retry_after: None,
            reason,
        }
    }
}

/// The reason why an attempt failed. It has no part of the URL, the secret or the answer, and may be
/// stored, logged and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureReason {
    /// The answer is not 2xx.
    Status,
    /// The answer is a redirect, which is never followed.
    Redirect,
    /// There was no answer in time.
    Timeout,
    /// The policy does not admit the target, or an address of its name.
    Refused,
    /// The name of the target was not resolved.
    Resolve,
    /// There was no connection to the target.
    Connect,
    /// The TLS handshake failed, for example because of the certificate.
    Tls,
    /// The request was not sent, or its answer not read.
    Exchange,
}

impl FailureReason {
    /// Returns the reason in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Redirect => "redirect",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Exchange => "exchange",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
