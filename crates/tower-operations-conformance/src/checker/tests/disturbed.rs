use std::time::Duration;

use tower_operations::operation::State;

use super::{
    accepted, away, call, convicts, damage, drain, good, id, kill, passes, poll, post, read,
    report, rules, run, seen, with,
};
use crate::checker::{
    Away, Call, CallAnswer, CallRequest, Entry, RunEvent, SeenResult, Violation, check,
};

#[track_caller]
fn judged(log: &[Entry], rules: &crate::checker::Rules, expected: &[Violation]) {
    assert_eq!(check(log, rules).violations, expected);
    assert_eq!(
        check(log.iter().rev(), rules).violations.len(),
        expected.len()
    );
}

#[test]
fn damaged_operations_are_excused_and_no_others() {
    // The operation changes its outcome, and is absent.
    let ruined = [
        accepted(),
        seen(10, 2, State::Running),
        seen(20, 3, State::Failed),
        seen(40, 4, State::Succeeded),
        call(60, 65, poll(None, None), CallAnswer::Absent),
    ];
    assert!(!check(&ruined, &rules()).is_good());
    let ruined = with(ruined.to_vec(), damage(15));
    passes(&ruined);
    assert_eq!(check(&ruined, &rules()).counts.damaged, 1);
    let other = post(0, "Q4", None, "op-2");
    let operation = "op-2".to_owned();
    convicts(&with(ruined, other), &Violation::Unended { operation });
}

fn post_of(begin: u64, end: u64, answer: CallAnswer) -> Entry {
    let ask = CallRequest::Post {
        title: "Q3".into(),
        key: None,
        id: None,
        hold: None,
    };
    call(begin, end, ask, answer)
}

#[test]
fn drained_nodes_answer_the_requests_that_they_have() {
    let cut = Violation::CutOff {
        request: "Q3".into(),
        node: "a".into(),
        at: Duration::from_millis(1_001),
    };
    let lost = |begin| post_of(begin, 3_000, CallAnswer::Nothing);
    let drained = drain(2_000, 2_900);
    convicts(&[lost(999), drained.clone()], &cut);
    // The request may not have arrived.
    passes(&[lost(1_000), drained.clone()]);
    // The request was answered, or the drain was not during the request.
    let refused = post_of(999, 3_000, CallAnswer::Refused { status: 503 });
    passes(&[refused, drained.clone()]);
    passes(&[post_of(500, 1_999, CallAnswer::Nothing), drained.clone()]);
    passes(&[lost(999), drain(3_001, 3_500)]);
    // The request went to another node, or its node was killed or stopped, or the store was
    // away.
    let Entry::Call(call) = lost(999) else {
        unreachable!("it is a call");
    };
    let node = "b".into();
    passes(&[Entry::Call(Call { node, ..call }), drained.clone()]);
    passes(&[lost(999), drained.clone(), kill(2_500, 2_600)]);
    passes(&[lost(999), drained.clone(), away(1_500, 1_600)]);
    // With one node, the store is away because the node drains.
    convicts(&[lost(999), drained.clone(), away(2_000, 3_100)], &cut);
    let stopped = Entry::Away(Away {
        node: Some("a".into()),
        begin: 1_500,
        end: 1_600,
    });
    passes(&[lost(999), drained.clone(), stopped]);
    // Held polls are requests as well.
    let held = super::call(900, 3_000, poll(Some(9_000), None), CallAnswer::Nothing);
    let cut = Violation::CutOff {
        request: id(),
        node: "a".into(),
        at: Duration::from_millis(1_100),
    };
    passes(&with(good(), held.clone()));
    convicts(&with(with(good(), held), drained), &cut);
}

#[test]
fn direct_answers_belong_to_the_request() {
    passes(&[post_of(0, 900, CallAnswer::Result(report("Q3")))]);
    let mixed = Violation::MixedUp {
        operation: "Q3".into(),
        expected: "Q3".into(),
        found: "Q4".into(),
    };
    convicts(&[post_of(0, 900, CallAnswer::Result(report("Q4")))], &mixed);
}

fn interrupted(begin: u64) -> Vec<Entry> {
    let outcome = SeenResult {
        failure: Some("urn:tower-operations:interrupted".into()),
        title: None,
        ..report("nothing")
    };
    let result = read(begin + 10, CallAnswer::Result(outcome));
    vec![accepted(), seen(begin, 3, State::Failed), result]
}

#[test]
fn interrupted_operations_have_a_cause() {
    let rules = rules().causes(true);
    let without_cause = [Violation::Interrupted { operation: id() }];
    judged(&interrupted(100), &rules, &without_cause);
    for cause in [
        kill(50, 60),
        drain(50, 60),
        away(50, 60),
        // This kill is just within a lease and a recovery interval.
        kill(2, 3),
    ] {
        judged(&with(interrupted(100), cause), &rules, &[]);
    }
    // The kill is after the end, or too long before the beginning.
    judged(
        &with(interrupted(100), kill(106, 200)),
        &rules,
        &without_cause,
    );
    let late = |begin| {
        let mut log = interrupted(begin + 100);
        log[0] = post(begin, "Q3", None, "op-1");
        with(log, kill(10, 20))
    };
    judged(&late(2_020), &rules, &[]);
    judged(&late(2_021), &rules, &without_cause);
    // The operation was posted before, and the answer was lost with the node.
    let keyed = |begin, answer| {
        let ask = CallRequest::Post {
            title: "Q3".into(),
            key: Some("k".into()),
            id: None,
            hold: None,
        };
        call(begin, begin + 5, ask, answer)
    };
    let mut log = late(9_000);
    log[0] = keyed(9_000, CallAnswer::Accepted { operation: id() });
    judged(&log, &rules, &without_cause);
    judged(&with(log, keyed(15, CallAnswer::Nothing)), &rules, &[]);
    // Other failures need no cause, and causes are judged only if the rules say so.
    judged(&[accepted(), seen(100, 3, State::Failed)], &rules, &[]);
    passes(&interrupted(100));
}

#[test]
fn operations_of_a_killed_node_continue_when_it_is_back() {
    let rules = rules().reclaim(Duration::from_secs(1));
    let log = |alive| {
        vec![
            accepted(),
            run(6, 1, RunEvent::Begin),
            kill(100, 200),
            seen(alive, 2, State::Running),
            seen(3_000, 3, State::Failed),
        ]
    };
    judged(&log(1_200), &rules, &[]);
    let operation = id();
    let by = Duration::from_millis(1_001);
    let stranded = [Violation::Stranded { operation, by }];
    judged(&log(1_201), &rules, &stranded);
    // The operation is rerun in time, or too late.
    judged(
        &with(log(1_201), run(1_200, 2, RunEvent::Begin)),
        &rules,
        &[],
    );
    judged(
        &with(log(1_201), run(1_201, 2, RunEvent::Begin)),
        &rules,
        &stranded,
    );
    // The node was disturbed meanwhile.
    for other in [kill(1_100, 1_150), drain(1_200, 1_300), away(300, 301)] {
        judged(&with(log(1_201), other), &rules, &[]);
    }
    // The operation was accepted after the kill, or the rules do not judge reclaims.
    let mut later = log(1_201);
    later[0] = post(250, "Q3", None, "op-1");
    judged(&later, &rules, &[]);
    passes(&log(1_201));
}
