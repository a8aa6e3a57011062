//! Law 5: waiting for a change.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower_operations::{
    operation::{OperationId, Outcome, Progress, RecordedResponse},
    store::{PastVersion, Repository, Version, Watch},
};

use super::subject::{
    HELD, SETTLED, STUCK, Seen, SubjectHistory, assert_unchanged, create, done, finish, in_time,
    join, law, new_operation, ok, stamp, start, success, together, version, whole,
};

/// The number of races between a writer and waiting readers.
const ROUNDS: u64 = 200;

pub(super) async fn check<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    an_earlier_change_is_answered_at_once(&**store).await;
    intermediate_versions_are_in_the_history(&**store).await;
    an_absent_operation_is_answered_at_once(&**store).await;
    an_unchanged_operation_comes_back_in_time(&**store).await;
    every_kind_of_change_ends_a_wait(store).await;
    a_change_ends_every_wait(store).await;
    no_change_is_missed_by_who_begins_to_wait(store).await;
    no_change_is_missed_by_who_waits_again(store).await;
}

async fn an_earlier_change_is_answered_at_once<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    let pending = create(store, new_operation()).await;
    let id = pending.operation().id();
    let running = start(store, &pending).await;
    let ended = finish(store, &running).await;
    for old in [&pending, &running] {
        let what = "a wait for a change that was made before";
        let found = in_time(5, what, store.changed(id, version(old), HELD)).await;
        let found = ok(found);
        law!(
            5,
            found.as_ref() == Some(&ended),
            "{what} gave {found:?}, not {ended:?}"
        );
    }
}

/// A late reader still learns every change.
async fn intermediate_versions_are_in_the_history<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    let pending = create(store, new_operation()).await;
    let running = start(store, &pending).await;
    let (id, token) = (running.operation().id(), running.token());
    let reported = ok(store.report(id, token, Progress::from_count(1, 2)).await);
    let reported = done(2, reported, "progress");
    let ended = finish(store, &reported).await;
    let what = "a wait for a change that was made before";
    let found = ok(in_time(5, what, store.changed(id, version(&pending), HELD)).await);
    let remembered = found.as_ref().map(|record| record.history().to_vec());
    let changes = [&pending, &running, &reported].map(|record| {
        let operation = record.operation();
        let metadata = operation.metadata();
        PastVersion::new(
            operation.state(),
            metadata.updated_at(),
            metadata.progress().cloned(),
        )
    });
    law!(
        5,
        remembered.as_deref() == Some(&changes[..]) && found.as_ref() == Some(&ended),
        "what lay before {found:?} was {changes:?}"
    );
}

async fn an_absent_operation_is_answered_at_once<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    let what = "a wait for an absent operation";
    let id = OperationId::new();
    let found = ok(in_time(5, what, store.changed(&id, Version::FIRST, HELD)).await);
    law!(5, found.is_none(), "{what} gave {found:?}");
}

async fn an_unchanged_operation_comes_back_in_time<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    let record = create(store, new_operation()).await;
    let id = record.operation().id();
    for at_most in [0, 1, 250].map(Duration::from_millis) {
        let what = "a wait without a change";
        let since = Instant::now();
        let late = at_most + Duration::from_secs(2);
        let found = timeout(late, store.changed(id, version(&record), at_most)).await;
        let Ok(found) = found else {
            panic!("law 5: {what} of {at_most:?} was not over after {late:?}");
        };
        let found = ok(found);
        law!(
            5,
            found.as_ref() == Some(&record),
            "{what} gave {found:?}, not {record:?}"
        );
        let elapsed = since.elapsed();
        // Timers count milliseconds.
        let at_least = at_most.saturating_sub(Duration::from_millis(5));
        law!(
            5,
            elapsed >= at_least,
            "{what} of {at_most:?} was over after {elapsed:?}"
        );
    }
    assert_unchanged(5, store, &record, "waiting").await;
}

async fn every_kind_of_change_ends_a_wait<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    let pending = create(&**store, new_operation()).await;
    let (id, token) = (pending.operation().id(), pending.token());

    let wait = wait(store, &pending).await;
    let running = start(&**store, &pending).await;
    assert_ends(wait, Some(&running), "a start").await;

    let wait = self::wait(store, &running).await;
    let reported = ok(store.report(id, token, Progress::from_count(1, 2)).await);
    let reported = done(2, reported, "progress");
    assert_ends(wait, Some(&reported), "progress").await;

    let wait = self::wait(store, &reported).await;
    let ended = finish(&**store, &reported).await;
    assert_ends(wait, Some(&ended), "an outcome").await;

    let wait = self::wait(store, &ended).await;
    done(2, ok(store.delete(id, stamp(&ended)).await), "deleting");
    assert_ends(wait, None, "deleting").await;

    let pending = create(&**store, new_operation()).await;
    let wait = self::wait(store, &pending).await;
    let id = pending.operation().id();
    let ended = ok(store
        .force_finish(id, stamp(&pending), Outcome::Canceled)
        .await);
    let ended = done(2, ended, "force-finishing");
    assert_ends(wait, Some(&ended), "force-finishing").await;
}

