//! Laws 2, 3 and 4: writes by the holder of an operation.

use std::sync::Arc;

use http::{Response, StatusCode};
use tower_operations::{
    operation::{
        BufferedBody, Failure, FailureKind, Outcome, Problem, Progress, RecordedResponse, State,
    },
    store::Repository,
};

use super::subject::{
    Seen, assert_follows, assert_unchanged, create, done, finish, law, lost, may_be_written_as,
    new_operation, next_stamp, no_token, ok, stamp, start, success, whole,
};

pub(super) async fn check<R: Repository<Output = RecordedResponse>>(store: &Arc<R>) {
    let store = &**store;
    a_start_happens_once(store).await;
    progress_is_kept(store).await;
    for outcome in outcomes() {
        for is_running in [false, true] {
            an_outcome_is_kept(store, is_running, &outcome).await;
        }
    }
    a_finish_brings_progress_along(store).await;
    another_outcome_of_the_same_holder_changes_nothing(store).await;
}

fn outcomes() -> Vec<Outcome<RecordedResponse>> {
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
        .with_type("https://example.com/problems/no-data")
        .with_title("Report failed")
        .with_detail("page 3 has no data")
        .with_instance("/reports/q3")
        .with("code", "InvalidInput")
        .with("pages", serde_json::json!([3, null, {"ü": 1.5}]));
    // The response has the status of its problem, which is the status that counts.
    let mut refusal = Response::new(BufferedBody::from("page 3 has no data"));
    *refusal.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    let refusal = RecordedResponse::new(refusal);
    vec![
        success("the report"),
        Outcome::Succeeded(None),
        Outcome::Failed(Failure::from(problem).with_response(refusal)),
        Outcome::failed(FailureKind::Interrupted),
        // The outcome has the same text, but is another one.
        Outcome::failed(Problem::from(FailureKind::Interrupted)),
        Outcome::Canceled,
    ]
}

async fn a_start_happens_once<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    let pending = create(store, new_operation()).await;
    let (id, token) = (pending.operation().id(), pending.token());
    for wrong in [no_token(), token.next()] {
        lost(
            2,
            ok(store.start(id, wrong).await),
            "a start by another holder",
        );
    }
    assert_unchanged(2, store, &pending, "a start by another holder").await;

    let running = start(store, &pending).await;
    law!(
        2,
        running.operation().state() == State::Running,
        "a start left {running:?}"
    );
    law!(
        2,
        running.attempts() == 1,
        "a start was not counted: {running:?}"
    );
    assert_follows(&pending, &running, "a start");
    assert_unchanged(1, store, &running, "reading").await;

    let again = done(
        2,
        ok(store.start(id, token).await),
        "a start that was repeated",
    );
    law!(
        2,
        again == running,
        "a start that was repeated made {running:?} to {again:?}"
    );
    assert_unchanged(2, store, &running, "a start that was repeated").await;
}

async fn progress_is_kept<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    let mut before = start(store, &create(store, new_operation()).await).await;
    let (id, token) = (before.operation().id().clone(), before.token());
    for progress in [
        Progress::from_count(1, 3)
            .with_unit("pages")
            .with_message("rendering"),
        Progress::from_count(2, 3).with_unit("pages"),
        Progress::from_percent(99.5),
        Progress::from_message("almost"),
    ] {
        for wrong in [no_token(), token.next()] {
            let what = "progress of another holder";
            lost(
                2,
                ok(store.report(&id, wrong, progress.clone()).await),
                what,
            );
            assert_unchanged(2, store, &before, what).await;
        }
        let what = "progress said by the holder";
        let after = done(
            2,
            ok(store.report(&id, token, progress.clone()).await),
            what,
        );
        let kept = after.operation().metadata().progress();
        law!(2, kept == Some(&progress), "{what} was not kept: {after:?}");
        law!(
            2,
            after.operation().state() == State::Running,
            "{what} left {after:?}"
        );
        assert_follows(&before, &after, what);
        assert_unchanged(1, store, &after, "reading").await;

        let what = "progress that was said before";
        let again = done(2, ok(store.report(&id, token, progress).await), what);
        law!(2, again == after, "{what} made {after:?} to {again:?}");
        assert_unchanged(2, store, &after, what).await;
        before = after;
    }
}

