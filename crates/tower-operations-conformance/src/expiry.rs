//! Law 8: an expired operation is absent, and a live operation never expires.

use std::sync::Arc;

use tokio::time::sleep;
use tower_operations::{
    operation::{OperationId, Outcome, Progress, RecordedResponse},
    store::{NewOperation, Repository},
};

use super::subject::{
    SHORT, Stopwatch, assert_absent, assert_expire, assert_unchanged, create, finish, gone, law,
    new_operation, new_owner, ok, read, stamp, start, success,
};

/// Checks a store that has [`SHORT`] as its time to live.
pub(super) async fn check<R: Repository<Output = RecordedResponse>>(store: &Arc<R>) {
    expired_operations_are_absent(&**store).await;
    the_time_to_live_begins_with_the_end(&**store).await;
}

async fn expired_operations_are_absent<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    let pending = create(store, new_operation()).await;
    let running = start(store, &create(store, new_operation()).await).await;
    let canceled = create(store, new_operation()).await;
    let force_finished = store.force_finish(
        canceled.operation().id(),
        stamp(&canceled),
        Outcome::Canceled,
    );
    ok(force_finished.await);

    let new = new_operation().with_owner(new_owner());
    let ended = finish(store, &create(store, new.clone()).await).await;
    let ids: [OperationId; 2] = [new.id.clone(), canceled.operation().id().clone()];
    assert_expire(store, &ids, SHORT).await;

    let (id, token, what) = (&new.id, ended.token(), "an expired operation");
    gone(8, &ok(store.start(id, token).await), what);
    gone(
        8,
        &ok(store
            .report(id, token, Progress::from_message("late"))
            .await),
        what,
    );
    gone(
        8,
        &ok(store.finish(id, token, success("done"), None).await),
        what,
    );
    gone(
        8,
        &ok(store
            .force_finish(id, stamp(&ended), Outcome::Canceled)
            .await),
        what,
    );
    gone(8, &ok(store.delete(id, stamp(&ended)).await), what);
    assert_absent(8, store, id, what).await;

    // The id is free for every owner.
    let again = create(store, NewOperation::new(id.clone()).with_owner(new_owner())).await;
    sleep(SHORT * 2).await;
    for (live, what) in [
        (&again, "created again"),
        (&pending, "pending"),
        (&running, "running"),
    ] {
        let found = read(store, live.operation().id()).await;
        law!(
            8,
            found.as_ref() == Some(live),
            "an operation that is {what} became {found:?} with time"
        );
    }
    let ended = finish(store, &again).await;
    assert_expire(store, &[ended.operation().id().clone()], SHORT).await;
}

async fn the_time_to_live_begins_with_the_end<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    let pending = create(store, new_operation()).await;
    sleep(SHORT * 2).await;
    let since = Stopwatch::start();
    let ended = finish(store, &pending).await;
    let found = read(store, ended.operation().id()).await;
    // If two calls took this long, the result proves nothing.
    if since.elapsed() < SHORT {
        law!(
            8,
            found.as_ref() == Some(&ended),
            "an operation that has just ended is {found:?}"
        );
        assert_unchanged(8, store, &ended, "reading").await;
    }
}