type HeldWait = JoinHandle<Option<Seen>>;

/// Starts a task that waits for a change after `record`.
async fn wait<R>(store: &Arc<R>, record: &Seen) -> HeldWait
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    let (id, since) = (record.operation().id().clone(), version(record));
    let store = Arc::clone(store);
    let waiting = tokio::spawn(async move { ok(store.changed(&id, since, HELD).await) });
    sleep(SETTLED).await;
    waiting
}

async fn assert_ends(waiting: HeldWait, record: Option<&Seen>, what: &str) {
    let found = in_time(5, &format!("a wait that {what} ends"), join(waiting)).await;
    law!(
        5,
        found.as_ref() == record,
        "a wait that {what} ended gave {found:?}, not {record:?}"
    );
}

/// Checks that the law also holds after other readers have stopped waiting.
async fn a_change_ends_every_wait<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    let pending = create(&**store, new_operation()).await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let (id, since) = (pending.operation().id().clone(), version(&pending));
        let store = Arc::clone(store);
        waiting.push(tokio::spawn(async move {
            ok(store.changed(&id, since, HELD).await)
        }));
    }
    sleep(SETTLED).await;
    for given_up in waiting.iter().step_by(2) {
        given_up.abort();
    }
    let ended = finish(&**store, &pending).await;
    for waiting in waiting.into_iter().skip(1).step_by(2) {
        assert_ends(waiting, Some(&ended), "an outcome").await;
    }
}

async fn no_change_is_missed_by_who_begins_to_wait<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    for round in 0..ROUNDS {
        let pending = create(&**store, new_operation()).await;
        // The writer comes a little earlier in every round.
        let tasks = together((0..4).map(|number| {
            let (store, pending) = (store.clone(), pending.clone());
            async move {
                if number == round % 4 {
                    for _ in 0..round / 4 % 8 {
                        tokio::task::yield_now().await;
                    }
                    finish(&*store, &pending).await
                } else {
                    let id = pending.operation().id();
                    let found = ok(store.changed(id, version(&pending), HELD).await);
                    match found {
                        Some(record) => record,
                        None => panic!("law 5: a wait found no operation"),
                    }
                }
            }
        }));
        let ends = in_time(5, "a wait during which a change was made", tasks).await;
        law!(
            5,
            ends.iter().all(|end| *end == ends[0]),
            "after one change there was {ends:?}"
        );
    }
}

/// Checks a writer that makes change after change: every follower sees the last one.
async fn no_change_is_missed_by_who_waits_again<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    let history = SubjectHistory::default();
    let pending = create(&**store, new_operation()).await;
    history.saw(&pending);
    let followers: Vec<_> = (0..4)
        .map(|_| tokio::spawn(follow(Arc::clone(store), pending.clone(), history.clone())))
        .collect();
    let (id, token) = (pending.operation().id(), pending.token());
    for number in 0..ROUNDS {
        let reported = ok(store
            .report(id, token, Progress::from_count(number, ROUNDS))
            .await);
        history.saw(&done(2, reported, "progress"));
        if number % 4 != 0 {
            tokio::task::yield_now().await;
        }
    }
    let ended = ok(store.finish(id, token, success("done"), None).await);
    let ended = whole(&**store, done(2, ended, "an outcome")).await;
    for follower in followers {
        let seen = in_time(5, "following a writer", join(follower)).await;
        law!(
            5,
            seen == ended,
            "who followed saw {seen:?} at last, not {ended:?}"
        );
    }
}

async fn follow<R>(store: Arc<R>, mut seen: Seen, history: SubjectHistory) -> Seen
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    while !seen.operation().state().is_terminal() {
        let id = seen.operation().id();
        let next = timeout(STUCK, store.changed(id, version(&seen), HELD)).await;
        let Ok(next) = next else {
            panic!(
                "law 5: a change after version {} was missed",
                version(&seen)
            );
        };
        let Some(next) = ok(next) else {
            panic!("law 5: a wait found no operation");
        };
        law!(
            5,
            version(&next) > version(&seen),
            "a wait for a change after {seen:?} gave {next:?}"
        );
        history.saw(&next);
        seen = next;
    }
    seen
}
