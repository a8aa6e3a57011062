use std::{borrow::Cow, time::SystemTime};

use crate::operation::{Progress, State};

/// What an operation was before its latest change: its last versions, the
/// oldest first.
///
/// Whoever follows an operation sees its record change, perhaps by several
/// versions at a time; this tells what lay between. Of most operations their times tell
/// all of it: of those it is made for whoever asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct History(Option<Box<[PastVersion]>>);

/// What a client could see of an operation at an earlier version.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PastVersion {
    /// Where it stood, which was before its end.
    pub state: State,
    /// When it had come to that.
    pub at: Option<SystemTime>,
    /// How far it had come.
    pub progress: Option<Box<Progress>>,
}

impl PastVersion {
    /// An earlier version.
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
    /// So many versions are remembered: at the rate at which progress is
    /// written, some seconds of them.
    pub(crate) const DEPTH: usize = 16;

    /// The history that these make, as far as it goes back.
    pub(crate) fn new(past: Vec<PastVersion>) -> Self {
        let forgotten = past.len().saturating_sub(Self::DEPTH);
        Self(Some(past.into_iter().skip(forgotten).collect()))
    }

    /// Whether the times of the operation tell it.
    pub(crate) fn is_told(&self) -> bool {
        self.0.is_none()
    }

    /// This one, and then `past`; `told` is what the times tell.
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

    /// Bytes on the heap.
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
    fn the_latest_are_remembered() {
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
