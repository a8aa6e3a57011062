use http::StatusCode;

use super::Problem;

/// What a failed operation has: the problem, the response that showed it if there was
/// one, and whose failure it is.
///
/// It is made of a [`FailureKind`], or of a [`Problem`] that is the application's. What
/// that problem says of itself, its type among it, decides nothing: a service may pass on
/// problems of another one that is built on this crate.
///
/// ```
/// use http::StatusCode;
/// use tower_operations::{Failure, FailureKind, Problem};
///
/// let ours = Failure::<u32>::from(FailureKind::TimedOut);
/// assert_eq!(ours.kind(), Some(FailureKind::TimedOut));
///
/// let passed_on = Problem::new(StatusCode::GATEWAY_TIMEOUT).with_type(FailureKind::TimedOut.urn());
/// assert_eq!(Failure::<u32>::from(passed_on).kind(), None);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Failure<T> {
    /// What went wrong, as clients may see it.
    pub problem: Problem,
    /// What the inner service answered, for the result resource.
    pub response: Option<T>,
    kind: Option<FailureKind>,
}

impl<T> Failure<T> {
    /// Which failure of this crate's it is; `None` if it is the service's or the
    /// application's own.
    #[must_use]
    pub fn kind(&self) -> Option<FailureKind> {
        self.kind
    }

    /// The same, with what the inner service answered, if it did.
    #[must_use]
    pub fn with_response(self, response: impl Into<Option<T>>) -> Self {
        Self {
            response: response.into(),
            ..self
        }
    }

    /// The same, of the kind it had: for a store that keeps a failure in parts.
    #[must_use]
    pub fn with_kind(self, kind: Option<FailureKind>) -> Self {
        Self { kind, ..self }
    }
}

impl<T> From<Problem> for Failure<T> {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            response: None,
            kind: None,
        }
    }
}

impl<T> From<FailureKind> for Failure<T> {
    fn from(kind: FailureKind) -> Self {
        Self::from(Problem::from(kind)).with_kind(Some(kind))
    }
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

    /// The name: the last part of the [`urn`](Self::urn).
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::InnerError => "inner-error",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed-out",
            Self::ResultTooLarge => "result-too-large",
            Self::Interrupted => "interrupted",
            Self::AttemptsExhausted => "attempts-exhausted",
            Self::NotDispatched => "not-dispatched",
        }
    }

    /// The kind of this name; `None` if there is none, in this release.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }

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
