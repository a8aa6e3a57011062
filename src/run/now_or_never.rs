//! Polling a future that never waits.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

/// Returns the output of `future` if one poll is enough; otherwise drops the future.
///
/// The poll needs no task, no timer and no allocation.
pub(crate) fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn pending_futures_return_none() {
        assert_eq!(now_or_never(ready(1)), Some(1));
        assert_eq!(now_or_never(async { ready(1).await + 1 }), Some(2));
        assert_eq!(now_or_never(pending::<()>()), None);
    }
}
