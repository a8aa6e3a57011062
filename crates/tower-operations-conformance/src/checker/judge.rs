//! Judges the history of an operation by the laws.

use std::{collections::HashMap, ops::Bound, time::Duration};

use tower_operations::operation::State;

use super::{
    Reading, Rules, Violation,
    disturbances::{Disturbances, Interval, millis},
    history::{Conflict, OperationHistory},
};

pub(super) struct Judge<'a> {
    pub(super) rules: &'a Rules,
    pub(super) disturbances: &'a Disturbances,
    /// Whether the log has runs at all.
    pub(super) runs: bool,
    /// The kills after which the node was back and undisturbed.
    pub(super) reclaims: &'a [Interval],
    /// The time of the first post of each operation that has a key.
    pub(super) first_tries: &'a HashMap<&'a str, u64>,
}

impl Judge<'_> {
    /// Adds every violation of the operation to its history; returns its terminal state.
    pub(super) fn judge(&self, id: &str, history: &mut OperationHistory) -> Option<State> {
        let state = outcome(id, history);
        order(id, history);
        titles(id, history);
        owners(id, history);
        self.existence(id, history, state);
        self.runs(id, history, state);
        self.stops(id, history);
        self.holds(id, history);
        self.reclaims(id, history);
        self.interruptions(id, history);
        state
    }

    fn existence(&self, id: &str, history: &mut OperationHistory, state: Option<State>) {
        let Some(accepted) = history.accepted else {
            return;
        };
        let operation = || id.to_owned();
        let alive = last_alive(history);
        // The operation may be absent once a client has asked to delete it.
        let until =
            kept_until(history, accepted, self.rules).min(history.deleting.unwrap_or(u64::MAX));
        if history
            .unreadable
            .is_some_and(|reading| reading.end < until)
        {
            history.convict(Violation::Unreadable {
                operation: operation(),
            });
        }
        let is_lost = |reading: &Interval| reading.begin > accepted && reading.end < until;
        let theirs = history
            .absent
            .iter()
            .filter(|(owner, _)| history.owners.contains(owner));
        if theirs
            .flat_map(|(_, (first, last))| [first, last])
            .any(is_lost)
        {
            history.convict(Violation::Lost {
                operation: operation(),
            });
            return;
        }
        let told_after = |deleted| history.told.values().any(|asked| *asked > deleted);
        if history.deleted.is_some_and(told_after) {
            history.convict(Violation::DeleteUndone {
                operation: operation(),
            });
        }
        if state.is_none() && history.finished.is_none() && history.deleted.is_none() {
            history.convict(Violation::Unended {
                operation: operation(),
            });
        }
        if let Some(alive) = alive.filter(|alive| *alive > accepted) {
            let lease = self.rules.lease;
            let excused = self.disturbances.within(accepted, alive, None, lease);
            let after = Duration::from_millis(alive - accepted).saturating_sub(excused);
            if after > self.rules.limit() {
                history.convict(Violation::Late {
                    operation: operation(),
                    after,
                });
            }
        }
    }

    fn holds(&self, id: &str, history: &mut OperationHistory) {
        for (since, held) in std::mem::take(&mut history.held) {
            let Interval { begin, end } = held.reading;
            let known = match since {
                None => ended_by(history),
                Some(since) => history
                    .versions
                    .range((Bound::Excluded(since), Bound::Unbounded))
                    .map(|(_, version)| version.first_end)
                    .min(),
            };
            let overdue = |due: u64| {
                let node = Some(&*held.node);
                let excused = self.disturbances.within(due, end, node, self.rules.lease);
                Duration::from_millis(end.saturating_sub(due)).saturating_sub(excused)
            };
            let received = self.disturbances.received(begin, &held.node);
            let by = overdue(received.saturating_add(held.wait));
            if by > self.rules.wake {
                history.convict(Violation::HeldTooLong {
                    operation: id.into(),
                    by,
                });
            }
            if let Some(known) = known {
                let by = overdue(known.max(begin));
                if by > self.rules.wake {
                    history.convict(Violation::Overslept {
                        operation: id.into(),
                        by,
                    });
                }
            }
        }
    }
}

