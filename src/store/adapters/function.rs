//! Stores made from closures.

use std::{fmt, future::Future, time::Duration};

use crate::{
    BoxError, environment,
    operation::{Operation, OperationId, Outcome, Payload, Progress, Snapshot},
    store::{
        Created, FencingToken, NewOperation, Record, Repository, Stamp, Step, Store, StoreError,
        Written, traits::Found,
    },
};

/// A read-only store made from a closure.
///
/// The closure takes an id and returns the known state of the operation as a [`Snapshot`].
/// A snapshot has no id, and is pending unless it specifies another state. The error may be
/// any type. A [`StoreError`] keeps its classification for retries; any other error counts
/// as transient.
///
/// There are no versions, so polls carry no `ETag` and cannot be held.
///
/// ```
/// use tower_operations::{OperationId, Outcome, PollService, Snapshot, store::StoreFn};
///
/// let store = StoreFn::new(|id: OperationId| async move {
///     let known = id.to_string() == "q3";
///     Ok::<_, std::io::Error>(known.then(|| Snapshot::from(Outcome::Succeeded(Some(42)))))
/// });
/// let polls = PollService::read_only(store);
/// ```
#[derive(Clone)]
pub struct StoreFn<F> {
    read: F,
}

impl<F> StoreFn<F> {
    /// Returns a store that reads through `read`.
    #[must_use]
    pub fn new(read: F) -> Self {
        Self { read }
    }
}

impl<F, Fut, T, E> Store for StoreFn<F>
where
    F: Fn(OperationId) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<Snapshot<T>>, E>> + Send,
    T: Payload,
    E: Into<BoxError>,
{
    type Output = T;

    async fn get(&self, id: &OperationId) -> Found<T> {
        let snapshot = (self.read)(id.clone())
            .await
            .map_err(StoreError::from_any)?;
        Ok(snapshot
            .map(|snapshot| Record::unversioned(Operation::from_parts(id.clone(), snapshot))))
    }
}

/// A complete repository made from two closures: one reads a record, and one writes a
/// record if its stamp is still the expected one.
///
/// The repository does everything else (permitted changes, versions, fencing, expiry): it reads,
/// takes a step and writes, and retries after a concurrent write.
///
/// Wrap it in [`Polling`](super::Polling) to wait for changes, and in
/// [`SingleNode`](super::SingleNode) to use it with the layer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::{collections::HashMap, convert::Infallible, sync::{Arc, Mutex}};
/// use tower_operations::{OperationId, store::{Change, Record, RepositoryFn, Repository, NewOperation}};
///
/// let rows = Arc::new(Mutex::new(HashMap::<OperationId, Record<u32>>::new()));
/// let table = rows.clone();
/// let read = move |id: OperationId| {
///     let row = table.lock().unwrap().get(&id).cloned();
///     async move { Ok::<_, Infallible>(row) }
/// };
/// let table = rows.clone();
/// let write = move |change: Change<u32>| {
///     // In SQL: INSERT … ON CONFLICT DO NOTHING, UPDATE … WHERE version = $1 AND token = $2,
///     // DELETE … WHERE version = $1 AND token = $2.
///     let mut table = table.lock().unwrap();
///     let current = table.get(&change.id).and_then(|row| row.stamp());
///     let matches = current == change.expected;
///     if matches {
///         match change.record {
///             Some(record) => table.insert(change.id, record),
///             None => table.remove(&change.id),
///         };
///     }
///     async move { Ok::<_, Infallible>(matches) }
/// };
/// let store = RepositoryFn::new(read, write);
/// store.create(NewOperation::new("q3".parse().unwrap())).await.unwrap();
/// assert_eq!(rows.lock().unwrap().len(), 1);
/// # }
/// ```
#[derive(Clone)]
pub struct RepositoryFn<F, G> {
    read: F,
    write: G,
    ttl: Duration,
}

/// A write that a [`RepositoryFn`] requests, to be made atomically.
#[derive(Debug)]
#[non_exhaustive]
pub struct Change<T> {
    /// The operation.
    pub id: OperationId,
    /// The stamp that must be stored now; `None` if the operation must not exist.
    pub expected: Option<Stamp>,
    /// The record to store; `None` deletes the operation.
    pub record: Option<Record<T>>,
}

impl<F, G> RepositoryFn<F, G> {
    /// Returns a repository that reads through `read` and writes through `write`. `write`
    /// returns whether the expected stamp was stored. Operations expire 24 hours after
    /// they ended.
    #[must_use]
    pub fn new(read: F, write: G) -> Self {
        Self {
            read,
            write,
            ttl: Duration::from_secs(24 * 60 * 60),
        }
    }

    /// Sets how long an operation is kept after it ended.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }
}

