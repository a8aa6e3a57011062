//! Law 7: a reader with another owner gets no result.

use tower_operations::{
    operation::{OperationId, RecordedResponse},
    store::{Owner, Reader, Repository, Store, Watch},
};

use super::subject::{
    HELD, Seen, create, finish, in_time, law, new_operation, new_owner, ok, read, version,
};

pub(super) async fn check<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    for (owner, others) in owners() {
        let (pending, ended) = pending_and_ended(store, owner.clone()).await;
        let id = ended.operation().id();
        let whole = read(store, id).await;
        law!(1, whole.as_ref() == Some(&ended), "it was {whole:?}");
        let found = read_for(store, id, owner.as_ref()).await;
        law!(
            7,
            found == whole,
            "its owner got {found:?} instead of {whole:?}"
        );
        for other in others {
            let found = read_for(store, id, other.as_ref()).await;
            assert_withheld(found.as_ref(), &ended);
            let found = read_for(store, pending.operation().id(), other.as_ref()).await;
            law!(
                7,
                found.as_ref() == Some(&pending),
                "there is nothing to hide of {pending:?}, but it was {found:?}"
            );
        }
    }
    let unknown = OperationId::new();
    let found = read_for(store, &unknown, None).await;
    law!(1, found.is_none(), "{unknown} is there: {found:?}");
}

pub(super) async fn check_waiting<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    for (owner, others) in owners() {
        let (_, ended) = pending_and_ended(store, owner.clone()).await;
        let (id, since) = (ended.operation().id(), version(&ended).next());
        let what = "a wait for a change that was made before";
        let wait = store.changed_for(id, since, HELD, Reader::new(owner.as_ref()));
        let found = ok(in_time(5, what, wait).await);
        law!(
            7,
            found.as_ref() == Some(&ended),
            "its owner waited for {found:?} instead of {ended:?}"
        );
        for other in others {
            let wait = store.changed_for(id, since, HELD, Reader::new(other.as_ref()));
            let found = ok(in_time(5, what, wait).await);
            assert_withheld(found.as_ref(), &ended);
        }
    }
}

/// Returns owners, each with others that are not the owner.
fn owners() -> [(Option<Owner>, Vec<Option<Owner>>); 2] {
    [
        (new_owner(), vec![new_owner(), None]),
        (None, vec![new_owner()]),
    ]
}

async fn pending_and_ended<R>(store: &R, owner: Option<Owner>) -> (Seen, Seen)
where
    R: Repository<Output = RecordedResponse>,
{
    let pending = create(store, new_operation().with_owner(owner.clone())).await;
    let other = create(store, new_operation().with_owner(owner)).await;
    (pending, finish(store, &other).await)
}

/// Reads in every possible way.
async fn read_for<R>(store: &R, id: &OperationId, owner: Option<&Owner>) -> Option<Seen>
where
    R: Store<Output = RecordedResponse>,
{
    let reader = Reader::new(owner);
    let found = ok(store.get_for(id, reader).await);
    if let Some(now) = store.get_now_for(id, reader) {
        let now = ok(now);
        law!(
            1,
            now == found,
            "get_now_for is behind get_for: {now:?} is not {found:?}"
        );
    }
    found
}

/// Asserts that `found` is the record of `ended` without its result.
fn assert_withheld(found: Option<&Seen>, ended: &Seen) {
    let Some(found) = found else {
        panic!("law 1: {ended:?} is not there for another owner's reader");
    };
    law!(
        7,
        found.operation().response().is_none(),
        "another owner's reader got a result: {found:?}"
    );
    let about = |record: &Seen| {
        let state = record.operation().state();
        (record.version(), record.owner().cloned(), state)
    };
    law!(
        1,
        about(found) == about(ended),
        "another owner's reader got {found:?} of {ended:?}"
    );
}
