use std::{sync::Arc, time::SystemTime};

mod changes;
mod past;
mod steps;

use super::{
    FencingToken, NewOperation, NodeId, Owner, Version,
    history::{History, PastVersion},
};
use crate::operation::{Failure, FailureKind, Metadata, Operation, Outcome, Snapshot, Status};

pub(crate) use changes::ChangeOutcome;
pub use steps::Step;

/// What a store keeps of one operation: the operation itself, its version, its
/// owner, and who may write to it.
///
/// The conditional changes of the laws are here, as pure functions from one
/// record to the next. A store that makes reading a record, taking one of
/// these steps and writing the successor one atomic act obeys laws 2, 3, 4 and
/// 6 without a line about them.
#[derive(Debug, Clone)]
pub struct Record<T> {
    operation: Operation<T>,
    version: Option<Version>,
    owner: Option<Owner>,
    token: FencingToken,
    node: Option<NodeId>,
    attempts: u32,
    /// Which holder started it last.
    started_by: Option<FencingToken>,
    history: History,
}

impl<T: PartialEq> PartialEq for Record<T> {
    fn eq(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.version == other.version
            && self.owner == other.owner
            && (self.token, &self.node) == (other.token, &other.node)
            && (self.attempts, self.started_by) == (other.attempts, other.started_by)
            && self.history() == other.history()
    }
}

impl<T> Record<T> {
    /// The record of a new operation at the first version: pending, or
    /// [running](NewOperation::is_running) already.
    #[must_use]
    pub fn create(new: &NewOperation, at: SystemTime) -> Self {
        let mut metadata = Metadata::default().with_created_at(at).with_updated_at(at);
        if let Some(method) = &new.method {
            metadata = metadata.with_method(method.clone());
        }
        if let Some(name) = &new.name {
            metadata = metadata.with_name(Arc::clone(name));
        }
        let stage = match new.is_running {
            true => {
                metadata = metadata.with_started_at(at);
                Status::Running
            }
            false => Status::Pending,
        };
        Self {
            operation: Operation::from_parts(new.id.clone(), Snapshot { stage, metadata }),
            version: Some(Version::FIRST),
            owner: new.owner.clone(),
            token: new.token,
            node: new.lease.as_ref().map(|lease| lease.node.clone()),
            attempts: u32::from(new.is_running),
            started_by: new.is_running.then_some(new.token),
            history: History::default(),
        }
    }

    /// The record of an operation that is only read: without a version, an
    /// owner or a holder.
    #[must_use]
    pub fn unversioned(operation: Operation<T>) -> Self {
        Self {
            operation,
            version: None,
            owner: None,
            token: FencingToken::NONE,
            node: None,
            attempts: 0,
            started_by: None,
            history: History::new(Vec::new()),
        }
    }

    /// A record put together from what was stored; without an owner, a holder
    /// or a start so far.
    #[must_use]
    pub fn restore(operation: Operation<T>, version: Version) -> Self {
        Self {
            version: Some(version),
            ..Self::unversioned(operation)
        }
    }

    /// Sets whose it is.
    #[must_use]
    pub fn with_owner(self, owner: Option<Owner>) -> Self {
        Self { owner, ..self }
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

    /// Sets how often it was started, and which holder did so last.
    #[must_use]
    pub fn with_attempts(self, attempts: u32, started_by: Option<FencingToken>) -> Self {
        Self {
            attempts,
            started_by,
            ..self
        }
    }

    /// Sets what it was before, the oldest first: one version each, up to the one
    /// before this. Of a long history the latest part is kept.
    #[must_use]
    pub fn with_history(self, past: Vec<PastVersion>) -> Self {
        Self {
            history: History::new(past),
            ..self
        }
    }

    /// The operation.
    #[must_use]
    pub fn operation(&self) -> &Operation<T> {
        &self.operation
    }

    /// How often it was changed; `None` where the store does not count.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// The token of the latest holder.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// The node that holds the lease, or held it last.
    #[must_use]
    pub fn node(&self) -> Option<&NodeId> {
        self.node.as_ref()
    }

    /// How often it was started, each holder counted once.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Which holder started it last.
    #[must_use]
    pub fn started_by(&self) -> Option<FencingToken> {
        self.started_by
    }

    /// Whether it ended before anybody could do its work: no engine took it.
    pub(crate) fn was_not_dispatched(&self) -> bool {
        let ended_as = self.operation.failure().and_then(Failure::kind);
        ended_as == Some(FailureKind::NotDispatched)
    }

    /// Whether `token` may write.
    #[must_use]
    pub fn is_held_by(&self, token: FencingToken) -> bool {
        self.token == token && !self.operation.state().is_terminal()
    }

    /// The same record, without what the operation led to, if it has ended.
    pub(crate) fn without_result(&self) -> Self {
        let stage = match self.operation.status() {
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
                Snapshot { stage, metadata },
            ),
            version: self.version,
            owner: self.owner.clone(),
            token: self.token,
            node: self.node.clone(),
            attempts: self.attempts,
            started_by: self.started_by,
            history: self.history.clone(),
        }
    }
}
