//! The conditional changes of the laws, made to a record in place.

use std::time::{Duration, SystemTime};

use super::Record;
use crate::{
    operation::{Outcome, Progress, State, Status},
    store::{FencingToken, NodeId, Stamp, Version, history::PastVersion},
};

/// The result of a conditional change made to a record in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeOutcome {
    /// The record was changed, and has to be written.
    Made,
    /// The same holder made the same change before: nothing was changed.
    MadeBefore,
    /// The operation has ended, or another holder has it: nothing was changed.
    Refused,
}

impl<T> Record<T> {
    /// Applies [`started`](Self::started) in place.
    pub(crate) fn start(&mut self, token: FencingToken, at: SystemTime) -> ChangeOutcome {
        if !self.is_held_by(token) {
            return ChangeOutcome::Refused;
        }
        if self.started_by == Some(token) {
            return ChangeOutcome::MadeBefore;
        }
        self.next_version(self.operation.state() == State::Pending);
        if self.operation.transition(Status::Running, at).is_err() {
            self.operation
                .update(|metadata| metadata.with_updated_at(at));
        }
        self.attempts += 1;
        self.started_by = Some(token);
        ChangeOutcome::Made
    }

    /// Applies [`reported`](Self::reported) in place.
    pub(crate) fn report(
        &mut self,
        token: FencingToken,
        progress: Progress,
        at: SystemTime,
    ) -> ChangeOutcome {
        if !self.is_held_by(token) {
            return ChangeOutcome::Refused;
        }
        if self.operation.metadata().progress() == Some(&progress) {
            return ChangeOutcome::MadeBefore;
        }
        self.next_version(false);
        self.operation.report(progress, at);
        ChangeOutcome::Made
    }

    /// Applies [`finished`](Self::finished) in place.
    pub(crate) fn finish(
        &mut self,
        token: FencingToken,
        outcome: Outcome<T>,
        progress: Option<Progress>,
        at: SystemTime,
        ttl: Duration,
    ) -> ChangeOutcome {
        if self.token != token {
            return ChangeOutcome::Refused;
        }
        if self.operation.state().is_terminal() {
            // Ending from outside raises the token, so this holder ended the operation. The
            // outcome is compared as far as possible.
            return match self.has_ended_like(&outcome) {
                true => ChangeOutcome::MadeBefore,
                false => ChangeOutcome::Refused,
            };
        }
        self.end(outcome, progress, at, ttl)
    }

    /// Applies [`force_finished`](Self::force_finished) in place.
    pub(crate) fn force_finish(
        &mut self,
        expected: Stamp,
        outcome: Outcome<T>,
        at: SystemTime,
        ttl: Duration,
    ) -> ChangeOutcome {
        if self.stamp() != Some(expected) || self.operation.state().is_terminal() {
            return ChangeOutcome::Refused;
        }
        self.token = self.token.next();
        self.end(outcome, None, at, ttl)
    }

    /// Applies [`reclaimed`](Self::reclaimed) in place.
    pub(crate) fn reclaim(&mut self, node: &NodeId) -> ChangeOutcome {
        if self.operation.state().is_terminal() {
            return ChangeOutcome::Refused;
        }
        self.next_version(false);
        self.token = self.token.next();
        self.node = Some(node.clone());
        ChangeOutcome::Made
    }

    /// Applies [`claimed`](Self::claimed) in place.
    pub(crate) fn claim(&mut self, token: FencingToken, node: &NodeId) -> ChangeOutcome {
        match self.is_held_by(token) {
            true => self.reclaim(node),
            false => ChangeOutcome::Refused,
        }
    }

    /// Returns whether the operation ended with `outcome`. Results are not compared,
    /// because `T` need not be comparable.
    fn has_ended_like(&self, outcome: &Outcome<T>) -> bool {
        let failure = match outcome {
            Outcome::Failed(failure) => Some((&failure.problem, failure.kind())),
            Outcome::Succeeded(_) | Outcome::Canceled | Outcome::CanceledFor(_) => None,
        };
        let ended_as = self.operation.failure();
        let ended_as = ended_as.map(|failure| (&failure.problem, failure.kind()));
        self.operation.state() == outcome.state() && ended_as == failure
    }

    /// Ends an operation that has not ended yet.
    fn end(
        &mut self,
        outcome: Outcome<T>,
        progress: Option<Progress>,
        at: SystemTime,
        ttl: Duration,
    ) -> ChangeOutcome {
        self.next_version(true);
        if let Some(progress) = progress {
            self.operation.report(progress, at);
        }
        // Every state that is not terminal may change into every terminal state.
        let _ = self.operation.transition(outcome, at);
        if let Some(at) = at.checked_add(ttl) {
            self.operation.set_expires_at(at);
        }
        ChangeOutcome::Made
    }

    /// Moves the current version into the history. The version is not stored if this change
    /// and all changes before it are determined by the times of the operation.
    fn next_version(&mut self, leaves_time: bool) {
        if !(leaves_time && self.is_history_implied()) {
            let metadata = self.operation.metadata();
            let (at, progress) = (metadata.updated_at(), metadata.progress().cloned());
            let past = PastVersion::new(self.operation.state(), at, progress);
            let history = std::mem::take(&mut self.rare().history);
            self.rare().history = history.and(past, || self.history_from_times());
        }
        self.version = self.version.map(Version::next);
    }
}
