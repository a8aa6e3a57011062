use http::StatusCode;

use super::Problem;

/// What a failed operation has: the problem, and the response that showed it,
/// if there was one.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure<T> {
    /// What went wrong, as clients may see it.
    pub problem: Problem,
    /// What the inner service answered, for the result resource.
    pub response: Option<T>,
}

/// The failures that do not come from the inner service's own answer.
///
/// Their [`Problem`] types are `urn:tower-operations:` and the name below.
/// They are stable: clients may match on them.
///
/// | name | status | when |
/// | --- | --- | --- |
/// | `inner-error` | 502 | the inner service returned `Err` |
/// | `panicked` | 500 | it panicked |
/// | `timed-out` | 504 | pending or running longer than allowed |
/// | `result-too-large` | 500 | its response is above the limit |
/// | `interrupted` | 503 | its node died, or drained without finishing it |
/// | `attempts-exhausted` | 500 | it was run again as often as allowed |
/// | `not-dispatched` | 503 | no engine took it |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The inner service returned `Err`.
    InnerError,
    /// The inner service panicked.
    Panicked,
    /// Pending or running longer than allowed.
    TimedOut,
    /// The response is above the limit.
    ResultTooLarge,
    /// Its node died, or drained without finishing it.
    Interrupted,
    /// It was run again as often as allowed.
    AttemptsExhausted,
    /// No engine took it.
    NotDispatched,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::InnerError,
        Self::Panicked,
        Self::TimedOut,
        Self::ResultTooLarge,
        Self::Interrupted,
        Self::AttemptsExhausted,
        Self::NotDispatched,
    ];

    /// The problem type's URN.
    #[must_use]
    pub const fn urn(self) -> &'static str {
        match self {
            Self::InnerError => "urn:tower-operations:inner-error",
            Self::Panicked => "urn:tower-operations:panicked",
            Self::TimedOut => "urn:tower-operations:timed-out",
            Self::ResultTooLarge => "urn:tower-operations:result-too-large",
            Self::Interrupted => "urn:tower-operations:interrupted",
            Self::AttemptsExhausted => "urn:tower-operations:attempts-exhausted",
            Self::NotDispatched => "urn:tower-operations:not-dispatched",
        }
    }

    /// The status that the problem carries, and the result resource answers.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InnerError => StatusCode::BAD_GATEWAY,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Panicked | Self::ResultTooLarge | Self::AttemptsExhausted => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Interrupted | Self::NotDispatched => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The last part of the problem type's URN.
    pub(crate) fn code(self) -> &'static str {
        let urn = self.urn();
        urn.rsplit(':').next().unwrap_or(urn)
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::InnerError => "The service returned an error",
            Self::Panicked => "The service failed unexpectedly",
            Self::TimedOut => "The operation took too long",
            Self::ResultTooLarge => "The result is too large to be kept",
            Self::Interrupted => "The operation was interrupted",
            Self::AttemptsExhausted => "The operation was tried as often as allowed",
            Self::NotDispatched => "The operation could not be dispatched",
        }
    }
}

impl From<FailureKind> for Problem {
    fn from(kind: FailureKind) -> Self {
        Self::new(kind.status())
            .with_type(kind.urn())
            .with_title(kind.title())
    }
}
