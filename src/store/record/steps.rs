//! The conditional changes of the laws, from one record to the next.

use std::time::{Duration, SystemTime};

use super::{ChangeOutcome, Record};
use crate::{
    operation::{Outcome, Progress},
    store::{FencingToken, NodeId, Version},
};

/// Where a conditional change leads.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // taken apart where it is made
pub enum Step<T> {
    /// To this record, which is to be written.
    Next(Record<T>),
    /// Nowhere: the same holder wrote the same before.
    Done,
    /// Nowhere: the operation has ended, or somebody else holds it.
    Lost,
}

impl<T> Record<T> {
    /// `pending` → `running`, by the holder. After a lease was taken over, a
    /// running operation starts once more.
    #[must_use]
    pub fn started(&self, token: FencingToken, at: SystemTime) -> Step<T> {
        self.step(|next| next.start(token, at))
    }

    /// Progress said by the holder. The same again is not a change.
    #[must_use]
    pub fn reported(&self, token: FencingToken, progress: Progress, at: SystemTime) -> Step<T> {
        self.step(|next| next.report(token, progress, at))
    }

    /// The outcome, recorded by the holder, with the progress it had not
    /// written before. The record will be forgotten `ttl` after `at`.
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

    /// An outcome asked for from outside (a cancel), for the version that was
    /// seen. It fences the holder out.
    #[must_use]
    pub fn force_finished(
        &self,
        version: Version,
        outcome: Outcome<T>,
        at: SystemTime,
        ttl: Duration,
    ) -> Step<T> {
        self.step(|next| next.force_finish(version, outcome, at, ttl))
    }

    /// The lease taken over by `node`, with a higher token.
    #[must_use]
    pub fn reclaimed(&self, node: &NodeId) -> Step<T> {
        self.step(|next| next.reclaim(node))
    }

    /// The lease handed on to `node` by whoever holds it, with a higher token.
    #[must_use]
    pub fn claimed(&self, token: FencingToken, node: &NodeId) -> Step<T> {
        self.step(|next| next.claim(token, node))
    }

    /// Where `change` leads, made to a copy. What can still change holds no `T`, so
    /// none has to be cloned.
    fn step(&self, change: impl FnOnce(&mut Self) -> ChangeOutcome) -> Step<T> {
        let mut next = self.without_result();
        match change(&mut next) {
            ChangeOutcome::Made => Step::Next(next),
            ChangeOutcome::MadeBefore => Step::Done,
            ChangeOutcome::Refused => Step::Lost,
        }
    }
}
