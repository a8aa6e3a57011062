//! Keys of different owners.

use std::{collections::HashMap, sync::Arc};

use tower_operations::{
    operation::{OperationId, RecordedResponse},
    store::{Created, IdempotencyKey, IdempotencyKeys, Owner, Reservation},
};

use super::{
    super::{
        recorded::assert_same,
        subject::{
            Seen, assert_absent, create, done, finish, law, new_owner, ok, response, stamp,
            together, unique,
        },
    },
    ask,
    creating::assert_existing,
    keyed, new_key, of_others, reserve,
};

pub(super) async fn the_key_of_one_owner_is_not_that_of_another<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let (word, key) = (unique(), new_key(None));
    let owned = |owner: &str, name: &str| {
        let owner = Owner::new(format!("{word}{owner}"));
        IdempotencyKey::new(Some(owner), format!("{name}{}", key.name), key.fingerprint)
    };
    let mut keys = vec![owned("", "ab"), owned("a", "b"), owned("ab", "")];
    // These names have the form in which another owner's key may be filed.
    let filed: Vec<_> = keys.iter().map(IdempotencyKey::scoped_name).collect();
    keys.extend(filed.into_iter().map(|name| IdempotencyKey {
        name,
        ..key.clone()
    }));
    keys.push(key);
    let mut made = Vec::new();
    for key in &keys {
        made.push(create(store, keyed(key)).await);
    }
    for (key, record) in keys.iter().zip(&made) {
        assert_existing(store, keyed(key), record).await;
    }
}

pub(super) async fn keys_of_owners_are_independent<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    for owner in [None, new_owner()] {
        let key = new_key(owner);
        let token = reserve(store, &key).await;
        for other in of_others(&key) {
            let own = reserve(store, &other).await;
            let completed = ok(store.complete(&other, token, response("stolen")).await);
            law!(
                1,
                !completed,
                "one owner's reservation completed another's key"
            );
            let released = ok(store.release_reservation(&other, token).await);
            law!(1, !released, "one owner's reservation freed another's key");
            assert_in_progress(store, &other).await;
            let released = ok(store.release_reservation(&other, own).await);
            law!(1, released, "a reservation could not be released");
            assert_in_progress(store, &key).await;

            let own = reserve(store, &other).await;
            let answer = response("theirs");
            law!(
                1,
                ok(store.complete(&other, own, answer.clone()).await),
                "completing failed"
            );
            assert_in_progress(store, &key).await;
            match ask(store, &other).await {
                Reservation::Answered(back) => assert_same("an early answer", &answer, &back),
                found => panic!("law 1: a key with an early answer gave {found:?}"),
            }
        }
        let record = create(store, keyed(&key).with_reservation(token)).await;
        assert_existing(store, keyed(&key), &record).await;
    }
}

pub(super) async fn a_deletion_leaves_the_keys_of_other_owners<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    for owner in [None, new_owner()] {
        let key = new_key(owner);
        let mine = create(store, keyed(&key)).await;
        let others = of_others(&key);
        for other in &others {
            let theirs = create(store, keyed(other)).await;
            let ended = finish(store, &theirs).await;
            let deleted = store.delete(theirs.operation().id(), stamp(&ended));
            done(2, ok(deleted.await), "deleting");
            assert_existing(store, keyed(&key), &mine).await;
        }
        let other = create(store, keyed(&of_others(&key)[0])).await;
        law!(
            1,
            other.operation().id() != mine.operation().id(),
            "one owner's key created an operation of another owner: {other:?}"
        );
    }
}

async fn assert_in_progress<R>(store: &R, key: &IdempotencyKey)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let found = ask(store, key).await;
    law!(
        1,
        matches!(found, Reservation::InProgress),
        "a key that is reserved, and another owner's too, gave {found:?}"
    );
}

/// Ids are global, keys belong to an owner.
pub(super) async fn an_id_of_another_owner_is_taken_and_leaves_the_key_free<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let key = new_key(new_owner());
    let record = create(store, keyed(&key)).await;
    for other in of_others(&key) {
        let mut new = keyed(&other);
        new.id = record.operation().id().clone();
        let answer = ok(store.create(new).await);
        law!(
            1,
            matches!(answer, Created::IdTaken),
            "a create with the id of another owner gave {answer:?}"
        );
        let own = create(store, keyed(&other)).await;
        assert_existing(store, keyed(&other), &own).await;
    }
    assert_existing(store, keyed(&key), &record).await;
}

pub(super) async fn owners_with_one_key_at_the_same_moment_get_an_operation_each<R>(store: &Arc<R>)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    for _ in 0..8 {
        let key = new_key(None);
        let owners = [None, new_owner(), new_owner()];
        let creates = (0..24).map(|number| {
            let owner = owners[number % owners.len()].clone();
            keyed(&IdempotencyKey {
                owner,
                ..key.clone()
            })
        });
        let answers = together(creates.map(|new| {
            let store = Arc::clone(store);
            async move {
                let (id, owner) = (new.id.clone(), new.owner.clone());
                (id, owner, ok(store.create(new).await))
            }
        }))
        .await;
        let mut found: HashMap<Option<Owner>, Vec<Seen>> = HashMap::new();
        let mut new: HashMap<Option<Owner>, usize> = HashMap::new();
        let mut ids: Vec<OperationId> = Vec::new();
        for (id, owner, answer) in answers {
            let record = match answer {
                Created::New(record) => {
                    *new.entry(owner.clone()).or_default() += 1;
                    record
                }
                Created::Existing(record) => {
                    ids.push(id);
                    record
                }
                other => panic!("law 1: a create with an owner's own key gave {other:?}"),
            };
            law!(
                1,
                record.owner() == owner.as_ref(),
                "one owner's key found an operation of another owner: {record:?}"
            );
            found.entry(owner).or_default().push(record);
        }
        for owner in owners {
            let new = new.get(&owner).copied().unwrap_or_default();
            law!(1, new == 1, "one key of one owner made {new} operations");
            let found = &found[&owner];
            let same = found.iter().all(|record| *record == found[0]);
            law!(1, same, "one key of one owner made several: {found:?}");
        }
        for id in ids {
            assert_absent(1, &**store, &id, "an operation whose key was taken").await;
        }
    }
}

pub(super) async fn owners_reserve_one_key_at_the_same_moment_each_for_themselves<R>(store: &Arc<R>)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let key = new_key(None);
    let owners = [None, new_owner(), new_owner(), new_owner()];
    let answers = together(owners.into_iter().map(|owner| {
        let (store, key) = (
            Arc::clone(store),
            IdempotencyKey {
                owner,
                ..key.clone()
            },
        );
        async move { ask(&*store, &key).await }
    }))
    .await;
    for answer in answers {
        law!(
            1,
            matches!(answer, Reservation::Reserved(_)),
            "an owner's own key, which others reserved too, gave {answer:?}"
        );
    }
}
