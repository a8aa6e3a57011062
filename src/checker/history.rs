use std::{
    collections::{BTreeMap, BTreeSet},
    mem::discriminant,
};

use super::{Call, Outcome, Run, RunEvent, Sighting, Violation};
use crate::operation::State;

/// What is known of one operation. Nothing of it depends on the order in which
/// it was told.
#[derive(Debug, Default)]
pub(super) struct History {
    /// When the first 202 was there.
    pub(super) accepted: Option<u64>,
    pub(super) posted: Option<String>,
    pub(super) versions: BTreeMap<u64, Version>,
    /// Two contents of one version.
    pub(super) conflicts: Vec<Conflict>,
    pub(super) result: Option<Outcome>,
    /// When the first result was there, or the first cancel was refused for
    /// there being one.
    pub(super) finished: Option<u64>,
    /// When it was asked last for a result that was not yet there.
    pub(super) unfinished: Option<u64>,
    /// The readings that found nothing: the one that ended first, and the one
    /// that began last.
    pub(super) absent: Option<(Interval, Interval)>,
    /// When the first cancel was answered with 200.
    pub(super) canceled: Option<u64>,
    /// A cancel was refused, because it had succeeded or failed.
    pub(super) uncancelable: bool,
    pub(super) attempts: BTreeSet<u32>,
    pub(super) runs: u32,
    /// Whether a run came to its end.
    pub(super) ran: bool,
    /// When a run came to its end or was dropped last, and on which node.
    pub(super) stopped: Option<(u64, String)>,
    /// The latest of the polls that were held long, by what they waited for.
    pub(super) held: BTreeMap<Option<u64>, Held>,
    pub(super) found: Vec<Violation>,
    named: Option<String>,
}

/// A version, as it was seen.
#[derive(Debug)]
pub(super) struct Version {
    /// `None` if only its number was told.
    pub(super) seen: Option<(State, String)>,
    /// When it was first known to somebody.
    pub(super) first_end: u64,
    /// When it was last asked for.
    pub(super) last_begin: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Conflict {
    pub(super) version: u64,
    pub(super) first: State,
    pub(super) second: State,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Interval {
    pub(super) begin: u64,
    pub(super) end: u64,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) reading: Interval,
    pub(super) node: String,
    pub(super) wait: u64,
}

impl History {
    pub(super) fn accepted(&mut self, end: u64, title: &str, operation: &str) {
        self.accepted = Some(self.accepted.map_or(end, |first| first.min(end)));
        match &self.posted {
            None => self.posted = Some(title.into()),
            Some(posted) => self.compare(&posted.clone(), title, operation),
        }
    }

    pub(super) fn saw(&mut self, sighting: &Sighting, call: &Call, operation: &str) {
        let Sighting { version, state, .. } = *sighting;
        self.saw_version(version, call);
        if let Some(entry) = self.versions.get_mut(&version) {
            match &entry.seen {
                None => entry.seen = Some((state, sighting.content.clone())),
                Some((first, content)) => {
                    if *first != state || *content != sighting.content {
                        self.conflicts.push(Conflict {
                            version,
                            first: *first,
                            second: state,
                        });
                        // Any two of them convict.
                        self.conflicts.truncate(8);
                    }
                }
            }
        }
        if let Some(result) = &sighting.result {
            self.saw_result(result, call, operation);
        }
    }

    pub(super) fn saw_version(&mut self, version: u64, call: &Call) {
        let known = self.versions.entry(version).or_insert(Version {
            seen: None,
            first_end: call.end,
            last_begin: call.begin,
        });
        known.first_end = known.first_end.min(call.end);
        known.last_begin = known.last_begin.max(call.begin);
    }

    pub(super) fn saw_result(&mut self, result: &Outcome, call: &Call, operation: &str) {
        self.saw_end(call.end);
        if let Some(title) = &result.title {
            self.names(title, operation);
        }
        match &self.result {
            None => self.result = Some(result.clone()),
            Some(first) if first.digest == result.digest => {}
            Some(_) => {
                let version = self.versions.keys().next_back().copied().unwrap_or(0);
                let operation = operation.into();
                self.convict(Violation::OutcomeChanged { operation, version });
            }
        }
    }

    pub(super) fn saw_cancel(&mut self, end: u64) {
        self.canceled = Some(self.canceled.map_or(end, |first| first.min(end)));
    }

    pub(super) fn saw_end(&mut self, end: u64) {
        self.finished = Some(self.finished.map_or(end, |first| first.min(end)));
    }

    pub(super) fn saw_no_end(&mut self, begin: u64) {
        self.unfinished = self.unfinished.max(Some(begin));
    }

    pub(super) fn saw_nothing(&mut self, call: &Call) {
        let reading = call.reading();
        let (first, last) = self.absent.get_or_insert((reading, reading));
        if reading.end < first.end {
            *first = reading;
        }
        if reading.begin > last.begin {
            *last = reading;
        }
    }

    pub(super) fn ran(&mut self, run: &Run) {
        self.names(&run.title, &run.operation);
        match run.event {
            RunEvent::Begin => {
                self.runs += 1;
                if !self.attempts.insert(run.attempt) {
                    self.convict(Violation::RanTwice {
                        operation: run.operation.clone(),
                        attempt: run.attempt,
                    });
                }
            }
            RunEvent::End => {
                self.ran = true;
                self.stopped(run);
            }
            RunEvent::Dropped => self.stopped(run),
        }
    }

    fn stopped(&mut self, run: &Run) {
        let latest = self.stopped.as_ref().map(|(at, _)| *at);
        if latest < Some(run.at) {
            self.stopped = Some((run.at, run.node.clone()));
        }
    }

    /// A poll that was held longer than whoever it waits for may take.
    pub(super) fn held(&mut self, call: &Call, since: Option<u64>, wait: u64) {
        let held = Held {
            reading: call.reading(),
            node: call.node.clone(),
            wait,
        };
        let latest = self.held.get(&since).map_or(0, |other| other.reading.end);
        if held.reading.end > latest {
            self.held.insert(since, held);
        }
    }

    /// Notes a violation, of each kind one.
    pub(super) fn convict(&mut self, violation: Violation) {
        let kind = discriminant(&violation);
        if self.found.iter().all(|other| discriminant(other) != kind) {
            self.found.push(violation);
        }
    }

    /// The title that its results and its runs name.
    pub(super) fn named(&self) -> Option<&str> {
        self.named.as_deref()
    }

    fn names(&mut self, title: &str, operation: &str) {
        match &self.named {
            None => self.named = Some(title.into()),
            Some(named) => self.compare(&named.clone(), title, operation),
        }
    }

    pub(super) fn compare(&mut self, expected: &str, found: &str, operation: &str) {
        if expected != found {
            self.convict(Violation::MixedUp {
                operation: operation.into(),
                expected: expected.into(),
                found: found.into(),
            });
        }
    }
}

impl Version {
    pub(super) fn state(&self) -> Option<State> {
        self.seen.as_ref().map(|(state, _)| *state)
    }
}

impl Call {
    fn reading(&self) -> Interval {
        Interval {
            begin: self.begin,
            end: self.end,
        }
    }
}
