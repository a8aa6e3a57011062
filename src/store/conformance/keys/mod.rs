//! Law 1, for keys: what is repeated runs once.

mod creating;
mod lasting;
mod reserving;

use std::sync::Arc;

use super::subject::{LONG, law, new_operation, new_owner, ok, unique};
use crate::{
    operation::RecordedResponse,
    store::{FencingToken, Key, Keys, NewOperation, Owner, Reservation},
};

pub(super) async fn check<R: Keys<Output = RecordedResponse>>(store: &Arc<R>) {
    reserving::a_reserved_key_is_in_progress(&**store).await;
    reserving::an_early_answer_is_replayed(&**store).await;
    reserving::a_released_key_is_free(&**store).await;
    reserving::a_renewed_reservation_lasts(&**store).await;
    reserving::a_reservation_lapses(&**store).await;
    creating::a_key_finds_the_operation_it_made(&**store).await;
    creating::a_reservation_becomes_an_operation(&**store).await;
    creating::what_a_key_stands_for_keeps_a_create_out(&**store).await;
    reserving::of_many_reservations_one_holds(store).await;
    creating::of_many_creates_with_one_key_one_is_new(store).await;
    creating::of_reservations_and_creates_one_wins(store).await;
    lasting::a_key_outlives_a_forgotten_operation(store).await;
}

/// With a store in which what has ended lives for [`SHORT`].
pub(super) async fn check_expiry<R: Keys<Output = RecordedResponse>>(store: &Arc<R>) {
    lasting::a_key_lasts_as_long_as_its_operation(&**store).await;
    lasting::a_key_of_a_forgotten_operation_expires_with_it(&**store).await;
}

fn new_key() -> Key {
    Key {
        name: unique().into(),
        fingerprint: [7; 32],
    }
}

/// Another request with the same key.
fn other_request(key: &Key) -> Key {
    Key {
        fingerprint: [8; 32],
        ..key.clone()
    }
}

/// An operation of `owner` with this key, under an id of its own.
fn keyed(key: &Key, owner: Option<&Owner>) -> NewOperation {
    new_operation().owner(owner.cloned()).key(key.clone())
}

async fn reserve<R>(store: &R, key: &Key, owner: Option<&Owner>) -> FencingToken
where
    R: Keys<Output = RecordedResponse>,
{
    match ok(store
        .reserve(key, owner, FencingToken::random(), LONG)
        .await)
    {
        Reservation::Reserved(token) => token,
        other => panic!("law 1: a free key was not reserved: {other:?}"),
    }
}

/// What everybody but the same owner with the same request learns of a key.
async fn assert_shut<R>(store: &R, key: &Key, owner: Option<&Owner>)
where
    R: Keys<Output = RecordedResponse>,
{
    let mismatch = ok(store
        .reserve(&other_request(key), owner, FencingToken::random(), LONG)
        .await);
    law!(
        1,
        matches!(mismatch, Reservation::Mismatch),
        "another request with the same key gave {mismatch:?}"
    );
    let nobody = owner.is_some().then_some(None);
    for other in [Some(new_owner()), nobody].into_iter().flatten() {
        for key in [key.clone(), other_request(key)] {
            let taken = ok(store
                .reserve(&key, other.as_ref(), FencingToken::random(), LONG)
                .await);
            law!(
                1,
                matches!(taken, Reservation::Taken),
                "the key of another owner gave {taken:?}"
            );
        }
    }
}
