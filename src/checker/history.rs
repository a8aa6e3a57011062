use std::{
    collections::{BTreeMap, BTreeSet},
    mem::discriminant,
};

use super::{Call, RunEntry, SeenResult, Sighting, Violation, disturbances::Interval, runs::Runs};
use crate::operation::State;

/// What is known of one operation. Nothing of it depends on the order in which
/// it was told.
#[derive(Debug, Default)]
pub(super) struct OperationHistory {
    /// When the first 202 was there.
    pub(super) accepted: Option<u64>,
    /// When the first post that got one began.
    pub(super) asked: Option<u64>,
    /// As whom it was accepted.
    pub(super) owners: BTreeSet<Option<String>>,
    pub(super) posted: Option<String>,
    /// What was posted under the id that a client chose for it, accepted or not.
    pub(super) wanted: Option<String>,
    pub(super) versions: BTreeMap<u64, SeenVersion>,
    /// Two contents of one version.
    pub(super) conflicts: Vec<Conflict>,
    pub(super) result: Option<SeenResult>,
    /// When the first result was there, or the first cancel was refused for
    /// there being one.
    pub(super) finished: Option<u64>,
    /// When it was asked last for a result that was not yet there.
    pub(super) unfinished: Option<u64>,
    /// The readings that found nothing, by owner: the one that ended first, and the
    /// one that began last.
    pub(super) absent: BTreeMap<Option<String>, (Interval, Interval)>,
    /// When each owner last asked what told of it.
    pub(super) told: BTreeMap<Option<String>, u64>,
    /// When somebody first asked for it to be forgotten.
    pub(super) forgetting: Option<u64>,
    /// When the first of them was told that it is.
    pub(super) forgotten: Option<u64>,
    /// When the first cancel was answered with 200.
    pub(super) canceled: Option<u64>,
    /// A cancel was refused, because it had succeeded or failed.
    pub(super) uncancelable: bool,
    /// By the title that they name.
    pub(super) runs: BTreeMap<String, Runs>,
    /// The latest of the polls that were held long, by what they waited for.
    pub(super) held: BTreeMap<Option<u64>, SeenPoll>,
    pub(super) found: Vec<Violation>,
    named: Option<String>,
}

/// A version, as it was seen.
#[derive(Debug)]
pub(super) struct SeenVersion {
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

#[derive(Debug)]
pub(super) struct SeenPoll {
    pub(super) reading: Interval,
    pub(super) node: String,
    pub(super) wait: u64,
}

impl OperationHistory {
    pub(super) fn accepted(&mut self, call: &Call, title: &str, operation: &str) {
        let (begin, end) = (call.begin, call.end);
        self.accepted = Some(self.accepted.map_or(end, |first| first.min(end)));
        self.asked = Some(self.asked.map_or(begin, |first| first.min(begin)));
        self.owners.insert(call.owner.clone());
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
        let known = self.versions.entry(version).or_insert(SeenVersion {
            seen: None,
            first_end: call.end,
            last_begin: call.begin,
        });
        known.first_end = known.first_end.min(call.end);
        known.last_begin = known.last_begin.max(call.begin);
    }

    pub(super) fn saw_result(&mut self, result: &SeenResult, call: &Call, operation: &str) {
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

    /// Somebody was told something of it.
    pub(super) fn told(&mut self, call: &Call) {
        match self.told.get_mut(&call.owner) {
            Some(last) => *last = call.begin.max(*last),
            None => drop(self.told.insert(call.owner.clone(), call.begin)),
        }
    }

    pub(super) fn saw_nothing(&mut self, call: &Call) {
        let reading = call.reading();
        let absent = self.absent.entry(call.owner.clone());
        let (first, last) = absent.or_insert((reading, reading));
        if reading.end < first.end {
            *first = reading;
        }
        if reading.begin > last.begin {
            *last = reading;
        }
    }

    pub(super) fn is_to_be_forgotten(&mut self, begin: u64) {
        self.forgetting = Some(self.forgetting.map_or(begin, |first| first.min(begin)));
    }

    pub(super) fn is_forgotten(&mut self, end: u64) {
        self.forgotten = Some(self.forgotten.map_or(end, |first| first.min(end)));
    }

    pub(super) fn ran(&mut self, run: &RunEntry) {
        self.runs.entry(run.title.clone()).or_default().add(run);
    }

    /// A poll that was held longer than whoever it waits for may take.
    pub(super) fn held(&mut self, call: &Call, since: Option<u64>, wait: u64) {
        let held = SeenPoll {
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

    /// The title that its results name.
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

impl SeenVersion {
    pub(super) fn state(&self) -> Option<State> {
        self.seen.as_ref().map(|(state, _)| *state)
    }
}

impl Call {
    pub(super) fn reading(&self) -> Interval {
        Interval {
            begin: self.begin,
            end: self.end,
        }
    }
}
