use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use super::{
    FencingToken, Health, IdempotencyKey, LeaseConfig, LeaseHandle, ListQuery, NodeId, Owner, Page,
    Reclaimed, Record, Repository, Reservation, StoreError, Version, Written,
};
use crate::operation::{OperationId, Payload};

/// Reading operations.
///
/// # Semantics
/// * A read sees every write that returned before it began, on any node (law
///   1).
/// * What has expired is absent (law 8).
/// * A result comes back as it was recorded, and to another owner's reader not at all
///   (law 7).
pub trait Store: Send + Sync + 'static {
    /// The result of an operation: [`RecordedResponse`](crate::RecordedResponse)
    /// for the layer, any type of yours otherwise.
    type Output: Payload;

    /// The operation as it is now; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn get(&self, id: &OperationId) -> impl Future<Output = Found<Self::Output>> + Send;

    /// The same without waiting, from a store that never has to: a poll then
    /// allocates no future. `None` means: ask [`get`](Self::get).
    fn get_now(&self, id: &OperationId) -> Option<Found<Self::Output>> {
        let _ = id;
        None
    }

    /// The operation for a reader that acts for `owner`. Another owner's comes without
    /// its result, as if it had ended without one.
    ///
    /// A store overrides it so that nothing of that result is read: somebody else's
    /// operation then costs a reader no more than an unknown id.
    ///
    /// # Errors
    /// Those of [`get`](Self::get).
    fn get_for(
        &self,
        id: &OperationId,
        owner: Option<&Owner>,
    ) -> impl Future<Output = Found<Self::Output>> + Send {
        async move { Ok(readable(self.get(id).await?, owner)) }
    }

    /// [`get_for`](Self::get_for) without waiting, as [`get_now`](Self::get_now).
    fn get_now_for(&self, id: &OperationId, owner: Option<&Owner>) -> Option<Found<Self::Output>> {
        let found = self.get_now(id)?;
        Some(found.map(|record| readable(record, owner)))
    }

    /// Whether the store is as durable as it promises: settings of its server, the file
    /// that it writes to. By default nothing is known against it.
    ///
    /// [`Recovery`](crate::Recovery) asks once a term, and warns of what is new.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn health(&self) -> impl Future<Output = Result<Health, StoreError>> + Send {
        std::future::ready(Ok(Health::default()))
    }
}

/// The record as a reader gets it that acts for `owner`.
fn readable<T>(record: Option<Arc<Record<T>>>, owner: Option<&Owner>) -> Option<Arc<Record<T>>> {
    let record = record?;
    Some(match record.owner() == owner {
        true => record,
        false => Arc::new(record.without_result()),
    })
}

/// A future whose type is out of sight.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a read answers.
pub(crate) type Found<T> = Result<Option<Arc<Record<T>>>, StoreError>;

/// Waiting for a change.
///
/// # Semantics
/// Law 5: no change after `since` is missed, on whichever node it is made, and
/// the call returns within `at_most`. Implementations subscribe before they
/// check. What came between the version that was named and the record that is
/// returned is in that record's [history](Record::history).
pub trait Watch: Store {
    /// Returns the operation as soon as its version is not `since`, or as it is
    /// after `at_most`; `None` if there is none, or as soon as it is forgotten.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn changed(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
    ) -> impl Future<Output = Found<Self::Output>> + Send;

    /// The same for a reader that acts for `owner`: what it returns is as
    /// [`get_for`](Store::get_for) gives it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn changed_for(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
        owner: Option<&Owner>,
    ) -> impl Future<Output = Found<Self::Output>> + Send {
        async move { Ok(readable(self.changed(id, since, at_most).await?, owner)) }
    }
}

