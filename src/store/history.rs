use std::{borrow::Cow, time::SystemTime};

use crate::operation::{Progress, State};

/// The last versions of an operation before the current one, the oldest first.
///
/// A client that follows an operation may see its record change by several versions at a
/// time. The history has the versions in between. `None` means that the operation's times
/// determine the whole history, as for most operations; the history is then computed on
/// demand.
#[derive(Debug, Clone, Default)]
pub(crate) struct History(Option<Box<[PastVersion]>>);

/// The client-visible content of an operation at an earlier version.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PastVersion {
    /// The state at that version; never terminal.
    pub state: State,
    /// The time of that version.
    pub at: Option<SystemTime>,
    /// The progress at that version.
    pub progress: Option<Box<Progress>>,
}

impl PastVersion {
    /// Returns an earlier version.
    #[must_use]
    pub fn new(state: State, at: Option<SystemTime>, progress: Option<Progress>) -> Self {
        Self {
            state,
            at,
            progress: progress.map(Box::new),
        }
    }
}

impl History {
    /// The number of versions kept: some seconds of them at the rate at which progress is
    /// written.
    pub(crate) const DEPTH: usize = 16;

    /// Returns a history of the latest of these versions.
    pub(crate) fn new(past: Vec<PastVersion>) -> Self {
        let dropped = past.len().saturating_sub(Self::DEPTH);
        Self(Some(past.into_iter().skip(dropped).collect()))
    }

    /// Returns whether the times of the operation determine the history.
    pub(crate) fn is_implied_by_times(&self) -> bool {
        self.0.is_none()
    }

    /// Returns this history followed by `past`; `told` computes the history from the times.
    pub(crate) fn and(self, past: PastVersion, told: impl FnOnce() -> Vec<PastVersion>) -> Self {
        let mut all = self.0.map_or_else(told, Vec::from);
        all.push(past);
        Self::new(all)
    }

    pub(crate) fn past(&self, told: impl FnOnce() -> Vec<PastVersion>) -> Cow<'_, [PastVersion]> {
        match &self.0 {
            Some(past) => Cow::Borrowed(past),
            None => Cow::Owned(told()),
        }
    }

    /// Returns the size on the heap in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let bytes = |past: &PastVersion| {
            let progress = past.progress.as_deref();
            size_of::<PastVersion>()
                + progress.map_or(0, |it| size_of::<Progress>() + it.heap_bytes())
        };
        self.0.iter().flatten().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_versions_are_kept() {
        let past = |n| PastVersion::new(State::Running, None, Some(Progress::from_count(n, 100)));
        let mut history = History::default();
        for n in 0..40 {
            history = history.and(past(n), Vec::new);
        }
        let all: Vec<_> = (0..40).map(past).collect();
        let latest = &all[40 - History::DEPTH..];
        assert_eq!(*history.past(Vec::new), *latest);
        assert_eq!(*History::new(latest.into()).past(Vec::new), *latest);
    }
}
