//! Calls of a result store, which may panic or be silent.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;

use super::{Timeout, catch_panic::CatchPanic};
use crate::{
    results::ResultChunks,
    store::{StoreError, StoreResult},
};

/// The time after which a silent result store counts as unavailable. A part of a body is on its
/// way meanwhile.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Awaits a call of a result store. A store that is silent or panics counts as unavailable. The call
/// is made within the future, since its first part may panic as well.
pub(crate) async fn guarded<T>(call: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
    guarded_for(PATIENCE, call).await
}

/// Awaits a call of a result store for at most `limit`, as [`guarded`] does.
pub(crate) async fn guarded_for<T>(
    limit: Duration,
    call: impl Future<Output = StoreResult<T>>,
) -> StoreResult<T> {
    match Timeout::new(limit, CatchPanic::new(call)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panicked)) => {
            panicked.forget();
            Err(StoreError::unavailable("the result store panicked"))
        }
        Err(_) => Err(StoreError::unavailable("no answer in time")),
    }
}

/// Awaits the next item of a result store's stream, as [`guarded`] does; `None` after the last one.
pub(super) async fn guarded_next<T>(
    stream: &mut (impl Stream<Item = StoreResult<T>> + Unpin),
) -> StoreResult<Option<T>> {
    guarded(async {
        let next = poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await;
        next.transpose()
    })
    .await
}

/// Returns the same chunks, each awaited as [`guarded`] does. An error is the last item.
pub(crate) fn guarded_chunks(chunks: ResultChunks) -> ResultChunks {
    Box::pin(GuardedChunks(Some(Box::pin(next_chunk(chunks)))))
}

/// The chunks of a body, with the read of the next one; `None` after the last one.
struct GuardedChunks(Option<NextChunk>);

type NextChunk = Pin<Box<dyn Future<Output = Option<(StoreResult<Bytes>, ResultChunks)>> + Send>>;

async fn next_chunk(mut chunks: ResultChunks) -> Option<(StoreResult<Bytes>, ResultChunks)> {
    let chunk = guarded_next(&mut chunks).await.transpose()?;
    Some((chunk, chunks))
}

impl Stream for GuardedChunks {
    type Item = StoreResult<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<StoreResult<Bytes>>> {
        let Some(next) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let next = ready!(next.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(next.map(|(chunk, rest)| {
            if chunk.is_ok() {
                self.0 = Some(Box::pin(next_chunk(rest)));
            }
            chunk
        }))
    }
}
