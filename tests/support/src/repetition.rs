//! Repeated requests, which find an earlier operation, and their cost to the store.

use std::time::Duration;

use http::Response;
use tower_operations::{
    BufferedBody, OperationId, Outcome, RecordedResponse, State,
    store::{
        Created, FencingToken, IdempotencyKey, IdempotencyKeys, NewOperation, Owner, Reservation,
        Written,
    },
};

const LARGE: usize = 8 * 1024 * 1024;

/// Larger than the head of any record, and much smaller than the result.
const HEAD: usize = 8 * 1024;

/// Asserts that creates and reservations that find a large result without returning it cost
/// the store as much as those that find a small result. `cost` returns the calls since its
/// last use and the number of bytes read.
pub async fn assert_no_result_is_read<R, C>(store: R, mut cost: impl FnMut() -> (C, usize))
where
    R: IdempotencyKeys<Output = RecordedResponse>,
    C: PartialEq + std::fmt::Debug,
{
    let mut small = Vec::new();
    let mut large = Vec::new();
    for (length, costs) in [(1, &mut small), (LARGE, &mut large)] {
        let original = create_ended(&store, length).await;
        let key = original.key().cloned().unwrap();
        let other = IdempotencyKey::new(key.owner.clone(), "another key", [1; 32]);
        let bare = NewOperation::new(original.id.clone()).with_owner(original.owner.clone());
        let mut by_key = original.clone();
        by_key.id = OperationId::new();
        let creates = [
            ("its key", by_key),
            ("its id", bare.clone()),
            ("its id with another key", bare.clone().with_key(other)),
            (
                "its id by a stranger",
                bare.with_owner(Some(Owner::new("bob"))),
            ),
        ];
        for (case, new) in creates {
            cost();
            let created = store.create(new).await.unwrap();
            costs.push((case, cost()));
            match (case, created) {
                ("its key" | "its id", Created::Existing(record)) => {
                    assert_eq!(record.operation().id(), &original.id);
                    assert_eq!(record.operation().state(), State::Succeeded);
                }
                (_, Created::KeyHeld(Reservation::Mismatch) | Created::IdTaken) => {}
                (case, created) => panic!("{case}: {created:?}"),
            }
        }
        cost();
        let token = FencingToken::random();
        let reserved = store.reserve(&key, token, Duration::from_secs(9)).await;
        costs.push(("a reservation of its key", cost()));
        assert!(matches!(reserved.unwrap(), Reservation::Operation(_)));
        let early = create_early_answer(&store, length).await;
        let other = IdempotencyKey {
            fingerprint: [2; 32],
            ..early
        };
        cost();
        let reserved = store.reserve(&other, token, Duration::from_secs(9)).await;
        costs.push(("an early answer to another request", cost()));
        assert!(matches!(reserved.unwrap(), Reservation::Mismatch));
        let whole = store.get(&original.id).await.unwrap().unwrap();
        let response = whole.operation().response().expect("the result is stored");
        assert_eq!(response.body_len(), length);
    }
    for ((case, (calls, bytes)), (_, (large_calls, large_bytes))) in small.iter().zip(&large) {
        assert_eq!(large_calls, calls, "{case}");
        assert!(
            *large_bytes < bytes + HEAD,
            "{case}: {large_bytes} bytes, and {bytes} where the result is small"
        );
    }
}

/// Completes a key with an early answer of this length.
async fn create_early_answer<R>(store: &R, length: usize) -> IdempotencyKey
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let key = IdempotencyKey::new(None, format!("early {length}"), [1; 32]);
    let token = FencingToken::random();
    let reserved = store.reserve(&key, token, Duration::from_secs(9)).await;
    assert!(matches!(reserved.unwrap(), Reservation::Reserved(_)));
    assert!(store.complete(&key, token, response(length)).await.unwrap());
    key
}

fn response(length: usize) -> RecordedResponse {
    RecordedResponse::new(Response::new(BufferedBody::from(vec![b'a'; length])))
}

/// Creates an ended operation of "ada" with a key and a result of this length.
async fn create_ended<R>(store: &R, length: usize) -> NewOperation
where
    R: IdempotencyKeys<Output = RecordedResponse>,
{
    let owner = Some(Owner::new("ada"));
    let new = NewOperation::new(OperationId::new())
        .with_owner(owner.clone())
        .with_key(IdempotencyKey::new(owner, format!("of {length}"), [1; 32]));
    let (id, token) = (&new.id, new.token);
    assert!(matches!(
        store.create(new.clone()).await.unwrap(),
        Created::New(_)
    ));
    let outcome = Outcome::Succeeded(Some(response(length)));
    let finished = store.finish(id, token, outcome, None).await;
    assert!(matches!(finished.unwrap(), Written::Done(_)));
    new
}
