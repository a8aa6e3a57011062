use tower_operations::operation::State;

use super::{
    Call, CallAnswer, CallRequest, Counts, Entry, Rules, RunEntry, RunEvent, Verdict, Violation,
    disturbances::{Disturbances, millis},
    histories::Histories,
    judge::Judge,
    keys::KeyRecords,
    lists::Lists,
};

/// Judges a whole log.
#[must_use]
pub fn check<'a>(log: impl IntoIterator<Item = &'a Entry>, rules: &Rules) -> Verdict {
    let mut checker = Checker::new(rules.clone());
    for entry in log {
        checker.add(entry);
    }
    checker.verdict()
}

/// Judges a log entry by entry, in any order. The memory that the checker takes grows with the
/// operations, their versions that were seen, the lists and the calls without an answer, but not
/// with the entries.
#[derive(Debug)]
pub struct Checker {
    rules: Rules,
    operations: Histories,
    keys: KeyRecords,
    lists: Lists,
    disturbances: Disturbances,
    /// Violations by answers to posts that created no operation.
    found: Vec<Violation>,
    counts: Counts,
}

impl Checker {
    /// Creates a checker without entries.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            operations: Histories::default(),
            keys: KeyRecords::default(),
            lists: Lists::default(),
            disturbances: Disturbances::default(),
            found: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Adds an entry.
    pub fn add(&mut self, entry: &Entry) {
        match entry {
            Entry::Call(call) => self.call(call),
            Entry::Run(run) => self.run(run),
            Entry::Away(away) => {
                match &away.node {
                    Some(_) => self.counts.stops += 1,
                    None => self.counts.outages += 1,
                }
                self.disturbances.away(away);
            }
            Entry::Kill(kill) => {
                self.counts.kills += 1;
                self.disturbances.kill(kill);
            }
            Entry::Drain(drain) => {
                self.counts.drains += 1;
                self.disturbances.drain(drain);
            }
            Entry::Damage(damage) => {
                self.counts.damaged += 1;
                self.operations.damaged(&damage.operation);
            }
        }
    }

    /// Returns the verdict on all entries added.
    #[must_use]
    pub fn verdict(mut self) -> Verdict {
        self.operations.tell_apart();
        self.lists.judge(&mut self.operations, &self.rules);
        let reclaims = self.rules.reclaim;
        let reclaims = reclaims.map(|within| self.disturbances.reclaims(within));
        let judge = Judge {
            rules: &self.rules,
            disturbances: &self.disturbances,
            runs: self.counts.runs > 0,
            reclaims: &reclaims.unwrap_or_default(),
            first_tries: &self.keys.first_tries(),
        };
        let counts = &mut self.counts;
        for (id, history) in self.operations.iter_mut() {
            let state = judge.judge(id, history);
            if history.accepted.is_some() {
                counts.accepted += 1;
                match state {
                    Some(State::Succeeded) => counts.succeeded += 1,
                    Some(State::Failed) => counts.failed += 1,
                    Some(State::Canceled) => counts.canceled += 1,
                    Some(State::Pending | State::Running) | None => {}
                }
            }
            counts.deleted += usize::from(history.deleted.is_some());
        }
        let mut violations = self.found;
        violations.extend(self.operations.violations());
        violations.extend(self.disturbances.cut_off(&self.rules));
        violations.extend(
            self.keys
                .judge(&self.operations, &self.disturbances, &self.rules),
        );
        violations.sort_by_cached_key(ToString::to_string);
        Verdict {
            violations,
            counts: self.counts,
        }
    }

    fn call(&mut self, call: &Call) {
        self.counts.calls += 1;
        if call.answer == CallAnswer::Nothing {
            self.counts.unanswered += 1;
            self.disturbances.unanswered(call);
        }
        match &call.ask {
            CallRequest::Post {
                title,
                key,
                id,
                hold,
            } => {
                if let Some(key) = key {
                    self.keys
                        .posted(call, title, key, id.as_deref(), hold.is_some());
                }
                self.post(call, title, id.as_deref());
            }
            CallRequest::Poll {
                operation,
                wait,
                since,
            } => {
                self.read(call, operation);
                if let Some(wait) = *wait
                    && call.end.saturating_sub(call.begin) > millis(self.rules.wake)
                    && call.answer.tells()
                {
                    self.operations
                        .of(operation)
                        .note_held_poll(call, *since, wait);
                }
            }
            CallRequest::Events { operation, after } => {
                self.read(call, operation);
                if let CallAnswer::Events { seen } = &call.answer {
                    self.operations
                        .of(operation)
                        .saw_events(seen, *after, call, operation);
                }
            }
            CallRequest::Result { operation } => self.read(call, operation),
            CallRequest::Cancel { operation } => self.cancel(call, operation),
            CallRequest::Delete { operation } => {
                self.operations.of(operation).is_to_be_deleted(call.begin);
                self.read(call, operation);
            }
            CallRequest::List => {
                if let CallAnswer::Listed { operations } = &call.answer {
                    self.counts.lists += 1;
                    self.lists.add(call, operations);
                }
            }
        }
    }

    fn post(&mut self, call: &Call, title: &str, id: Option<&str>) {
        if let Some(id) = id {
            self.operations.of(id).wanted = Some(title.into());
        }
        match &call.answer {
            CallAnswer::Accepted { operation } => {
                let history = self.operations.of(operation);
                history.accepted(call, title, operation);
                history.note_visible(call);
                if let Some(id) = id {
                    history.compare(id, operation, operation);
                }
            }
            CallAnswer::Result(outcome) => {
                let other = outcome.title.as_deref().filter(|named| *named != title);
                self.found.extend(other.map(|named| Violation::MixedUp {
                    operation: title.into(),
                    expected: title.into(),
                    found: named.into(),
                }));
            }
            _ => {}
        }
    }

    fn read(&mut self, call: &Call, operation: &str) {
        let history = self.operations.of(operation);
        if call.answer.tells() && call.answer != CallAnswer::Absent {
            history.note_visible(call);
        }
        match &call.answer {
            CallAnswer::Operation(sighting) => history.saw(sighting, call, operation),
            CallAnswer::Unchanged { version } => history.saw_version(*version, call),
            CallAnswer::Result(result) => history.saw_result(result, call, operation),
            CallAnswer::Unfinished => history.saw_no_end(call.begin),
            CallAnswer::Unreadable => history.saw_unreadable(call),
            CallAnswer::Absent => history.saw_nothing(call),
            CallAnswer::Deleted => history.is_deleted(call.end),
            CallAnswer::Accepted { .. }
            | CallAnswer::Events { .. }
            | CallAnswer::Listed { .. }
            | CallAnswer::Finished
            | CallAnswer::Refused { .. }
            | CallAnswer::Nothing => {}
        }
    }

    fn cancel(&mut self, call: &Call, operation: &str) {
        self.read(call, operation);
        let history = self.operations.of(operation);
        match &call.answer {
            CallAnswer::Operation(sighting) if sighting.state == State::Canceled => {
                history.saw_cancel(call.end);
            }
            CallAnswer::Operation(sighting) => history.convict(Violation::CancelUndone {
                operation: operation.into(),
                state: sighting.state,
            }),
            CallAnswer::Finished => {
                history.uncancelable = true;
                history.saw_end(call.end);
            }
            _ => {}
        }
    }

    fn run(&mut self, run: &RunEntry) {
        self.operations.of(&run.operation).ran(run);
        if run.event != RunEvent::Begin {
            return;
        }
        self.counts.runs += 1;
        if run.attempt > 1 {
            self.counts.reruns += 1;
        }
        self.keys.ran(&run.title, &run.operation);
    }
}
