use http::StatusCode;

use super::Problem;

/// The failure of an operation: its problem, the response that caused it if there was one,
/// and the kind of the failure if this crate raised it.
///
/// A failure is created from a [`FailureKind`], or from a [`Problem`] of the application.
/// The content of that problem, including its type, does not determine the kind: a service
/// may pass on problems of another service that is built on this crate.
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
    /// The problem that clients see.
    pub problem: Problem,
    /// The response of the inner service, for the result resource.
    pub response: Option<T>,
    kind: Option<FailureKind>,
}

impl<T> Failure<T> {
    /// Returns the kind of a failure that this crate raised; `None` for a failure of the
    /// service or the application.
    #[must_use]
    pub fn kind(&self) -> Option<FailureKind> {
        self.kind
    }

    /// Sets the response of the inner service, if there was one.
    #[must_use]
    pub fn with_response(self, response: impl Into<Option<T>>) -> Self {
        Self {
            response: response.into(),
            ..self
        }
    }

    /// Sets the kind, for a store that keeps a failure in parts.
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

/// The kinds of failure that do not come from a response of the inner service.
///
/// The [`Problem`] types are `urn:tower-operations:` followed by the names below. The types
/// are stable: clients may match on them.
///
/// | name | status | when |
/// | --- | --- | --- |
/// | `inner-error` | 502 | the inner service returned `Err` |
/// | `panicked` | 500 | the inner service panicked |
/// | `timed-out` | 504 | the operation was pending or running longer than allowed |
/// | `request-unreadable` | 500 | the stored request is missing or damaged |
/// | `result-too-large` | 500 | the response is above the limit |
/// | `result-not-stored` | 503 | the result store did not take the response within the limits of the run |
/// | `interrupted` | 503 | the node died, or drained without finishing the operation |
/// | `attempts-exhausted` | 500 | the operation was rerun as often as allowed |
/// | `not-dispatched` | 503 | no engine accepted the operation |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The inner service returned `Err`.
    InnerError,
    /// The inner service panicked.
    Panicked,
    /// The operation was pending or running longer than allowed.
    TimedOut,
    /// The response is above the limit.
    ResultTooLarge,
    /// The result store did not take the response within the limits of the run.
    ResultNotStored,
    /// The node died, or drained without finishing the operation.
    Interrupted,
    /// The stored request is missing or damaged, so the operation could not be rerun.
    RequestUnreadable,
    /// The operation was rerun as often as allowed.
    AttemptsExhausted,
    /// No engine accepted the operation.
    NotDispatched,
}

impl FailureKind {
    /// All kinds.
    pub const ALL: &'static [Self] = &[
        Self::InnerError,
        Self::Panicked,
        Self::TimedOut,
        Self::ResultTooLarge,
        Self::ResultNotStored,
        Self::Interrupted,
        Self::RequestUnreadable,
        Self::AttemptsExhausted,
        Self::NotDispatched,
    ];

    /// Returns the name: the last part of the [`urn`](Self::urn).
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::InnerError => "inner-error",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed-out",
            Self::ResultTooLarge => "result-too-large",
            Self::ResultNotStored => "result-not-stored",
            Self::Interrupted => "interrupted",
            Self::RequestUnreadable => "request-unreadable",
            Self::AttemptsExhausted => "attempts-exhausted",
            Self::NotDispatched => "not-dispatched",
        }
    }

    /// Returns the kind with this name; `None` if this release has none.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }

    /// Returns the URN of the problem type.
    #[must_use]
    pub const fn urn(self) -> &'static str {
        match self {
            Self::InnerError => "urn:tower-operations:inner-error",
            Self::Panicked => "urn:tower-operations:panicked",
            Self::TimedOut => "urn:tower-operations:timed-out",
            Self::ResultTooLarge => "urn:tower-operations:result-too-large",
            Self::ResultNotStored => "urn:tower-operations:result-not-stored",
            Self::Interrupted => "urn:tower-operations:interrupted",
            Self::RequestUnreadable => "urn:tower-operations:request-unreadable",
            Self::AttemptsExhausted => "urn:tower-operations:attempts-exhausted",
            Self::NotDispatched => "urn:tower-operations:not-dispatched",
        }
    }

    /// Returns the status of the problem and of the result resource.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InnerError => StatusCode::BAD_GATEWAY,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Panicked
            | Self::ResultTooLarge
            | Self::RequestUnreadable
            | Self::AttemptsExhausted => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ResultNotStored | Self::Interrupted | Self::NotDispatched => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::InnerError => "The service returned an error",
            Self::Panicked => "The service failed unexpectedly",
            Self::TimedOut => "The operation took too long",
            Self::ResultTooLarge => "The result is too large to be kept",
            Self::ResultNotStored => "The result could not be stored",
            Self::Interrupted => "The operation was interrupted",
            Self::RequestUnreadable => "The stored request cannot be read",
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
