//! Operations and records against an independent model: which state may follow which,
//! and which holder may write when.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use proptest::prelude::*;
use tower_operations::{
    Failure, InvalidTransition, Operation, OperationId, Outcome, Problem, Progress, State, Status,
    store::{FencingToken, LeaseConfig, NewOperation, NodeId, Owner, Record, Stamp, Step, Version},
};

/// All permitted transitions.
const TRANSITIONS: [(State, State); 7] = [
    (State::Pending, State::Running),
    (State::Pending, State::Succeeded),
    (State::Pending, State::Failed),
    (State::Pending, State::Canceled),
    (State::Running, State::Succeeded),
    (State::Running, State::Failed),
    (State::Running, State::Canceled),
];

const TERMINAL: [State; 3] = [State::Succeeded, State::Failed, State::Canceled];

/// Times are stored in milliseconds.
fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn progress(number: u64) -> Progress {
    Progress::from_count(number, 3)
}

fn outcome() -> impl Strategy<Value = Outcome<u32>> {
    prop_oneof![
        any::<Option<u32>>().prop_map(Outcome::Succeeded),
        (400_u16..600, any::<Option<u32>>()).prop_map(|(status, response)| {
            let problem = Problem::new(StatusCode::from_u16(status).unwrap());
            Outcome::Failed(Failure::from(problem).with_response(response))
        }),
        Just(Outcome::Canceled),
    ]
}

fn status() -> impl Strategy<Value = Status<u32>> {
    prop_oneof![
        Just(Status::Pending),
        Just(Status::Running),
        outcome().prop_map(Status::Ended),
    ]
}

#[test]
fn the_permitted_transitions_are_those_of_the_table() {
    for from in State::ALL {
        assert_eq!(from.is_terminal(), TERMINAL.contains(&from), "{from}");
        for to in State::ALL {
            let is_permitted = TRANSITIONS.contains(&(from, to));
            assert_eq!(from.can_become(to), is_permitted, "{from} to {to}");
            let result = from.transition(to);
            assert_eq!(result.ok(), is_permitted.then_some(to));
            if let Err(InvalidTransition { from: a, to: b, .. }) = result {
                assert_eq!((a, b), (from, to));
            }
        }
    }
}

#[test]
fn a_state_is_one_of_five_words() {
    for state in State::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
        let json = format!("\"{state}\"");
        assert_eq!(serde_json::to_string(&state).unwrap(), json);
        assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
    }
    for word in [
        "",
        "Pending",
        "PENDING",
        "cancelled",
        "done",
        "running ",
        "null",
    ] {
        assert!(word.parse::<State>().is_err(), "{word:?}");
        assert!(
            serde_json::from_str::<State>(&format!("{word:?}")).is_err(),
            "{word:?}"
        );
    }
}

/// An action on an operation.
#[derive(Debug, Clone)]
enum Action {
    Transition(Status<u32>),
    Report(u64),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => status().prop_map(Action::Transition),
        1 => (0_u64..4).prop_map(Action::Report),
    ]
}

/// The model of an operation.
#[derive(Debug, Default)]
struct ModelOperation {
    status: Status<u32>,
    updated_at: Option<SystemTime>,
    started_at: Option<SystemTime>,
    finished_at: Option<SystemTime>,
    progress: Option<Progress>,
}

impl ModelOperation {
    fn assert_is(&self, operation: &Operation<u32>) {
        assert_eq!(operation.status(), &self.status);
        assert_eq!(operation.state(), self.status.state());
        let metadata = operation.metadata();
        assert_eq!(metadata.updated_at(), self.updated_at);
        assert_eq!(metadata.started_at(), self.started_at);
        assert_eq!(metadata.finished_at(), self.finished_at);
        assert_eq!(metadata.progress(), self.progress.as_ref());

        // A member of one state exists in that state only.
        let (result, problem, response) = match &self.status {
            Status::Pending
            | Status::Running
            | Status::Ended(Outcome::Canceled | Outcome::CanceledFor(_)) => (None, None, None),
            Status::Ended(Outcome::Succeeded(result)) => (result.as_ref(), None, result.as_ref()),
            Status::Ended(Outcome::Failed(failure)) => {
                (None, Some(&failure.problem), failure.response.as_ref())
            }
        };
        assert_eq!(operation.result(), result);
        assert_eq!(operation.problem(), problem);
        assert_eq!(operation.response(), response);
        assert_eq!(
            operation.outcome().is_some(),
            operation.state().is_terminal()
        );
    }
}

