//! For each law, a log that keeps the law, and the same log with the law broken.

mod again;
mod disturbed;
mod end;
mod events;
mod once;
mod owner;
mod time;

use std::time::Duration;

use tower_operations::operation::State;

use super::{
    Away, Call, CallAnswer, CallRequest, Damage, DrainEntry, Entry, Kill, Rules, RunEntry,
    RunEvent, SeenResult, Sighting, Violation, check,
};

const ID: &str = "op-1";

fn id() -> String {
    ID.into()
}

fn rules() -> Rules {
    Rules::new()
        .attempts(2)
        .lease(Duration::from_secs(1))
        .recovery(Duration::from_secs(1))
        .timeouts(Duration::from_secs(3))
        .wake(Duration::from_secs(1))
}

fn call(begin: u64, end: u64, ask: CallRequest, answer: CallAnswer) -> Entry {
    Entry::Call(Call {
        client: "c".into(),
        owner: None,
        node: "a".into(),
        begin,
        end,
        ask,
        answer,
    })
}

fn post(at: u64, title: &str, key: Option<&str>, operation: &str) -> Entry {
    let ask = CallRequest::Post {
        title: title.into(),
        key: key.map(str::to_owned),
        id: None,
        hold: None,
    };
    let operation = operation.into();
    call(at, at + 5, ask, CallAnswer::Accepted { operation })
}

fn accepted() -> Entry {
    post(0, "Q3", None, ID)
}

fn poll(wait: Option<u64>, since: Option<u64>) -> CallRequest {
    let operation = id();
    CallRequest::Poll {
        operation,
        wait,
        since,
    }
}

fn sighting(version: u64, state: State) -> Sighting {
    Sighting {
        version,
        state,
        content: format!("{version} {state}"),
        result: (state == State::Succeeded).then(|| report("Q3")),
    }
}

fn report(title: &str) -> SeenResult {
    SeenResult {
        digest: format!("of {title}"),
        title: Some(title.into()),
        failure: None,
    }
}

fn seen(begin: u64, version: u64, state: State) -> Entry {
    let answer = CallAnswer::Operation(sighting(version, state));
    call(begin, begin + 5, poll(None, None), answer)
}

fn read(begin: u64, answer: CallAnswer) -> Entry {
    let operation = id();
    call(begin, begin + 5, CallRequest::Result { operation }, answer)
}

fn cancel(begin: u64, answer: CallAnswer) -> Entry {
    let operation = id();
    call(begin, begin + 5, CallRequest::Cancel { operation }, answer)
}

fn run(at: u64, attempt: u32, event: RunEvent) -> Entry {
    Entry::Run(RunEntry {
        operation: id(),
        attempt,
        node: "a".into(),
        title: "Q3".into(),
        event,
        at,
    })
}

fn away(begin: u64, end: u64) -> Entry {
    let node = None;
    Entry::Away(Away { node, begin, end })
}

fn delete(begin: u64, answer: CallAnswer) -> Entry {
    let operation = id();
    call(begin, begin + 5, CallRequest::Delete { operation }, answer)
}

/// Returns an answer that promises nothing.
fn refused(status: u16) -> CallAnswer {
    CallAnswer::Refused { status }
}

/// Returns the same call by this owner.
fn of(owner: &str, entry: Entry) -> Entry {
    let Entry::Call(call) = entry else {
        panic!("{entry:?} has no owner");
    };
    Entry::Call(Call {
        owner: Some(owner.into()),
        ..call
    })
}

/// Returns the same call or run, for the operation with this name in the log.
fn as_of(operation: &str, entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    match &mut entry {
        Entry::Run(run) => run.operation = operation.into(),
        Entry::Call(call) => {
            match &mut call.ask {
                CallRequest::Post { .. } | CallRequest::List => {}
                CallRequest::Poll { operation: of, .. }
                | CallRequest::Result { operation: of }
                | CallRequest::Cancel { operation: of }
                | CallRequest::Events { operation: of, .. }
                | CallRequest::Delete { operation: of } => *of = operation.into(),
            }
            if let CallAnswer::Accepted { operation: of } = &mut call.answer {
                *of = operation.into();
            }
        }
        _ => {}
    }
    entry
}

fn list(begin: u64, operations: &[&str]) -> Entry {
    let operations = operations.iter().map(ToString::to_string).collect();
    call(
        begin,
        begin + 5,
        CallRequest::List,
        CallAnswer::Listed { operations },
    )
}

fn kill(at: u64, back: u64) -> Entry {
    let (node, back) = ("a".into(), Some(back));
    Entry::Kill(Kill { node, at, back })
}

fn drain(begin: u64, end: u64) -> Entry {
    let node = "a".into();
    Entry::Drain(DrainEntry { node, begin, end })
}

fn damage(at: u64) -> Entry {
    let operation = id();
    Entry::Damage(Damage { operation, at })
}

/// Returns the log of one operation that keeps every law.
fn good() -> Vec<Entry> {
    vec![
        accepted(),
        run(6, 1, RunEvent::Begin),
        seen(10, 2, State::Running),
        read(20, CallAnswer::Unfinished),
        run(30, 1, RunEvent::End),
        seen(40, 3, State::Succeeded),
        call(
            50,
            52,
            poll(None, Some(3)),
            CallAnswer::Unchanged { version: 3 },
        ),
        read(60, CallAnswer::Result(report("Q3"))),
        cancel(70, CallAnswer::Finished),
    ]
}

#[track_caller]
fn passes(log: &[Entry]) {
    let verdict = check(log, &rules());
    assert!(verdict.is_good(), "{verdict}");
    // The order of the entries does not matter.
    let verdict = check(log.iter().rev(), &rules());
    assert!(verdict.is_good(), "{verdict}");
}

#[track_caller]
fn convicts(log: &[Entry], expected: &Violation) {
    let verdict = check(log, &rules());
    assert_eq!(verdict.violations, std::slice::from_ref(expected));
    let kind = std::mem::discriminant(expected);
    let verdict = check(log.iter().rev(), &rules());
    assert_eq!(verdict.violations.len(), 1, "{verdict}");
    assert_eq!(std::mem::discriminant(&verdict.violations[0]), kind);
}

fn with(mut log: Vec<Entry>, more: Entry) -> Vec<Entry> {
    log.push(more);
    log
}
