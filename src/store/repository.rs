use std::future::Future;

use super::{FencingToken, NewOperation, Placed, Record, Reservation, Stamp, Store, StoreError};
use crate::operation::{OperationId, Outcome, Progress};

/// Writes operations, each change conditional.
///
/// # Semantics
/// * Law 1: [`create`](Self::create) is atomic, and durable when it returns. A create with
///   the same id or the same key again returns the existing operation to the same owner
///   ([`Created::Existing`]), with or without its result. An id of another owner is
///   [`Created::IdTaken`]. A key of another owner is a different key. With a key, an
///   operation of that id which the key did not make belongs to another request:
///   [`Created::KeyHeld`]. Any read that begins after the create returned sees the
///   operation.
/// * Law 2: [`start`](Self::start), [`report`](Self::report) and [`finish`](Self::finish)
///   happen only while the operation is not terminal and `token` is its latest.
///   [`force_finish`](Self::force_finish) and [`delete`](Self::delete) happen only at the
///   named stamp. Of racing writers one wins, the others get [`Written::Lost`]. A write
///   that the same holder repeats is [`Written::Done`] again and changes nothing. An
///   outcome of another kind, or with another problem, is not a repetition.
/// * Law 3: a terminal operation is never changed, only deleted.
/// * Law 4: every change raises the version by one. A version that any reader has seen
///   never comes back with other content.
/// * [`create`](Self::create), [`finish`](Self::finish) and
///   [`force_finish`](Self::force_finish) are durable when they return.
/// * A transient `Err` leaves open whether the write happened. The caller repeats the
///   write.
///
/// [`Record`] implements these changes as pure functions.
pub trait Repository: Store {
    /// Creates the operation as [`create`](Self::create) does, at once, in a store that never
    /// has to wait. The layer then needs no task and no future for it. Returns the place of a
    /// new operation. `None` says nothing: call `create`.
    ///
    /// The store must not block, because the connection waits for it.
    fn create_now(&self, new: &NewOperation) -> Option<Placed> {
        let _ = new;
        None
    }

    /// Records the outcome as [`finish`](Self::finish) does, at once. `placed` is the place that
    /// [`create_now`](Self::create_now) returned. Returns whether this call recorded the outcome.
    /// `false` says nothing: call `finish`.
    ///
    /// A store that overrides this method overrides [`get_now`](Store::get_now) too, from which
    /// the end of the operation is logged.
    fn finish_now(
        &self,
        placed: Placed,
        id: &OperationId,
        token: FencingToken,
        outcome: &Outcome<Self::Output>,
    ) -> bool {
        let _ = (placed, id, token, outcome);
        false
    }

    /// Creates an operation, pending or already [running](NewOperation::is_running), held
    /// by `new.lease` if there is one.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::FullForOwner`] if there is no room (then the
    /// operation does not exist), [`StoreError::Unavailable`] if it is not known whether
    /// the operation exists.
    fn create(
        &self,
        new: NewOperation,
    ) -> impl Future<Output = Result<Created<Self::Output>, StoreError>> + Send;

    /// Moves the operation from `pending` to `running`, and counts an attempt. Returns `Done` to
    /// a holder that has started the operation before, also by [creating it as
    /// running](NewOperation::is_running).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether the write happened.
    fn start(
        &self,
        id: &OperationId,
        token: FencingToken,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;

    /// Stores the progress of the operation.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether the write happened.
    fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;

    /// Records the outcome, with progress that was not reported before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether the write happened,
    /// [`StoreError::TooLarge`] if the outcome is above a limit of the store, and
    /// [`StoreError::Refused`] if the store cannot store this outcome for another reason.
    fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<Self::Output>,
        progress: Option<Progress>,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;

    /// Ends the operation from outside, as a cancellation does, if its
    /// [stamp](Record::stamp) is still `expected`. The holder can no longer write after that.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether the write happened.
    fn force_finish(
        &self,
        id: &OperationId,
        expected: Stamp,
        outcome: Outcome<Self::Output>,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;

    /// Deletes a terminal operation whose [stamp](Record::stamp) is still `expected`. The key
    /// that created the operation returns [`Deleted`](Reservation::Deleted) from now on, until the operation
    /// would have expired.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether the write happened.
    fn delete(
        &self,
        id: &OperationId,
        expected: Stamp,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;
}

/// The result of [`Repository::create`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Created<T> {
    /// The operation is new. The record's token is the creator's.
    New(Record<T>),
    /// The same owner has created the operation before. The record may lack its result,
    /// which the answer to a repeated request does not need; [`Store::get`] reads it.
    Existing(Record<T>),
    /// Another owner has an operation with this id.
    IdTaken,
    /// The key does not stand for an existing operation. It stands for another request, an
    /// early answer, a request that is still being answered, or a deleted operation.
    KeyHeld(Reservation<T>),
}

/// The result of a conditional write. A record may lack its result, or the body of it,
/// which [`Store::get`] reads.
#[derive(Debug)]
pub enum Written<T> {
    /// The write happened, now or in an earlier identical call. This is the record after
    /// the write; after a [`Repository::delete`], it is the deleted record.
    Done(Record<T>),
    /// The condition did not hold. This is the current record.
    Lost(Record<T>),
    /// The operation does not exist.
    Gone,
}
