//! How long a key lasts.

use crate::store::FencingToken;
use std::sync::Arc;

use tokio::time::sleep;

use super::{
    super::subject::{
        LONG, SHORT, assert_absent, assert_expire, create, done, finish, in_time, law, new_owner,
        ok, together, version,
    },
    assert_shut,
    creating::assert_existing,
    keyed, new_key, other_request,
};
use crate::{
    operation::{OperationId, RecordedResponse},
    store::{Created, Key, Keys, Owner, Reservation},
};

/// Also while it is being forgotten.
pub(super) async fn a_key_outlives_a_forgotten_operation<R>(store: &Arc<R>)
where
    R: Keys<Output = RecordedResponse>,
{
    for round in 0..32 {
        let (key, owner) = (new_key(), new_owner());
        let record = create(&**store, keyed(&key, owner.as_ref())).await;
        let ended = finish(&**store, &record).await;
        let (id, version) = (ended.operation().id().clone(), version(&ended));
        let found = together((0..4).map(|number| {
            let (store, key, owner, id) =
                (Arc::clone(store), key.clone(), owner.clone(), id.clone());
            async move {
                match (number + round) % 4 {
                    0 => {
                        let forgotten = ok(store.forget(&id, version).await);
                        done(2, forgotten, "forgetting").operation().id().clone()
                    }
                    1 => found_by_reserving(&*store, &key, owner.as_ref()).await,
                    _ => found_by_creating(&*store, &key, owner.as_ref()).await,
                }
            }
        }))
        .await;
        let again = [
            found_by_reserving(&**store, &key, owner.as_ref()).await,
            found_by_creating(&**store, &key, owner.as_ref()).await,
        ];
        for found in found.into_iter().chain(again) {
            law!(
                1,
                found == id,
                "the key of {id}, which was forgotten, found {found}"
            );
        }
        assert_shut(&**store, &key, owner.as_ref()).await;
        assert_absent(1, &**store, &id, "an operation that was forgotten").await;
    }
}

async fn found_by_reserving<R>(store: &R, key: &Key, owner: Option<&Owner>) -> OperationId
where
    R: Keys<Output = RecordedResponse>,
{
    match ok(store
        .reserve(key, owner, FencingToken::random(), LONG)
        .await)
    {
        Reservation::Operation(record) => record.operation().id().clone(),
        other => panic!("law 1: the key of a forgotten operation gave {other:?}"),
    }
}

async fn found_by_creating<R>(store: &R, key: &Key, owner: Option<&Owner>) -> OperationId
where
    R: Keys<Output = RecordedResponse>,
{
    match ok(store.create(keyed(key, owner)).await) {
        Created::Existing(record) => record.operation().id().clone(),
        other => panic!("law 1: a create with the key of a forgotten operation gave {other:?}"),
    }
}

pub(super) async fn a_key_lasts_as_long_as_its_operation<R>(store: &R)
where
    R: Keys<Output = RecordedResponse>,
{
    let (key, owner) = (new_key(), new_owner());
    let pending = create(store, keyed(&key, owner.as_ref())).await;
    sleep(SHORT * 2).await;
    assert_existing(store, keyed(&key, owner.as_ref()), &pending).await;
    finish(store, &pending).await;
    assert_expire(store, &[pending.operation().id().clone()], SHORT).await;
    // Free, for another request of anybody.
    let (key, owner) = (other_request(&key), new_owner());
    let again = create(store, keyed(&key, owner.as_ref())).await;
    assert_existing(store, keyed(&key, owner.as_ref()), &again).await;
}

pub(super) async fn a_key_of_a_forgotten_operation_expires_with_it<R>(store: &R)
where
    R: Keys<Output = RecordedResponse>,
{
    let key = new_key();
    let ended = finish(store, &create(store, keyed(&key, None)).await).await;
    let id = ended.operation().id();
    done(2, ok(store.forget(id, version(&ended)).await), "forgetting");
    sleep(SHORT).await;
    let what = "reserving the key of an operation that would have expired";
    in_time(8, what, async {
        while !matches!(
            ok(store
                .reserve(&key, None, FencingToken::random(), LONG)
                .await),
            Reservation::Reserved(_)
        ) {
            sleep(SHORT / 10).await;
        }
    })
    .await;
}
