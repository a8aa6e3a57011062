use tower_operations::operation::State;

use super::{ID, accepted, call, convicts, good, id, passes, post, read, run, seen, with};
use crate::checker::{
    Away, CallAnswer, CallRequest, Entry, RunEntry, RunEvent, SeenResult, Violation,
};

#[test]
fn results_belong_to_the_request() {
    let mixed = Violation::MixedUp {
        operation: id(),
        expected: "Q3".into(),
        found: "Q4".into(),
    };
    let other = SeenResult {
        digest: "of Q3".into(),
        title: Some("Q4".into()),
        failure: None,
    };
    convicts(&with(good(), read(80, CallAnswer::Result(other))), &mixed);
    let log = [
        accepted(),
        seen(10, 2, State::Failed),
        Entry::Run(RunEntry {
            operation: id(),
            attempt: 1,
            node: "a".into(),
            title: "Q4".into(),
            event: RunEvent::Begin,
            at: 7,
        }),
    ];
    convicts(&log, &mixed);
    // Two requests lead to one operation.
    convicts(&with(good(), post(80, "Q4", None, ID)), &mixed);
}

#[test]
fn keys_lead_to_one_operation() {
    let once = |at, operation| post(at, "Q3", Some("k"), operation);
    let ends = seen(20, 2, State::Failed);
    passes(&[once(0, ID), once(6, ID), ends.clone()]);
    let forked = Violation::KeyForked {
        key: "k".into(),
        first: id(),
        second: "op-2".into(),
    };
    let mut other_ends = ends.clone();
    if let Entry::Call(call) = &mut other_ends {
        call.ask = CallRequest::Poll {
            operation: "op-2".into(),
            wait: None,
            since: None,
        };
    }
    convicts(
        &[once(0, ID), once(6, "op-2"), ends.clone(), other_ends],
        &forked,
    );
    // The first answer was lost, but its run was logged.
    let ask = CallRequest::Post {
        title: "Q3".into(),
        key: Some("k".into()),
        id: None,
        hold: None,
    };
    let lost = call(0, 5, ask, CallAnswer::Nothing);
    let other = Entry::Run(RunEntry {
        operation: "op-2".into(),
        attempt: 1,
        node: "b".into(),
        title: "Q3".into(),
        event: RunEvent::Begin,
        at: 8,
    });
    let log = [lost, once(6, ID), run(7, 1, RunEvent::Begin), other, ends];
    convicts(&log, &forked);
    // Without a key these are two requests.
    let log: Vec<_> = log.iter().map(without_key).collect();
    passes(&log);
}

#[test]
fn the_direct_answer_of_a_key_stays_its_answer() {
    let held = |at: u64, answer| {
        let ask = CallRequest::Post {
            title: "Q3".into(),
            key: Some("k".into()),
            id: None,
            hold: Some(3_000),
        };
        call(at, at + 5, ask, answer)
    };
    let direct = |digest: &str| {
        CallAnswer::Result(SeenResult {
            digest: digest.into(),
            title: Some("Q3".into()),
            failure: None,
        })
    };
    let accepted = || CallAnswer::Accepted { operation: id() };
    passes(&[held(0, direct("x")), held(6, direct("x"))]);
    let forked = |first: &str, second: &str| Violation::KeyForked {
        key: "k".into(),
        first: first.into(),
        second: second.into(),
    };
    let twice = [held(0, direct("x")), held(6, direct("y"))];
    convicts(&twice, &forked("the answer x", "the answer y"));
    let again = [
        held(0, direct("x")),
        held(6, accepted()),
        seen(20, 2, State::Failed),
    ];
    convicts(&again, &forked("the answer x", ID));
    let before = [
        held(0, accepted()),
        held(6, direct("x")),
        seen(20, 2, State::Failed),
    ];
    convicts(&before, &forked("the answer x", ID));
    // The log may be in any order.
    let [one, other] = twice.clone();
    convicts(&[other, one], &forked("the answer x", "the answer y"));
    // The store was away, so it may have missed the answer.
    let away = Entry::Away(Away {
        node: None,
        begin: 1,
        end: 4,
    });
    passes(&with(again.to_vec(), away));
    // The node did not survive the first call, whose operation does not exist.
    let lost = held(0, CallAnswer::Nothing);
    let unborn = Entry::Run(RunEntry {
        operation: "op-2".into(),
        attempt: 1,
        node: "b".into(),
        title: "Q3".into(),
        event: RunEvent::Begin,
        at: 3,
    });
    passes(&[
        lost,
        unborn,
        held(6, accepted()),
        run(7, 1, RunEvent::Begin),
        seen(20, 2, State::Failed),
    ]);
}

fn without_key(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    if let Entry::Call(call) = &mut entry
        && let CallRequest::Post { key, .. } = &mut call.ask
    {
        *key = None;
    }
    entry
}

#[test]
fn attempts_run_once_and_are_bounded() {
    let begin = |attempt| run(8, attempt, RunEvent::Begin);
    passes(&with(good(), begin(2)));
    let twice = Violation::RanTwice {
        operation: id(),
        attempt: 1,
    };
    convicts(&with(good(), begin(1)), &twice);
    let often = Violation::TooManyAttempts {
        operation: id(),
        attempts: 3,
    };
    convicts(&with(with(good(), begin(2)), begin(3)), &often);
}

#[test]
fn succeeded_operations_have_run() {
    let log: Vec<_> = good()
        .into_iter()
        .filter(|entry| *entry != run(30, 1, RunEvent::End))
        .collect();
    convicts(&log, &Violation::NeverRan { operation: id() });
    // A log without runs proves nothing about runs.
    let is_run = |entry: &Entry| matches!(entry, Entry::Run(_));
    let log: Vec<_> = log.into_iter().filter(|entry| !is_run(entry)).collect();
    passes(&log);
}
