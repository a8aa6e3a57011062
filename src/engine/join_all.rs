//! Concurrent futures in one task.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

/// Runs all futures concurrently, and returns their outputs in order.
pub(super) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut going: Vec<MaybeDone<F>> = futures
        .into_iter()
        .map(|future| MaybeDone::On(Box::pin(future)))
        .collect();
    poll_fn(|context| {
        let mut is_ready = true;
        for one in &mut going {
            if let MaybeDone::On(future) = one {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *one = MaybeDone::Done(output),
                    Poll::Pending => is_ready = false,
                }
            }
        }
        match is_ready {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    let done = going.into_iter().filter_map(|one| match one {
        MaybeDone::Done(output) => Some(output),
        MaybeDone::On(_) => None,
    });
    done.collect()
}

enum MaybeDone<F: Future> {
    On(Pin<Box<F>>),
    Done(F::Output),
}
