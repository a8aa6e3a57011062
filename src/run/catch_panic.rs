use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::operation::OperationId;

pin_project! {
    /// Turns a panic of the inner future into a value. The inner future is not
    /// polled again after that.
    #[must_use = "futures do nothing unless polled"]
    pub(super) struct CatchPanic<F> {
        #[pin]
        inner: F,
    }
}

/// With what was thrown.
pub(super) struct Panicked(pub(super) Box<dyn Any + Send>);

impl Panicked {
    /// What was said with it, if that is text.
    pub(super) fn message(&self) -> &str {
        let text = self.0.downcast_ref::<&'static str>().copied();
        let owned = || self.0.downcast_ref::<String>().map(String::as_str);
        text.or_else(owned).unwrap_or("no text")
    }

    /// Logs it as that of an operation's handler, and throws it away.
    pub(super) fn of_handler(self, id: &OperationId) {
        tracing::error!(%id, panic = self.message(), "the inner service panicked");
        self.forget();
    }

    /// Throws away what was thrown. Its destructor may panic too.
    pub(super) fn forget(self) {
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(self.0))) {
            std::mem::forget(again);
        }
    }
}

impl<F> CatchPanic<F> {
    pub(super) fn new(inner: F) -> Self {
        Self { inner }
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.project().inner;
        match catch_unwind(AssertUnwindSafe(|| inner.poll(context))) {
            Ok(poll) => poll.map(Ok),
            // The panic hook has printed it.
            Err(payload) => Poll::Ready(Err(Panicked(payload))),
        }
    }
}
