//! Law 8: purging.

use std::sync::Arc;

use tokio::time::sleep;
use tower_operations::{
    operation::{OperationId, RecordedResponse},
    store::{NewOperation, Purge, Repository},
};

use super::subject::{
    SHORT, Seen, Stopwatch, assert_absent, assert_expire, assert_unchanged, create, finish, law,
    new_operation, ok, read, start, together,
};

/// Checks a store that has [`SHORT`] as its time to live.
pub(super) async fn check<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse> + Purge,
{
    only_what_has_expired_is_removed(&**store).await;
    a_recreated_operation_is_not_purged(store).await;
}

/// Purges until nothing expired is left.
async fn purge_all<R>(store: &R, limit: usize)
where
    R: Repository<Output = RecordedResponse> + Purge,
{
    for _ in 0..10_000 {
        let purged = ok(store.purge(limit).await);
        law!(
            8,
            purged <= limit,
            "asked for {limit}, {purged} were purged"
        );
        if purged == 0 {
            return;
        }
    }
    panic!("law 8: there is no end to purging");
}

async fn only_what_has_expired_is_removed<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + Purge,
{
    let (mut live, mut expired) = (Vec::<Seen>::new(), Vec::<OperationId>::new());
    for number in 0..30 {
        let pending = create(store, new_operation()).await;
        match number % 3 {
            0 => live.push(pending),
            1 => live.push(start(store, &pending).await),
            _ => expired.push(finish(store, &pending).await.operation().id().clone()),
        }
    }
    assert_expire(store, &expired, SHORT).await;
    // An operation that has ended, but not expired.
    let since = Stopwatch::start();
    let fresh = finish(store, &create(store, new_operation()).await).await;

    let none = ok(store.purge(0).await);
    law!(8, none == 0, "asked for none, {none} were purged");
    let first = ok(store.purge(4).await);
    law!(8, first <= 4, "asked for 4, {first} were purged");
    purge_all(store, 4).await;

    let found = read(store, fresh.operation().id()).await;
    if since.elapsed() < SHORT {
        law!(
            8,
            found.as_ref() == Some(&fresh),
            "an operation that has just ended was purged: {found:?}"
        );
    }
    for record in &live {
        let found = read(store, record.operation().id()).await;
        law!(
            8,
            found.as_ref() == Some(record),
            "purging made {record:?} to {found:?}"
        );
    }
    for id in &expired {
        assert_absent(8, store, id, "a purged operation").await;
    }
    let late = finish(store, &live[0]).await;
    assert_unchanged(8, store, &late, "reading").await;
}

/// The same ids are created again while their expired operations are removed.
async fn a_recreated_operation_is_not_purged<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse> + Purge,
{
    let mut expired = Vec::new();
    for _ in 0..32 {
        let ended = finish(&**store, &create(&**store, new_operation()).await).await;
        expired.push(ended.operation().id().clone());
    }
    assert_expire(&**store, &expired, SHORT).await;
    let live = together((0..4).map(|number| {
        let (store, expired) = (Arc::clone(store), expired.clone());
        async move {
            let mut live = Vec::new();
            for id in expired.into_iter().skip(number).step_by(4) {
                if number == 0 {
                    purge_all(&*store, 3).await;
                }
                live.push(create(&*store, NewOperation::new(id)).await);
                tokio::task::yield_now().await;
            }
            live
        }
    }))
    .await;
    sleep(SHORT).await;
    purge_all(&**store, 100).await;
    for record in live.into_iter().flatten() {
        let found = read(&**store, record.operation().id()).await;
        law!(
            8,
            found.as_ref() == Some(&record),
            "purging made {record:?} to {found:?}"
        );
    }
}
