use std::{
    collections::{BTreeMap, BTreeSet},
    mem::discriminant,
};

use tower_operations::operation::State;

use super::{Call, RunEntry, SeenResult, Sighting, Violation, disturbances::Interval, runs::Runs};

/// The history of one operation. The history does not depend on the order of the log.
#[derive(Debug, Default)]
pub(super) struct OperationHistory {
    /// The time of the first 202.
    pub(super) accepted: Option<u64>,
    /// The start of the first post that got a 202.
    pub(super) asked: Option<u64>,
    /// The owners as whom the operation was accepted.
    pub(super) owners: BTreeSet<Option<String>>,
    pub(super) posted: Option<String>,
    /// The title that was posted under an id chosen by the client, accepted or not.
    pub(super) wanted: Option<String>,
    pub(super) versions: BTreeMap<u64, SeenVersion>,
    /// Versions that were seen with two contents.
    pub(super) conflicts: Vec<Conflict>,
    pub(super) result: Option<SeenResult>,
    /// The time at which the first result was seen, or at which the first cancellation was
    /// refused because the operation had succeeded or failed.
    pub(super) finished: Option<u64>,
    /// The time of the last request for a result that was not ready.
    pub(super) unfinished: Option<u64>,
    /// The first request for a result that was there and could not be read.
    pub(super) unreadable: Option<Interval>,
    /// The readings that found nothing, by owner: the one that ended first, and the one
    /// that began last.
    pub(super) absent: BTreeMap<Option<String>, (Interval, Interval)>,
    /// The start of the last call of each owner whose answer showed the operation.
    pub(super) told: BTreeMap<Option<String>, u64>,
    /// The time of the first request to delete the operation.
    pub(super) deleting: Option<u64>,
    /// The time of the first answer that the operation is deleted.
    pub(super) deleted: Option<u64>,
    /// The time of the first cancellation that was answered with 200.
    pub(super) canceled: Option<u64>,
    /// Whether a cancellation was refused because the operation had succeeded or failed.
    pub(super) uncancelable: bool,
    /// The runs, by the title that they name.
    pub(super) runs: BTreeMap<String, Runs>,
    /// The latest of the polls that were held too long, by the version that they waited on.
    pub(super) held: BTreeMap<Option<u64>, SeenPoll>,
    pub(super) found: Vec<Violation>,
    named: Option<String>,
}

/// A version as clients saw it.
#[derive(Debug)]
pub(super) struct SeenVersion {
    /// The state and the content; `None` if only the number of the version was seen.
    pub(super) seen: Option<(State, String)>,
    /// The end of the first call that saw the version.
    pub(super) first_end: u64,
    /// The start of the last call that saw the version.
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
                        // Any two conflicts suffice for a verdict.
                        self.conflicts.truncate(8);
                    }
                }
            }
        }
        if let Some(result) = &sighting.result {
            self.saw_result(result, call, operation);
        }
    }

    /// Notes the events of a stream, which shows earlier versions, too: it says how an operation
    /// came to be as it is, and not how it was when the stream began.
    pub(super) fn saw_events(
        &mut self,
        seen: &[Sighting],
        after: Option<u64>,
        call: &Call,
        operation: &str,
    ) {
        let any_time = Call {
            begin: 0,
            ..call.clone()
        };
        let mut before = after;
        for event in seen {
            if let Some(before) = before.filter(|before| event.version <= *before) {
                self.convict(Violation::EventsOutOfOrder {
                    operation: operation.into(),
                    before,
                    then: event.version,
                });
            }
            before = Some(event.version);
            self.saw(event, &any_time, operation);
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

    /// Notes that the answer to `call` showed the operation.
    pub(super) fn note_visible(&mut self, call: &Call) {
        match self.told.get_mut(&call.owner) {
            Some(last) => *last = call.begin.max(*last),
            None => drop(self.told.insert(call.owner.clone(), call.begin)),
        }
    }

    pub(super) fn saw_unreadable(&mut self, call: &Call) {
        self.saw_end(call.end);
        let reading = call.reading();
        if self.unreadable.is_none_or(|first| reading.end < first.end) {
            self.unreadable = Some(reading);
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

    pub(super) fn is_to_be_deleted(&mut self, begin: u64) {
        self.deleting = Some(self.deleting.map_or(begin, |first| first.min(begin)));
    }

    pub(super) fn is_deleted(&mut self, end: u64) {
        self.deleted = Some(self.deleted.map_or(end, |first| first.min(end)));
    }

    pub(super) fn ran(&mut self, run: &RunEntry) {
        self.runs.entry(run.title.clone()).or_default().add(run);
    }

    /// Notes a poll that was held for longer than `Rules::wake`.
    pub(super) fn note_held_poll(&mut self, call: &Call, since: Option<u64>, wait: u64) {
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

    /// Adds a violation, at most one of each kind.
    pub(super) fn convict(&mut self, violation: Violation) {
        let kind = discriminant(&violation);
        if self.found.iter().all(|other| discriminant(other) != kind) {
            self.found.push(violation);
        }
    }

    /// Returns the title that the results name.
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
