use std::time::Duration;

use tower_operations::operation::State;

use super::{
    accepted, away, call, cancel, convicts, damage, delete, drain, good, id, kill, list, of,
    passes, poll, rules, run, seen, sighting, with,
};
use crate::checker::{Away, CallAnswer, Entry, RunEntry, RunEvent, Violation, check};

#[test]
fn operations_end_in_time() {
    // The limit is (1 s + 1 s + 3 s) × 2, counted from 5 ms.
    let log = |alive| {
        vec![
            accepted(),
            seen(alive, 2, State::Running),
            seen(60_000, 3, State::Failed),
        ]
    };
    passes(&log(10_005));
    let late = Violation::Late {
        operation: id(),
        after: Duration::from_millis(10_006),
    };
    convicts(&log(10_011), &late);
    // An outage does not count, nor does the lease after the outage.
    passes(&with(log(16_005), away(2_000, 7_000)));
    passes(&with(
        with(log(16_005), away(1_000, 6_500)),
        away(2_000, 7_000),
    ));
    let late = Violation::Late {
        operation: id(),
        after: Duration::from_millis(10_001),
    };
    convicts(&with(log(16_006), away(2_000, 7_000)), &late);
}

#[test]
fn held_polls_are_answered_in_time() {
    let held = |end, since, version, state| {
        let answer = CallAnswer::Operation(sighting(version, state));
        call(7, end, poll(Some(5_000), since), answer)
    };
    // Others saw version 3 at 45 ms.
    let by = Duration::from_millis(1_001);
    let overslept = Violation::Overslept {
        operation: id(),
        by,
    };
    for since in [None, Some(2)] {
        passes(&with(good(), held(1_045, since, 3, State::Succeeded)));
        let late = with(good(), held(1_046, since, 3, State::Succeeded));
        convicts(&late, &overslept);
        // The store was away for a moment of the wait.
        passes(&with(late, away(500, 501)));
    }
    // No client saw an end: the poll is held for its time, and no longer.
    let log = |end| {
        vec![
            accepted(),
            held(end, None, 2, State::Running),
            seen(7_000, 3, State::Failed),
        ]
    };
    passes(&log(6_007));
    let held = Violation::HeldTooLong {
        operation: id(),
        by,
    };
    convicts(&log(6_008), &held);
    let stopped = Entry::Away(Away {
        node: Some("a".into()),
        begin: 1_000,
        end: 6_000,
    });
    passes(&with(log(6_008), stopped));
    // A node that is stopped when the poll is sent begins to hold it when it continues.
    let stopped = Entry::Away(Away {
        node: Some("a".into()),
        begin: 7,
        end: 1_000,
    });
    passes(&with(log(7_000), stopped.clone()));
    convicts(&with(log(7_001), stopped), &held);
}

#[test]
fn canceled_work_is_stopped() {
    let rules = rules().stop(Duration::from_secs(1));
    let log = |end| {
        vec![
            accepted(),
            run(6, 1, RunEvent::Begin),
            run(10, 1, RunEvent::Dropped),
            cancel(15, CallAnswer::Operation(sighting(3, State::Canceled))),
            run(end, 1, RunEvent::End),
        ]
    };
    let verdict = check(&log(1_020), &rules);
    assert!(verdict.is_good(), "{verdict}");
    let operation = id();
    let by = Duration::from_millis(1_001);
    let verdict = check(&log(1_021), &rules);
    assert_eq!(verdict.violations, [Violation::WentOn { operation, by }]);
    let mut dropped = log(1_000);
    dropped.push(run(1_021, 1, RunEvent::Dropped));
    assert_eq!(check(&dropped, &rules).violations, verdict.violations);
    // By default this is not judged, since not all work can be stopped.
    passes(&log(1_021));
    let verdict = check(&with(log(1_021), away(100, 101)), &rules);
    assert!(verdict.is_good(), "{verdict}");
}

#[test]
fn logs_survive_a_round_trip() {
    let mut log = good();
    log.extend([
        away(1, 2),
        kill(3, 4),
        drain(5, 6),
        damage(7),
        of("x", accepted()),
    ]);
    log.extend([delete(8, CallAnswer::Deleted), list(9, &["op-1"])]);
    let lines: Vec<_> = log.iter().map(|entry| entry.to_line().unwrap()).collect();
    let read: Result<Vec<_>, _> = Entry::read(lines.join("\n").as_bytes()).collect();
    assert_eq!(read.unwrap(), log);
    // Lines of earlier versions have other words for a deletion.
    let deletion = log
        .iter()
        .position(|entry| *entry == delete(8, CallAnswer::Deleted));
    let line = &lines[deletion.unwrap()];
    let earlier = line
        .replace("deleted", "forgotten")
        .replace("delete", "forget");
    assert_ne!(*line, earlier);
    let read: Result<Vec<_>, _> = Entry::read(earlier.as_bytes()).collect();
    assert_eq!(read.unwrap(), [delete(8, CallAnswer::Deleted)]);
    let broken = format!("{}\n\n{{}}\n", lines[0]);
    let mut read = Entry::read(broken.as_bytes());
    assert!(read.next().unwrap().is_ok());
    let error = read.next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "line 3 of the log is not an entry");
    let run = r#"{"operation":"op-1","attempt":1,"node":"a","title":"Q3","event":"begin","at":6}"#;
    let runs: Result<Vec<_>, _> = RunEntry::read(run.as_bytes()).collect();
    let first = runs.unwrap().remove(0);
    assert_eq!(Entry::Run(first), self::run(6, 1, RunEvent::Begin));
}
