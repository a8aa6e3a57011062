//! Laws 2, 3 and 4: writes by others than the holder.

use std::sync::Arc;

use tower_operations::{
    operation::{FailureKind, Outcome, Progress, RecordedResponse, State},
    store::{NewOperation, Repository, Stamp},
};

use super::{
    holder::nothing_changes_what_has_ended,
    subject::{
        Seen, assert_absent, assert_follows, assert_unchanged, create, done, finish, gone, law,
        lost, may_be_written_as, new_operation, next_stamp, ok, stamp, start, success, version,
    },
};

pub(super) async fn check<R: Repository<Output = RecordedResponse>>(store: &Arc<R>) {
    let store = &**store;
    for outcome in [
        Outcome::Canceled,
        Outcome::CanceledFor("too \u{201c}late\u{201d}".into()),
        Outcome::failed(FailureKind::Interrupted),
    ] {
        for is_running in [false, true] {
            a_forced_finish_names_a_stamp_and_fences_the_holder_out(store, is_running, &outcome)
                .await;
        }
    }
    only_ended_operations_are_deleted(store).await;
}

async fn a_forced_finish_names_a_stamp_and_fences_the_holder_out<R>(
    store: &R,
    is_running: bool,
    outcome: &Outcome<RecordedResponse>,
) where
    R: Repository<Output = RecordedResponse>,
{
    let mut before = create(store, new_operation()).await;
    let mut old = vec![];
    if is_running {
        old.push(stamp(&before));
        before = start(store, &before).await;
    }
    let (id, token) = (before.operation().id(), before.token());
    let of_another = Stamp::new(version(&before), token.next());
    for wrong in old.into_iter().chain([next_stamp(&before), of_another]) {
        let what = "force-finishing at another stamp";
        lost(
            2,
            ok(store.force_finish(id, wrong, outcome.clone()).await),
            what,
        );
        assert_unchanged(2, store, &before, what).await;
    }

    let what = "force-finishing";
    let ended = ok(store
        .force_finish(id, stamp(&before), outcome.clone())
        .await);
    let ended = done(2, ended, what);
    law!(
        2,
        ended.operation().outcome() == Some(outcome),
        "{what} left {ended:?}"
    );
    assert_follows(&before, &ended, what);
    assert_unchanged(1, store, &ended, "reading").await;

    let what = "a late write of the holder after a forced end";
    lost(3, ok(store.start(id, token).await), what);
    lost(
        3,
        ok(store
            .report(id, token, Progress::from_message("late"))
            .await),
        what,
    );
    lost(
        3,
        ok(store.finish(id, token, success("late"), None).await),
        what,
    );
    lost(
        3,
        ok(store.finish(id, token, outcome.clone(), None).await),
        what,
    );
    assert_unchanged(3, store, &ended, what).await;
    nothing_changes_what_has_ended(store, &ended).await;
}

async fn only_ended_operations_are_deleted<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    let pending = create(store, new_operation()).await;
    assert_kept(
        store,
        &pending,
        stamp(&pending),
        "deleting an operation that is pending",
    )
    .await;
    let running = start(store, &pending).await;
    assert_kept(
        store,
        &running,
        stamp(&running),
        "deleting an operation that is running",
    )
    .await;
    let ended = finish(store, &running).await;
    let of_another = Stamp::new(version(&ended), ended.token().next());
    for wrong in [stamp(&running), next_stamp(&ended), of_another] {
        assert_kept(store, &ended, wrong, "deleting at another stamp").await;
    }

    let (id, token) = (ended.operation().id(), ended.token());
    let what = "deleting";
    let removed = done(2, ok(store.delete(id, stamp(&ended)).await), what);
    let is_same = may_be_written_as(&removed, &ended);
    law!(2, is_same, "{what} {ended:?} removed {removed:?}");

    let what = "a deleted operation";
    assert_absent(2, store, id, what).await;
    gone(2, &ok(store.delete(id, stamp(&ended)).await), what);
    gone(2, &ok(store.start(id, token).await), what);
    gone(
        2,
        &ok(store
            .report(id, token, Progress::from_message("late"))
            .await),
        what,
    );
    gone(
        2,
        &ok(store.finish(id, token, success("late"), None).await),
        what,
    );
    gone(
        2,
        &ok(store
            .force_finish(id, stamp(&ended), Outcome::Canceled)
            .await),
        what,
    );
    assert_absent(2, store, id, what).await;

    let again = create(store, NewOperation::new(id.clone())).await;
    let state = again.operation().state();
    law!(
        2,
        state == State::Pending,
        "{what} and created again is {again:?}"
    );
    assert_unchanged(1, store, &again, "reading").await;
    a_stamp_is_of_one_operation(store, &[pending, running, ended], again).await;
}

/// The stamps of a deleted operation name no later operation with its id, whose versions are the
/// same.
async fn a_stamp_is_of_one_operation<R>(store: &R, before: &[Seen], again: Seen)
where
    R: Repository<Output = RecordedResponse>,
{
    let id = again.operation().id().clone();
    let running = start(store, &again).await;
    for earlier in before {
        let what = "force-finishing an operation at a stamp of an earlier one with its id";
        let canceled = store.force_finish(&id, stamp(earlier), Outcome::Canceled);
        lost(2, ok(canceled.await), what);
        assert_unchanged(2, store, &running, what).await;
    }
    let ended = finish(store, &running).await;
    for earlier in before {
        let what = "deleting an operation at a stamp of an earlier one with its id";
        assert_kept(store, &ended, stamp(earlier), what).await;
    }
}

async fn assert_kept<R>(store: &R, record: &Seen, expected: Stamp, what: &str)
where
    R: Repository<Output = RecordedResponse>,
{
    lost(
        2,
        ok(store.delete(record.operation().id(), expected).await),
        what,
    );
    assert_unchanged(2, store, record, what).await;
}
