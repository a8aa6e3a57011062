//! Reserving, completing and releasing.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tower_operations::{
    operation::RecordedResponse,
    store::{FencingToken, IdempotencyKey, IdempotencyKeys, Reservation},
};

use super::{
    super::{
        recorded::assert_same,
        subject::{LONG, in_time, law, new_owner, ok, response, together},
    },
    ask, assert_shut, new_key, other_request, reserve,
};

/// The term of a reservation that is to expire.
const TERM: Duration = Duration::from_millis(150);

pub(super) async fn a_reserved_key_is_in_progress<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    for owner in [None, new_owner()] {
        let key = new_key(owner);
        reserve(store, &key).await;
        for _ in 0..2 {
            let again = ask(store, &key).await;
            law!(
                1,
                matches!(again, Reservation::InProgress),
                "a key that is reserved gave {again:?}"
            );
            assert_shut(store, &key).await;
        }
    }
}

pub(super) async fn an_early_answer_is_replayed<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    for owner in [None, new_owner()] {
        let key = new_key(owner);
        let token = reserve(store, &key).await;
        let wrong = FencingToken::from_number(u64::MAX);
        let completed = ok(store
            .complete(&key, wrong, response("another holder's"))
            .await);
        law!(1, !completed, "another holder completed a reservation");
        let answer = response("no such report");
        let completed = ok(store.complete(&key, token, answer.clone()).await);
        law!(1, completed, "a reservation could not be completed");
        for _ in 0..2 {
            match ask(store, &key).await {
                Reservation::Answered(back) => assert_same("an early answer", &answer, &back),
                other => panic!("law 1: a key with an early answer gave {other:?}"),
            }
            assert_shut(store, &key).await;
        }
        let released = ok(store.release_reservation(&key, token).await);
        law!(1, !released, "a key with an early answer was released");
    }
}

pub(super) async fn a_released_key_is_free<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let key = new_key(new_owner());
    let token = reserve(store, &key).await;
    let wrong = FencingToken::from_number(u64::MAX);
    let released = ok(store.release_reservation(&key, wrong).await);
    law!(1, !released, "another holder released a reservation");
    let again = ask(store, &key).await;
    law!(
        1,
        matches!(again, Reservation::InProgress),
        "another holder released a key: {again:?}"
    );
    let released = ok(store.release_reservation(&key, token).await);
    law!(1, released, "a reservation could not be released");

    // The key is free for another request.
    let key = other_request(&key);
    let second = reserve(store, &key).await;
    assert_outlived(store, &key, token, second).await;
}

pub(super) async fn a_renewed_reservation_lasts<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let (key, token) = (new_key(None), FencingToken::random());
    for term in [TERM, LONG] {
        let reserved = ok(store.reserve(&key, token, term).await);
        law!(
            1,
            matches!(reserved, Reservation::Reserved(by) if by == token),
            "a key that is reserved was not reserved again: {reserved:?}"
        );
    }
    sleep(2 * TERM).await;
    let again = ask(store, &key).await;
    law!(
        1,
        matches!(again, Reservation::InProgress),
        "a key whose reservation was renewed gave {again:?}"
    );
    let completed = ok(store.complete(&key, token, response("in time")).await);
    law!(1, completed, "a renewed reservation could not be completed");
}

pub(super) async fn a_reservation_lapses<R>(store: &R)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let key = new_key(None);
    let token = match ok(store.reserve(&key, FencingToken::random(), TERM).await) {
        Reservation::Reserved(token) => token,
        other => panic!("law 1: a free key was not reserved: {other:?}"),
    };
    sleep(TERM).await;
    let key = other_request(&key);
    let what = "reserving a key whose reservation has expired";
    let second = in_time(1, what, async {
        loop {
            match ask(store, &key).await {
                Reservation::Reserved(token) => return token,
                Reservation::Mismatch => sleep(TERM / 10).await,
                other => panic!("law 1: the key of another request gave {other:?}"),
            }
        }
    })
    .await;
    assert_outlived(store, &key, token, second).await;
}

/// Asserts that the second holder of a key has fenced the first one out.
async fn assert_outlived<R>(
    store: &R,
    key: &IdempotencyKey,
    first: FencingToken,
    second: FencingToken,
) where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    law!(
        1,
        first != second,
        "two reservations had the same token, {first:?}"
    );
    let completed = ok(store.complete(key, first, response("late")).await);
    law!(
        1,
        !completed,
        "a reservation that has expired was completed"
    );
    let released = ok(store.release_reservation(key, first).await);
    law!(1, !released, "a reservation that is over was released");
    let again = ask(store, key).await;
    law!(
        1,
        matches!(again, Reservation::InProgress),
        "a reservation was lost to an earlier one: {again:?}"
    );
    let completed = ok(store.complete(key, second, response("in time")).await);
    law!(1, completed, "a reservation could not be completed");
}

pub(super) async fn of_many_reservations_one_holds<R>(store: &Arc<R>)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let key = new_key(new_owner());
    let answers = together((0..100).map(|_| {
        let (store, key) = (Arc::clone(store), key.clone());
        async move { ask(&*store, &key).await }
    }))
    .await;
    let mut reserved = 0;
    for answer in answers {
        match answer {
            Reservation::Reserved(_) => reserved += 1,
            Reservation::InProgress => {}
            other => panic!("law 1: a key that is reserved gave {other:?}"),
        }
    }
    law!(
        1,
        reserved == 1,
        "{reserved} of 100 reservations at the same moment hold"
    );
}
