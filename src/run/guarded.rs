use std::{
    future::{Future, poll_fn},
    pin::Pin,
    time::Duration,
};

use futures_core::Stream;

use super::{Timeout, catch_panic::CatchPanic};
use crate::store::{StoreError, StoreResult};

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
