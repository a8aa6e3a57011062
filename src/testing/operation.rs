use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
};

use crate::{
    MemoryStore,
    operation::{Failure, FailureKind, OperationId, Outcome, Payload, Progress},
    store::{Created, FencingToken, NewOperation, Repository, Written},
};

/// An operation that a test controls.
///
/// If a test operation is dropped before it has ended, it fails as `interrupted`, as if its
/// worker had died.
///
/// # Panics
/// The methods panic if the operation has already ended, for example because it was canceled.
#[derive(Debug)]
#[must_use = "a test operation that is dropped is interrupted"]
pub struct TestOperation<T: Payload> {
    store: MemoryStore<T>,
    id: OperationId,
    token: FencingToken,
    ended: bool,
}

impl<T: Payload> TestOperation<T> {
    /// Creates a pending operation in `store`.
    pub async fn begin(store: &MemoryStore<T>) -> Self {
        let id = OperationId::new();
        match store.create(NewOperation::new(id.clone())).await {
            Ok(Created::New(record)) => Self {
                store: store.clone(),
                id,
                token: record.token(),
                ended: false,
            },
            other => panic!(
                "the store did not take a new operation: {other:?}",
                other = other.err()
            ),
        }
    }

    /// Returns the id of the operation.
    #[must_use]
    pub fn id(&self) -> &OperationId {
        &self.id
    }

    /// Changes the state from `pending` to `running`.
    pub async fn start(&self) {
        let write = self.store.start(&self.id, self.token).await;
        self.expect(write.ok().as_ref(), "started");
    }

    /// Reports progress.
    pub async fn progress(&self, progress: Progress) {
        let write = self.store.report(&self.id, self.token, progress).await;
        self.expect(write.ok().as_ref(), "said to progress");
    }

    /// Ends the operation with a result.
    pub async fn finish(self, result: T) {
        self.end(Outcome::Succeeded(Some(result))).await;
    }

    /// Ends the operation with a problem or a [`FailureKind`].
    pub async fn fail(self, failure: impl Into<Failure<T>>) {
        self.end(Outcome::failed(failure)).await;
    }

    async fn end(mut self, outcome: Outcome<T>) {
        self.ended = true;
        let write = self.store.finish(&self.id, self.token, outcome, None).await;
        self.expect(write.ok().as_ref(), "ended");
    }

    fn expect(&self, write: Option<&Written<T>>, what: &str) {
        let done = matches!(write, Some(Written::Done(_)));
        assert!(
            done,
            "the operation {} has ended, and cannot be {what}",
            self.id
        );
    }
}

impl<T: Payload> Drop for TestOperation<T> {
    fn drop(&mut self) {
        if !self.ended {
            let outcome = Outcome::failed(FailureKind::Interrupted);
            let finish = pin!(self.store.finish(&self.id, self.token, outcome, None));
            // A memory store never waits, so one poll suffices.
            let _ = finish.poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}
