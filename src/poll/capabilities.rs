//! The capabilities of the store behind a `PollService`, beyond reading.
//!
//! A capability is captured as a function of the store where the application asks for it. So the
//! service needs no type parameter for the capability, and the compiler names the trait that a
//! store lacks.

use std::time::Duration;

use crate::{
    operation::{OperationId, Outcome},
    store::{
        BoxFuture, List, ListQuery, Page, Reader, Repository, Stamp, Store, StoreError, Version,
        Watch, Written,
    },
};

type WriteResult<T> = Result<Written<T>, StoreError>;

type ChangedFn<S> = for<'a> fn(
    &'a S,
    &'a OperationId,
    Version,
    Duration,
    Reader<'a>,
) -> BoxFuture<'a, crate::store::Found<<S as Store>::Output>>;
type CancelFn<S> = for<'a> fn(
    &'a S,
    &'a OperationId,
    Stamp,
    Option<&str>,
) -> BoxFuture<'a, WriteResult<<S as Store>::Output>>;
type ChangeAtFn<S> =
    for<'a> fn(&'a S, &'a OperationId, Stamp) -> BoxFuture<'a, WriteResult<<S as Store>::Output>>;

pub(super) struct Capabilities<S: Store> {
    /// The function [`Watch::changed_for`].
    pub(super) changed: Option<ChangedFn<S>>,
    pub(super) ends: Option<EndCapability<S>>,
    /// The function [`List::list`].
    pub(super) list: Option<ListFn<S>>,
}

type ListFn<S> =
    for<'a> fn(&'a S, &'a ListQuery) -> BoxFuture<'a, ListResult<<S as Store>::Output>>;
type ListResult<T> = Result<Page<T>, StoreError>;

pub(super) struct EndCapability<S: Store> {
    /// The function [`Repository::force_finish`] with [`Outcome::Canceled`], or with the given
    /// reason.
    pub(super) cancel: CancelFn<S>,
    /// The function [`Repository::delete`].
    pub(super) delete: ChangeAtFn<S>,
}

impl<S: Store> Capabilities<S> {
    pub(super) const NONE: Self = Self {
        changed: None,
        ends: None,
        list: None,
    };

    pub(super) fn listing(self) -> Self
    where
        S: List,
    {
        Self {
            list: Some(|store, query| Box::pin(store.list(query))),
            ..self
        }
    }

    pub(super) fn all() -> Self
    where
        S: Repository + Watch,
    {
        Self {
            list: None,
            changed: Some(|store, id, since, at_most, reader| {
                Box::pin(store.changed_for(id, since, at_most, reader))
            }),
            ends: Some(EndCapability {
                cancel: |store, id, expected, reason| {
                    let outcome = match reason {
                        Some(reason) => Outcome::CanceledFor(reason.into()),
                        None => Outcome::Canceled,
                    };
                    Box::pin(store.force_finish(id, expected, outcome))
                },
                delete: |store, id, expected| Box::pin(store.delete(id, expected)),
            }),
        }
    }
}

impl<S: Store> Clone for Capabilities<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Store> Copy for Capabilities<S> {}

impl<S: Store> Clone for EndCapability<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Store> Copy for EndCapability<S> {}
