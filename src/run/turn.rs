//! A task whose first turn is taken by whoever makes it.
//!
//! What is there at once, as a store in memory is, needs no task to wait in: its answer
//! goes out without a word between tasks. What is not is waited for in a task, as ever.

use std::{
    future::{Future, poll_fn},
    task::{Context, Poll, Waker},
};

/// Lets `future` go on, here and now, up to where it waits or ends its
/// [turn](end_turn); what is left of it is a task of its own.
///
/// Whatever it waits for after this first turn wakes nobody: the task has its own first
/// turn anyway, and waits anew.
///
/// # Panics
/// Outside of a runtime, and as the future does in its first turn.
pub(crate) fn spawn_after_a_turn<F>(future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    // Boxed once: on its way into a task a future is moved many times.
    let mut future = Box::pin(future);
    let mut nobody = Context::from_waker(Waker::noop());
    if future.as_mut().poll(&mut nobody).is_pending() {
        tokio::spawn(future);
    }
}

/// Lets others have a turn, the one who made this task among them.
pub(super) async fn end_turn() {
    let mut has_ended = false;
    poll_fn(|context| {
        if has_ended {
            return Poll::Ready(());
        }
        has_ended = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    };

    use tokio::sync::{Notify, oneshot};

    use super::*;

    #[tokio::test]
    async fn the_first_turn_is_over_when_it_returns_and_the_rest_comes_later() {
        let (steps, done) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let (count, tell) = (Arc::clone(&steps), Arc::clone(&done));
        spawn_after_a_turn(async move {
            count.store(1, SeqCst);
            end_turn().await;
            count.store(2, SeqCst);
            tell.notify_one();
        });
        assert_eq!(steps.load(SeqCst), 1);
        done.notified().await;
        assert_eq!(steps.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn what_it_waits_for_in_its_first_turn_wakes_the_task() {
        let (tell, told) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        spawn_after_a_turn(async move {
            let number: u32 = told.await.expect("it is told");
            end_turn().await;
            let _ = answer.send(number + 1);
        });
        tell.send(1).expect("it waits");
        assert_eq!(answered.await, Ok(2));
    }
}
