//! Awaiting a future with a time limit.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

pin_project! {
    /// A future with a time limit.
    ///
    /// Most futures here are ready at once. Only a future that waits gets a timer. The timer is
    /// boxed, so that moving this future does not move it.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Timeout<F> {
        #[pin]
        future: F,
        limit: Duration,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

/// The error of a future that did not complete in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl<F> Timeout<F> {
    /// Awaits `future` for at most `limit` from the first poll.
    pub(crate) fn new(limit: Duration, future: F) -> Self {
        Self {
            future,
            limit,
            timer: None,
        }
    }

    /// Awaits `future` until that moment.
    pub(super) fn until(deadline: Instant, future: F) -> Self {
        Self::new(deadline.saturating_duration_since(Instant::now()), future)
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // The future is polled first. A future that never yields would leave no turn to the
        // timer.
        let is_late =
            (this.timer.as_mut()).is_some_and(|timer| timer.as_mut().poll(context).is_ready());
        match this.future.poll(context) {
            Poll::Ready(output) => return Poll::Ready(Ok(output)),
            Poll::Pending if is_late => return Poll::Ready(Err(Elapsed)),
            Poll::Pending => {}
        }
        if this.timer.is_none() {
            let timer = this.timer.insert(Box::pin(sleep(*this.limit)));
            if timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(Elapsed));
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn futures_above_the_limit_time_out() {
        let begun = Instant::now();
        assert_eq!(Timeout::new(LIMIT, pending::<()>()).await, Err(Elapsed));
        assert_eq!(begun.elapsed(), LIMIT);
        assert_eq!(Timeout::new(LIMIT, ready(1)).await, Ok(1));
        assert_eq!(Timeout::new(LIMIT, sleep(LIMIT / 2)).await, Ok(()));
        assert_eq!(
            Timeout::new(Duration::ZERO, pending::<()>()).await,
            Err(Elapsed)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn futures_that_complete_at_the_limit_succeed() {
        assert_eq!(Timeout::new(LIMIT, sleep(LIMIT)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn futures_that_never_yield_time_out() {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let greedy = async {
            loop {
                let _ = sender.send(());
                receiver.recv().await;
            }
        };
        let begun = Instant::now();
        tokio::time::resume();
        let limit = Duration::from_millis(1);
        assert_eq!(Timeout::new(limit, greedy).await, Err(Elapsed));
        assert!(begun.elapsed() >= limit);
    }
}