proptest! {
    #[test]
    fn an_operation_follows_the_table(actions in prop::collection::vec(action(), 0..12)) {
        let id = OperationId::new();
        let mut operation = Operation::<u32>::new(id.clone());
        let mut model = ModelOperation::default();
        model.assert_is(&operation);
        for (now, action) in (0..).map(at).zip(actions) {
            match action {
                Action::Transition(status) => {
                    let before = operation.clone();
                    let (from, to) = (model.status.state(), status.state());
                    let result = operation.transition(status.clone(), now);
                    if TRANSITIONS.contains(&(from, to)) {
                        prop_assert_eq!(result, Ok(()));
                        model.status = status;
                        model.updated_at = Some(now);
                        match to {
                            State::Running => model.started_at = Some(now),
                            _ => model.finished_at = Some(now),
                        }
                    } else {
                        let InvalidTransition { from: a, to: b, .. } = result.unwrap_err();
                        prop_assert_eq!((a, b), (from, to));
                        prop_assert_eq!(&operation, &before);
                    }
                }
                Action::Report(number) => {
                    operation.report(progress(number), now);
                    model.progress = Some(progress(number));
                    model.updated_at = Some(now);
                }
            }
            model.assert_is(&operation);
            prop_assert_eq!(operation.id(), &id);
        }
    }

    #[test]
    fn an_operation_round_trips_through_json(actions in prop::collection::vec(action(), 0..6)) {
        let mut operation = Operation::<u32>::new("q3".parse().unwrap());
        operation.update(|metadata| metadata.with_created_at(at(0)).with_expires_at(at(100)));
        for (now, action) in (0..).map(at).zip(actions) {
            match action {
                Action::Transition(status) => drop(operation.transition(status, now)),
                Action::Report(number) => operation.report(progress(number), now),
            }
        }
        let json = serde_json::to_value(&operation).unwrap();
        prop_assert_eq!(json.get("result").is_some(), operation.result().is_some());
        prop_assert_eq!(json.get("problem").is_some(), operation.problem().is_some());
        prop_assert_eq!(&json["state"], operation.state().as_str());
        let back: Operation<u32> = serde_json::from_value(json).unwrap();
        prop_assert_eq!(back.id(), operation.id());
        prop_assert_eq!(back.state(), operation.state());
        prop_assert_eq!(back.result(), operation.result());
        prop_assert_eq!(back.problem(), operation.problem());
        let (back, metadata) = (back.metadata(), operation.metadata());
        prop_assert_eq!(back.created_at(), metadata.created_at());
        prop_assert_eq!(back.updated_at(), metadata.updated_at());
        prop_assert_eq!(back.expires_at(), metadata.expires_at());
        prop_assert_eq!(back.progress(), metadata.progress());
    }
}

/// A write to a record. Its token or version is relative to the right one.
#[derive(Debug, Clone)]
enum Write {
    Start {
        token: Aim,
    },
    Report {
        token: Aim,
        progress: u64,
    },
    Finish {
        token: Aim,
        outcome: Outcome<u32>,
        progress: Option<u64>,
    },
    RepeatFinish {
        token: Aim,
    },
    ForceFinish {
        version: Aim,
        outcome: Outcome<u32>,
    },
    Reclaim {
        node: u8,
    },
}

/// The relation of a writer's token or version to the right one.
#[derive(Debug, Clone, Copy)]
enum Aim {
    Right,
    Stale,
    Ahead,
    Nonsense,
}

