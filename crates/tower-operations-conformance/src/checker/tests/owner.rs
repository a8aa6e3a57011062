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
fn operations_are_shown_only_to_their_owner() {
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
    // The 202 of another owner's post must not show the operation either.
    convicts(&with(owned(), of("y", accepted())), &shown);
    // For other owners the operation is absent.
    let absent = call(80, 85, poll(None, None), CallAnswer::Absent);
    passes(&with(owned(), of("y", absent)));
    passes(&with(owned(), of("y", cancel(80, refused(503)))));
    passes(&with(owned(), of("y", list(80, &["op-2"]))));
    // A damage does not excuse that another owner sees the operation.
    let log = with(owned(), of("y", seen(80, 3, State::Succeeded)));
    convicts(&with(log, damage(9)), &shown);
}

#[test]
fn lists_have_all_operations_of_their_owner() {
    let unlisted = Violation::Unlisted { operation: id() };
    passes(&with(owned(), of("x", list(80, &[ID, "op-2"]))));
    convicts(&with(owned(), of("x", list(80, &["op-2"]))), &unlisted);
    convicts(&with(owned(), of("x", list(6, &[]))), &unlisted);
    // The list was requested before the 202, or was refused.
    passes(&with(owned(), of("x", list(5, &[]))));
    passes(&with(
        owned(),
        of("x", call(80, 85, CallRequest::List, refused(503))),
    ));
    // A damaged operation need not be listed.
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
fn keys_belong_to_an_owner() {
    // Two owners use one key and one title.
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
    // One of the owners gets two operations.
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
    // A third run belongs to no request.
    let log = with(two(), super::as_of("op-3", &run(9, 1, RunEvent::Begin)));
    let forked = Violation::KeyForked {
        key: "k".into(),
        first: id(),
        second: "op-3".into(),
    };
    convicts(&log, &forked);
}

#[test]
fn keys_are_free_for_owners_that_have_not_used_them() {
    let blocked = |status| Violation::KeyBlocked {
        key: "k".into(),
        status,
    };
    let theirs = || vec![keyed("x", 0, ID), failed("x", ID)];
    passes(&theirs());
    for status in [409, 422] {
        // The refusal comes before, at the same time as, or after the other owner's use.
        for begin in [0, 2, 40] {
            let log = with(theirs(), turned_away("y", begin, status));
            convicts(&log, &blocked(status));
        }
        // The refusal is of the owner's own key, whose use may have come first.
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
    // An overload says nothing about keys.
    passes(&with(theirs(), turned_away("y", 40, 503)));
}
