use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    FencingToken, NewOperation, NodeId, Owner, Version,
    history::{History, Past},
};
use crate::operation::{
    FailureKind, Metadata, Operation, Outcome, Problem, Progress, Snapshot, Stage, State,
};

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

/// What a conditional change comes to that is made to a record in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is made: to be written.
    Made,
    /// The same holder made the same before: nothing is changed.
    MadeBefore,
    /// The operation has ended, or somebody else holds it: nothing is changed.
    Refused,
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
                Stage::Running
            }
            false => Stage::Pending,
        };
        Self {
            operation: Operation::of(new.id.clone(), Snapshot { stage, metadata }),
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
    pub fn with_history(self, past: Vec<Past>) -> Self {
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

    /// What it was before, as far as that is remembered: one version each, the
    /// last of them the one before this.
    #[must_use]
    pub fn history(&self) -> &[Past] {
        self.history.past(|| self.told_by_times())
    }

    /// The history of an operation that has done no more than start and end.
    fn told_by_times(&self) -> Vec<Past> {
        let (state, metadata) = (self.operation.state(), self.operation.metadata());
        let pending = (state != State::Pending)
            .then(|| Past::new(State::Pending, metadata.created_at(), None));
        let started_at = metadata.started_at().filter(|_| state.is_terminal());
        let running = started_at.map(|at| Past::new(State::Running, Some(at), None));
        let mut past: Vec<_> = [pending, running].into_iter().flatten().collect();
        // What was created running has never been pending.
        past.drain(..past.len().saturating_sub(self.versions_before()));
        past
    }

    fn versions_before(&self) -> usize {
        self.version.map_or(0, |version| version.get() as usize - 1)
    }

    /// Bytes on the heap that its history takes once somebody has asked for it.
    pub(crate) fn history_bytes(&self) -> usize {
        let past = self.versions_before().min(History::DEPTH);
        past * size_of::<Past>() + self.history.progress_bytes()
    }

    /// The records that led to this one, as far as they are remembered.
    pub(crate) fn remembered(&self) -> Vec<Self> {
        let Some(version) = self.version.map(Version::get) else {
            return Vec::new();
        };
        let past = self.history();
        let first = version.saturating_sub(past.len() as u64);
        (first..version)
            .zip(past)
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
    fn at(&self, version: Option<Version>, past: &Past) -> Self {
        let metadata = self.operation.metadata().before_its_end(
            past.at,
            past.progress.as_deref().cloned(),
            past.state == State::Running,
        );
        let stage = match past.state {
            State::Running => Stage::Running,
            State::Pending | State::Succeeded | State::Failed | State::Canceled => Stage::Pending,
        };
        let operation = Operation::of(self.operation.id().clone(), Snapshot { stage, metadata });
        Self {
            version,
            owner: self.owner.clone(),
            ..Self::unversioned(operation)
        }
    }

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
    pub fn overruled(
        &self,
        version: Version,
        outcome: Outcome<T>,
        at: SystemTime,
        ttl: Duration,
    ) -> Step<T> {
        self.step(|next| next.overrule(version, outcome, at, ttl))
    }

    /// The lease taken over by `node`, with a higher token.
    #[must_use]
    pub fn taken_over(&self, node: &NodeId) -> Step<T> {
        self.step(|next| next.take_over(node))
    }

    /// The lease handed on to `node` by whoever holds it, with a higher token.
    #[must_use]
    pub fn claimed(&self, token: FencingToken, node: &NodeId) -> Step<T> {
        self.step(|next| next.claim(token, node))
    }

    /// Where `change` leads, made to a copy. What can still change holds no `T`, so
    /// none has to be cloned.
    fn step(&self, change: impl FnOnce(&mut Self) -> Change) -> Step<T> {
        let mut next = self.without_result();
        match change(&mut next) {
            Change::Made => Step::Next(next),
            Change::MadeBefore => Step::Done,
            Change::Refused => Step::Lost,
        }
    }

    /// [`started`](Self::started), in place.
    pub(crate) fn start(&mut self, token: FencingToken, at: SystemTime) -> Change {
        if !self.is_held_by(token) {
            return Change::Refused;
        }
        if self.started_by == Some(token) {
            return Change::MadeBefore;
        }
        self.next_version(self.operation.state() == State::Pending);
        if self.operation.transition(Stage::Running, at).is_err() {
            self.operation
                .update(|metadata| metadata.with_updated_at(at));
        }
        self.attempts += 1;
        self.started_by = Some(token);
        Change::Made
    }

    /// [`reported`](Self::reported), in place.
    pub(crate) fn report(
        &mut self,
        token: FencingToken,
        progress: Progress,
        at: SystemTime,
    ) -> Change {
        if !self.is_held_by(token) {
            return Change::Refused;
        }
        if self.operation.metadata().progress() == Some(&progress) {
            return Change::MadeBefore;
        }
        self.next_version(false);
        self.operation.report(progress, at);
        Change::Made
    }

    /// [`finished`](Self::finished), in place.
    pub(crate) fn finish(
        &mut self,
        token: FencingToken,
        outcome: Outcome<T>,
        progress: Option<Progress>,
        at: SystemTime,
        ttl: Duration,
    ) -> Change {
        if self.token != token {
            return Change::Refused;
        }
        if self.operation.state().is_terminal() {
            // Whoever ends it from outside raises the token, so it was this
            // holder that ended it: in the same way, as far as can be told.
            return match self.has_ended_like(&outcome) {
                true => Change::MadeBefore,
                false => Change::Refused,
            };
        }
        self.end(outcome, progress, at, ttl)
    }

    /// [`overruled`](Self::overruled), in place.
    pub(crate) fn overrule(
        &mut self,
        version: Version,
        outcome: Outcome<T>,
        at: SystemTime,
        ttl: Duration,
    ) -> Change {
        if self.version != Some(version) || self.operation.state().is_terminal() {
            return Change::Refused;
        }
        self.token = self.token.next();
        self.end(outcome, None, at, ttl)
    }

    /// [`taken_over`](Self::taken_over), in place.
    pub(crate) fn take_over(&mut self, node: &NodeId) -> Change {
        if self.operation.state().is_terminal() {
            return Change::Refused;
        }
        self.next_version(false);
        self.token = self.token.next();
        self.node = Some(node.clone());
        Change::Made
    }

    /// [`claimed`](Self::claimed), in place.
    pub(crate) fn claim(&mut self, token: FencingToken, node: &NodeId) -> Change {
        match self.is_held_by(token) {
            true => self.take_over(node),
            false => Change::Refused,
        }
    }

    /// Whether it ended before anybody could do its work: no engine took it.
    pub(crate) fn was_not_dispatched(&self) -> bool {
        let ended_as = self.operation.problem().map(Problem::type_uri);
        ended_as == Some(FailureKind::NotDispatched.urn())
    }

    /// Whether `token` may write.
    #[must_use]
    pub fn is_held_by(&self, token: FencingToken) -> bool {
        self.token == token && !self.operation.state().is_terminal()
    }

    /// Whether it ended as `outcome` says. Results are not compared: that is
    /// more than can be asked of a `T`.
    fn has_ended_like(&self, outcome: &Outcome<T>) -> bool {
        let problem = match outcome {
            Outcome::Failed(failure) => Some(&failure.problem),
            Outcome::Succeeded(_) | Outcome::Canceled => None,
        };
        self.operation.state() == outcome.state() && self.operation.problem() == problem
    }

    /// Ends what has not ended yet.
    fn end(
        &mut self,
        outcome: Outcome<T>,
        progress: Option<Progress>,
        at: SystemTime,
        ttl: Duration,
    ) -> Change {
        self.next_version(true);
        if let Some(progress) = progress {
            self.operation.report(progress, at);
        }
        // Whatever has not ended may end in any way.
        let _ = self.operation.transition(outcome, at);
        if let Some(at) = at.checked_add(ttl) {
            self.operation.set_expires_at(at);
        }
        Change::Made
    }

    /// What it is now becomes its history. It need not be written down if the change
    /// leaves a time, and so did all before.
    fn next_version(&mut self, leaves_time: bool) {
        if !(leaves_time && self.history.is_told()) {
            let metadata = self.operation.metadata();
            let (at, progress) = (metadata.updated_at(), metadata.progress().cloned());
            let past = Past::new(self.operation.state(), at, progress);
            let history = std::mem::take(&mut self.history);
            self.history = history.and(past, || self.told_by_times());
        }
        self.version = self.version.map(Version::next);
    }

    /// The same record, without what the operation led to, if it has ended.
    pub(crate) fn without_result(&self) -> Self {
        let stage = match self.operation.stage() {
            Stage::Pending => Stage::Pending,
            Stage::Running => Stage::Running,
            Stage::Ended(Outcome::Succeeded(_)) => Outcome::Succeeded(None).into(),
            Stage::Ended(Outcome::Failed(failure)) => {
                Outcome::failed(failure.problem.clone()).into()
            }
            Stage::Ended(Outcome::Canceled) => Outcome::Canceled.into(),
        };
        let metadata = self.operation.metadata().clone();
        Self {
            operation: Operation::of(self.operation.id().clone(), Snapshot { stage, metadata }),
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
