//! The conditional changes of the laws, from one record to the next.

use std::time::{Duration, SystemTime};

use super::{ChangeOutcome, Record};
use crate::{
    operation::{Outcome, Progress},
    store::{FencingToken, NodeId, Stamp},
};

/// The result of a conditional change.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // matched where it is created
pub enum Step<T> {
    /// The change leads to this record, which has to be written.
    Next(Record<T>),
    /// The same holder made the same change before: there is nothing to write.
    Done,
    /// The operation has ended, or another holder has it: there is nothing to write.
    Lost,
}

impl<T> Record<T> {
    /// Starts the operation on behalf of the holder: `pending` → `running`. A running
    /// operation starts once more after its lease was reclaimed.
    #[must_use]
    pub fn started(&self, token: FencingToken, at: SystemTime) -> Step<T> {
        self.step(|next| next.start(token, at))
    }

    /// Records progress on behalf of the holder. Equal progress is not a change.
    #[must_use]
    pub fn reported(&self, token: FencingToken, progress: Progress, at: SystemTime) -> Step<T> {
        self.step(|next| next.report(token, progress, at))
    }

    /// Records the outcome on behalf of the holder, with progress that was not written
    /// before. The record expires `ttl` after `at`.
    #[must_use]
    pub fn finished(
        &self,
        token: FencingToken,
        outcome: Outcome<T>,
        progress: Option<Progress>,
        at: SystemTime,
        ttl: Duration,
    ) -> Step<T> {
        self.step(|next| next.finish(token, outcome, progress, at, ttl))
    }

    /// Records an outcome requested from outside (a cancellation), at the stamp that was seen.
    /// The holder can no longer write after that.
    #[must_use]
    pub fn force_finished(
        &self,
        expected: Stamp,
        outcome: Outcome<T>,
        at: SystemTime,
        ttl: Duration,
    ) -> Step<T> {
        self.step(|next| next.force_finish(expected, outcome, at, ttl))
    }

    /// Reclaims the lease for `node`, with a higher token.
    #[must_use]
    pub fn reclaimed(&self, node: &NodeId) -> Step<T> {
        self.step(|next| next.reclaim(node))
    }

    /// Transfers the lease from the holder of `token` to `node`, with a higher token.
    #[must_use]
    pub fn claimed(&self, token: FencingToken, node: &NodeId) -> Step<T> {
        self.step(|next| next.claim(token, node))
    }

    /// Applies `change` to a copy. An operation that can still change holds no `T`, so no
    /// `T` has to be cloned.
    fn step(&self, change: impl FnOnce(&mut Self) -> ChangeOutcome) -> Step<T> {
        let mut next = self.without_result();
        match change(&mut next) {
            ChangeOutcome::Made => Step::Next(next),
            ChangeOutcome::MadeBefore => Step::Done,
            ChangeOutcome::Refused => Step::Lost,
        }
    }
}
