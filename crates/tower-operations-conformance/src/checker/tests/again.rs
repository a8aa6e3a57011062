use tower_operations::operation::State;

use super::{
    ID, as_of, call, convicts, damage, delete, good, id, list, passes, poll, post, refused, run,
    seen, with,
};
use crate::checker::{Call, CallAnswer, CallRequest, Entry, RunEvent, Violation, check};

fn absent(begin: u64) -> Entry {
    call(begin, begin + 5, poll(None, None), CallAnswer::Absent)
}

fn deleted() -> Vec<Entry> {
    with(with(good(), delete(100, CallAnswer::Deleted)), absent(110))
}

#[test]
fn deleted_operations_are_absent() {
    passes(&deleted());
    assert_eq!(check(&deleted(), &super::rules()).counts.deleted, 1);
    // The answer was lost.
    let lost = with(good(), delete(100, CallAnswer::Nothing));
    passes(&with(lost.clone(), absent(110)));
    passes(&with(lost.clone(), seen(110, 3, State::Succeeded)));
    // No client had asked to delete the operation.
    let gone = Violation::Lost { operation: id() };
    convicts(&with(good(), absent(110)), &gone);
    convicts(&with(lost, absent(94)), &gone);
    // The deletion was refused, so the operation still exists.
    let refused = with(good(), delete(100, refused(412)));
    passes(&with(refused, seen(110, 3, State::Succeeded)));
}

#[test]
fn deleted_operations_stay_deleted() {
    let undone = Violation::DeleteUndone { operation: id() };
    for still in [
        seen(106, 3, State::Succeeded),
        call(
            106,
            107,
            poll(None, Some(3)),
            CallAnswer::Unchanged { version: 3 },
        ),
        list(106, &[ID]),
        post(106, "Q3", None, ID),
    ] {
        convicts(&with(deleted(), still), &undone);
    }
    // A reading at the same moment may still see the operation.
    passes(&with(deleted(), seen(104, 3, State::Succeeded)));
    passes(&with(deleted(), list(104, &[ID])));
    passes(&with(deleted(), list(110, &[])));
}

fn keyed(begin: u64, answer: CallAnswer) -> Entry {
    let Entry::Call(call) = post(begin, "Q3", Some("k"), ID) else {
        unreachable!("it is a call");
    };
    Entry::Call(Call { answer, ..call })
}

#[test]
fn keys_of_deleted_operations_are_gone() {
    let with_key = |mut log: Vec<Entry>| {
        let operation = id();
        log[0] = keyed(0, CallAnswer::Accepted { operation });
        log
    };
    let log = with_key(deleted());
    passes(&with(log.clone(), keyed(110, refused(410))));
    let operation = id();
    let undone = Violation::DeleteUndone { operation };
    let operation = id();
    convicts(
        &with(log, keyed(110, CallAnswer::Accepted { operation })),
        &undone,
    );
    // No client has asked to delete the operation.
    let blocked = Violation::KeyBlocked {
        key: "k".into(),
        status: 410,
    };
    convicts(&with(with_key(good()), keyed(110, refused(410))), &blocked);
    let early = with(with_key(deleted()), keyed(94, refused(410)));
    convicts(&early, &blocked);
    // The damaged record cannot be read.
    let log = with(with_key(good()), keyed(110, refused(410)));
    passes(&with(log, damage(80)));
}

#[test]
fn ids_in_use_may_be_refused() {
    let refused_with = |begin| {
        let Entry::Call(call) = chosen(begin, "Q4", "op-1#2") else {
            unreachable!("it is a call");
        };
        let ask = CallRequest::Post {
            title: "Q4".into(),
            key: Some("k".into()),
            id: Some("op-1#2".into()),
            hold: None,
        };
        let answer = refused(422);
        Entry::Call(Call {
            ask,
            answer,
            ..call
        })
    };
    passes(&with(deleted(), refused_with(80)));
    passes(&with(deleted(), refused_with(104)));
    let blocked = Violation::KeyBlocked {
        key: "k".into(),
        status: 422,
    };
    convicts(&with(deleted(), refused_with(105)), &blocked);
}