async fn an_outcome_is_kept<R>(store: &R, is_running: bool, outcome: &Outcome<RecordedResponse>)
where
    R: Repository<Output = RecordedResponse>,
{
    let mut before = create(store, new_operation()).await;
    if is_running {
        before = start(store, &before).await;
    }
    let (id, token) = (before.operation().id(), before.token());
    for wrong in [no_token(), token.next()] {
        let what = "an outcome of another holder";
        lost(
            2,
            ok(store.finish(id, wrong, outcome.clone(), None).await),
            what,
        );
        assert_unchanged(2, store, &before, what).await;
    }

    let what = "an outcome from the holder";
    let ended = done(
        2,
        ok(store.finish(id, token, outcome.clone(), None).await),
        what,
    );
    let ended = whole(store, ended).await;
    law!(
        2,
        ended.operation().outcome() == Some(outcome),
        "{what} was not kept: {ended:?}"
    );
    assert_follows(&before, &ended, what);
    assert_unchanged(7, store, &ended, "reading").await;

    let what = "an outcome that was written before";
    let again = done(
        2,
        ok(store.finish(id, token, outcome.clone(), None).await),
        what,
    );
    let is_same = may_be_written_as(&again, &ended);
    law!(3, is_same, "{what} made {ended:?} to {again:?}");
    assert_unchanged(3, store, &ended, what).await;
    nothing_changes_what_has_ended(store, &ended).await;
}

/// Checks law 3 against every writer.
pub(super) async fn nothing_changes_what_has_ended<R>(store: &R, ended: &Seen)
where
    R: Repository<Output = RecordedResponse>,
{
    let (id, token) = (ended.operation().id(), ended.token());
    // The store may or may not report to the holder that its start comes too late.
    ok(store.start(id, token).await);
    assert_unchanged(3, store, ended, "a start after the end").await;

    let what = "progress after the end";
    lost(
        3,
        ok(store
            .report(id, token, Progress::from_message("late"))
            .await),
        what,
    );
    assert_unchanged(3, store, ended, what).await;

    let what = "an outcome after the end";
    for other in [
        success("late"),
        Outcome::failed(FailureKind::TimedOut),
        Outcome::Canceled,
    ] {
        lost(
            3,
            ok(store.finish(id, no_token(), other.clone(), None).await),
            what,
        );
        let progress = Some(Progress::from_message("late"));
        ok(store.finish(id, token, other, progress).await);
        assert_unchanged(3, store, ended, what).await;
    }

    let what = "force-finishing after the end";
    lost(
        3,
        ok(store
            .force_finish(id, stamp(ended), Outcome::Canceled)
            .await),
        what,
    );
    lost(
        3,
        ok(store
            .force_finish(id, next_stamp(ended), success("late"))
            .await),
        what,
    );
    assert_unchanged(3, store, ended, what).await;
}

async fn a_finish_brings_progress_along<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    let before = start(store, &create(store, new_operation()).await).await;
    let (id, token) = (before.operation().id(), before.token());
    let progress = Progress::from_count(3, 3);
    let finished = store
        .finish(id, token, success("done"), Some(progress.clone()))
        .await;
    let ended = done(2, ok(finished), "an outcome with progress");
    let kept = ended.operation().metadata().progress();
    law!(
        2,
        kept == Some(&progress),
        "progress that came with an outcome was not kept: {ended:?}"
    );
    assert_follows(&before, &ended, "an outcome with progress");
    assert_unchanged(1, store, &ended, "reading").await;
}

/// The first of two finishes wins, even if both come from the same holder.
async fn another_outcome_of_the_same_holder_changes_nothing<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    let ended = finish(store, &create(store, new_operation()).await).await;
    let (id, token) = (ended.operation().id(), ended.token());
    let other = Outcome::failed(FailureKind::TimedOut);
    let what = "another outcome of the same holder";
    lost(2, ok(store.finish(id, token, other, None).await), what);
    assert_unchanged(3, store, &ended, what).await;
}
