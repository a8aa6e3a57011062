use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tracing::{Instrument, instrument::Instrumented};

use crate::environment::Spawner;

/// Runs a change to its end, so that the change is announced even if the caller stops waiting
/// because a client disconnected or a time-out passed.
///
/// The change runs in the task of its caller. A task of its own is created only if the caller
/// drops the future before the change has ended. A change makes no progress while its caller neither
/// polls nor drops the future.
///
/// # Panics
/// Panics outside of a runtime.
pub(super) async fn run_to_completion<C>(change: C) -> C::Output
where
    C: Future<Output: Send> + Send + 'static,
{
    let change = Box::pin(change.in_current_span());
    ContinuedOnDrop {
        change: Some(change),
        spawner: Spawner::current(),
    }
    .await
}

/// A future that continues in a task of its own once it is dropped.
struct ContinuedOnDrop<C: Future<Output: Send> + Send + 'static> {
    /// `None` once the future has ended or panicked.
    change: Option<Pin<Box<Instrumented<C>>>>,
    spawner: Spawner,
}

impl<C: Future<Output: Send> + Send + 'static> Future for ContinuedOnDrop<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        // A future that panics is dropped by the panic.
        let mut change = self
            .change
            .take()
            .expect("a future is not polled after it ended");
        let polled = change.as_mut().poll(context);
        if polled.is_pending() {
            self.change = Some(change);
        }
        polled
    }
}

impl<C: Future<Output: Send> + Send + 'static> Drop for ContinuedOnDrop<C> {
    fn drop(&mut self) {
        if let Some(change) = self.change.take() {
            self.spawner.spawn(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        panic::{AssertUnwindSafe, catch_unwind},
        task::Waker,
    };

    use tokio::{runtime::Handle, sync::oneshot};

    use super::*;

    /// Begins a change that cannot end yet.
    fn begin<C>(change: C) -> Pin<Box<impl Future<Output = C::Output> + Send>>
    where
        C: Future<Output: Send> + Send + 'static,
    {
        let mut change = Box::pin(run_to_completion(change));
        assert!(poll(change.as_mut()).is_pending());
        change
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn tasks() -> usize {
        Handle::current().metrics().num_alive_tasks()
    }

    /// A change that ends with the number of the first message, and passes it on.
    fn change() -> (
        oneshot::Sender<u32>,
        impl Future<Output = u32> + Send,
        oneshot::Receiver<u32>,
    ) {
        let (starts, started) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        let change = async move {
            let number = started.await.unwrap();
            ends.send(number).unwrap();
            number
        };
        (starts, change, ended)
    }

    #[tokio::test]
    async fn a_change_ends_in_the_task_of_its_caller() {
        let (starts, change, _ended) = change();
        let change = begin(change);
        starts.send(7).unwrap();
        assert_eq!(tasks(), 0);
        assert_eq!(change.await, 7);
    }

    #[tokio::test]
    async fn a_change_ends_without_its_caller() {
        let (starts, change, ended) = change();
        let change = begin(change);
        drop(change);
        starts.send(7).unwrap();
        assert_eq!(ended.await, Ok(7));
    }

    #[tokio::test]
    async fn a_change_ends_if_its_caller_is_dropped_outside_of_the_runtime() {
        let (starts, change, ended) = change();
        let change = begin(change);
        std::thread::spawn(move || drop(change)).join().unwrap();
        starts.send(7).unwrap();
        assert_eq!(ended.await, Ok(7));
    }

    #[cfg(feature = "testing")]
    #[tokio::test]
    async fn a_dropped_change_stays_with_the_tasks_of_its_node() {
        use crate::environment::{Environment, TaskGroup};

        let group = TaskGroup::new();
        let node = Environment::new().tasks(group.clone());
        let (starts, change, ended) = change();
        let change = {
            let _entered = node.enter();
            begin(change)
        };
        // Dropped by a client.
        drop(change);
        assert_eq!(group.len(), 1);
        group.abort();
        tokio::task::yield_now().await;
        let _ = starts.send(7);
        assert!(ended.await.is_err(), "a change of a dead node goes on");
    }

    #[tokio::test]
    async fn a_change_that_was_never_polled_does_not_begin() {
        let (starts, change, ended) = change();
        drop(run_to_completion(change));
        assert!(starts.send(7).is_err());
        assert!(ended.await.is_err());
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_once() {
        let mut change = Box::pin(run_to_completion(async { panic!("a bug") }));
        let polled = catch_unwind(AssertUnwindSafe(|| poll(change.as_mut())));
        assert!(polled.is_err());
        drop(change);
        assert_eq!(tasks(), 0);
    }

    #[test]
    fn a_change_ends_with_its_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut change = {
            let _entered = runtime.enter();
            begin(pending::<()>())
        };
        drop(runtime);
        assert!(poll(change.as_mut()).is_pending());
        drop(change);
    }
}
