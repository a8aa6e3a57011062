//! Requests that find what an earlier one made, and what they cost the store.

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

/// More than the head of any record, and far less than the result.
const HEAD: usize = 8 * 1024;

/// Every create and reservation that finds a large result, and is not answered with it, asks the store
/// as often for as many bytes as one that finds a small result. `cost` says what was asked
/// since the last call, and how many bytes came back.
pub async fn costs_no_result<R, C>(store: R, mut cost: impl FnMut() -> (C, usize))
where
    R: IdempotencyKeys<Output = RecordedResponse>,
    C: PartialEq + std::fmt::Debug,
{
    let mut small = Vec::new();
    let mut large = Vec::new();
    for (length, costs) in [(1, &mut small), (LARGE, &mut large)] {
        let made = made(&store, length).await;
        let key = made.key.clone().unwrap();
        let other = IdempotencyKey::new(key.owner.clone(), "another key", [1; 32]);
        let bare = NewOperation::new(made.id.clone()).with_owner(made.owner.clone());
        let mut by_key = made.clone();
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
        for (what, new) in creates {
            cost();
            let created = store.create(new).await.unwrap();
            costs.push((what, cost()));
            match (what, created) {
                ("its key" | "its id", Created::Existing(record)) => {
                    assert_eq!(record.operation().id(), &made.id);
                    assert_eq!(record.operation().state(), State::Succeeded);
                }
                (_, Created::KeyHeld(Reservation::Mismatch) | Created::IdTaken) => {}
                (what, created) => panic!("{what}: {created:?}"),
            }
        }
        cost();
        let token = FencingToken::random();
        let reserved = store.reserve(&key, token, Duration::from_secs(9)).await;
        costs.push(("a reservation of its key", cost()));
        assert!(matches!(reserved.unwrap(), Reservation::Operation(_)));
        let early = answered(&store, length).await;
        let other = IdempotencyKey {
            fingerprint: [2; 32],
            ..early
        };
        cost();
        let reserved = store.reserve(&other, token, Duration::from_secs(9)).await;
        costs.push(("an early answer to another request", cost()));
        assert!(matches!(reserved.unwrap(), Reservation::Mismatch));
        let whole = store.get(&made.id).await.unwrap().unwrap();
        let response = whole.operation().response().expect("it is still there");
        assert_eq!(response.body().len(), length);
    }
    for ((what, (asked, bytes)), (_, (large_asked, large_bytes))) in small.iter().zip(&large) {
        assert_eq!(large_asked, asked, "{what}");
        assert!(
            *large_bytes < bytes + HEAD,
            "{what}: {large_bytes} bytes, and {bytes} where the result is small"
        );
    }
}

/// A key with an early answer of this length.
async fn answered<R>(store: &R, length: usize) -> IdempotencyKey
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

/// Makes an operation of "ada" with a key and a result of this length, which has ended.
async fn made<R>(store: &R, length: usize) -> NewOperation
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
