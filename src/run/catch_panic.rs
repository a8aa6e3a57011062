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
    /// A future that turns a panic of the inner future into a value. After a panic the inner
    /// future is not polled again.
    #[must_use = "futures do nothing unless polled"]
    pub(super) struct CatchPanic<F> {
        #[pin]
        inner: F,
    }
}

/// The payload of a panic.
#[derive(Debug)]
pub(crate) struct Panicked(pub(super) Box<dyn Any + Send>);

impl Panicked {
    /// Returns the message of the panic, if it is text.
    pub(super) fn message(&self) -> &str {
        let text = self.0.downcast_ref::<&'static str>().copied();
        let owned = || self.0.downcast_ref::<String>().map(String::as_str);
        text.or_else(owned).unwrap_or("no text")
    }

    /// Logs the panic of an operation's handler, and drops the payload.
    pub(super) fn of_handler(self, id: &OperationId) {
        tracing::error!(%id, panic = self.message(), "handler panicked");
        self.forget();
    }

    /// Logs the panic of a terminal hook, and drops the payload.
    pub(super) fn of_hook(self, id: &OperationId) {
        tracing::error!(%id, panic = self.message(), "terminal hook panicked");
        self.forget();
    }

    /// Drops the payload. Its destructor may panic too.
    pub(super) fn forget(self) {
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(self.0))) {
            std::mem::forget(again);
        }
    }
}

/// Calls a function, and turns its panic into a value.
pub(super) fn catch<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    // The panic hook has already printed the message.
    catch_unwind(AssertUnwindSafe(call)).map_err(Panicked)
}

/// Calls a function, and turns its panic into `None`.
pub(crate) fn catch_panic<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch(call).map_err(Panicked::forget).ok()
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
            // The panic hook has already printed the message.
            Err(payload) => Poll::Ready(Err(Panicked(payload))),
        }
    }
}
