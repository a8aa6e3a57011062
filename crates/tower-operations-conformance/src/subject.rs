//! Tools for the checks.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderValue, Response};
use tokio::{
    sync::Barrier,
    time::{Instant, sleep, timeout},
};
use tower_operations::{
    operation::{BufferedBody, OperationId, Outcome, RecordedResponse},
    store::{
        Created, FencingToken, NewOperation, Owner, Record, Repository, Stamp, Store, StoreError,
        Version, Written,
    },
};

/// Panics with the number of the law, unless the law holds.
macro_rules! law {
    ($law:expr, $holds:expr, $($message:tt)+) => {
        assert!($holds, "law {}: {}", $law, format_args!($($message)+))
    };
}
pub(super) use law;

pub(super) type Seen = Record<RecordedResponse>;
pub(super) type WriteAnswer = Written<RecordedResponse>;

/// The time to live of a store in which nothing expires during a check.
pub(super) const LONG: Duration = Duration::from_secs(60 * 60);

/// The time to live of a store in which operations expire during a check.
pub(super) const SHORT: Duration = Duration::from_millis(250);

/// The length of a wait that a change is to end.
pub(super) const HELD: Duration = Duration::from_secs(60);

/// The time after which a call counts as stuck; less than [`HELD`].
pub(super) const STUCK: Duration = Duration::from_secs(20);

/// The time in which a task has usually begun to wait.
pub(super) const SETTLED: Duration = Duration::from_millis(30);

/// Returns a word that was not used before.
pub(super) fn unique() -> String {
    OperationId::new().to_string()
}

pub(super) fn new_owner() -> Option<Owner> {
    Some(Owner::new(unique()))
}

pub(super) fn new_operation() -> NewOperation {
    NewOperation::new(OperationId::new())
}

/// Returns a response that differs from others by its text.
pub(super) fn response(text: impl Into<String>) -> RecordedResponse {
    let mut response = Response::new(BufferedBody::from(text.into()));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("text/plain"));
    RecordedResponse::new(response)
}

pub(super) fn success(text: impl Into<String>) -> Outcome<RecordedResponse> {
    Outcome::Succeeded(Some(response(text)))
}

/// Unwraps the answer of a store that has no reason to fail.
#[track_caller]
pub(super) fn ok<T>(answer: Result<T, StoreError>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("the store failed: {}", error.report()),
    }
}

/// Reads in every possible way, while no other task writes.
pub(super) async fn read<R>(store: &R, id: &OperationId) -> Option<Seen>
where
    R: Store<Output = RecordedResponse>,
{
    let record = ok(store.get(id).await);
    if let Some(now) = store.get_now(id) {
        let now = ok(now);
        law!(
            1,
            now == record,
            "get_now is behind get: {now:?} is not {record:?}"
        );
    }
    if let Some(record) = &record {
        let found = record.operation().id();
        law!(1, found == id, "{found} was found under {id}");
    }
    record
}

/// Asserts that the operation has not changed.
pub(super) async fn assert_unchanged<R>(law: u8, store: &R, record: &Seen, what: &str)
where
    R: Store<Output = RecordedResponse>,
{
    let now = read(store, record.operation().id()).await;
    let is_same = now
        .as_ref()
        .is_some_and(|now| may_be_written_as(record, now));
    law!(law, is_same, "{what} changed {record:?} to {now:?}");
}

pub(super) async fn assert_absent<R>(law: u8, store: &R, id: &OperationId, what: &str)
where
    R: Store<Output = RecordedResponse>,
{
    let found = read(store, id).await;
    law!(law, found.is_none(), "{what} is there: {found:?}");
}

pub(super) async fn create<R>(store: &R, new: NewOperation) -> Seen
where
    R: Repository<Output = RecordedResponse>,
{
    match ok(store.create(new).await) {
        Created::New(record) => record,
        other => panic!("law 1: a new operation was not created: {other:?}"),
    }
}

pub(super) async fn start<R>(store: &R, record: &Seen) -> Seen
where
    R: Repository<Output = RecordedResponse>,
{
    let id = record.operation().id();
    let started = ok(store.start(id, record.token()).await);
    done(2, started, "a start by the holder")
}

pub(super) async fn finish<R>(store: &R, record: &Seen) -> Seen
where
    R: Repository<Output = RecordedResponse>,
{
    let (id, token) = (record.operation().id(), record.token());
    let finished = ok(store.finish(id, token, success("done"), None).await);
    whole(store, done(2, finished, "a finish by the holder")).await
}

/// Returns the record of a write with its whole result, which it may lack.
pub(super) async fn whole<R>(store: &R, record: Seen) -> Seen
where
    R: Store<Output = RecordedResponse>,
{
    let response = record.operation().response();
    match response.is_some_and(|response| response.body().is_none()) {
        true => read(store, record.operation().id()).await.unwrap_or(record),
        false => record,
    }
}

#[track_caller]
pub(super) fn done(law: u8, write: WriteAnswer, what: &str) -> Seen {
    match write {
        Written::Done(record) => record,
        Written::Lost(record) => panic!("law {law}: {what} lost against {record:?}"),
        Written::Gone => panic!("law {law}: {what} found no operation"),
    }
}

