use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where an operation stands.
///
/// ```text
/// pending ──▶ running ──▶ succeeded | failed | canceled
///    └──────────────────▶ succeeded | failed | canceled
/// ```
///
/// Nothing leaves a terminal state and nothing goes to itself.
///
/// The words are those of the wire (`pending`, `running`, `succeeded`,
/// `failed`, `canceled`); any other word is an error when parsing, never a
/// default.
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
    /// Accepted, not started.
    #[default]
    Pending,
    /// Being worked on.
    Running,
    /// Ended well; it may have a result.
    Succeeded,
    /// Ended badly; it has a problem.
    Failed,
    /// Ended because somebody asked for that.
    Canceled,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
    ];

    /// The word of the wire.
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

    /// Whether no further change can come.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// Whether an operation in this state may go to `to`.
    #[must_use]
    pub const fn can_become(self, to: Self) -> bool {
        match self {
            Self::Pending => !matches!(to, Self::Pending),
            Self::Running => to.is_terminal(),
            Self::Succeeded | Self::Failed | Self::Canceled => false,
        }
    }

    /// The move from this state to `to`.
    ///
    /// # Errors
    /// [`InvalidTransition`] if there is no such move.
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

/// A move that the life of an operation does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an operation that is {from} cannot become {to}")]
pub struct InvalidTransition {
    /// The state the operation is in.
    pub from: State,
    /// The state it was asked to go to.
    pub to: State,
}

/// A word that names no [`State`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of an operation")]
pub struct UnknownState(Box<str>);
