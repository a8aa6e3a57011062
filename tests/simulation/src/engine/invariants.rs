//! Invariants of the store, which the clients may not notice when they break.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use tower_operations::{
    OperationId,
    engine::{LeaseChange, NextCell},
    store::{FencingToken, Stamp},
};

use super::needs_lapse;

/// The broken invariants, and the tokens of the past.
#[derive(Debug)]
pub(super) struct Invariants {
    /// The largest error of the clock of a node.
    skew: Duration,
    violations: Vec<String>,
    /// The tokens that were given to a holder.
    given: BTreeSet<FencingToken>,
}

/// The state of a row before a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) stamp: Stamp,
    pub(super) has_ended: bool,
    pub(super) has_lapsed: bool,
    /// Whether the end of the lease says that its holder is gone.
    pub(super) is_trusted: bool,
}

impl Invariants {
    /// Creates invariants of a world whose clocks are at most this wrong.
    pub(super) fn new(skew: Duration) -> Self {
        Self {
            skew,
            violations: Vec::new(),
            given: BTreeSet::new(),
        }
    }

    /// Checks a new operation.
    pub(super) fn created(&mut self, id: &OperationId, token: FencingToken) {
        self.give(id, token);
    }

    /// Checks a change.
    pub(super) fn changed(&mut self, id: &OperationId, before: Before, next: &NextCell<'_>) {
        self.unless(needs_lapse(next.lease) && !before.has_lapsed, || {
            format!("{id}: reclaimed while its lease was valid")
        });
        self.unless(needs_lapse(next.lease) && !before.is_trusted, || {
            format!("{id}: reclaimed although its holder could not renew its lease")
        });
        self.unless(before.has_ended, || format!("{id}: changed after its end"));
        self.unless(next.stamp.version <= before.stamp.version, || {
            format!("{id}: its version does not grow")
        });
        self.unless(
            next.state.is_terminal() != next.expires_at.is_some(),
            || format!("{id}: its expiry does not follow its state"),
        );
        let keeps_holder = next.stamp.token == before.stamp.token;
        let keeps_lease = matches!(next.lease, LeaseChange::Keep);
        if !next.state.is_terminal() {
            self.unless(keeps_holder != keeps_lease, || {
                format!("{id}: its lease does not follow its holder")
            });
        }
        if !keeps_holder {
            self.give(id, next.stamp.token);
        }
    }

    /// Checks a deletion that a client asked for.
    pub(super) fn deleted(&mut self, id: &OperationId, has_ended: bool) {
        self.unless(!has_ended, || format!("{id}: deleted while it was live"));
    }

    /// Checks the deletion of an expired operation, by a purge or by a new operation of the same id.
    pub(super) fn purged(
        &mut self,
        id: &OperationId,
        expires_at: Option<SystemTime>,
        now: SystemTime,
    ) {
        let is_due = expires_at.is_some_and(|at| at <= now + self.skew);
        self.unless(!is_due, || format!("{id}: purged before it expired"));
    }

    /// Returns the broken invariants so far, and forgets them.
    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }

    fn give(&mut self, id: &OperationId, token: FencingToken) {
        let is_new = self.given.insert(token);
        self.unless(!is_new, || format!("{id}: its token had another holder"));
    }

    fn unless(&mut self, is_broken: bool, text: impl FnOnce() -> String) {
        if is_broken {
            self.violations.push(text());
        }
    }
}