fn aim() -> impl Strategy<Value = Aim> {
    prop_oneof![
        6 => Just(Aim::Right),
        2 => Just(Aim::Stale),
        1 => Just(Aim::Ahead),
        1 => Just(Aim::Nonsense),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => aim().prop_map(|token| Write::Start { token }),
        4 => (aim(), 0_u64..3).prop_map(|(token, progress)| Write::Report { token, progress }),
        1 => (aim(), outcome(), prop::option::of(0_u64..3)).prop_map(|(token, outcome, progress)| {
            Write::Finish { token, outcome, progress }
        }),
        1 => aim().prop_map(|token| Write::RepeatFinish { token }),
        1 => (aim(), outcome()).prop_map(|(version, outcome)| Write::ForceFinish { version, outcome }),
        2 => (0_u8..3).prop_map(|node| Write::Reclaim { node }),
    ]
}

/// The effect of a write by the laws.
#[derive(Debug, Clone, PartialEq)]
enum Effect {
    Change,
    Same,
    Lost,
}

/// The model of a record. Holders are numbered from 1. A forced finish adds a last
/// holder.
#[derive(Debug, Clone)]
struct Model {
    state: State,
    outcome: Option<Outcome<u32>>,
    progress: Option<Progress>,
    version: u64,
    holders: u64,
    node: u8,
    started_by: Option<u64>,
    starts: u32,
    updated_at: SystemTime,
    finished_at: Option<SystemTime>,
}

const TTL: Duration = Duration::from_secs(3600);

impl Model {
    fn new(now: SystemTime) -> Self {
        Self {
            state: State::Pending,
            outcome: None,
            progress: None,
            version: 1,
            holders: 1,
            node: 0,
            started_by: None,
            starts: 0,
            updated_at: now,
            finished_at: None,
        }
    }

    fn token(&self, aim: Aim) -> u64 {
        match aim {
            Aim::Right => self.holders,
            Aim::Stale => self.holders - 1,
            Aim::Ahead => self.holders + 1,
            Aim::Nonsense => u64::MAX,
        }
    }

    fn version(&self, aim: Aim) -> u64 {
        match aim {
            Aim::Right => self.version,
            Aim::Stale => (self.version - 1).max(1),
            Aim::Ahead => self.version + 1,
            Aim::Nonsense => u64::MAX,
        }
    }

    fn may_write(&self, token: u64) -> bool {
        !TERMINAL.contains(&self.state) && token == self.holders
    }

    fn change(&mut self, now: SystemTime) {
        self.version += 1;
        self.updated_at = now;
    }

    fn start(&mut self, token: u64, now: SystemTime) -> Effect {
        if !self.may_write(token) {
            return Effect::Lost;
        }
        if self.started_by == Some(token) {
            return Effect::Same;
        }
        self.state = State::Running;
        self.started_by = Some(token);
        self.starts += 1;
        self.change(now);
        Effect::Change
    }

    fn report(&mut self, token: u64, progress: Progress, now: SystemTime) -> Effect {
        if !self.may_write(token) {
            return Effect::Lost;
        }
        if self.progress.as_ref() == Some(&progress) {
            return Effect::Same;
        }
        self.progress = Some(progress);
        self.change(now);
        Effect::Change
    }

    fn finish(
        &mut self,
        token: u64,
        outcome: Outcome<u32>,
        progress: Option<Progress>,
        now: SystemTime,
    ) -> Effect {
        if let Some(ended) = &self.outcome {
            let is_same = token == self.holders && is_alike(ended, &outcome);
            return if is_same { Effect::Same } else { Effect::Lost };
        }
        if !self.may_write(token) {
            return Effect::Lost;
        }
        self.progress = progress.or(self.progress.take());
        self.end(outcome, now);
        Effect::Change
    }

    fn force_finish(&mut self, version: u64, outcome: Outcome<u32>, now: SystemTime) -> Effect {
        if self.outcome.is_some() || version != self.version {
            return Effect::Lost;
        }
        self.end(outcome, now);
        self.holders += 1;
        Effect::Change
    }

    fn reclaim(&mut self, node: u8) -> Effect {
        if self.outcome.is_some() {
            return Effect::Lost;
        }
        self.holders += 1;
        self.node = node;
        self.version += 1;
        Effect::Change
    }

    fn end(&mut self, outcome: Outcome<u32>, now: SystemTime) {
        self.state = outcome.state();
        self.outcome = Some(outcome);
        self.finished_at = Some(now);
        self.change(now);
    }

