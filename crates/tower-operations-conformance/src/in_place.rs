//! Checks that a store which claims never to wait does not wait.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use tower_operations::{
    operation::{Outcome, RecordedResponse},
    store::{Created, Repository, StoreError},
};

use super::subject::{done, new_operation, ok, success};

/// Checks a store that claims never to wait; any other store passes.
pub(super) fn check<R>(store: &R)
where
    R: Repository<Output = RecordedResponse>,
{
    if !store.never_waits() {
        return;
    }
    let Created::New(record) = now("create", store.create(new_operation())) else {
        panic!("an operation of a new id was not new");
    };
    let (id, token) = (record.operation().id(), record.token());
    done(2, now("start", store.start(id, token)), "start");
    done(
        2,
        now("report", store.report(id, token, Default::default())),
        "report",
    );
    let outcome = success("done");
    let record = done(
        2,
        now("finish", store.finish(id, token, outcome, None)),
        "finish",
    );
    let version = record.version().expect("a version");
    done(2, now("delete", store.delete(id, version)), "delete");

    let Created::New(record) = now("create", store.create(new_operation())) else {
        panic!("an operation of a new id was not new");
    };
    let (id, version) = (record.operation().id(), record.version());
    let (version, canceled) = (version.expect("a version"), Outcome::Canceled);
    done(
        2,
        now("force-finish", store.force_finish(id, version, canceled)),
        "force-finish",
    );
}

fn now<T>(call: &str, future: impl Future<Output = Result<T, StoreError>>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => ok(answer),
        Poll::Pending => panic!("never waits: {call} did"),
    }
}
