//! Laws 2, 3 and 4, under concurrent writes.

use std::{pin::Pin, sync::Arc};

use tower_operations::{
    operation::{OperationId, Outcome, Progress, RecordedResponse, State},
    store::{FencingToken, Repository, Stamp, Version, Written},
};

use super::subject::{
    Seen, SubjectHistory, WriteAnswer, assert_absent, assert_unchanged, create, finish, law,
    may_be_written_as, new_operation, no_token, ok, read, stamp, start, success, together, version,
};

const ROUNDS: usize = 16;

pub(super) async fn check<R: Repository<Output = RecordedResponse>>(store: &Arc<R>) {
    for round in 0..ROUNDS {
        one_start_is_a_change(store).await;
        every_report_is_a_change(store).await;
        one_end_wins(store, round).await;
        one_forced_finish_wins(store).await;
        one_delete_wins(store).await;
    }
}

async fn one_start_is_a_change<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse>,
{
    let pending = create(&**store, new_operation()).await;
    let (id, token) = (pending.operation().id(), pending.token());
    let starts = together((0..8).map(|_| start_in_task(store, id, token))).await;
    let running = last(&**store, id).await;
    let (before, after) = (version(&pending), version(&running));
    law!(
        4,
        after == before.next(),
        "one start led from version {before} to {after}"
    );
    law!(
        2,
        running.attempts() == 1,
        "one start was counted more than once: {running:?}"
    );
    for started in starts {
        let is_told = matches!(&started, Written::Done(record) if *record == running);
        law!(2, is_told, "a start that was repeated gave {started:?}");
    }
}

async fn every_report_is_a_change<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse>,
{
    let history = SubjectHistory::default();
    let pending = create(&**store, new_operation()).await;
    history.saw(&pending);
    let (id, token) = (pending.operation().id(), pending.token());
    let reports = (0..16).map(|number| report_in_task(store, id, token, number));
    for reported in together(reports).await {
        law!(
            2,
            matches!(reported, Written::Done(_)),
            "progress of the holder gave {reported:?}"
        );
        history.saw_written(&reported);
    }
    let last = last(&**store, id).await;
    history.saw(&last);
    let changes = version(&last).get() - version(&pending).get();
    law!(
        4,
        changes == 16,
        "16 changes raised the version by {changes}"
    );
    history.assert_complete(&last);
}

/// A request to end an operation, with its answer.
enum Asked {
    Holder(WriteAnswer),
    Stranger(WriteAnswer),
    Outside(WriteAnswer),
    Progress(WriteAnswer),
    Nothing,
}

type Task = Pin<Box<dyn Future<Output = Asked> + Send>>;

/// Runs holders, strangers, cancels, progress and readers at the same moment.
async fn one_end_wins<R>(store: &Arc<R>, round: usize)
where
    R: Repository<Output = RecordedResponse>,
{
    let history = SubjectHistory::default();
    let pending = create(&**store, new_operation()).await;
    let running = start(&**store, &pending).await;
    history.saw(&pending);
    history.saw(&running);
    let (id, token) = (running.operation().id(), running.token());

    let mut tasks: Vec<Task> = Vec::new();
    for number in 0..4 {
        let same = finish_in_task(store, id, token, "the same");
        let stranger = finish_in_task(store, id, no_token(), "another holder's");
        let report = report_in_task(store, id, token, number);
        let force_finished = force_finish_in_task(store, id, stamp(&running));
        let reader = read_in_task(store, id, &history);
        tasks.push(Box::pin(async { Asked::Holder(same.await) }));
        tasks.push(Box::pin(async { Asked::Stranger(stranger.await) }));
        tasks.push(Box::pin(async { Asked::Outside(force_finished.await) }));
        tasks.push(Box::pin(async { Asked::Progress(report.await) }));
        tasks.push(Box::pin(async {
            reader.await;
            Asked::Nothing
        }));
    }
    // Each kind of task comes first in some round.
    let tasks_in_all = tasks.len();
    tasks.rotate_left(round % tasks_in_all);
    let answers = together(tasks).await;

    let ended = last(&**store, id).await;
    history.saw(&ended);
    let (mut by_holder, mut by_others, mut changes) = (0, 0, 1);
    for answer in &answers {
        let (Asked::Holder(written)
        | Asked::Stranger(written)
        | Asked::Outside(written)
        | Asked::Progress(written)) = answer
        else {
            continue;
        };
        history.saw_written(written);
        let Written::Done(record) = written else {
            continue;
        };
        match answer {
            Asked::Progress(_) => changes += 1,
            Asked::Stranger(_) => panic!("law 2: an outcome with a wrong token gave {record:?}"),
            Asked::Holder(_) => by_holder += 1,
            Asked::Outside(_) => by_others += 1,
            Asked::Nothing => {}
        }
        if !matches!(answer, Asked::Progress(_)) {
            let is_same = may_be_written_as(record, &ended);
            law!(2, is_same, "{record:?} won, but it is {ended:?}");
        }
    }
    law!(
        2,
        by_others <= 1 && (by_holder == 0) == (by_others == 1),
        "an end was taken {by_holder} times from its holder and {by_others} times from outside"
    );
    let is_canceled = ended.operation().state() == State::Canceled;
    law!(
        2,
        is_canceled == (by_others == 1),
        "the winner did not write {ended:?}"
    );
    let raised = version(&ended).get() - version(&running).get();
    law!(
        4,
        raised == changes,
        "{changes} changes raised the version by {raised}"
    );
    history.assert_complete(&ended);
    assert_unchanged(3, &**store, &ended, "nothing").await;
}