impl<F, G, Fut, Gut, T, E, H> RepositoryFn<F, G>
where
    F: Fn(OperationId) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<Record<T>>, E>> + Send,
    G: Fn(Change<T>) -> Gut + Send + Sync + 'static,
    Gut: Future<Output = Result<bool, H>> + Send,
    T: Payload + Clone,
    E: Into<BoxError>,
    H: Into<BoxError>,
{
    /// Returns the record with its version, whether or not it has expired.
    async fn read(&self, id: &OperationId) -> Result<Option<Record<T>>, StoreError> {
        (self.read)(id.clone()).await.map_err(StoreError::from_any)
    }

    async fn write(
        &self,
        id: &OperationId,
        expected: Option<Stamp>,
        record: Option<Record<T>>,
    ) -> Result<bool, StoreError> {
        let change = Change {
            id: id.clone(),
            expected,
            record,
        };
        (self.write)(change).await.map_err(StoreError::from_any)
    }

    /// Reads, takes a step and writes, until no concurrent write interferes.
    async fn change(
        &self,
        id: &OperationId,
        step: impl Fn(&Record<T>) -> Step<T> + Send,
    ) -> Result<Written<T>, StoreError> {
        loop {
            let Some(before) = self.read(id).await?.filter(is_present) else {
                return Ok(Written::Gone);
            };
            let next = match step(&before) {
                Step::Done => return Ok(Written::Done(before)),
                Step::Lost => return Ok(Written::Lost(before)),
                Step::Next(next) => next,
            };
            if self.write(id, before.stamp(), Some(next.clone())).await? {
                return Ok(Written::Done(next));
            }
        }
    }
}

fn is_present<T>(record: &Record<T>) -> bool {
    let expires_at = record.operation().metadata().expires_at();
    expires_at.is_none_or(|at| environment::wall_clock() < at)
}

impl<F, G, Fut, Gut, T, E, H> Store for RepositoryFn<F, G>
where
    F: Fn(OperationId) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<Record<T>>, E>> + Send,
    G: Fn(Change<T>) -> Gut + Send + Sync + 'static,
    Gut: Future<Output = Result<bool, H>> + Send,
    T: Payload + Clone,
    E: Into<BoxError>,
    H: Into<BoxError>,
{
    type Output = T;

    async fn get(&self, id: &OperationId) -> Found<T> {
        Ok(self.read(id).await?.filter(is_present))
    }
}

impl<F, G, Fut, Gut, T, E, H> Repository for RepositoryFn<F, G>
where
    F: Fn(OperationId) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<Record<T>>, E>> + Send,
    G: Fn(Change<T>) -> Gut + Send + Sync + 'static,
    Gut: Future<Output = Result<bool, H>> + Send,
    T: Payload + Clone,
    E: Into<BoxError>,
    H: Into<BoxError>,
{
    async fn create(&self, new: NewOperation) -> Result<Created<T>, StoreError> {
        loop {
            let before = self.read(&new.id).await?;
            if let Some(existing) = before.as_ref().filter(|record| is_present(record)) {
                return Ok(match existing.owner() == new.owner.as_ref() {
                    true => Created::Existing(existing.clone()),
                    false => Created::IdTaken,
                });
            }
            let expected = before.and_then(|expired| expired.stamp());
            let record = Record::create(&new, environment::wall_clock());
            if self.write(&new.id, expected, Some(record.clone())).await? {
                return Ok(Created::New(record));
            }
        }
    }

    async fn start(&self, id: &OperationId, token: FencingToken) -> Result<Written<T>, StoreError> {
        self.change(id, |record| {
            record.started(token, environment::wall_clock())
        })
        .await
    }

    async fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> Result<Written<T>, StoreError> {
        let step = |record: &Record<T>| {
            record.reported(token, progress.clone(), environment::wall_clock())
        };
        self.change(id, step).await
    }

    async fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<T>,
        progress: Option<Progress>,
    ) -> Result<Written<T>, StoreError> {
        let step = |record: &Record<T>| {
            record.finished(
                token,
                outcome.clone(),
                progress.clone(),
                environment::wall_clock(),
                self.ttl,
            )
        };
        self.change(id, step).await
    }

    async fn force_finish(
        &self,
        id: &OperationId,
        expected: Stamp,
        outcome: Outcome<T>,
    ) -> Result<Written<T>, StoreError> {
        let step = |record: &Record<T>| {
            record.force_finished(
                expected,
                outcome.clone(),
                environment::wall_clock(),
                self.ttl,
            )
        };
        self.change(id, step).await
    }

    async fn delete(&self, id: &OperationId, expected: Stamp) -> Result<Written<T>, StoreError> {
        loop {
            let Some(record) = self.read(id).await?.filter(is_present) else {
                return Ok(Written::Gone);
            };
            if record.stamp() != Some(expected) || !record.operation().state().is_terminal() {
                return Ok(Written::Lost(record));
            }
            if self.write(id, Some(expected), None).await? {
                return Ok(Written::Done(record));
            }
        }
    }
}

impl<F> fmt::Debug for StoreFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreFn").finish_non_exhaustive()
    }
}

impl<F, G> fmt::Debug for RepositoryFn<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepositoryFn")
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}
