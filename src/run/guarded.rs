use std::{future::Future, time::Duration};

use super::{Timeout, catch_panic::CatchPanic};
use crate::store::{StoreError, StoreResult};

/// The time after which a silent result store counts as unavailable. A part of a body is on its
/// way meanwhile.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Awaits a call of a result store. A store that is silent or panics counts as unavailable.
pub(crate) async fn guarded<T>(call: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
    match Timeout::new(PATIENCE, CatchPanic::new(call)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panicked)) => {
            panicked.forget();
            Err(StoreError::unavailable("the result store panicked"))
        }
        Err(_) => Err(StoreError::unavailable("no answer in time")),
    }
}
