use std::{fmt, future::Future, sync::Arc, time::Duration};

use crate::{
    operation::{OperationId, Outcome, Payload, Progress, RecordedResponse},
    store::{
        BoxFuture, Created, FencingToken, Health, IdempotencyKey, IdempotencyKeys, Lease,
        LeaseConfig, LeaseHandle, List, ListQuery, NewOperation, NodeId, Page, Placed, Purge,
        Reader, Reclaimed, Repository, Reservation, Stamp, Store, StoreError, Version, Watch,
        Written, traits::Found,
    },
};

/// A store chosen at run time, for example by a command line.
///
/// An `AnyStore` is made from a store that has every capability, and has every capability
/// itself. A store that lacks [`Watch`] or [`Lease`] is first wrapped in
/// [`Polling`](super::Polling) or [`SingleNode`](super::SingleNode). The store must provide
/// [`IdempotencyKeys`], [`List`] and [`Purge`] itself.
///
/// ```
/// use tower_operations::{AsyncAcceptLayer, MemoryStore, store::AnyStore};
///
/// let store = match "memory" {
///     "memory" => AnyStore::new(MemoryStore::new()),
///     other => panic!("no such store: {other}"),
/// };
/// let layer = AsyncAcceptLayer::new(store);
/// ```
pub struct AnyStore<T = RecordedResponse>(Arc<dyn DynStore<T>>);

impl<T: Payload> AnyStore<T> {
    /// Erases the type of a store.
    #[must_use]
    pub fn new<R>(store: R) -> Self
    where
        R: Repository<Output = T> + Watch + Lease + IdempotencyKeys + List + Purge,
    {
        Self(Arc::new(store))
    }
}

impl<T> Clone for AnyStore<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for AnyStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyStore").finish_non_exhaustive()
    }
}

