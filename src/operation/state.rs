use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The state of an operation.
///
/// ```text
/// pending ──▶ running ──▶ succeeded | failed | canceled
///    └──────────────────▶ succeeded | failed | canceled
/// ```
///
/// No transition leaves a terminal state or leads from a state to itself.
///
/// The names on the wire are `pending`, `running`, `succeeded`, `failed` and `canceled`.
/// Parsing any other word is an error, never a default.
///
/// ```
/// use tower_operations::State;
///
/// assert_eq!("running".parse(), Ok(State::Running));
/// assert!("cancelled".parse::<State>().is_err());
/// assert!(State::Pending.can_become(State::Failed));
/// assert!(!State::Failed.can_become(State::Running));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The operation is accepted and not started.
    #[default]
    Pending,
    /// The operation is being worked on.
    Running,
    /// The operation succeeded; a result is optional.
    Succeeded,
    /// The operation failed, and has a problem.
    Failed,
    /// The operation was canceled.
    Canceled,
}

impl State {
    /// All states, in life cycle order.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
    ];

    /// Returns the name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Returns whether the state is final.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// Returns whether an operation in this state may change to `to`.
    #[must_use]
    pub const fn can_become(self, to: Self) -> bool {
        match self {
            Self::Pending => !matches!(to, Self::Pending),
            Self::Running => to.is_terminal(),
            Self::Succeeded | Self::Failed | Self::Canceled => false,
        }
    }

    /// Returns `to` if the transition from this state is allowed.
    ///
    /// # Errors
    /// [`InvalidTransition`] if the transition is not allowed.
    pub const fn transition(self, to: Self) -> Result<Self, InvalidTransition> {
        if self.can_become(to) {
            Ok(to)
        } else {
            Err(InvalidTransition { from: self, to })
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(word: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or_else(|| UnknownState(word.into()))
    }
}

/// A state transition that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an operation that is {from} cannot become {to}")]
#[non_exhaustive]
pub struct InvalidTransition {
    /// The current state of the operation.
    pub from: State,
    /// The requested state.
    pub to: State,
}

/// A word that names no [`State`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an operation state")]
pub struct UnknownState(Box<str>);
