//! Whether what is said to never wait does not.

use std::{fmt, sync::Arc};

use super::subject::{new_operation, ok, success};
use crate::{
    operation::RecordedResponse,
    run::at_once,
    store::{Created, Record, Repository, StoreError, Write},
};

/// With a store that may say so of itself.
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
    is_done(now("start", store.start(id, token)));
    is_done(now("report", store.report(id, token, Default::default())));
    let outcome = success("done");
    let record = is_done(now("finish", store.finish(id, token, outcome, None)));
    let version = record.version().expect("a version");
    is_done(now("forget", store.forget(id, version)));
}

fn now<T>(call: &str, future: impl Future<Output = Result<T, StoreError>>) -> T {
    match at_once(future) {
        Some(answer) => ok(answer),
        None => panic!("never waits: {call} did"),
    }
}

fn is_done<T: fmt::Debug>(write: Write<T>) -> Arc<Record<T>> {
    match write {
        Write::Done(record) => record,
        refused => panic!("the holder's write was refused: {refused:?}"),
    }
}
