//! The lifetime of a key.

use std::sync::Arc;

use tokio::time::sleep;
use tower_operations::{
    operation::{OperationId, RecordedResponse},
    store::{Created, IdempotencyKey, IdempotencyKeys, Reservation},
};

use super::{
    super::subject::{
        SHORT, assert_absent, assert_expire, create, done, finish, in_time, law, new_owner, ok,
        stamp, together,
    },
    ask, assert_shut,
    creating::assert_existing,
    keyed, new_key, other_request,
};

/// Checks that the law also holds during the delete.
pub(super) async fn a_key_outlives_a_deleted_operation<R>(store: &Arc<R>)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    for round in 0..32 {
        let key = new_key(new_owner());
        let record = create(&**store, keyed(&key)).await;
        let ended = finish(&**store, &record).await;
        let (id, stamp) = (ended.operation().id().clone(), stamp(&ended));
        let found = together((0..4).map(|number| {
            let (store, key, id) = (Arc::clone(store), key.clone(), id.clone());
            async move {
                match (number + round) % 4 {
                    0 => {
                        let deleted = ok(store.delete(&id, stamp).await);
                        done(2, deleted, "deleting").operation().id().clone()
                    }
                    1 => found_by_reserving(&*store, &key).await.0,
                    _ => found_by_creating(&*store, &key).await.0,
                }
            }
        }))
        .await;
        let again = [
            found_by_reserving(&**store, &key).await,
            found_by_creating(&**store, &key).await,
        ];
        for (_, is_deleted) in &again {
            law!(
                1,
                *is_deleted,
                "the key of {id}, which was deleted, found it as if it were there"
            );
        }
        let again = again.into_iter().map(|(id, _)| id);
        for found in found.into_iter().chain(again) {
            law!(
                1,
                found == id,
                "the key of {id}, which was deleted, found {found}"
            );
        }
        assert_shut(&**store, &key).await;
        assert_absent(1, &**store, &id, "a deleted operation").await;
    }
}

/// Returns the operation, and whether the answer says that it is deleted.
async fn found_by_reserving<R>(store: &R, key: &IdempotencyKey) -> (OperationId, bool)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    match ask(store, key).await {
        Reservation::Operation(record) => (record.operation().id().clone(), false),
        Reservation::Deleted(record) => (record.operation().id().clone(), true),
        other => panic!("law 1: the key of a deleted operation gave {other:?}"),
    }
}

async fn found_by_creating<R>(store: &R, key: &IdempotencyKey) -> (OperationId, bool)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    match ok(store.create(keyed(key)).await) {
        Created::Existing(record) => (record.operation().id().clone(), false),
        Created::KeyHeld(Reservation::Deleted(record)) => (record.operation().id().clone(), true),
        other => panic!("law 1: a create with the key of a deleted operation gave {other:?}"),
    }
}

pub(super) async fn a_key_lasts_as_long_as_its_operation<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let key = new_key(new_owner());
    let pending = create(store, keyed(&key)).await;
    sleep(SHORT * 2).await;
    assert_existing(store, keyed(&key), &pending).await;
    finish(store, &pending).await;
    assert_expire(store, &[pending.operation().id().clone()], SHORT).await;
    // The key is free for another request.
    let key = other_request(&key);
    let again = create(store, keyed(&key)).await;
    assert_existing(store, keyed(&key), &again).await;
}

pub(super) async fn a_key_of_a_deleted_operation_expires_with_it<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let key = new_key(None);
    let ended = finish(store, &create(store, keyed(&key)).await).await;
    let id = ended.operation().id();
    done(2, ok(store.delete(id, stamp(&ended)).await), "deleting");
    sleep(SHORT).await;
    let what = "reserving the key of an operation that would have expired";
    in_time(8, what, async {
        while !matches!(ask(store, &key).await, Reservation::Reserved(_)) {
            sleep(SHORT / 10).await;
        }
    })
    .await;
}
