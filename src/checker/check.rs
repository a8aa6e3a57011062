use std::collections::{BTreeMap, HashMap};

use super::{
    Answer, Ask, Call, Counts, Entry, Rules, Run, RunEvent, Verdict, Violation,
    absence::{Absences, millis},
    history::History,
    judge::Judge,
};
use crate::operation::State;

/// Judges a whole log.
#[must_use]
pub fn check<'a>(log: impl IntoIterator<Item = &'a Entry>, rules: &Rules) -> Verdict {
    let mut checker = Checker::new(rules.clone());
    for entry in log {
        checker.add(entry);
    }
    checker.verdict()
}

/// Judges a log entry by entry, in any order. What it remembers grows with the
/// operations, and the versions of them that were seen, and not with the
/// entries.
#[derive(Debug)]
pub struct Checker {
    rules: Rules,
    operations: HashMap<String, History>,
    /// The operation that each key led to.
    keys: HashMap<String, String>,
    titles: HashMap<String, Title>,
    forked: BTreeMap<String, Violation>,
    absences: Absences,
    counts: Counts,
}

/// What is known of a title: who posted it, and what was run for it.
#[derive(Debug, Default)]
struct Title {
    key: Option<String>,
    ran: Option<String>,
    /// Another operation that was run for it as well.
    also: Option<String>,
}

impl Checker {
    /// Knows nothing so far.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            operations: HashMap::new(),
            keys: HashMap::new(),
            titles: HashMap::new(),
            forked: BTreeMap::new(),
            absences: Absences::default(),
            counts: Counts::default(),
        }
    }

    /// Takes notice of an entry.
    pub fn add(&mut self, entry: &Entry) {
        match entry {
            Entry::Call(call) => self.call(call),
            Entry::Run(run) => self.run(run),
            Entry::Away(away) => {
                match &away.node {
                    Some(_) => self.counts.stops += 1,
                    None => self.counts.outages += 1,
                }
                self.absences.add(away);
            }
            Entry::Kill(_) => self.counts.kills += 1,
        }
    }

    /// The verdict on all that was added.
    #[must_use]
    pub fn verdict(mut self) -> Verdict {
        self.forked_runs();
        let judge = Judge {
            rules: &self.rules,
            absences: &self.absences,
            runs: self.counts.runs > 0,
        };
        let mut violations: Vec<_> = self.forked.into_values().collect();
        let counts = &mut self.counts;
        for (id, history) in self.operations {
            let is_accepted = history.accepted.is_some();
            let (found, state) = judge.judge(&id, history);
            violations.extend(found);
            if is_accepted {
                counts.accepted += 1;
                match state {
                    Some(State::Succeeded) => counts.succeeded += 1,
                    Some(State::Failed) => counts.failed += 1,
                    Some(State::Canceled) => counts.canceled += 1,
                    Some(State::Pending | State::Running) | None => {}
                }
            }
        }
        violations.sort_by_cached_key(ToString::to_string);
        Verdict {
            violations,
            counts: self.counts,
        }
    }

    fn history(&mut self, operation: &str) -> &mut History {
        // Most operations are known: no key is made for them.
        if !self.operations.contains_key(operation) {
            self.operations.insert(operation.into(), History::default());
        }
        self.operations.entry(operation.into()).or_default()
    }

    fn call(&mut self, call: &Call) {
        self.counts.calls += 1;
        if call.answer == Answer::Nothing {
            self.counts.unanswered += 1;
        }
        match &call.ask {
            Ask::Post { title, key } => self.post(call, title, key.as_deref()),
            Ask::Poll {
                operation,
                wait,
                since,
            } => {
                self.read(call, operation);
                if let Some(wait) = *wait
                    && call.end.saturating_sub(call.begin) > millis(self.rules.wake)
                    && call.answer.tells()
                {
                    self.history(operation).held(call, *since, wait);
                }
            }
            Ask::Result { operation } => self.read(call, operation),
            Ask::Cancel { operation } => self.cancel(call, operation),
        }
    }

    fn post(&mut self, call: &Call, title: &str, key: Option<&str>) {
        if let Some(key) = key {
            self.titles.entry(title.into()).or_default().key = Some(key.into());
        }
        let Answer::Accepted { operation } = &call.answer else {
            return;
        };
        self.history(operation).accepted(call.end, title, operation);
        let Some(key) = key else { return };
        match self.keys.get(key) {
            Some(first) if first == operation => {}
            Some(first) => self.fork(key, first.clone(), operation.clone()),
            None => drop(self.keys.insert(key.into(), operation.clone())),
        }
    }

    fn read(&mut self, call: &Call, operation: &str) {
        let history = self.history(operation);
        match &call.answer {
            Answer::Operation(sighting) => history.saw(sighting, call, operation),
            Answer::Unchanged { version } => history.saw_version(*version, call),
            Answer::Result(result) => history.saw_result(result, call, operation),
            Answer::Unfinished => history.saw_no_end(call.begin),
            Answer::Absent => history.saw_nothing(call),
            Answer::Accepted { .. }
            | Answer::Finished
            | Answer::Refused { .. }
            | Answer::Nothing => {}
        }
    }

    fn cancel(&mut self, call: &Call, operation: &str) {
        self.read(call, operation);
        let history = self.history(operation);
        match &call.answer {
            Answer::Operation(sighting) if sighting.state == State::Canceled => {
                history.saw_cancel(call.end);
            }
            Answer::Operation(sighting) => history.convict(Violation::CancelUndone {
                operation: operation.into(),
                state: sighting.state,
            }),
            Answer::Finished => {
                history.uncancelable = true;
                history.saw_end(call.end);
            }
            _ => {}
        }
    }

    fn run(&mut self, run: &Run) {
        self.history(&run.operation).ran(run);
        if run.event != RunEvent::Begin {
            return;
        }
        self.counts.runs += 1;
        if run.attempt > 1 {
            self.counts.reruns += 1;
        }
        let title = self.titles.entry(run.title.clone()).or_default();
        match &title.ran {
            None => title.ran = Some(run.operation.clone()),
            Some(first) if *first == run.operation => {}
            Some(_) => title.also = Some(run.operation.clone()),
        }
    }

    /// What was posted under a key ran for one operation, whatever the clients
    /// were answered.
    fn forked_runs(&mut self) {
        for title in std::mem::take(&mut self.titles).into_values() {
            if let (Some(key), Some(first), Some(second)) = (title.key, title.ran, title.also) {
                self.fork(&key, first, second);
            }
        }
    }

    fn fork(&mut self, key: &str, first: String, second: String) {
        let violation = Violation::KeyForked {
            key: key.into(),
            first,
            second,
        };
        self.forked.entry(key.into()).or_insert(violation);
    }
}

impl Answer {
    /// Whether it says something of the operation.
    fn tells(&self) -> bool {
        match self {
            Self::Operation(_)
            | Self::Unchanged { .. }
            | Self::Result(_)
            | Self::Unfinished
            | Self::Absent
            | Self::Finished
            | Self::Accepted { .. } => true,
            Self::Refused { .. } | Self::Nothing => false,
        }
    }
}
