use std::{sync::Arc, time::SystemTime};

mod changes;
mod past;
mod steps;

pub(crate) use changes::ChangeOutcome;
pub use steps::Step;

use super::{
    FencingToken, NewOperation, NodeId, Owner, Stamp, Version,
    history::{History, PastVersion},
};
use crate::operation::{Failure, FailureKind, Metadata, Operation, Outcome, Snapshot, Status};

/// The stored state of one operation: the operation itself, its version, its owner, and its
/// latest holder.
///
/// The conditional changes of the laws are pure functions from one record to the next. A
/// store obeys laws 2, 3, 4 and 6 if it reads a record, takes one of these steps and writes
/// the successor in one atomic act.
///
/// A record is a small value. A clone copies the result `T` and shares everything else.
#[derive(Debug, Clone)]
pub struct Record<T> {
    operation: Operation<T>,
    version: Option<Version>,
    token: FencingToken,
    node: Option<NodeId>,
    attempts: u32,
    /// The token of the holder that started the operation last.
    started_by: Option<FencingToken>,
    /// The parts that few operations have; `None` if there are none. Clones share them.
    rare: Option<Arc<RareParts>>,
}

#[derive(Debug, Clone, Default)]
struct RareParts {
    owner: Option<Owner>,
    history: History,
}

impl<T: PartialEq> PartialEq for Record<T> {
    fn eq(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.version == other.version
            && self.owner() == other.owner()
            && (self.token, &self.node) == (other.token, &other.node)
            && (self.attempts, self.started_by) == (other.attempts, other.started_by)
            && self.history() == other.history()
    }
}

impl<T> Record<T> {
    /// Returns the record of a new operation at the first version: pending, or already
    /// [running](NewOperation::is_running).
    #[must_use]
    pub fn create(new: &NewOperation, at: SystemTime) -> Self {
        let mut metadata = Metadata::default().with_times_of_creation(at, new.is_running);
        if let Some(method) = &new.method {
            metadata = metadata.with_method(method.clone());
        }
        if let Some(name) = &new.name {
            metadata = metadata.with_name(Arc::clone(name));
        }
        let status = match new.is_running {
            true => Status::Running,
            false => Status::Pending,
        };
        Self {
            operation: Operation::from_parts(new.id.clone(), Snapshot { status, metadata }),
            version: Some(Version::FIRST),
            token: new.token,
            node: new.lease.as_ref().map(|lease| lease.node.clone()),
            attempts: u32::from(new.is_running),
            started_by: new.is_running.then_some(new.token),
            rare: None,
        }
        .with_owner(new.owner.clone())
    }

    /// Returns the record of an operation that is only read: without a version, an owner or
    /// a holder.
    #[must_use]
    pub fn unversioned(operation: Operation<T>) -> Self {
        Self {
            operation,
            version: None,
            token: FencingToken::NONE,
            node: None,
            attempts: 0,
            started_by: None,
            rare: None,
        }
        .with_history(Vec::new())
    }

    /// Returns a record restored from stored data, so far without an owner, a holder or a
    /// start.
    #[must_use]
    pub fn restore(operation: Operation<T>, version: Version) -> Self {
        Self {
            version: Some(version),
            ..Self::unversioned(operation)
        }
    }

    /// Sets the owner.
    #[must_use]
    pub fn with_owner(mut self, owner: Option<Owner>) -> Self {
        if owner.is_some() || self.rare.is_some() {
            self.rare().owner = owner;
        }
        self
    }

    /// Sets the latest holder.
    #[must_use]
    pub fn with_holder(self, token: FencingToken, node: Option<NodeId>) -> Self {
        Self {
            token,
            node,
            ..self
        }
    }

    /// Sets the number of starts, and the holder that started the operation last.
    #[must_use]
    pub fn with_attempts(self, attempts: u32, started_by: Option<FencingToken>) -> Self {
        Self {
            attempts,
            started_by,
            ..self
        }
    }

    /// Sets the earlier versions, the oldest first, up to the one before the current
    /// version. The latest part of a long history is kept.
    #[must_use]
    pub fn with_history(mut self, past: Vec<PastVersion>) -> Self {
        self.rare().history = History::new(past);
        self
    }

    /// Returns the rare parts for a change. Clones of the record keep theirs.
    fn rare(&mut self) -> &mut RareParts {
        Arc::make_mut(self.rare.get_or_insert_default())
    }

    /// Returns whether the times of the operation determine its history.
    fn is_history_implied(&self) -> bool {
        (self.rare.as_ref()).is_none_or(|rare| rare.history.is_implied_by_times())
    }

    /// Returns the operation.
    #[must_use]
    pub fn operation(&self) -> &Operation<T> {
        &self.operation
    }

    /// Returns the version; `None` if the store does not count changes.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Returns the stamp, which no other operation ever has; `None` if the store does not count
    /// changes.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        let version = self.version?;
        Some(Stamp::new(version, self.token))
    }

    /// Returns the owner.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.rare.as_ref()?.owner.as_ref()
    }

    /// Returns the token of the latest holder.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// Returns the node that holds the lease, or held it last.
    #[must_use]
    pub fn node(&self) -> Option<&NodeId> {
        self.node.as_ref()
    }

    /// Returns the number of starts, counting each holder once.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the token of the holder that started the operation last.
    #[must_use]
    pub fn started_by(&self) -> Option<FencingToken> {
        self.started_by
    }

    /// Returns whether the operation ended before its work could start, because it was not
    /// dispatched.
    pub(crate) fn was_not_dispatched(&self) -> bool {
        let ended_as = self.operation.failure().and_then(Failure::kind);
        ended_as == Some(FailureKind::NotDispatched)
    }

    /// Returns whether the holder of `token` may write.
    #[must_use]
    pub fn is_held_by(&self, token: FencingToken) -> bool {
        self.token == token && !self.operation.state().is_terminal()
    }

    /// Returns the same record without the result of the operation, as another owner reads
    /// it (law 7).
    #[must_use]
    pub fn without_result(&self) -> Self {
        let status = match self.operation.status() {
            Status::Pending => Status::Pending,
            Status::Running => Status::Running,
            Status::Ended(Outcome::Succeeded(_)) => Outcome::Succeeded(None).into(),
            Status::Ended(Outcome::Failed(failure)) => {
                let without = Failure::from(failure.problem.clone());
                Outcome::Failed(without.with_kind(failure.kind())).into()
            }
            Status::Ended(Outcome::Canceled) => Outcome::Canceled.into(),
            Status::Ended(Outcome::CanceledFor(reason)) => {
                Outcome::CanceledFor(reason.clone()).into()
            }
        };
        let metadata = self.operation.metadata().clone();
        Self {
            operation: Operation::from_parts(
                self.operation.id().clone(),
                Snapshot { status, metadata },
            ),
            version: self.version,
            token: self.token,
            node: self.node.clone(),
            attempts: self.attempts,
            started_by: self.started_by,
            rare: self.rare.clone(),
        }
    }
}
