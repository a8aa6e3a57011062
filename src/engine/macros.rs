/// Declares a store as a type of its own, around an
/// [`EngineStore`](crate::engine::EngineStore).
///
/// The type has the methods `ttl` and `clock`, `Clone`, `Debug`, and all store traits. Its
/// only field is private to the module of the declaration, which adds the constructors:
///
/// ```
/// # mod map { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/engine/map_engine.rs")); }
/// # use map::MapEngine;
/// use tower_operations::engine::EngineStore;
///
/// tower_operations::engine_store! {
///     /// Operations in a map.
///     pub struct MapStore(MapEngine);
/// }
///
/// impl MapStore {
///     /// Creates an empty store.
///     pub fn new() -> Self {
///         Self(EngineStore::new(MapEngine::default()))
///     }
/// }
///
/// let polls = tower_operations::PollService::new(MapStore::new());
/// ```
#[macro_export]
macro_rules! engine_store {
    ($(#[$attribute:meta])* $visibility:vis struct $store:ident($engine:ty);) => {
        $(#[$attribute])*
        $visibility struct $store<T = $crate::RecordedResponse>(
            $crate::engine::EngineStore<$engine, T>,
        );

        impl<T> $store<T> {
            /// Sets how long an operation is kept after it ended; 24 hours by default, at
            /// most 100 years.
            #[must_use]
            pub fn ttl(self, ttl: ::std::time::Duration) -> Self {
                Self(self.0.ttl(ttl))
            }

            /// Sets the wall clock of this handle, by which operations expire; that of the
            /// system by default. This setting is meant for tests.
            #[must_use]
            pub fn clock(
                self,
                clock: impl Fn() -> ::std::time::SystemTime + Send + Sync + 'static,
            ) -> Self {
                Self(self.0.clock(clock))
            }
        }

        impl<T> Clone for $store<T> {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<T> ::std::fmt::Debug for $store<T> {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_tuple(stringify!($store)).field(&self.0).finish()
            }
        }

        const _: () = {
            use ::std::{sync::Arc, time::Duration};
            use $crate::{
                operation::{OperationId, Outcome, Progress, Stored},
                store::{
                    Created, FencingToken, Health, IdempotencyKey, IdempotencyKeys, Lease,
                    LeaseConfig, LeaseHandle, List, ListQuery, NewOperation, NodeId, Page, Reader,
                    Purge, Reclaimed, Record, Repository, Reservation, Stamp, Store, StoreError,
                    Version, Watch, Written,
                },
            };

            type Found<T> = Result<Option<Record<T>>, StoreError>;

            impl<T: Stored> Store for $store<T> {
                type Output = T;

                fn get_now(&self, id: &OperationId) -> Option<Found<T>> {
                    self.0.get_now(id)
                }

                fn get_now_for(&self, id: &OperationId, reader: Reader<'_>) -> Option<Found<T>> {
                    self.0.get_now_for(id, reader)
                }

                $crate::engine_store! { @forward
                    fn get(id: &OperationId) -> Found<T>;
                    fn get_for(id: &OperationId, reader: Reader<'_>) -> Found<T>;
                    fn health() -> Result<Health, StoreError>;
                }
            }

            impl<T: Stored> Watch for $store<T> {
                $crate::engine_store! { @forward
                    fn changed(id: &OperationId, since: Version, at_most: Duration) -> Found<T>;
                    fn changed_for(
                        id: &OperationId, since: Version, at_most: Duration, reader: Reader<'_>
                    ) -> Found<T>;
                }
            }

            impl<T: Stored> Repository for $store<T> {
                $crate::engine_store! { @forward
                    fn create(new: NewOperation) -> Result<Created<T>, StoreError>;
                    fn start(
                        id: &OperationId, token: FencingToken
                    ) -> Result<Written<T>, StoreError>;
                    fn report(
                        id: &OperationId, token: FencingToken, progress: Progress
                    ) -> Result<Written<T>, StoreError>;
                    fn finish(
                        id: &OperationId,
                        token: FencingToken,
                        outcome: Outcome<T>,
                        progress: Option<Progress>
                    ) -> Result<Written<T>, StoreError>;
                    fn force_finish(
                        id: &OperationId, expected: Stamp, outcome: Outcome<T>
                    ) -> Result<Written<T>, StoreError>;
                    fn delete(
                        id: &OperationId, expected: Stamp
                    ) -> Result<Written<T>, StoreError>;
                }
            }

            impl<T: Stored> Lease for $store<T> {
                $crate::engine_store! { @forward
                    fn renew(
                        lease: &LeaseConfig, held: &[LeaseHandle]
                    ) -> Result<Vec<LeaseHandle>, StoreError>;
                    fn reclaim(
                        lease: &LeaseConfig, limit: usize
                    ) -> Result<Vec<Reclaimed<T>>, StoreError>;
                    fn reclaim_released(
                        lease: &LeaseConfig, limit: usize
                    ) -> Result<Vec<Reclaimed<T>>, StoreError>;
                    fn claim(
                        lease: &LeaseConfig, held: &LeaseHandle
                    ) -> Result<Written<T>, StoreError>;
                    fn release(held: &[LeaseHandle]) -> Result<(), StoreError>;
                    fn released() -> ();
                    fn purge_expired(limit: usize) -> Result<Option<usize>, StoreError>;
                    fn revoked(
                        node: &NodeId, at_most: Duration
                    ) -> Result<Vec<OperationId>, StoreError>;
                }
            }

            impl<T: Stored> IdempotencyKeys for $store<T>
            where
                $crate::engine::EngineStore<$engine, T>: IdempotencyKeys<Output = T>,
            {
                $crate::engine_store! { @forward
                    fn reserve(
                        key: &IdempotencyKey, token: FencingToken, term: Duration
                    ) -> Result<Reservation<T>, StoreError>;
                    fn complete(
                        key: &IdempotencyKey, token: FencingToken, answer: T
                    ) -> Result<bool, StoreError>;
                    fn release_reservation(
                        key: &IdempotencyKey, token: FencingToken
                    ) -> Result<bool, StoreError>;
                }
            }

            impl<T: Stored> List for $store<T>
            where
                $crate::engine::EngineStore<$engine, T>: List<Output = T>,
            {
                $crate::engine_store! { @forward
                    fn list(query: &ListQuery) -> Result<Page<T>, StoreError>;
                }
            }

            impl<T: Stored> Purge for $store<T> {
                $crate::engine_store! { @forward
                    fn purge(limit: usize) -> Result<usize, StoreError>;
                }
            }
        };
    };

    (@forward $(fn $method:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {
        $(
            fn $method(
                &self,
                $($argument: $type),*
            ) -> impl ::std::future::Future<Output = $output> + Send {
                self.0.$method($($argument),*)
            }
        )*
    };
}