    fn assert_is(&self, record: &Record<u32>) {
        let operation = record.operation();
        assert_eq!(operation.state(), self.state);
        assert_eq!(operation.outcome(), self.outcome.as_ref());
        assert_eq!(record.version(), Version::from_number(self.version));
        assert_eq!(record.token(), FencingToken::from_number(self.holders));
        assert_eq!(record.node(), Some(&node(self.node)));
        assert_eq!(record.attempts(), self.starts);
        assert_eq!(
            record.started_by(),
            self.started_by.map(FencingToken::from_number)
        );
        assert_eq!(record.owner(), Some(&Owner::new("owner")));
        let metadata = operation.metadata();
        assert_eq!(metadata.created_at(), Some(at(0)));
        assert_eq!(metadata.updated_at(), Some(self.updated_at));
        assert_eq!(metadata.finished_at(), self.finished_at);
        assert_eq!(metadata.expires_at(), self.finished_at.map(|at| at + TTL));
        assert_eq!(metadata.progress(), self.progress.as_ref());
        for token in 0..self.holders + 2 {
            assert_eq!(
                record.is_held_by(FencingToken::from_number(token)),
                self.may_write(token)
            );
        }
    }
}

/// Results cannot be compared in general, so the same end with the same problem counts
/// as the same write.
fn is_alike(one: &Outcome<u32>, other: &Outcome<u32>) -> bool {
    match (one, other) {
        (Outcome::Failed(one), Outcome::Failed(other)) => one.problem == other.problem,
        _ => one.state() == other.state(),
    }
}

fn node(number: u8) -> NodeId {
    NodeId::named(format!("node {number}"))
}

fn new_record() -> Record<u32> {
    let lease = LeaseConfig::new(node(0), Duration::from_secs(30));
    let id = OperationId::new();
    let new = NewOperation::new(id.clone())
        .with_owner(Some(Owner::new("owner")))
        .with_lease(lease);
    assert_ne!(
        new.token,
        NewOperation::new(id).token,
        "a reused id admits the old holder"
    );
    let record = Record::create(&new, at(0));
    assert_eq!(record.token(), new.token);
    record.with_holder(FIRST, Some(node(0)))
}

