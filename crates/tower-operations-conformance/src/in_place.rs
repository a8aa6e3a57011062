//! Checks that what a store does at once obeys the laws.

use tower_operations::{
    operation::{Outcome, RecordedResponse},
    store::{
        Created, FencingToken, LeaseConfig, NewOperation, Placed, Repository, Version, Written,
    },
};

use super::subject::{Seen, law, new_operation, new_owner, ok, read, stamp, success};

/// Checks a store that does something at once; any other store passes.
pub(super) async fn check<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    let new = new_operation()
        .with_owner(new_owner())
        .with_lease(LeaseConfig::default())
        .with_running();
    let Some(placed) = store.create_now(&new) else {
        return;
    };
    created(store, &new, placed).await;
    let live = read(store, &new.id).await;
    let outcome = success("done");

    // Law 2: another holder writes nothing.
    let other = FencingToken::random();
    law!(
        2,
        !store.finish_now(placed, &new.id, other, &outcome),
        "finish_now recorded the outcome of another holder"
    );
    law!(
        2,
        read(store, &new.id).await == live,
        "another holder has changed the operation"
    );

    if !store.finish_now(placed, &new.id, new.token, &outcome) {
        return;
    }
    let ended = existing(store, &new).await;
    law!(
        2,
        ended.operation().outcome() == Some(&outcome),
        "finish_now recorded nothing: {ended:?}"
    );
    law!(
        4,
        ended.version() == Some(Version::FIRST.next()),
        "finish_now is a change: {ended:?}"
    );
    law!(
        8,
        ended.operation().metadata().expires_at().is_some(),
        "an operation that ended never expires: {ended:?}"
    );

    // Law 3: a terminal operation is never changed.
    store.finish_now(placed, &new.id, new.token, &success("once more"));
    law!(
        3,
        existing(store, &new).await == ended,
        "finish_now has changed a result"
    );
    repeated(store, &new, outcome).await;
    of_another_operation(store, &new, placed, ended).await;
}

/// Law 1: a create at once is a create.
async fn created<R>(store: &R, new: &NewOperation, placed: Placed)
where
    R: Repository<Output = RecordedResponse>,
{
    let record = existing(store, new).await;
    let wanted = Seen::create(new, placed.created_at);
    law!(
        1,
        record == wanted,
        "create_now created {record:?} instead of {wanted:?}"
    );
    law!(
        1,
        store.create_now(new).is_none(),
        "an operation is new twice"
    );
    let again = ok(store.create(new.clone()).await);
    law!(
        1,
        matches!(&again, Created::Existing(found) if *found == record),
        "create finds {again:?} after create_now"
    );
}

/// A holder that repeats its write in the other way is told that it is done.
async fn repeated<R>(store: &R, new: &NewOperation, outcome: Outcome<RecordedResponse>)
where
    R: Repository<Output = RecordedResponse>,
{
    let again = ok(store.finish(&new.id, new.token, outcome, None).await);
    law!(
        2,
        matches!(again, Written::Done(_)),
        "finish after finish_now is {again:?}"
    );
}

/// A place does not outlive its operation.
async fn of_another_operation<R>(store: &R, new: &NewOperation, placed: Placed, ended: Seen)
where
    R: Repository<Output = RecordedResponse>,
{
    let deleted = ok(store.delete(&new.id, stamp(&ended)).await);
    law!(
        3,
        matches!(deleted, Written::Done(_)),
        "delete is {deleted:?}"
    );
    let next = new_operation();
    ok(store.create(next.clone()).await);
    let outcome = success("late");
    law!(
        2,
        !store.finish_now(placed, &new.id, new.token, &outcome),
        "finish_now found a deleted operation"
    );
    let record = existing(store, &next).await;
    law!(
        2,
        record.version() == Some(Version::FIRST),
        "the place of a deleted operation changed another one: {record:?}"
    );
}

async fn existing<R>(store: &R, new: &NewOperation) -> Seen
where
    R: Repository<Output = RecordedResponse>,
{
    let found = read(store, &new.id).await;
    found.unwrap_or_else(|| panic!("law 1: {} was created at once and is not found", new.id))
}
