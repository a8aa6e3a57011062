//! Creating operations with keys.

use std::sync::Arc;

use tower_operations::{
    operation::RecordedResponse,
    store::{Created, IdempotencyKey, IdempotencyKeys, NewOperation, Reservation},
};

use super::{
    super::{
        recorded::assert_same,
        subject::{
            Seen, assert_absent, assert_unchanged, create, finish, law, may_be_found_as, new_owner,
            no_token, ok, response, start, together,
        },
    },
    ask, assert_shut, keyed, new_key, of_others, other_request, reserve,
};

pub(super) async fn a_key_finds_the_operation_it_made<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    for owner in [None, new_owner()] {
        let key = new_key(owner);
        let new = keyed(&key);
        let mut record = create(store, new.clone()).await;
        for next in ["pending", "running", "ended"] {
            match next {
                "running" => record = start(store, &record).await,
                "ended" => record = finish(store, &record).await,
                _ => {}
            }
            for new in [new.clone(), keyed(&key)] {
                assert_existing(store, new, &record).await;
            }
            match ask(store, &key).await {
                Reservation::Operation(found) => {
                    let is_it = may_be_found_as(&found, &record);
                    law!(1, is_it, "a key gave {found:?}, not {record:?}");
                }
                other => panic!("law 1: the key of an operation gave {other:?}"),
            }
            assert_shut(store, &key).await;
            assert_others_shut_out(store, &key).await;
            assert_unchanged(1, store, &record, "its key").await;
        }
    }
}

/// Asserts that a create with the same key returns the existing operation, and creates
/// none.
pub(super) async fn assert_existing<R>(store: &R, new: NewOperation, record: &Seen)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let id = new.id.clone();
    match ok(store.create(new).await) {
        Created::Existing(found) => {
            law!(
                1,
                may_be_found_as(&found, record),
                "the same key gave {found:?}, not {record:?}"
            );
        }
        other => panic!("law 1: the same key again gave {other:?}, not {record:?}"),
    }
    if &id != record.operation().id() {
        assert_absent(1, store, &id, "an operation whose key was taken").await;
    }
}

/// Asserts that a create by another request with the key creates nothing, and that a create
/// by another owner creates an operation of that owner.
async fn assert_others_shut_out<R>(store: &R, key: &IdempotencyKey)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let mismatch = keyed(&other_request(key));
    let id = mismatch.id.clone();
    let answer = ok(store.create(mismatch).await);
    law!(
        1,
        matches!(answer, Created::KeyHeld(Reservation::Mismatch)),
        "a create by another request with a key that is taken gave {answer:?}"
    );
    assert_absent(1, store, &id, "an operation whose key was taken").await;
    let other = &of_others(key)[0];
    let own = create(store, keyed(other)).await;
    assert_existing(store, keyed(other), &own).await;
}

pub(super) async fn a_reservation_becomes_an_operation<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let key = new_key(new_owner());
    let token = reserve(store, &key).await;
    let new = keyed(&key).with_reservation(token);
    let record = create(store, new.clone()).await;
    assert_existing(store, new, &record).await;
    let completed = ok(store.complete(&key, token, response("late")).await);
    law!(
        1,
        !completed,
        "the key of an operation was given an early answer"
    );
    let released = ok(store.release_reservation(&key, token).await);
    law!(1, !released, "the key of an operation was released");
    assert_existing(store, keyed(&key), &record).await;
}

pub(super) async fn a_key_in_use_prevents_a_create<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let key = new_key(new_owner());
    let token = reserve(store, &key).await;
    for new in [keyed(&key), keyed(&key).with_reservation(no_token())] {
        let id = new.id.clone();
        let answer = ok(store.create(new).await);
        law!(
            1,
            matches!(answer, Created::KeyHeld(Reservation::InProgress)),
            "a create with a key that is reserved gave {answer:?}"
        );
        assert_absent(1, store, &id, "an operation whose key was reserved").await;
    }
    assert_others_shut_out(store, &key).await;
    let answer = response("no such report");
    law!(
        1,
        ok(store.complete(&key, token, answer.clone()).await),
        "completing failed"
    );
    let new = keyed(&key).with_reservation(token);
    let id = new.id.clone();
    match ok(store.create(new).await) {
        Created::KeyHeld(Reservation::Answered(back)) => {
            assert_same("an early answer", &answer, &back);
        }
        other => panic!("law 1: a create with a key that has an early answer gave {other:?}"),
    }
    assert_absent(1, store, &id, "an operation whose key has an early answer").await;
    assert_others_shut_out(store, &key).await;
}

pub(super) async fn of_many_creates_with_one_key_one_is_new<R>(store: &Arc<R>)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let key = new_key(new_owner());
    let creates: Vec<_> = (0..100).map(|_| keyed(&key)).collect();
    let ids: Vec<_> = creates.iter().map(|new| new.id.clone()).collect();
    let answers = together(creates.into_iter().map(|new| {
        let store = Arc::clone(store);
        async move { ok(store.create(new).await) }
    }))
    .await;
    let mut found: Vec<Seen> = Vec::new();
    let mut new = 0;
    for answer in answers {
        match answer {
            Created::New(record) => {
                new += 1;
                found.push(record);
            }
            Created::Existing(record) => found.push(record),
            other => panic!("law 1: a create with the same key gave {other:?}"),
        }
    }
    law!(
        1,
        new == 1,
        "of 100 creates with one key at the same moment {new} were new"
    );
    let same = found.iter().all(|record| *record == found[0]);
    law!(1, same, "one key made several operations: {found:?}");
    for id in ids.iter().filter(|id| *id != found[0].operation().id()) {
        assert_absent(1, &**store, id, "an operation whose key was taken").await;
    }
}

pub(super) async fn of_reservations_and_creates_one_wins<R>(store: &Arc<R>)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    for _ in 0..16 {
        let key = new_key(None);
        let won = together((0..8).map(|number| {
            let (store, key) = (Arc::clone(store), key.clone());
            async move {
                if number % 2 == 0 {
                    let answer = ask(&*store, &key).await;
                    matches!(answer, Reservation::Reserved(_))
                } else {
                    let answer = ok(store.create(keyed(&key)).await);
                    matches!(answer, Created::New(_))
                }
            }
        }))
        .await;
        let won = won.into_iter().filter(|won| *won).count();
        law!(
            1,
            won == 1,
            "of reservations and creates with one key {won} won"
        );
    }
}
