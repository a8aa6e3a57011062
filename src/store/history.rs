use std::time::SystemTime;

use crate::operation::{Progress, State};

/// What an operation was before its latest change: its last versions, the
/// oldest first.
///
/// Whoever follows an operation sees its record change, perhaps by several
/// versions at a time; this tells what lay between.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct History(Vec<Past>);

/// What a client could see of an operation at an earlier version.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Past {
    /// Where it stood, which was before its end.
    pub state: State,
    /// When it had come to that.
    pub at: Option<SystemTime>,
    /// How far it had come.
    pub progress: Option<Box<Progress>>,
}

impl Past {
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
    pub(crate) fn new(past: Vec<Past>) -> Self {
        let forgotten = past.len().saturating_sub(Self::DEPTH);
        Self(past.into_iter().skip(forgotten).collect())
    }

    /// One more, in the place of the oldest if there are too many.
    pub(crate) fn push(&mut self, past: Past) {
        if self.0.len() == Self::DEPTH {
            self.0.remove(0);
        }
        // Most will be followed by at most one more, and kept for long.
        self.0.reserve_exact(1);
        self.0.push(past);
    }

    pub(crate) fn past(&self) -> &[Past] {
        &self.0
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let progress = |past: &Past| {
            let progress = past.progress.as_deref();
            progress.map_or(0, |it| size_of::<Progress>() + it.heap_bytes())
        };
        size_of_val(self.0.as_slice()) + self.0.iter().map(progress).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered() {
        let past = |n| Past::new(State::Running, None, Some(Progress::counted(n, 100)));
        let mut history = History::default();
        for n in 0..40 {
            history.push(past(n));
        }
        let all: Vec<_> = (0..40).map(past).collect();
        assert_eq!(history.past(), &all[40 - History::DEPTH..]);
        assert_eq!(history, History::new(all));
    }
}
