//! Concurrent reclaims.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::sleep;
use tower_operations::{
    operation::{OperationId, Outcome, RecordedResponse},
    store::{Lease, LeaseHandle, Written},
};

use super::{
    super::subject::{
        LONG, Seen, SubjectHistory, WriteAnswer, assert_follows, assert_unchanged, in_time, law,
        ok, read, stamp, success, together,
    },
    held, held_by, lease, try_to_take,
};

pub(super) async fn one_node_takes_over<R>(store: &Arc<R>)
where
    R: Lease<Output = RecordedResponse>,
{
    let mine = lease(LONG);
    let mut abandoned = Vec::new();
    for _ in 0..40 {
        abandoned.push(held(&held_by(&**store, &mine).await));
    }
    ok(store.release(&abandoned).await);
    let taken = Arc::new(Mutex::new(HashMap::<OperationId, Seen>::new()));
    let takers = together((0..8).map(|_| {
        let (store, taken, abandoned) = (Arc::clone(store), Arc::clone(&taken), abandoned.clone());
        async move {
            let by = lease(LONG);
            loop {
                let mine = ok(store.reclaim(&by, 3).await);
                let mine: Vec<_> = mine.into_iter().map(|taken| taken.record).collect();
                law!(
                    6,
                    mine.len() <= 3,
                    "asked for 3, {} were reclaimed",
                    mine.len()
                );
                for record in &mine {
                    law!(
                        6,
                        record.node() == Some(&by.node),
                        "another node has {record:?}"
                    );
                }
                if keep_once(&taken, mine, &abandoned) {
                    return;
                }
                sleep(Duration::from_millis(1)).await;
            }
        }
    }));
    in_time(6, "reclaiming released operations", takers).await;
    let taken: Vec<Seen> = taken
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .values()
        .cloned()
        .collect();
    for record in taken {
        assert_unchanged(6, &**store, &record, "a race to take it over").await;
    }
}

/// Records reclaimed operations, each at most once; returns whether all of `wanted` are
/// reclaimed.
fn keep_once(
    taken: &Mutex<HashMap<OperationId, Seen>>,
    more: Vec<Seen>,
    wanted: &[LeaseHandle],
) -> bool {
    let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
    for record in more {
        let id = record.operation().id().clone();
        let twice = taken.insert(id, record);
        law!(6, twice.is_none(), "reclaimed by two nodes: {twice:?}");
    }
    wanted.iter().all(|held| taken.contains_key(&held.id))
}

/// The old holder finishes while another node reclaims and a client cancels.
pub(super) async fn one_of_reclaiming_and_ending_wins<R>(store: &Arc<R>)
where
    R: Lease<Output = RecordedResponse>,
{
    for round in 0..16 {
        let history = SubjectHistory::default();
        let mine = lease(LONG);
        let record = held_by(&**store, &mine).await;
        history.saw(&record);
        ok(store.release(&[held(&record)]).await);
        let answers = together((0..3).map(|number| {
            let (store, record) = (store.clone(), record.clone());
            async move {
                let (id, token) = (record.operation().id(), record.token());
                match (number + round) % 3 {
                    0 => Some(ok(store.finish(id, token, success("done"), None).await)),
                    1 => {
                        let canceled = store.force_finish(id, stamp(&record), Outcome::Canceled);
                        Some(ok(canceled.await))
                    }
                    _ => {
                        let by = lease(LONG);
                        let mut taken = try_to_take(&*store, &by, std::slice::from_ref(id)).await;
                        taken.pop().map(Written::Done)
                    }
                }
            }
        }))
        .await;
        let answers: Vec<WriteAnswer> = answers.into_iter().flatten().collect();
        answers
            .iter()
            .for_each(|answer| history.saw_written(answer));
        let Some(now) = read(&**store, record.operation().id()).await else {
            panic!("law 8: an operation was gone after a race");
        };
        history.saw(&now);
        let won = answers
            .iter()
            .filter(|answer| matches!(answer, Written::Done(_)))
            .count();
        // The first of the three calls fences the others out.
        law!(
            6,
            won == 1,
            "of a finish, a cancel and a take-over {won} won: {answers:?}"
        );
        assert_follows(&record, &now, "a race");
    }
}
