//! Earlier versions of a record.

use std::borrow::Cow;

use super::{RareParts, Record};
use crate::{
    operation::{Operation, Snapshot, State, Status},
    store::{Version, history::PastVersion},
};

impl<T> Record<T> {
    /// Returns the earlier versions that are kept, the oldest first; the last one is the
    /// version before the current one.
    #[must_use]
    pub fn history(&self) -> Cow<'_, [PastVersion]> {
        match &self.rare {
            Some(rare) => rare.history.past(|| self.history_from_times()),
            None => Cow::Owned(self.history_from_times()),
        }
    }

    /// Returns the history of an operation that has only started and ended.
    pub(super) fn history_from_times(&self) -> Vec<PastVersion> {
        let (state, metadata) = (self.operation.state(), self.operation.metadata());
        let pending = (state != State::Pending)
            .then(|| PastVersion::new(State::Pending, metadata.created_at(), None));
        let started_at = metadata.started_at().filter(|_| state.is_terminal());
        let running = started_at.map(|at| PastVersion::new(State::Running, Some(at), None));
        let mut past: Vec<_> = [pending, running].into_iter().flatten().collect();
        // An operation that was created as running has never been pending.
        past.drain(..past.len().saturating_sub(self.versions_before()));
        past
    }

    fn versions_before(&self) -> usize {
        self.version.map_or(0, |version| version.get() as usize - 1)
    }

    /// Returns the heap size of owner and history in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let Some(rare) = &self.rare else { return 0 };
        let owner = rare.owner.as_ref();
        size_of::<RareParts>()
            + owner.map_or(0, |owner| owner.as_str().len() + 16)
            + rare.history.heap_bytes()
    }

    /// Returns the records that led to this one, as far back as the history goes.
    pub(crate) fn remembered(&self) -> Vec<Self> {
        let Some(version) = self.version.map(Version::get) else {
            return Vec::new();
        };
        let past = self.history();
        let first = version.saturating_sub(past.len() as u64);
        (first..version)
            .zip(past.iter())
            .map(|(number, past)| self.at(Version::from_number(number), past))
            .collect()
    }

    /// Returns the [`remembered`](Self::remembered) records after the version `seen`.
    pub(crate) fn between(&self, seen: Version) -> impl Iterator<Item = Self> {
        self.remembered()
            .into_iter()
            .filter(move |record| record.version > Some(seen))
    }

    /// Returns the record at an earlier version, as far as clients could see it.
    fn at(&self, version: Option<Version>, past: &PastVersion) -> Self {
        let metadata = self.operation.metadata().before_its_end(
            past.at,
            past.progress.as_deref().cloned(),
            past.state == State::Running,
        );
        let status = match past.state {
            State::Running => Status::Running,
            State::Pending | State::Succeeded | State::Failed | State::Canceled => Status::Pending,
        };
        let operation =
            Operation::from_parts(self.operation.id().clone(), Snapshot { status, metadata });
        Self {
            version,
            ..Self::unversioned(operation)
        }
        .with_owner(self.owner().cloned())
    }
}
