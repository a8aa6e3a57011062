//! Law 1, for keys: a repeated request runs once.

mod creating;
mod lasting;
mod owners;
mod reserving;

use std::sync::Arc;

use tower_operations::{
    operation::RecordedResponse,
    store::{FencingToken, IdempotencyKey, IdempotencyKeys, NewOperation, Owner, Reservation},
};

use super::subject::{LONG, law, new_operation, new_owner, ok, unique};

pub(super) async fn check<R: IdempotencyKeys<Output = RecordedResponse>>(store: &Arc<R>) {
    reserving::a_reserved_key_is_in_progress(&**store).await;
    reserving::an_early_answer_is_replayed(&**store).await;
    reserving::a_released_key_is_free(&**store).await;
    reserving::a_renewed_reservation_lasts(&**store).await;
    reserving::a_reservation_lapses(&**store).await;
    creating::a_key_finds_the_operation_it_made(&**store).await;
    creating::a_reservation_becomes_an_operation(&**store).await;
    creating::a_key_in_use_prevents_a_create(&**store).await;
    reserving::of_many_reservations_one_holds(store).await;
    creating::of_many_creates_with_one_key_one_is_new(store).await;
    creating::of_reservations_and_creates_one_wins(store).await;
    lasting::a_key_outlives_a_deleted_operation(store).await;
    owners::the_key_of_one_owner_is_not_that_of_another(&**store).await;
    owners::keys_of_owners_are_independent(&**store).await;
    owners::a_deletion_leaves_the_keys_of_other_owners(&**store).await;
    owners::an_id_of_another_owner_is_taken_and_leaves_the_key_free(&**store).await;
    owners::owners_with_one_key_at_the_same_moment_get_an_operation_each(store).await;
    owners::owners_reserve_one_key_at_the_same_moment_each_for_themselves(store).await;
}

/// Checks a store that has [`SHORT`] as its time to live.
pub(super) async fn check_expiry<R: IdempotencyKeys<Output = RecordedResponse>>(store: &Arc<R>) {
    lasting::a_key_lasts_as_long_as_its_operation(&**store).await;
    lasting::a_key_of_a_deleted_operation_expires_with_it(&**store).await;
}

fn new_key(owner: Option<Owner>) -> IdempotencyKey {
    IdempotencyKey::new(owner, unique(), [7; 32])
}

/// Returns the key for another request.
fn other_request(key: &IdempotencyKey) -> IdempotencyKey {
    IdempotencyKey {
        fingerprint: [8; 32],
        ..key.clone()
    }
}

/// Returns keys of the same name for others: for another owner, and without an owner.
fn of_others(key: &IdempotencyKey) -> Vec<IdempotencyKey> {
    let nobody = key.owner.is_some().then_some(None);
    [Some(new_owner()), nobody]
        .into_iter()
        .flatten()
        .map(|owner| IdempotencyKey {
            owner,
            ..key.clone()
        })
        .collect()
}

/// Returns a new operation of the key's owner with this key, under a new id.
fn keyed(key: &IdempotencyKey) -> NewOperation {
    new_operation()
        .with_owner(key.owner.clone())
        .with_key(key.clone())
}

async fn ask<R>(store: &R, key: &IdempotencyKey) -> Reservation<RecordedResponse>
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    ok(store.reserve(key, FencingToken::random(), LONG).await)
}

async fn reserve<R>(store: &R, key: &IdempotencyKey) -> FencingToken
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    match ask(store, key).await {
        Reservation::Reserved(token) => token,
        other => panic!("law 1: a free key was not reserved: {other:?}"),
    }
}

/// Asserts that the key is in use: its owner learns that the key belongs to another request, and
/// all other owners learn nothing.
async fn assert_shut<R>(store: &R, key: &IdempotencyKey)
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    for other in of_others(key) {
        for other in [other_request(&other), other] {
            let token = match ask(store, &other).await {
                Reservation::Reserved(token) => token,
                found => panic!("law 1: the key of another owner was in the way: {found:?}"),
            };
            let released = ok(store.release_reservation(&other, token).await);
            law!(1, released, "a reservation could not be released");
        }
    }
    let mismatch = ask(store, &other_request(key)).await;
    law!(
        1,
        matches!(mismatch, Reservation::Mismatch),
        "another request with the same key gave {mismatch:?}"
    );
}
