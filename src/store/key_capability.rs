use std::{fmt, time::Duration};

use super::{BoxFuture, FencingToken, IdempotencyKey, IdempotencyKeys, Reservation, StoreResult};
use crate::operation::RecordedResponse;

type KeyFuture<'a, T> = BoxFuture<'a, StoreResult<T>>;
type Reserve<R> = for<'a> fn(
    &'a R,
    &'a IdempotencyKey,
    FencingToken,
    Duration,
) -> KeyFuture<'a, Reservation<RecordedResponse>>;
type Settle<R> =
    for<'a> fn(&'a R, &'a IdempotencyKey, FencingToken, RecordedResponse) -> KeyFuture<'a, bool>;
type Release<R> = for<'a> fn(&'a R, &'a IdempotencyKey, FencingToken) -> KeyFuture<'a, bool>;

/// The capability to reserve keys, captured when idempotency is turned on. A store without
/// idempotency keys need not have this capability.
pub(crate) struct KeyCapability<R> {
    pub(crate) reserve: Reserve<R>,
    pub(crate) complete: Settle<R>,
    pub(crate) release: Release<R>,
}

impl<R: IdempotencyKeys<Output = RecordedResponse>> KeyCapability<R> {
    pub(crate) fn of_store() -> Self {
        Self {
            reserve: |store, key, token, term| Box::pin(store.reserve(key, token, term)),
            complete: |store, key, token, answer| Box::pin(store.complete(key, token, answer)),
            release: |store, key, token| Box::pin(store.release_reservation(key, token)),
        }
    }
}

impl<R> Clone for KeyCapability<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for KeyCapability<R> {}

impl<R> fmt::Debug for KeyCapability<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCapability").finish_non_exhaustive()
    }
}
