use tower_operations::operation::State;

use super::{
    ID, accepted, call, cancel, convicts, damage, good, id, list, of, passes, poll, post, read,
    refused, report, run, seen, with,
};
use crate::checker::{Call, CallAnswer, CallRequest, Entry, RunEvent, Violation};

fn owned() -> Vec<Entry> {
    let owned = |entry| match entry {
        Entry::Call(_) => of("x", entry),
        other => other,
    };
    good().into_iter().map(owned).collect()
}

#[test]
fn an_operation_is_shown_to_its_owner_alone() {
    passes(&owned());
    let shown = Violation::ShownToAnother {
        operation: id(),
        owner: "y".into(),
    };
    for told in [
        seen(80, 3, State::Succeeded),
        read(80, CallAnswer::Result(report("Q3"))),
        cancel(80, CallAnswer::Finished),
        call(
            80,
            85,
            poll(None, Some(3)),
            CallAnswer::Unchanged { version: 3 },
        ),
        list(80, &[ID]),
    ] {
        convicts(&with(owned(), of("y", told)), &shown);
    }
    // Not even as the 202 of what they posted.
    convicts(&with(owned(), of("y", accepted())), &shown);
    // For strangers it is as if there were none.
    let absent = call(80, 85, poll(None, None), CallAnswer::Absent);
    passes(&with(owned(), of("y", absent)));
    passes(&with(owned(), of("y", cancel(80, refused(503)))));
    passes(&with(owned(), of("y", list(80, &["op-2"]))));
    // What was damaged is no more for others than before.
    let log = with(owned(), of("y", seen(80, 3, State::Succeeded)));
    convicts(&with(log, damage(9)), &shown);
}

#[test]
fn the_list_of_an_owner_has_all_that_is_there() {
    let unlisted = Violation::Unlisted { operation: id() };
    passes(&with(owned(), of("x", list(80, &[ID, "op-2"]))));
    convicts(&with(owned(), of("x", list(80, &["op-2"]))), &unlisted);
    convicts(&with(owned(), of("x", list(6, &[]))), &unlisted);
    // It was asked for before the 202 was there, or came to no end.
    passes(&with(owned(), of("x", list(5, &[]))));
    passes(&with(
        owned(),
        of("x", call(80, 85, CallRequest::List, refused(503))),
    ));
    // Nobody can be expected to read what is damaged.
    let log = with(owned(), of("x", list(80, &[])));
    passes(&with(log, damage(50)));
}

fn keyed(owner: &str, begin: u64, operation: &str) -> Entry {
    of(owner, post(begin, "Q3", Some("k"), operation))
}

fn turned_away(owner: &str, begin: u64, status: u16) -> Entry {
    let Entry::Call(call) = keyed(owner, begin, ID) else {
        unreachable!("it is a call");
    };
    Entry::Call(Call {
        answer: refused(status),
        ..call
    })
}

fn ends(operation: &str) -> Entry {
    let failed = of("", seen(20, 2, State::Failed));
    super::as_of(operation, &failed)
}

fn failed(owner: &str, operation: &str) -> Entry {
    of(owner, ends(operation))
}

#[test]
fn a_key_is_of_an_owner() {
    // Two owners, one key, one title.
    let two = || {
        vec![
            keyed("x", 0, ID),
            keyed("y", 0, "op-2"),
            failed("x", ID),
            failed("y", "op-2"),
            run(6, 1, RunEvent::Begin),
            super::as_of("op-2", &run(6, 1, RunEvent::Begin)),
        ]
    };
    passes(&two());
    // One of them has two operations.
    let forked = |owner| {
        let mut log = with(two(), keyed(owner, 30, "op-3"));
        log.push(failed(owner, "op-3"));
        log
    };
    for (owner, first) in [("x", ID), ("y", "op-2")] {
        let forked_at = Violation::KeyForked {
            key: "k".into(),
            first: first.into(),
            second: "op-3".into(),
        };
        convicts(&forked(owner), &forked_at);
    }
    // A third run is nobody's.
    let log = with(two(), super::as_of("op-3", &run(9, 1, RunEvent::Begin)));
    let forked = Violation::KeyForked {
        key: "k".into(),
        first: id(),
        second: "op-3".into(),
    };
    convicts(&log, &forked);
}

#[test]
fn a_key_that_its_owner_has_not_used_is_free() {
    let blocked = |status| Violation::KeyBlocked {
        key: "k".into(),
        status,
    };
    let theirs = || vec![keyed("x", 0, ID), failed("x", ID)];
    passes(&theirs());
    for status in [409, 422] {
        // Before, at the same time and after.
        for begin in [0, 2, 40] {
            let log = with(theirs(), turned_away("y", begin, status));
            convicts(&log, &blocked(status));
        }
        // The owner's own, which may have come first.
        passes(&with(theirs(), turned_away("x", 0, status)));
        passes(&with(theirs(), turned_away("x", 40, status)));
        let lost = [
            turned_away("y", 2, status),
            keyed("y", 7, "op-2"),
            failed("y", "op-2"),
        ];
        passes(&lost);
        let alone = [
            turned_away("y", 1, status),
            keyed("y", 7, "op-2"),
            failed("y", "op-2"),
        ];
        convicts(&alone, &blocked(status));
    }
    // Overload says nothing of keys.
    passes(&with(theirs(), turned_away("y", 40, 503)));
}