/// Saying who runs what, and finding what nobody runs any more.
///
/// # Semantics
/// Law 6: a lease that was not renewed within its term, or was released, may be
/// taken over, by one node, with a higher fencing token, durably; from then on the
/// earlier holder's writes are refused. Renewal may be asynchronous.
pub trait Lease: Repository {
    /// Extends the leases on all of `held`, in one statement. Answers those
    /// that the node holds no more: taken over, ended from outside, gone.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn renew(
        &self,
        lease: &LeaseConfig,
        held: &[LeaseHandle],
    ) -> impl Future<Output = Result<Vec<LeaseHandle>, StoreError>> + Send;

    /// Takes over at most `limit` operations whose lease has expired. What they
    /// were created with, for running them again, comes along.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn reclaim(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Reclaimed<Self::Output>>, StoreError>> + Send;

    /// Takes over at most `limit` operations that certainly nobody holds: their lease was
    /// [released](Self::release), or their holder is known to be gone, and not merely
    /// silent. [`take_over`](Self::reclaim) takes these as well; this may be asked
    /// before it is known whether silent holders had a chance to renew.
    ///
    /// By default there are none: a store that cannot tell what was released from what
    /// has lapsed has both taken over by `reclaim`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn reclaim_released(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Reclaimed<Self::Output>>, StoreError>> + Send {
        let _ = (lease, limit);
        std::future::ready(Ok(Vec::new()))
    }

    /// Takes an operation over from whoever holds it by `held.token`, with a higher
    /// token, whether its lease is over or not: for work that is handed on. Of all
    /// who claim by one token one succeeds. The lease is for `lease.term` from now on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether it happened.
    fn claim(
        &self,
        lease: &LeaseConfig,
        held: &LeaseHandle,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;

    /// Gives up the leases on `held`: they count as expired at once. What is
    /// not held by these tokens is left alone.
    ///
    /// A renewal by the same token that comes later, since it was on its way, brings none
    /// of them back: to [`renew`](Self::renew) they are lost. A store that cannot tell what
    /// was released from what has lapsed need not know.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn release(&self, held: &[LeaseHandle]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ready once leases were [released](Self::release) on any node after this call, polled
    /// or not.
    ///
    /// This is a wake-up, which may be missed, and may come without a release.
    ///
    /// By default it is never ready: what was released is found by those who look now and
    /// then.
    fn released(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Removes at most `limit` expired operations, for the recovery of a store in which
    /// they stay until that is done, and says how many it removed. Any number of nodes may
    /// do so at once.
    ///
    /// By default it is `None`: nobody need come again. What expires leaves the store by
    /// itself, or the application calls [`Purge::purge`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn purge_expired(
        &self,
        limit: usize,
    ) -> impl Future<Output = Result<Option<usize>, StoreError>> + Send {
        let _ = limit;
        std::future::ready(Ok(None))
    }

    /// Returns as soon as operations that `node` holds were ended from outside,
    /// with their ids, or with none after `at_most`.
    ///
    /// This is a wake-up: it may name operations that the node holds no more,
    /// and may miss some; [`renew`](Self::renew) has the truth.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn revoked(
        &self,
        node: &NodeId,
        at_most: Duration,
    ) -> impl Future<Output = Result<Vec<OperationId>, StoreError>> + Send;
}

/// Reserving the key of a request before there is an operation, so that a
/// repetition runs nothing twice.
///
/// # Semantics
/// Law 1: of any number of reservations of a free key at the same moment, on
/// any nodes, one is [`Reservation::Reserved`]. A reservation that is neither
/// settled nor released lapses after its term. A key given to
/// [`Repository::create`] is bound to the operation it made. A key is one by its owner
/// and its name: nothing that happens to it is seen through another owner's.
pub trait IdempotencyKeys: Repository {
    /// Reserves `key` for `term`, under a token of the caller's
    /// ([`FencingToken::random`]). The same again is
    /// [`Reservation::Reserved`] again, for `term` from now on: so an error can
    /// be tried away, and a reservation renewed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked,
    /// [`StoreError::Full`] or [`StoreError::FullForOwner`] if it has no room.
    fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
    ) -> impl Future<Output = Result<Reservation<Self::Output>, StoreError>> + Send;

    /// Keeps an early answer under a reserved key, for repetitions; true also
    /// when it was kept before. False if the reservation has lapsed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: Self::Output,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Frees a reserved key. False if the reservation has lapsed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn release_reservation(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// Enumerating operations.
///
/// # Semantics
/// Newest first, of one owner only; a cursor continues where its page ended,
/// whatever was created since. What has expired is absent (law 8). A page may have fewer
/// operations than asked for and be followed by others, but has one at least.
///
/// A cursor belongs to its list, by owner and states, on every node of the store. A cursor
/// of another list, or one that was made up, is refused. It reveals nothing to its reader,
/// such as how many operations others create.
pub trait List: Store {
    /// A page of operations.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the cursor is none of this list's,
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn list(
        &self,
        query: &ListQuery,
    ) -> impl Future<Output = Result<Page<Self::Output>, StoreError>> + Send;
}

/// Removing what has expired.
///
/// # Semantics
/// Law 8: only what has expired is removed, at most `limit` a call, and what is
/// not terminal never expires.
pub trait Purge: Store {
    /// Removes at most `limit` expired operations and says how many it removed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be asked.
    fn purge(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;
}
