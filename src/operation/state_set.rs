use std::fmt;

use super::State;

/// A set of [`State`]s, the filter of a list. The default contains every state.
///
/// ```
/// use tower_operations::{State, StateSet};
///
/// let ended: StateSet = State::ALL.into_iter().filter(|state| state.is_terminal()).collect();
/// assert!(ended.contains(State::Failed));
/// assert!(!ended.contains(State::Running));
/// assert!(StateSet::default().contains(State::Running));
/// assert_eq!(StateSet::from(State::Failed).iter().collect::<Vec<_>>(), [State::Failed]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateSet(u8);

impl StateSet {
    /// The set of all states.
    pub const ALL: Self = Self((1 << State::ALL.len()) - 1);

    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// Returns whether the set contains `state`.
    #[must_use]
    pub const fn contains(self, state: State) -> bool {
        self.0 & bit(state) != 0
    }

    /// Returns whether the set contains every state, so that nothing is filtered out.
    #[must_use]
    pub const fn is_all(self) -> bool {
        self.0 == Self::ALL.0
    }

    /// Returns the states in life cycle order.
    pub fn iter(self) -> impl Iterator<Item = State> {
        let all = State::ALL.into_iter();
        all.filter(move |state| self.contains(*state))
    }
}

const fn bit(state: State) -> u8 {
    1 << state as u8
}

impl Default for StateSet {
    fn default() -> Self {
        Self::ALL
    }
}

impl From<State> for StateSet {
    fn from(state: State) -> Self {
        Self(bit(state))
    }
}

impl FromIterator<State> for StateSet {
    fn from_iter<I: IntoIterator<Item = State>>(states: I) -> Self {
        let add = |set, state| set | bit(state);
        Self(states.into_iter().fold(0, add))
    }
}

impl fmt::Debug for StateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_contain_exactly_the_inserted_states() {
        for bits in 0..=StateSet::ALL.0 {
            let set = StateSet(bits);
            assert_eq!(set.iter().collect::<StateSet>(), set);
            assert_eq!(set.iter().count(), bits.count_ones() as usize);
        }
        assert!(StateSet::ALL.is_all());
        assert_eq!(StateSet::EMPTY.iter().count(), 0);
        assert_eq!(State::ALL.into_iter().collect::<StateSet>(), StateSet::ALL);
        assert_eq!(format!("{:?}", StateSet::from(State::Failed)), "{Failed}");
    }
}
