use super::{Failure, State};

/// How an operation ended.
///
/// `T` is the result; with the layer it is a
/// [`RecordedResponse`](crate::RecordedResponse).
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T> {
    /// It ended well, with a result or without one.
    Succeeded(Option<T>),
    /// It ended badly, always with a problem.
    Failed(Failure<T>),
    /// It was canceled.
    Canceled,
    /// It was canceled, for a reason that was given.
    CanceledFor(Box<str>),
}

impl<T> Outcome<T> {
    /// A failure that left nothing but its problem, or one of this crate's kinds.
    pub fn failed(failure: impl Into<Failure<T>>) -> Self {
        Self::Failed(failure.into())
    }

    /// The terminal state this outcome leads to.
    #[must_use]
    pub const fn state(&self) -> State {
        match self {
            Self::Succeeded(_) => State::Succeeded,
            Self::Failed(_) => State::Failed,
            Self::Canceled | Self::CanceledFor(_) => State::Canceled,
        }
    }
}

/// The state of an operation together with what only that state has.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Status<T> {
    /// Accepted, not started.
    #[default]
    Pending,
    /// Being worked on.
    Running,
    /// Ended, and how.
    Ended(Outcome<T>),
}

impl<T> Status<T> {
    /// The state alone.
    #[must_use]
    pub const fn state(&self) -> State {
        match self {
            Self::Pending => State::Pending,
            Self::Running => State::Running,
            Self::Ended(outcome) => outcome.state(),
        }
    }

    /// The outcome, once there is one.
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
