//! Law 1: creation.

use std::sync::Arc;

use http::Method;
use tower_operations::{
    operation::{OperationId, Outcome, Progress, RecordedResponse, State},
    store::{Created, NewOperation, Owner, Repository, Stamp, Version},
};

use super::subject::{
    Seen, assert_absent, assert_unchanged, create, done, finish, gone, law, may_be_found_as,
    new_operation, new_owner, no_token, ok, read, start, success, together,
};

pub(super) async fn check<R: Repository<Output = RecordedResponse>>(store: &Arc<R>) {
    a_new_operation_is_pending_and_seen_at_once(&**store).await;
    one_that_runs_already_is_running_and_started_once(&**store).await;
    an_unknown_operation_is_absent(&**store).await;
    the_same_id_again_is_the_same_operation(&**store).await;
    an_id_of_another_owner_is_taken(&**store).await;
    an_id_that_the_application_brings_is_kept(&**store).await;
    of_many_creates_one_is_new(store).await;
    of_many_creates_by_two_owners_one_is_new(store).await;
    every_create_is_seen_from_everywhere(store).await;
}

async fn a_new_operation_is_pending_and_seen_at_once<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    let owner = new_owner();
    let new = new_operation()
        .with_owner(owner.clone())
        .with_method(Method::PATCH)
        .with_name(Some("render".into()));
    let record = create(store, new.clone()).await;
    let operation = record.operation();
    law!(
        1,
        operation.id() == &new.id,
        "an id was not kept: {record:?}"
    );
    law!(
        1,
        operation.state() == State::Pending,
        "a new operation is not pending: {record:?}"
    );
    law!(
        1,
        record.owner() == owner.as_ref(),
        "an owner was not kept: {record:?}"
    );
    let metadata = operation.metadata();
    law!(
        1,
        metadata.method() == Some(&Method::PATCH),
        "a method was not kept: {record:?}"
    );
    law!(
        1,
        metadata.name() == Some("render"),
        "a name was not kept: {record:?}"
    );
    law!(
        1,
        metadata.created_at().is_some(),
        "it is not known when it was created: {record:?}"
    );
    law!(
        1,
        record.attempts() == 0,
        "a new operation was started before: {record:?}"
    );
    law!(
        4,
        record.version() == Some(Version::FIRST),
        "the first version is another: {record:?}"
    );
    assert_unchanged(1, store, &record, "reading").await;
}

async fn one_that_runs_already_is_running_and_started_once<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    let record = create(store, new_operation().with_running()).await;
    let operation = record.operation();
    law!(
        1,
        operation.state() == State::Running,
        "what runs already is not running: {record:?}"
    );
    law!(
        1,
        operation.metadata().started_at().is_some(),
        "it is not known when it was started: {record:?}"
    );
    law!(
        1,
        record.attempts() == 1 && record.version() == Some(Version::FIRST),
        "the start was not counted with the first version: {record:?}"
    );
    let what = "starting an operation that was created as running";
    let again = done(
        2,
        ok(store.start(operation.id(), record.token()).await),
        what,
    );
    law!(2, again == record, "{what} made {record:?} to {again:?}");
    assert_unchanged(1, store, &record, what).await;
}

async fn an_unknown_operation_is_absent<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    let id = OperationId::new();
    let what = "an operation that was never created";
    assert_absent(1, store, &id, what).await;
    gone(1, &ok(store.start(&id, no_token()).await), what);
    let progress = Progress::from_message("nothing");
    gone(1, &ok(store.report(&id, no_token(), progress).await), what);
    gone(
        1,
        &ok(store
            .finish(&id, no_token(), success("nothing"), None)
            .await),
        what,
    );
    let first = Stamp::new(Version::FIRST, no_token());
    gone(
        1,
        &ok(store.force_finish(&id, first, Outcome::Canceled).await),
        what,
    );
    gone(1, &ok(store.delete(&id, first).await), what);
    assert_absent(1, store, &id, what).await;
}

async fn the_same_id_again_is_the_same_operation<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    for owner in [None, new_owner()] {
        let new = new_operation().with_owner(owner);
        let pending = create(store, new.clone()).await;
        assert_existing(store, &new, &pending).await;
        let running = start(store, &pending).await;
        assert_existing(store, &new, &running).await;
        let ended = finish(store, &running).await;
        assert_existing(store, &new, &ended).await;
    }
}