#[track_caller]
pub(super) fn lost(law: u8, write: WriteAnswer, what: &str) -> Seen {
    match write {
        Written::Lost(record) => record,
        Written::Done(record) => panic!("law {law}: {what} was taken: {record:?}"),
        Written::Gone => panic!("law {law}: {what} found no operation"),
    }
}

#[track_caller]
pub(super) fn gone(law: u8, write: &WriteAnswer, what: &str) {
    law!(
        law,
        matches!(write, Written::Gone),
        "{what} found an operation: {write:?}"
    );
}

/// Returns whether a create or a reservation that finds `record` may answer `found`: the
/// same record, with or without its result.
pub(super) fn may_be_found_as(found: &Seen, record: &Seen) -> bool {
    may_be_written_as(found, record) || *found == record.without_result()
}

/// Returns whether a write that leaves `record` may answer `found`: the same record, with or
/// without the body of its result.
pub(super) fn may_be_written_as(found: &Seen, record: &Seen) -> bool {
    let [back, sent] = [found, record].map(|it| it.operation().response());
    let has_its_head = back.zip(sent).is_some_and(|(back, sent)| {
        back.body().is_none()
            && (back.status(), back.body_len()) == (sent.status(), sent.body_len())
            && (back.headers(), back.trailers()) == (sent.headers(), sent.trailers())
    });
    found == record || has_its_head && found.without_result() == record.without_result()
}

#[track_caller]
pub(super) fn version(record: &Seen) -> Version {
    match record.version() {
        Some(version) => version,
        None => panic!("law 4: a store that is written to counts versions: {record:?}"),
    }
}

#[track_caller]
pub(super) fn stamp(record: &Seen) -> Stamp {
    Stamp::new(version(record), record.token())
}

/// Returns the stamp that the next change by the same holder would lead to.
#[track_caller]
pub(super) fn next_stamp(record: &Seen) -> Stamp {
    Stamp::new(version(record).next(), record.token())
}

/// Asserts that `after` is one change later than `before`.
#[track_caller]
pub(super) fn assert_follows(before: &Seen, after: &Seen, what: &str) {
    let (before, after) = (version(before), version(after));
    law!(
        4,
        after == before.next(),
        "{what} led from version {before} to {after}"
    );
}

/// Returns a token that no holder ever had.
pub(super) fn no_token() -> FencingToken {
    FencingToken::from_number(0)
}

/// Runs all tasks at the same moment, as far as the runtime has threads.
pub(super) async fn together<T, F>(tasks: impl IntoIterator<Item = F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<F> = tasks.into_iter().collect();
    let barrier = Arc::new(Barrier::new(tasks.len()));
    let running: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let barrier = Arc::clone(&barrier);
            tokio::spawn(async move {
                barrier.wait().await;
                task.await
            })
        })
        .collect();
    let mut results = Vec::with_capacity(running.len());
    for task in running {
        results.push(join(task).await);
    }
    results
}

/// Returns the result of a task, and passes on its panic.
pub(super) async fn join<T>(task: tokio::task::JoinHandle<T>) -> T {
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("a check was cut off: {error}"),
        },
    }
}

/// Returns the result of a call that must not take forever.
pub(super) async fn in_time<F: Future>(law: u8, what: &str, future: F) -> F::Output {
    match timeout(STUCK, future).await {
        Ok(result) => result,
        Err(_) => panic!("law {law}: {what}: stuck for {STUCK:?}"),
    }
}

/// Waits for `ttl`, and asserts that all of these have expired.
pub(super) async fn assert_expire<R>(store: &R, ids: &[OperationId], ttl: Duration)
where
    R: Store<Output = RecordedResponse>,
{
    sleep(ttl + ttl / 10).await;
    for id in ids {
        // Clocks may differ a little.
        for _ in 0..10 {
            if ok(store.get(id).await).is_none() {
                break;
            }
            sleep(ttl / 10).await;
        }
        assert_absent(8, store, id, "an expired operation").await;
    }
}

/// A stopwatch on both clocks that a store may use.
pub(super) struct Stopwatch {
    tokio: Instant,
    system: std::time::Instant,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self {
            tokio: Instant::now(),
            system: std::time::Instant::now(),
        }
    }

    /// Returns the longest time that may have passed.
    pub(super) fn elapsed(&self) -> Duration {
        self.tokio.elapsed().max(self.system.elapsed())
    }
}

/// All versions of one operation that any task has seen: law 4.
#[derive(Clone, Default)]
pub(super) struct SubjectHistory(Arc<Mutex<BTreeMap<Version, Seen>>>);

impl SubjectHistory {
    pub(super) fn saw(&self, record: &Seen) {
        let version = version(record);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = seen.entry(version).or_insert_with(|| record.clone());
        law!(
            4,
            may_be_written_as(first, record) || may_be_written_as(record, first),
            "version {version} was seen with two contents: {first:?} and {record:?}"
        );
    }

    pub(super) fn saw_written(&self, written: &WriteAnswer) {
        match written {
            Written::Done(record) | Written::Lost(record) => self.saw(record),
            Written::Gone => {}
        }
    }

    /// Asserts that every version from the first seen to that of `last` was seen.
    pub(super) fn assert_complete(&self, last: &Seen) {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let versions: Vec<u64> = seen.keys().map(|version| version.get()).collect();
        let expected: Vec<u64> = (versions[0]..=version(last).get()).collect();
        law!(
            4,
            versions == expected,
            "the versions of the changes were {versions:?}"
        );
    }
}
