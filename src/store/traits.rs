use std::{future::Future, pin::Pin, time::Duration};

use super::{
    FencingToken, Health, IdempotencyKey, LeaseConfig, LeaseHandle, ListQuery, NodeId, Page,
    Reader, Reclaimed, Record, Repository, Reservation, StoreError, Version, Written,
};
use crate::operation::{OperationId, Payload};

/// Reads operations.
///
/// # Semantics
/// * A read sees every write that returned before the read began, on any node (law 1).
/// * An expired operation is absent (law 8).
/// * A result comes back as it was recorded, or without its body if the body is longer than the
///   reader [asked for](Reader::max_body). A reader that acts for another owner never gets the
///   result (law 7).
pub trait Store: Send + Sync + 'static {
    /// The result of an operation: [`RecordedResponse`](crate::RecordedResponse) for the layer,
    /// otherwise any type.
    type Output: Payload;

    /// Returns the current operation, with its whole result, or `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn get(&self, id: &OperationId) -> impl Future<Output = Found<Self::Output>> + Send;

    /// Returns the operation without waiting, from a store that never has to wait. A poll
    /// then allocates no future. `None` means: call [`get`](Self::get).
    fn get_now(&self, id: &OperationId) -> Option<Found<Self::Output>> {
        let _ = id;
        None
    }

    /// Returns the operation for a reader, with the part of it that the [`Reader`] may read and
    /// asked for.
    ///
    /// A store overrides this method so that it does not read a result only to drop it.
    /// Another owner's operation then costs a reader no more than an unknown id, and a long
    /// result no more than a short one.
    ///
    /// # Errors
    /// The same as [`get`](Self::get).
    fn get_for(
        &self,
        id: &OperationId,
        reader: Reader<'_>,
    ) -> impl Future<Output = Found<Self::Output>> + Send {
        async move { Ok(readable(self.get(id).await?, reader)) }
    }

    /// Returns the operation as [`get_for`](Self::get_for) does, without waiting; see
    /// [`get_now`](Self::get_now).
    fn get_now_for(&self, id: &OperationId, reader: Reader<'_>) -> Option<Found<Self::Output>> {
        let found = self.get_now(id)?;
        Some(found.map(|record| readable(record, reader)))
    }

    /// Reports whether the store is as durable as it promises, judged by the settings of
    /// its server or by the file that it writes to. The default reports no problem.
    ///
    /// [`Recovery`](crate::Recovery) checks once per lease term, and warns of new problems.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn health(&self) -> impl Future<Output = Result<Health, StoreError>> + Send {
        std::future::ready(Ok(Health::default()))
    }
}

/// Returns the record for a reader.
fn readable<T>(record: Option<Record<T>>, reader: Reader<'_>) -> Option<Record<T>> {
    let record = record?;
    Some(match record.owner() == reader.owner {
        true => record,
        false => record.without_result(),
    })
}

/// A boxed future.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The answer to a read.
pub(crate) type Found<T> = Result<Option<Record<T>>, StoreError>;

/// Waits for changes.
///
/// # Semantics
/// Law 5: no change after `since` is missed, on whichever node it is made, and the call
/// returns within `at_most`. Implementations subscribe before they check. The versions
/// between `since` and the returned record are in that record's [history](Record::history).
pub trait Watch: Store {
    /// Returns the operation as soon as its version is not `since`, or the current
    /// operation after `at_most`. Returns `None` if the operation does not exist, or as
    /// soon as it is deleted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn changed(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
    ) -> impl Future<Output = Found<Self::Output>> + Send;

    /// Waits as [`changed`](Self::changed) does, for a reader. Returns the operation as
    /// [`get_for`](Store::get_for) does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn changed_for(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
        reader: Reader<'_>,
    ) -> impl Future<Output = Found<Self::Output>> + Send {
        async move { Ok(readable(self.changed(id, since, at_most).await?, reader)) }
    }
}

