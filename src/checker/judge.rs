//! What is known of an operation, held against the laws.

use std::{ops::Bound, time::Duration};

use super::{
    Reading, Rules, Violation,
    absence::{Absences, millis},
    history::{Conflict, History, Interval},
};
use crate::operation::State;

pub(super) struct Judge<'a> {
    pub(super) rules: &'a Rules,
    pub(super) absences: &'a Absences,
    /// Whether the log has runs at all.
    pub(super) runs: bool,
}

impl Judge<'_> {
    /// Everything that is wrong with an operation, and how it ended.
    pub(super) fn judge(&self, id: &str, mut history: History) -> (Vec<Violation>, Option<State>) {
        let state = outcome(id, &mut history);
        order(id, &mut history);
        titles(id, &mut history);
        self.existence(id, &mut history, state);
        self.runs(id, &mut history, state);
        self.stops(id, &mut history);
        self.holds(id, &mut history);
        (history.found, state)
    }

    fn existence(&self, id: &str, history: &mut History, state: Option<State>) {
        let Some(accepted) = history.accepted else {
            return;
        };
        let operation = || id.to_owned();
        let alive = last_alive(history);
        let since = alive.map_or(accepted, |alive| alive.max(accepted));
        if let Some((first, last)) = history.absent {
            let kept = self.rules.kept.map_or(u64::MAX, millis);
            let until = since.saturating_add(kept);
            let is_lost = |reading: Interval| reading.begin > accepted && reading.end < until;
            if is_lost(first) || is_lost(last) {
                history.convict(Violation::Lost {
                    operation: operation(),
                });
                return;
            }
        }
        if state.is_none() && history.finished.is_none() {
            history.convict(Violation::Unended {
                operation: operation(),
            });
        }
        if let Some(alive) = alive.filter(|alive| *alive > accepted) {
            let lease = self.rules.lease;
            let excused = self.absences.within(accepted, alive, None, lease);
            let after = Duration::from_millis(alive - accepted).saturating_sub(excused);
            if after > self.rules.limit() {
                history.convict(Violation::Late {
                    operation: operation(),
                    after,
                });
            }
        }
    }

    fn runs(&self, id: &str, history: &mut History, state: Option<State>) {
        if history.runs > self.rules.attempts && !has_run_twice(history) {
            history.convict(Violation::TooManyAttempts {
                operation: id.into(),
                attempts: history.runs,
            });
        }
        if self.runs && state == Some(State::Succeeded) && !history.ran {
            history.convict(Violation::NeverRan {
                operation: id.into(),
            });
        }
    }

    fn stops(&self, id: &str, history: &mut History) {
        let (Some(within), Some(canceled)) = (self.rules.stop, history.canceled) else {
            return;
        };
        let Some((at, node)) = history.stopped.as_ref().filter(|(at, _)| *at > canceled) else {
            return;
        };
        let lease = self.rules.lease;
        let excused = self.absences.within(canceled, *at, Some(node), lease);
        let by = Duration::from_millis(at - canceled).saturating_sub(excused);
        if by > within {
            history.convict(Violation::WentOn {
                operation: id.into(),
                by,
            });
        }
    }

    fn holds(&self, id: &str, history: &mut History) {
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
                let excused = self.absences.within(due, end, node, self.rules.lease);
                Duration::from_millis(end.saturating_sub(due)).saturating_sub(excused)
            };
            let by = overdue(begin.saturating_add(held.wait));
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

/// How it ended; `None` if nobody saw that.
fn outcome(id: &str, history: &mut History) -> Option<State> {
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

/// Whoever reads after somebody has read sees nothing older.
fn order(id: &str, history: &mut History) {
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
        // A version beyond the end is a changed outcome, and judged as that.
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

fn titles(id: &str, history: &mut History) {
    let posted = history.posted.clone();
    let named = history.named().map(str::to_owned);
    if let (Some(posted), Some(named)) = (posted, named) {
        history.compare(&posted, &named, id);
    }
}

fn has_run_twice(history: &History) -> bool {
    let mut found = history.found.iter();
    found.any(|violation| matches!(violation, Violation::RanTwice { .. }))
}

/// When somebody first knew that it has ended.
fn ended_by(history: &History) -> Option<u64> {
    let versions = history.versions.values();
    let terminal = versions.filter(|version| version.state().is_some_and(State::is_terminal));
    let seen = terminal.map(|version| version.first_end).min();
    seen.into_iter().chain(history.finished).min()
}

/// When it was last certain that it had not ended.
fn last_alive(history: &History) -> Option<u64> {
    let versions = history.versions.values();
    let alive =
        versions.filter(|version| version.state().is_some_and(|state| !state.is_terminal()));
    let seen = alive.map(|version| version.last_begin).max();
    seen.max(history.unfinished)
}