async fn assert_existing<R>(store: &R, new: &NewOperation, record: &Seen)
where
    R: Repository<Output = RecordedResponse>,
{
    match ok(store.create(new.clone()).await) {
        Created::Existing(existing) => {
            law!(
                1,
                may_be_found_as(&existing, record),
                "the same id gave {existing:?}, not {record:?}"
            );
        }
        other => panic!("law 1: the same id again gave {other:?}, not {record:?}"),
    }
    assert_unchanged(1, store, record, "a create with its id").await;
}

async fn an_id_of_another_owner_is_taken<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    for (owner, others) in [
        (new_owner(), [new_owner(), None]),
        (None, [new_owner(), new_owner()]),
    ] {
        let new = new_operation().with_owner(owner);
        let record = create(store, new.clone()).await;
        for other in others {
            let answer = ok(store.create(new.clone().with_owner(other)).await);
            law!(
                1,
                matches!(answer, Created::IdTaken),
                "an id of another owner gave {answer:?}"
            );
        }
        assert_unchanged(1, store, &record, "a create by another owner").await;
    }
}

async fn an_id_that_the_application_brings_is_kept<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    // Ids differ by case, and reach up to 128 characters.
    let stem = format!("Invoice~{}_.-", OperationId::new());
    for text in [
        stem.clone(),
        stem.to_lowercase(),
        format!("{stem:x<128}"),
        format!("{stem:y<128}"),
    ] {
        let id: OperationId = match text.parse() {
            Ok(id) => id,
            Err(error) => panic!("{text} is an id: {error}"),
        };
        let record = create(store, NewOperation::new(id)).await;
        assert_unchanged(1, store, &record, "reading").await;
    }
}

async fn of_many_creates_one_is_new<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse>,
{
    for owner in [None, new_owner()] {
        let new = new_operation().with_owner(owner);
        let answers = together((0..100).map(|_| create_in_task(store, new.clone()))).await;
        assert_one_is_new(&**store, &new.id, &answers).await;
    }
}

async fn of_many_creates_by_two_owners_one_is_new<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse>,
{
    let (new, owners) = (new_operation(), [new_owner(), new_owner()]);
    let owner = |number: usize| owners[number % 2].clone();
    let creates =
        (0..100).map(|number| create_in_task(store, new.clone().with_owner(owner(number))));
    let answers = together(creates).await;
    let record = assert_one_is_new(&**store, &new.id, &answers).await;
    for (number, answer) in answers.iter().enumerate() {
        let is_owner =
            owner(number).as_ref().map(Owner::as_str) == record.owner().map(Owner::as_str);
        law!(
            1,
            is_owner != matches!(answer, Created::IdTaken),
            "owner {number} was answered {answer:?}; it is {record:?}"
        );
    }
}

type CreateAnswer = Created<RecordedResponse>;

fn create_in_task<R>(
    store: &Arc<R>,
    new: NewOperation,
) -> impl Future<Output = CreateAnswer> + Send + 'static
where
    R: Repository<Output = RecordedResponse>,
{
    let store = Arc::clone(store);
    async move { ok(store.create(new).await) }
}

async fn assert_one_is_new<R>(store: &R, id: &OperationId, answers: &[CreateAnswer]) -> Seen
where
    R: Repository<Output = RecordedResponse>,
{
    let new = answers
        .iter()
        .filter(|answer| matches!(answer, Created::New(_)));
    let new = new.count();
    law!(
        1,
        new == 1,
        "of {} creates at the same moment {new} were new",
        answers.len()
    );
    let Some(record) = read(store, id).await else {
        panic!("law 1: a created operation is absent");
    };
    for answer in answers {
        match answer {
            Created::New(seen) | Created::Existing(seen) => {
                law!(
                    1,
                    seen == &record,
                    "a create gave {seen:?}, but it is {record:?}"
                );
            }
            Created::IdTaken => {}
            other => panic!("law 1: there was no key: {other:?}"),
        }
    }
    record
}

/// The law also holds while many other operations are created.
async fn every_create_is_seen_from_everywhere<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse>,
{
    together((0..16).map(|_| {
        let store = Arc::clone(store);
        async move {
            for _ in 0..8 {
                let record = create(&*store, new_operation()).await;
                assert_unchanged(1, &*store, &record, "reading").await;
            }
        }
    }))
    .await;
}