const FIRST: FencingToken = FencingToken::from_number(1);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_record_follows_the_laws(writes in prop::collection::vec(write(), 0..16)) {
        let mut record = new_record();
        let mut model = Model::new(at(0));
        model.assert_is(&record);
        for (now, write) in (1..).map(at).zip(writes) {
            let before = model.clone();
            let fencing = |token| FencingToken::from_number(model.token(token));
            let (step, effect) = match write {
                Write::Start { token } => {
                    let step = record.started(fencing(token), now);
                    (step, model.start(before.token(token), now))
                }
                Write::Report { token, progress: number } => {
                    let step = record.reported(fencing(token), progress(number), now);
                    (step, model.report(before.token(token), progress(number), now))
                }
                Write::Finish { token, outcome, progress: number } => {
                    let last_progress = number.map(progress);
                    let step = record.finished(fencing(token), outcome.clone(), last_progress.clone(), now, TTL);
                    (step, model.finish(before.token(token), outcome, last_progress, now))
                }
                Write::RepeatFinish { token } => {
                    let Some(outcome) = model.outcome.clone() else { continue };
                    let step = record.finished(fencing(token), outcome.clone(), None, now, TTL);
                    (step, model.finish(before.token(token), outcome, None, now))
                }
                Write::ForceFinish { version, outcome } => {
                    let version = model.version(version);
                    let expected = Stamp::new(Version::from_number(version).unwrap(), record.token());
                    let step = record.force_finished(expected, outcome.clone(), now, TTL);
                    (step, model.force_finish(version, outcome, now))
                }
                Write::Reclaim { node: number } => {
                    (record.reclaimed(&node(number)), model.reclaim(number))
                }
            };
            match step {
                Step::Next(next) => {
                    prop_assert_eq!(effect, Effect::Change);
                    // Laws 3 and 4: no transition leads back.
                    prop_assert_eq!(next.version(), record.version().map(Version::next));
                    let (from, to) = (record.operation().state(), next.operation().state());
                    prop_assert!(from == to || TRANSITIONS.contains(&(from, to)), "{} to {}", from, to);
                    prop_assert!(!TERMINAL.contains(&from), "{} was left", from);
                    // Law 6: a token never falls, and a new holder raises it.
                    prop_assert!(next.token() >= record.token());
                    prop_assert!(next.node() == record.node() || next.token() > record.token());
                    record = next;
                }
                Step::Done => prop_assert_eq!(effect, Effect::Same),
                Step::Lost => prop_assert_eq!(effect, Effect::Lost),
            }
            model.assert_is(&record);
        }
    }

    /// Law 2: a repeated write of the same holder has no effect, whatever came before.
    #[test]
    fn a_repeated_write_changes_nothing(writes in prop::collection::vec(write(), 0..8), outcome in outcome()) {
        let mut record = new_record();
        for (now, write) in (1..).map(at).zip(writes) {
            let token = record.token();
            let step = match write {
                Write::Start { .. } => record.started(token, now),
                Write::Report { progress: number, .. } => record.reported(token, progress(number), now),
                Write::Reclaim { node: number } => record.reclaimed(&node(number)),
                _ => continue,
            };
            if let Step::Next(next) = step {
                record = next;
            }
        }
        let token = record.token();
        let apply = |step| match step {
            Step::Next(next) => next,
            Step::Done => record.clone(),
            Step::Lost => panic!("the holder lost without a competitor"),
        };
        let started = apply(record.started(token, at(100)));
        prop_assert!(matches!(started.started(token, at(101)), Step::Done));
        let reported = apply(record.reported(token, progress(9), at(100)));
        prop_assert!(matches!(reported.reported(token, progress(9), at(101)), Step::Done));
        let last_progress = Some(progress(9));
        let ended = apply(record.finished(token, outcome.clone(), last_progress.clone(), at(100), TTL));
        prop_assert!(matches!(ended.finished(token, outcome, last_progress, at(101), TTL), Step::Done));
    }

    /// Law 6: every write of a holder that lost its lease is refused.
    #[test]
    fn a_holder_that_lost_its_lease_cannot_write(times in 1_u64..5, outcome in outcome(), is_started: bool) {
        let mut record = new_record();
        let mut old = Vec::new();
        for number in 0..times {
            old.push(record.token());
            if is_started && let Step::Next(next) = record.started(record.token(), at(number)) {
                record = next;
            }
            let Step::Next(next) = record.reclaimed(&node(number as u8)) else {
                panic!("a live record can be reclaimed");
            };
            record = next;
        }
        for token in old {
            prop_assert!(token < record.token());
            prop_assert!(matches!(record.started(token, at(9)), Step::Lost));
            prop_assert!(matches!(record.reported(token, progress(1), at(9)), Step::Lost));
            prop_assert!(matches!(record.finished(token, outcome.clone(), None, at(9), TTL), Step::Lost));
        }
    }
}

#[test]
fn a_record_without_a_version_is_not_force_finished() {
    let operation = Operation::<u32>::new(OperationId::new());
    let record = Record::unversioned(operation);
    let first = Stamp::new(Version::FIRST, record.token());
    let step = record.force_finished(first, Outcome::Canceled, at(1), TTL);
    assert!(matches!(step, Step::Lost));
}

#[test]
fn a_stored_record_is_restored_unchanged() {
    let Step::Next(started) = new_record().started(FIRST, at(1)) else {
        panic!("the holder can start");
    };
    let Step::Next(reclaimed) = started.reclaimed(&node(1)) else {
        panic!("a live record can be reclaimed");
    };
    let back = Record::restore(reclaimed.operation().clone(), reclaimed.version().unwrap())
        .with_owner(reclaimed.owner().cloned())
        .with_holder(reclaimed.token(), reclaimed.node().cloned())
        .with_attempts(reclaimed.attempts(), reclaimed.started_by())
        .with_history(reclaimed.history().to_vec());
    assert_eq!(back, reclaimed);
}

#[test]
fn a_ttl_beyond_the_last_time_never_expires() {
    let step = new_record().finished(FIRST, Outcome::Canceled, None, at(1), Duration::MAX);
    let Step::Next(ended) = step else {
        panic!("the holder can finish");
    };
    assert_eq!(ended.operation().metadata().expires_at(), None);
}
