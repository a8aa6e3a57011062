use std::time::Duration;

use tower_operations::operation::State;

use super::{
    accepted, call, cancel, convicts, delete, good, id, passes, poll, read, report, rules, run,
    seen, sighting, with,
};
use crate::checker::{CallAnswer, CallRequest, Reading, RunEvent, Sighting, Violation, check};

#[test]
fn good_logs_pass_and_are_counted() {
    passes(&good());
    let counts = check(&good(), &rules()).counts;
    assert_eq!((counts.accepted, counts.succeeded), (1, 1));
    assert_eq!((counts.calls, counts.runs, counts.reruns), (7, 1, 0));
}

#[test]
fn accepted_operations_are_found() {
    let lost = Violation::Lost { operation: id() };
    let absent = |begin| call(begin, begin + 5, poll(None, None), CallAnswer::Absent);
    convicts(&[accepted(), absent(6)], &lost);
    convicts(&with(good(), absent(80)), &lost);
    // The reading may have been before the 202.
    passes(&with(good(), absent(4)));
    // The operation is kept for its time after its end, and the end was not before 20 ms.
    let kept = rules().kept(Duration::from_secs(10));
    let log = with(good(), absent(20 + 10_000 - 5));
    assert!(check(&log, &kept).is_good());
    let log = with(good(), absent(20 + 10_000 - 6));
    assert_eq!(check(&log, &kept).violations, [lost]);
}

#[test]
fn accepted_operations_are_seen_at_their_end() {
    let unended = Violation::Unended { operation: id() };
    convicts(&[accepted()], &unended);
    convicts(&[accepted(), seen(10, 2, State::Running)], &unended);
    let nothing = call(20, 30, poll(None, None), CallAnswer::Nothing);
    convicts(&[accepted(), nothing], &unended);
    passes(&[accepted(), read(10, CallAnswer::Result(report("Q3")))]);
}

#[test]
fn operations_without_a_202_may_be_lost() {
    let ask = CallRequest::Post {
        title: "Q3".into(),
        key: None,
        id: None,
        hold: None,
    };
    let lost = call(0, 5, ask, CallAnswer::Nothing);
    passes(&[lost.clone(), run(2, 1, RunEvent::Begin)]);
    let absent = call(10, 15, poll(None, None), CallAnswer::Absent);
    passes(&[lost, seen(6, 1, State::Pending), absent]);
}

#[test]
fn operations_have_one_end() {
    let two = Violation::TwoOutcomes {
        operation: id(),
        first: State::Succeeded,
        second: State::Failed,
    };
    convicts(&with(good(), seen(80, 4, State::Failed)), &two);
    // The cancellation is refused because the operation has ended; then the operation is
    // canceled.
    let log = [
        accepted(),
        cancel(10, CallAnswer::Finished),
        seen(20, 3, State::Canceled),
    ];
    let two = Violation::TwoOutcomes {
        operation: id(),
        first: State::Canceled,
        second: State::Succeeded,
    };
    convicts(&log, &two);
}

#[test]
fn outcomes_never_change() {
    let changed = Violation::OutcomeChanged {
        operation: id(),
        version: 3,
    };
    // The same outcome comes as a further version, and the operation is live again.
    convicts(&with(good(), seen(80, 4, State::Succeeded)), &changed);
    convicts(&with(good(), seen(80, 4, State::Running)), &changed);
    // The same version comes with other content.
    let mut other = sighting(3, State::Succeeded);
    other.content = "updated a moment later".into();
    let other = call(80, 85, poll(None, None), CallAnswer::Operation(other));
    convicts(&with(good(), other), &changed);
    // The result has other bytes.
    let mut other = report("Q3");
    other.digest = "of something else".into();
    convicts(&with(good(), read(80, CallAnswer::Result(other))), &changed);
}

#[test]
fn results_can_be_read_while_they_are_kept() {
    let unreadable = Violation::Unreadable { operation: id() };
    let broken = |begin| read(begin, CallAnswer::Unreadable);
    convicts(&with(good(), broken(80)), &unreadable);
    // The operation may have expired, 10 s after 20 ms at the earliest.
    let kept = rules().kept(Duration::from_secs(10));
    let log = with(good(), broken(20 + 10_000 - 5));
    assert!(check(&log, &kept).is_good());
    let log = with(good(), broken(20 + 10_000 - 6));
    assert_eq!(check(&log, &kept).violations, [unreadable]);
    // A client has asked to delete the operation.
    let log = with(good(), delete(80, CallAnswer::Deleted));
    passes(&with(log, broken(80)));
}

#[test]
fn versions_are_seen_with_one_content() {
    let mut other = sighting(2, State::Running);
    other.content = "further on".into();
    let other = |version| {
        let sighting = Sighting {
            version,
            ..other.clone()
        };
        call(11, 16, poll(None, None), CallAnswer::Operation(sighting))
    };
    let reused = Violation::VersionReused {
        operation: id(),
        version: 2,
    };
    convicts(&with(good(), other(2)), &reused);
    passes(&[
        accepted(),
        seen(6, 1, State::Pending),
        other(2),
        seen(40, 3, State::Failed),
    ]);
}

#[test]
fn readers_do_not_go_back() {
    let back = |then| Violation::WentBack {
        operation: id(),
        before: Reading::Version(3),
        then,
    };
    let again = |begin| seen(begin, 2, State::Running);
    convicts(&with(good(), again(46)), &back(Reading::Version(2)));
    // At the same time either version may be seen.
    passes(&with(good(), again(45)));
    let unchanged = call(
        80,
        85,
        poll(None, Some(2)),
        CallAnswer::Unchanged { version: 2 },
    );
    convicts(&with(good(), unchanged), &back(Reading::Version(2)));
    let ended = Violation::WentBack {
        operation: id(),
        before: Reading::Ended,
        then: Reading::Unfinished,
    };
    convicts(&with(good(), read(46, CallAnswer::Unfinished)), &ended);
    passes(&with(good(), read(45, CallAnswer::Unfinished)));
    // A refused cancellation knows of the end as well.
    let log = [
        accepted(),
        cancel(10, CallAnswer::Finished),
        seen(16, 2, State::Running),
        seen(30, 3, State::Failed),
    ];
    let ended = Violation::WentBack {
        operation: id(),
        before: Reading::Ended,
        then: Reading::Version(2),
    };
    convicts(&log, &ended);
}

#[test]
fn canceled_operations_stay_canceled() {
    let canceled = |begin, version| {
        let sighting = sighting(version, State::Canceled);
        cancel(begin, CallAnswer::Operation(sighting))
    };
    let log = vec![
        accepted(),
        seen(10, 2, State::Running),
        canceled(20, 3),
        canceled(30, 3),
    ];
    passes(&log);
    let undone = |state| Violation::CancelUndone {
        operation: id(),
        state,
    };
    for state in [State::Succeeded, State::Failed, State::Running] {
        let log = with(log.clone(), seen(40, 4, state));
        convicts(&log, &undone(state));
    }
    let ignored = cancel(12, CallAnswer::Operation(sighting(2, State::Running)));
    let log = [accepted(), ignored, seen(40, 3, State::Failed)];
    convicts(&log, &undone(State::Running));
}