/// Generates every method of every capability three times from one list: boxed in the
/// erased trait, boxed from any store, and awaited in [`AnyStore`].
macro_rules! powers {
    ($($power:ident [$($extra:item)*] { $(
        fn $method:ident$(<$($life:lifetime),+>)?($($arg:ident: $type:ty),*) -> $output:ty;
    )* })*) => {
        trait DynStore<T>: Send + Sync + 'static {
            fn get_now(&self, id: &OperationId) -> Option<Found<T>>;
            fn get_now_for(&self, id: &OperationId, reader: Reader<'_>) -> Option<Found<T>>;
            fn create_now(&self, new: &NewOperation) -> Option<Placed>;
            fn finish_now(
                &self,
                placed: Placed,
                id: &OperationId,
                token: FencingToken,
                outcome: &Outcome<T>,
            ) -> bool;
            fn released(&self) -> BoxFuture<'_, ()>;
            $($(
                fn $method<'r, $($($life),+)?>(&'r self, $($arg: $type),*) -> BoxFuture<'r, $output>
                where
                    $($($life: 'r),+)?;
            )*)*
        }

        impl<T, R> DynStore<T> for R
        where
            T: Payload,
            R: Repository<Output = T> + Watch + Lease + IdempotencyKeys + List + Purge,
        {
            fn get_now(&self, id: &OperationId) -> Option<Found<T>> {
                Store::get_now(self, id)
            }

            fn get_now_for(&self, id: &OperationId, reader: Reader<'_>) -> Option<Found<T>> {
                Store::get_now_for(self, id, reader)
            }

            fn create_now(&self, new: &NewOperation) -> Option<Placed> {
                Repository::create_now(self, new)
            }

            fn finish_now(
                &self,
                placed: Placed,
                id: &OperationId,
                token: FencingToken,
                outcome: &Outcome<T>,
            ) -> bool {
                Repository::finish_now(self, placed, id, token, outcome)
            }

            fn released(&self) -> BoxFuture<'_, ()> {
                // Called at once, not at the first poll, so that releases from now on
                // count.
                Box::pin(Lease::released(self))
            }

            $($(
                fn $method<'r, $($($life),+)?>(&'r self, $($arg: $type),*) -> BoxFuture<'r, $output>
                where
                    $($($life: 'r),+)?
                {
                    Box::pin($power::$method(self, $($arg),*))
                }
            )*)*
        }

        $(
            impl<T: Payload> $power for AnyStore<T> {
                $($extra)*
                $(
                    async fn $method$(<$($life),+>)?(&self, $($arg: $type),*) -> $output {
                        self.0.$method($($arg),*).await
                    }
                )*
            }
        )*
    };
}

powers! {
    Store [
        type Output = T;
        fn get_now(&self, id: &OperationId) -> Option<Found<T>> { self.0.get_now(id) }
        fn get_now_for(&self, id: &OperationId, reader: Reader<'_>) -> Option<Found<T>> {
            self.0.get_now_for(id, reader)
        }
    ] {
        fn get<'a>(id: &'a OperationId) -> Found<T>;
        fn get_for<'a, 'b>(id: &'a OperationId, reader: Reader<'b>) -> Found<T>;
        fn health() -> Result<Health, StoreError>;
    }
    Repository [
        fn create_now(&self, new: &NewOperation) -> Option<Placed> { self.0.create_now(new) }
        fn finish_now(
            &self,
            placed: Placed,
            id: &OperationId,
            token: FencingToken,
            outcome: &Outcome<T>,
        ) -> bool {
            self.0.finish_now(placed, id, token, outcome)
        }
    ] {
        fn create(new: NewOperation) -> Result<Created<T>, StoreError>;
        fn start<'a>(id: &'a OperationId, token: FencingToken) -> Result<Written<T>, StoreError>;
        fn report<'a>(id: &'a OperationId, token: FencingToken, progress: Progress) -> Result<Written<T>, StoreError>;
        fn finish<'a>(id: &'a OperationId, token: FencingToken, outcome: Outcome<T>, progress: Option<Progress>) -> Result<Written<T>, StoreError>;
        fn force_finish<'a>(id: &'a OperationId, expected: Stamp, outcome: Outcome<T>) -> Result<Written<T>, StoreError>;
        fn delete<'a>(id: &'a OperationId, expected: Stamp) -> Result<Written<T>, StoreError>;
    }
    Watch [] {
        fn changed<'a>(id: &'a OperationId, since: Version, at_most: Duration) -> Found<T>;
        fn changed_for<'a, 'b>(id: &'a OperationId, since: Version, at_most: Duration, reader: Reader<'b>) -> Found<T>;
    }
    Lease [
        fn released(&self) -> impl Future<Output = ()> + Send { self.0.released() }
    ] {
        fn renew<'a, 'b>(lease: &'a LeaseConfig, held: &'b [LeaseHandle]) -> Result<Vec<LeaseHandle>, StoreError>;
        fn reclaim<'a>(lease: &'a LeaseConfig, limit: usize) -> Result<Vec<Reclaimed<T>>, StoreError>;
        fn reclaim_released<'a>(lease: &'a LeaseConfig, limit: usize) -> Result<Vec<Reclaimed<T>>, StoreError>;
        fn claim<'a, 'b>(lease: &'a LeaseConfig, held: &'b LeaseHandle) -> Result<Written<T>, StoreError>;
        fn release<'a>(held: &'a [LeaseHandle]) -> Result<(), StoreError>;
        fn purge_expired(limit: usize) -> Result<Option<usize>, StoreError>;
        fn revoked<'a>(node: &'a NodeId, at_most: Duration) -> Result<Vec<OperationId>, StoreError>;
    }
    IdempotencyKeys [] {
        fn reserve<'a>(key: &'a IdempotencyKey, token: FencingToken, term: Duration) -> Result<Reservation<T>, StoreError>;
        fn complete<'a>(key: &'a IdempotencyKey, token: FencingToken, answer: T) -> Result<bool, StoreError>;
        fn release_reservation<'a>(key: &'a IdempotencyKey, token: FencingToken) -> Result<bool, StoreError>;
    }
    List [] {
        fn list<'a>(query: &'a ListQuery) -> Result<Page<T>, StoreError>;
    }
    Purge [] {
        fn purge(limit: usize) -> Result<usize, StoreError>;
    }
}