/// Returns the terminal state; `None` if no client saw one.
fn outcome(id: &str, history: &mut OperationHistory) -> Option<State> {
    let operation = || id.to_owned();
    let mut ended: Option<(u64, State)> = None;
    let canceled = history.canceled.is_some();
    let contradict = |first: State, second: State, version: u64| match (first, second) {
        (first, second) if first == second => Violation::OutcomeChanged {
            operation: operation(),
            version,
        },
        (State::Canceled, state) | (state, State::Canceled) if canceled => {
            Violation::CancelUndone {
                operation: operation(),
                state,
            }
        }
        (first, second) if second.is_terminal() => Violation::TwoOutcomes {
            operation: operation(),
            first,
            second,
        },
        _ => Violation::OutcomeChanged {
            operation: operation(),
            version,
        },
    };
    let mut found = Vec::new();
    for (number, version) in &history.versions {
        let Some(state) = version.state() else {
            continue;
        };
        match ended {
            Some((version, first)) => found.push(contradict(first, state, version)),
            None if state.is_terminal() => ended = Some((*number, state)),
            None => {}
        }
    }
    for Conflict {
        version,
        first,
        second,
    } in history.conflicts.drain(..)
    {
        found.push(match first.is_terminal() && second.is_terminal() {
            true => contradict(first, second, version),
            false => Violation::VersionReused {
                operation: operation(),
                version,
            },
        });
    }
    if let Some((_, State::Canceled)) = ended
        && history.uncancelable
    {
        found.push(Violation::TwoOutcomes {
            operation: operation(),
            first: State::Canceled,
            second: State::Succeeded,
        });
    }
    for violation in found {
        history.convict(violation);
    }
    ended.map(|(_, state)| state)
}

/// Checks that a reading that begins after another has ended sees nothing older.
fn order(id: &str, history: &mut OperationHistory) {
    let mut later: Option<(u64, u64)> = None;
    let mut found = None;
    for (number, version) in history.versions.iter().rev() {
        if let Some((before, first_end)) = later
            && first_end < version.last_begin
        {
            found = Some((Reading::Version(before), Reading::Version(*number)));
        }
        if later.is_none_or(|(_, first_end)| version.first_end < first_end) {
            later = Some((*number, version.first_end));
        }
    }
    if let Some(unfinished) = history.unfinished
        && ended_by(history).is_some_and(|ended| ended < unfinished)
    {
        found = Some((Reading::Ended, Reading::Unfinished));
    }
    if let Some(finished) = history.finished {
        // A version beyond the end is a changed outcome, and judged as such.
        let mut before = history
            .versions
            .iter()
            .take_while(|(_, version)| version.state().is_none_or(|state| !state.is_terminal()));
        let alive =
            before.find(|(_, version)| version.state().is_some() && version.last_begin > finished);
        if let Some((number, _)) = alive {
            found = found.or(Some((Reading::Ended, Reading::Version(*number))));
        }
    }
    if let Some((before, then)) = found {
        history.convict(Violation::WentBack {
            operation: id.into(),
            before,
            then,
        });
    }
}

fn titles(id: &str, history: &mut OperationHistory) {
    let named = history.named().map(str::to_owned);
    let ran = history.runs.keys().cloned();
    let mut titles = history.posted.clone().into_iter().chain(named).chain(ran);
    let Some(first) = titles.next() else {
        return;
    };
    for other in titles.collect::<Vec<_>>() {
        history.compare(&first, &other, id);
    }
}

/// Checks that the operation was shown only to its owner.
fn owners(id: &str, history: &mut OperationHistory) {
    let Some(first) = history.owners.first().cloned() else {
        return;
    };
    let others = history.owners.iter().skip(1);
    let told = history
        .told
        .keys()
        .filter(|owner| !history.owners.contains(*owner));
    let shown = others.chain(told).find(|owner| **owner != first).cloned();
    if let Some(owner) = shown {
        history.convict(Violation::ShownToAnother {
            operation: id.into(),
            owner: owner.unwrap_or_default(),
        });
    }
}

/// Returns the time until which the operation is kept if it ended as early as possible.
pub(super) fn kept_until(history: &OperationHistory, accepted: u64, rules: &Rules) -> u64 {
    let since = last_alive(history).map_or(accepted, |alive| alive.max(accepted));
    since.saturating_add(rules.kept.map_or(u64::MAX, millis))
}

/// Returns the first time at which a client knew that the operation had ended.
pub(super) fn ended_by(history: &OperationHistory) -> Option<u64> {
    let versions = history.versions.values();
    let terminal = versions.filter(|version| version.state().is_some_and(State::is_terminal));
    let seen = terminal.map(|version| version.first_end).min();
    seen.into_iter().chain(history.finished).min()
}

/// Returns the last time at which the operation certainly had not ended.
pub(super) fn last_alive(history: &OperationHistory) -> Option<u64> {
    let versions = history.versions.values();
    let alive =
        versions.filter(|version| version.state().is_some_and(|state| !state.is_terminal()));
    let seen = alive.map(|version| version.last_begin).max();
    seen.max(history.unfinished)
}
