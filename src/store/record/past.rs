//! What a record was before.

use std::borrow::Cow;

use super::Record;
use crate::{
    operation::{Operation, Snapshot, State, Status},
    store::{Version, history::PastVersion},
};

impl<T> Record<T> {
    /// What it was before, as far as that is remembered: one version each, the
    /// last of them the one before this.
    #[must_use]
    pub fn history(&self) -> Cow<'_, [PastVersion]> {
        self.history.past(|| self.told_by_times())
    }

    /// The history of an operation that has done no more than start and end.
    pub(super) fn told_by_times(&self) -> Vec<PastVersion> {
        let (state, metadata) = (self.operation.state(), self.operation.metadata());
        let pending = (state != State::Pending)
            .then(|| PastVersion::new(State::Pending, metadata.created_at(), None));
        let started_at = metadata.started_at().filter(|_| state.is_terminal());
        let running = started_at.map(|at| PastVersion::new(State::Running, Some(at), None));
        let mut past: Vec<_> = [pending, running].into_iter().flatten().collect();
        // What was created running has never been pending.
        past.drain(..past.len().saturating_sub(self.versions_before()));
        past
    }

    fn versions_before(&self) -> usize {
        self.version.map_or(0, |version| version.get() as usize - 1)
    }

    /// Bytes on the heap that its history takes.
    pub(crate) fn history_bytes(&self) -> usize {
        self.history.heap_bytes()
    }

    /// The records that led to this one, as far as they are remembered.
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

    /// Those of them that came after the version `seen`.
    pub(crate) fn between(&self, seen: Version) -> impl Iterator<Item = Self> {
        self.remembered()
            .into_iter()
            .filter(move |record| record.version > Some(seen))
    }

    /// What this was at an earlier version, as far as clients could see it.
    fn at(&self, version: Option<Version>, past: &PastVersion) -> Self {
        let metadata = self.operation.metadata().before_its_end(
            past.at,
            past.progress.as_deref().cloned(),
            past.state == State::Running,
        );
        let stage = match past.state {
            State::Running => Status::Running,
            State::Pending | State::Succeeded | State::Failed | State::Canceled => Status::Pending,
        };
        let operation =
            Operation::from_parts(self.operation.id().clone(), Snapshot { stage, metadata });
        Self {
            version,
            owner: self.owner.clone(),
            ..Self::unversioned(operation)
        }
    }
}
