use super::{Failure, State};

/// The outcome of an operation.
///
/// `T` is the result; with the layer it is a
/// [`RecordedResponse`](crate::RecordedResponse).
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T> {
    /// The operation succeeded, with or without a result.
    Succeeded(Option<T>),
    /// The operation failed, always with a problem.
    Failed(Failure<T>),
    /// The operation was canceled.
    Canceled,
    /// The operation was canceled, with the reason that was given.
    CanceledFor(Box<str>),
}

impl<T> Outcome<T> {
    /// Creates a failed outcome from a problem or a [`FailureKind`](crate::FailureKind),
    /// without a response.
    pub fn failed(failure: impl Into<Failure<T>>) -> Self {
        Self::Failed(failure.into())
    }

    /// Returns the terminal state of this outcome.
    #[must_use]
    pub const fn state(&self) -> State {
        match self {
            Self::Succeeded(_) => State::Succeeded,
            Self::Failed(_) => State::Failed,
            Self::Canceled | Self::CanceledFor(_) => State::Canceled,
        }
    }
}

/// The state of an operation, with the data that belongs to that state.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Status<T> {
    /// The operation is accepted and not started.
    #[default]
    Pending,
    /// The operation is being worked on.
    Running,
    /// The operation has ended, with its outcome.
    Ended(Outcome<T>),
}

impl<T> Status<T> {
    /// Returns the state alone.
    #[must_use]
    pub const fn state(&self) -> State {
        match self {
            Self::Pending => State::Pending,
            Self::Running => State::Running,
            Self::Ended(outcome) => outcome.state(),
        }
    }

    /// Returns the outcome, once there is one.
    #[must_use]
    pub const fn outcome(&self) -> Option<&Outcome<T>> {
        match self {
            Self::Ended(outcome) => Some(outcome),
            Self::Pending | Self::Running => None,
        }
    }
}

impl<T> From<Outcome<T>> for Status<T> {
    fn from(outcome: Outcome<T>) -> Self {
        Self::Ended(outcome)
    }
}