async fn one_forced_finish_wins<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse>,
{
    let pending = create(&**store, new_operation()).await;
    let id = pending.operation().id();
    let answers = together((0..16).map(|_| force_finish_in_task(store, id, stamp(&pending)))).await;
    assert_one_wins(&answers, "force-finishing");
    let (before, after) = (version(&pending), version(&last(&**store, id).await));
    law!(
        4,
        after == before.next(),
        "one forced end led from version {before} to {after}"
    );
}

async fn one_delete_wins<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse>,
{
    let ended = finish(&**store, &create(&**store, new_operation()).await).await;
    let id = ended.operation().id();
    let answers = together((0..16).map(|_| {
        let (store, id, stamp) = (Arc::clone(store), id.clone(), stamp(&ended));
        async move { ok(store.delete(&id, stamp).await) }
    }))
    .await;
    assert_one_wins(&answers, "deleting");
    assert_absent(2, &**store, id, "a deleted operation").await;
}

fn assert_one_wins(answers: &[WriteAnswer], what: &str) {
    let won = answers
        .iter()
        .filter(|answer| matches!(answer, Written::Done(_)))
        .count();
    law!(
        2,
        won == 1,
        "{what} at the same moment was taken {won} times of {}",
        answers.len()
    );
}

/// Returns the operation after a race.
async fn last<R>(store: &R, id: &OperationId) -> Seen
where
    R: Repository<Output = RecordedResponse>,
{
    match read(store, id).await {
        Some(record) => record,
        None => panic!("law 8: an operation was gone after a race"),
    }
}

fn start_in_task<R>(
    store: &Arc<R>,
    id: &OperationId,
    token: FencingToken,
) -> impl Future<Output = WriteAnswer> + Send + 'static
where
    R: Repository<Output = RecordedResponse>,
{
    let (store, id) = (Arc::clone(store), id.clone());
    async move { ok(store.start(&id, token).await) }
}

fn report_in_task<R>(
    store: &Arc<R>,
    id: &OperationId,
    token: FencingToken,
    number: u64,
) -> impl Future<Output = WriteAnswer> + Send + 'static
where
    R: Repository<Output = RecordedResponse>,
{
    let (store, id) = (Arc::clone(store), id.clone());
    async move {
        ok(store
            .report(&id, token, Progress::from_count(number, 100))
            .await)
    }
}

fn finish_in_task<R>(
    store: &Arc<R>,
    id: &OperationId,
    token: FencingToken,
    text: &'static str,
) -> impl Future<Output = WriteAnswer> + Send + 'static
where
    R: Repository<Output = RecordedResponse>,
{
    let (store, id) = (Arc::clone(store), id.clone());
    async move { ok(store.finish(&id, token, success(text), None).await) }
}

fn force_finish_in_task<R>(
    store: &Arc<R>,
    id: &OperationId,
    expected: Stamp,
) -> impl Future<Output = WriteAnswer> + Send + 'static
where
    R: Repository<Output = RecordedResponse>,
{
    let (store, id) = (Arc::clone(store), id.clone());
    async move { ok(store.force_finish(&id, expected, Outcome::Canceled).await) }
}

/// Reads repeatedly, and checks that the version never falls.
fn read_in_task<R>(
    store: &Arc<R>,
    id: &OperationId,
    history: &SubjectHistory,
) -> impl Future<Output = ()> + Send + 'static
where
    R: Repository<Output = RecordedResponse>,
{
    let (store, id, history) = (Arc::clone(store), id.clone(), history.clone());
    async move {
        let mut seen = Version::FIRST;
        for _ in 0..16 {
            let Some(record) = ok(store.get(&id).await) else {
                panic!("law 8: an operation was gone during a race");
            };
            history.saw(&record);
            law!(
                4,
                version(&record) >= seen,
                "after version {seen} came {record:?}"
            );
            seen = version(&record);
            tokio::task::yield_now().await;
        }
    }
}
