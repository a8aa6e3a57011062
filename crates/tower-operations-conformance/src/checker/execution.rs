//! Judges the runs of an operation by the laws.

use std::time::Duration;

use tower_operations::operation::State;

use super::{
    Violation,
    disturbances::{Interval, millis},
    history::OperationHistory,
    judge::{Judge, ended_by, last_alive},
};

impl Judge<'_> {
    pub(super) fn runs(&self, id: &str, history: &mut OperationHistory, state: Option<State>) {
        let runs = history.runs.values();
        let (attempts, ran) = runs.fold((0, false), |(attempts, ran), runs| {
            (attempts + runs.begins.len(), ran || runs.ended)
        });
        let twice = history.runs.values().find_map(|runs| runs.twice);
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        if let Some(attempt) = twice {
            history.convict(Violation::RanTwice {
                operation: id.into(),
                attempt,
            });
        } else if attempts > self.rules.attempts {
            history.convict(Violation::TooManyAttempts {
                operation: id.into(),
                attempts,
            });
        }
        if self.runs && state == Some(State::Succeeded) && !ran {
            history.convict(Violation::NeverRan {
                operation: id.into(),
            });
        }
    }

    pub(super) fn stops(&self, id: &str, history: &mut OperationHistory) {
        let (Some(within), Some(canceled)) = (self.rules.stop, history.canceled) else {
            return;
        };
        let stopped = history
            .runs
            .values()
            .filter_map(|runs| runs.stopped.as_ref());
        let Some((at, node)) = stopped.filter(|(at, _)| *at > canceled).max() else {
            return;
        };
        let lease = self.rules.lease;
        let excused = self.disturbances.within(canceled, *at, Some(node), lease);
        let by = Duration::from_millis(at - canceled).saturating_sub(excused);
        if by > within {
            history.convict(Violation::WentOn {
                operation: id.into(),
                by,
            });
        }
    }

    /// Checks that a node that is back after a kill ends or reruns the operations that it held.
    pub(super) fn reclaims(&self, id: &str, history: &mut OperationHistory) {
        let (Some(within), Some(accepted)) = (self.rules.reclaim, history.accepted) else {
            return;
        };
        let Some(alive) = last_alive(history) else {
            return;
        };
        let within = millis(within);
        let runs = || history.runs.values().flat_map(|runs| &runs.begins);
        let is_stranded = |killed: &&Interval| {
            let due = killed.end.saturating_add(within);
            let ran = runs().any(|begun| (killed.begin..=due).contains(begun));
            accepted <= killed.begin && due < alive && !ran
        };
        if let Some(killed) = self.reclaims.iter().find(is_stranded) {
            let by = Duration::from_millis(alive - killed.end);
            history.convict(Violation::Stranded {
                operation: id.into(),
                by,
            });
        }
    }

    /// Checks that an operation that fails as interrupted was held by a node that was disturbed.
    pub(super) fn interruptions(&self, id: &str, history: &mut OperationHistory) {
        let failure = history.result.as_ref().and_then(|it| it.failure.as_deref());
        if !self.rules.causes || failure != Some("urn:tower-operations:interrupted") {
            return;
        }
        let (Some(asked), Some(ended)) = (history.asked, ended_by(history)) else {
            return;
        };
        let tried = self.first_tries.get(id).copied();
        let life = Interval {
            begin: tried.map_or(asked, |tried| tried.min(asked)),
            end: ended,
        };
        let shortly = self.rules.lease + self.rules.recovery;
        if !self.disturbances.explain(life, shortly) {
            history.convict(Violation::Interrupted {
                operation: id.into(),
            });
        }
    }
}