/// Tracks which node runs an operation, and finds operations that no node runs any more.
///
/// # Semantics
/// Law 6: a lease that was not renewed within its term, or was released, may be reclaimed
/// by one node, with a higher fencing token, durably. From then on the writes of the
/// earlier holder are refused. Renewal may be asynchronous.
pub trait Lease: Repository {
    /// Renews the leases on all of `held`, in one statement. Returns the leases that the node no
    /// longer holds because the operation was reclaimed, ended from outside, or is missing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn renew(
        &self,
        lease: &LeaseConfig,
        held: &[LeaseHandle],
    ) -> impl Future<Output = Result<Vec<LeaseHandle>, StoreError>> + Send;

    /// Reclaims at most `limit` operations with an expired lease. Each comes with the
    /// request that it was created with, so that it can be rerun.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn reclaim(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Reclaimed<Self::Output>>, StoreError>> + Send;

    /// Reclaims at most `limit` operations that certainly have no holder: their lease was
    /// [released](Self::release), or their holder is known to have died and not merely silent.
    /// [`reclaim`](Self::reclaim) includes these operations. This method may be called before it
    /// is known whether silent holders had a chance to renew.
    ///
    /// The default returns none: a store that cannot distinguish released from expired
    /// leases leaves both to `reclaim`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn reclaim_released(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Reclaimed<Self::Output>>, StoreError>> + Send {
        let _ = (lease, limit);
        std::future::ready(Ok(Vec::new()))
    }

    /// Acquires an operation from the holder with `held.token`, with a higher token, whether or
    /// not its lease has expired. This serves work that is dispatched elsewhere. Exactly one of
    /// all claims with the same token succeeds. The lease lasts `lease.term` from now on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether the claim happened.
    fn claim(
        &self,
        lease: &LeaseConfig,
        held: &LeaseHandle,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;

    /// Releases the leases on `held`: they count as expired at once. An operation that is
    /// not held by its token in `held` is left alone.
    ///
    /// A renewal with the same token that arrives after the release restores no lease:
    /// [`renew`](Self::renew) reports the lease as lost. A store that cannot distinguish
    /// released from expired leases is exempt from this.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn release(&self, held: &[LeaseHandle]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Completes once a lease is [released](Self::release) on any node after this call,
    /// even if the future was not polled before.
    ///
    /// This is a wake-up: it may be missed, and it may come without a release.
    ///
    /// By default the future never completes. Released leases are then found by periodic
    /// checks.
    fn released(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Deletes at most `limit` expired operations and returns how many it deleted, for the
    /// recovery of a store that keeps expired operations until they are deleted. Several
    /// nodes may call this at once.
    ///
    /// The default is `None`: no further call is needed. Expired operations leave the store
    /// by themselves, or the application calls [`Purge::purge`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn purge_expired(
        &self,
        limit: usize,
    ) -> impl Future<Output = Result<Option<usize>, StoreError>> + Send {
        let _ = limit;
        std::future::ready(Ok(None))
    }

    /// Returns the ids of operations that `node` holds and that were ended from outside, as
    /// soon as there are any, or none after `at_most`.
    ///
    /// This is a wake-up: it may name operations that the node no longer holds, and may
    /// miss some. [`renew`](Self::renew) is authoritative.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn revoked(
        &self,
        node: &NodeId,
        at_most: Duration,
    ) -> impl Future<Output = Result<Vec<OperationId>, StoreError>> + Send;
}

/// Reserves the key of a request before its operation exists, so that a repeated request
/// does not run twice.
///
/// # Semantics
/// Law 1: of any number of reservations of a free key at the same moment, on any nodes, one
/// is [`Reservation::Reserved`]. A reservation that is neither completed nor released
/// expires after its term. A key given to [`Repository::create`] is bound to the created
/// operation. A key is identified by its owner and its name: nothing that happens to it is
/// visible through a key of another owner.
pub trait IdempotencyKeys: Repository {
    /// Reserves `key` for `term`, under a token chosen by the caller
    /// ([`FencingToken::random`]). The same call again returns [`Reservation::Reserved`]
    /// again, for `term` from now on. Callers can therefore retry after an error, and renew
    /// a reservation.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached, [`StoreError::Full`] or
    /// [`StoreError::FullForOwner`] if it has no room.
    fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
    ) -> impl Future<Output = Result<Reservation<Self::Output>, StoreError>> + Send;

    /// Stores an early answer under a reserved key, for repeated requests. Returns true
    /// also if the answer was stored before, and false if the reservation has expired.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: Self::Output,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Frees a reserved key. Returns false if the reservation has expired.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn release_reservation(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// Lists operations.
///
/// # Semantics
/// A list has the operations of one owner only, newest first. A cursor continues where its
/// page ended, whatever was created since. Expired operations are absent (law 8). A page
/// may have fewer operations than requested and be followed by others, but has at least
/// one.
///
/// A cursor belongs to its list, identified by owner and states, on every node of the
/// store. A cursor of another list, or a forged one, is refused. A cursor reveals nothing
/// to its reader, such as how many operations others create.
pub trait List: Store {
    /// Returns a page of operations.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the cursor does not belong to this list,
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn list(
        &self,
        query: &ListQuery,
    ) -> impl Future<Output = Result<Page<Self::Output>, StoreError>> + Send;
}

/// Deletes expired operations.
///
/// # Semantics
/// Law 8: only expired operations are deleted, at most `limit` per call. Operations that
/// are not terminal never expire.
pub trait Purge: Store {
    /// Deletes at most `limit` expired operations and returns how many it deleted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached.
    fn purge(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;
}
