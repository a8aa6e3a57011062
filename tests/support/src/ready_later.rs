//! A service that is not ready at once.

use std::task::{Context, Poll};

use tower::Service;

/// A service of which each clone has to wait once before it is ready, so that its operations
/// are created as pending.
#[derive(Debug)]
pub struct ReadyLater<S> {
    inner: S,
    has_waited: bool,
}

impl<S> ReadyLater<S> {
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            has_waited: false,
        }
    }
}

impl<S: Clone> Clone for ReadyLater<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<S: Service<R>, R> Service<R> for ReadyLater<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if !std::mem::replace(&mut self.has_waited, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call(request)
    }
}