/// Returns a log in which an id is deleted and chosen again. The second operation is as good as
/// the first.
fn twice() -> Vec<Entry> {
    let mut log = vec![chosen(0, "Q3", ID)];
    log.extend(deleted().split_off(1));
    log.push(chosen(200, "Q4", "op-1#2"));
    let again = [
        titled("Q4", run(206, 1, RunEvent::Begin)),
        as_of("op-1#2", &seen(210, 2, State::Running)),
        titled("Q4", run(230, 1, RunEvent::End)),
        as_of("op-1#2", &seen(240, 3, State::Failed)),
    ];
    log.extend(again);
    log
}

fn chosen(begin: u64, title: &str, operation: &str) -> Entry {
    let Entry::Call(call) = post(begin, title, None, operation) else {
        unreachable!("it is a call");
    };
    let ask = CallRequest::Post {
        title: title.into(),
        key: None,
        id: Some(operation.into()),
        hold: None,
    };
    Entry::Call(Call { ask, ..call })
}

fn titled(title: &str, mut entry: Entry) -> Entry {
    if let Entry::Run(run) = &mut entry {
        run.title = title.into();
    }
    entry
}

#[test]
fn ids_that_are_chosen_again_belong_to_other_operations() {
    passes(&twice());
    let counts = check(&twice(), &super::rules()).counts;
    assert_eq!(
        (counts.accepted, counts.succeeded, counts.failed),
        (2, 1, 1)
    );
    // A list has the id alone.
    passes(&with(twice(), list(250, &[ID])));
    let again = || "op-1#2".to_owned();
    convicts(
        &with(twice(), list(250, &[])),
        &Violation::Unlisted { operation: again() },
    );
    // No client sees the end of the second operation, and the end of the first one does not
    // count.
    let unended: Vec<_> = twice().drain(..).take(twice().len() - 1).collect();
    convicts(&unended, &Violation::Unended { operation: again() });
    // The second operation is lost, although only the first one was deleted.
    let lost = with(twice(), as_of("op-1#2", &absent(250)));
    convicts(&lost, &Violation::Lost { operation: again() });
    // The end of the first operation, which had a later version, is shown as that of the second.
    let mut mixed = twice();
    mixed.push(as_of("op-1#2", &seen(250, 4, State::Succeeded)));
    let verdict = check(&mixed, &super::rules());
    assert!(!verdict.is_good());
    // A run of the id has another title than was posted.
    let mut mixed = twice();
    mixed.push(titled("Q5", run(236, 2, RunEvent::Begin)));
    let mixed_up = Violation::MixedUp {
        operation: id(),
        expected: "Q3".into(),
        found: "Q5".into(),
    };
    convicts(&mixed, &mixed_up);
    // An attempt of the second operation runs twice; the first operation has an attempt of that
    // number too.
    let ran = with(twice(), titled("Q4", run(236, 1, RunEvent::Begin)));
    let operation = again();
    convicts(
        &ran,
        &Violation::RanTwice {
            operation,
            attempt: 1,
        },
    );
}

#[test]
fn posts_are_answered_with_the_chosen_id() {
    passes(&[chosen(0, "Q3", ID), seen(10, 2, State::Failed)]);
    let Entry::Call(call) = chosen(0, "Q3", ID) else {
        unreachable!("it is a call");
    };
    let operation = "op-2".to_owned();
    let answer = CallAnswer::Accepted {
        operation: operation.clone(),
    };
    let other = Entry::Call(Call { answer, ..call });
    let ends = as_of("op-2", &seen(10, 2, State::Failed));
    let mixed_up = Violation::MixedUp {
        operation,
        expected: ID.into(),
        found: "op-2".into(),
    };
    convicts(&[other, ends], &mixed_up);
    // Under one name, the two operations are one that has ended and begun again.
    let log: Vec<_> = twice().iter().map(|entry| as_of(ID, entry)).collect();
    assert!(!check(&log, &super::rules()).is_good());
}
