use std::{future::Future, sync::Arc};

use super::{FencingToken, NewOperation, Record, Reservation, Store, StoreError, Version};
use crate::operation::{OperationId, Outcome, Progress};

/// Writing operations, each change conditional.
///
/// # Semantics
/// * Law 1, [`create`](Self::create): atomic, and durable when it returns.
///   Asked again with the same id or the same key it gives the operation that
///   is there ([`Created::Existing`]), with its result or without, to the same owner. An id of another owner is
///   [`Created::IdTaken`]; a key of another owner is another key. With a key, an
///   operation of that id which the key did not make is another request's:
///   [`Created::KeyHeld`]. Any read that begins after it returned sees the operation.
/// * Law 2: [`start`](Self::start), [`report`](Self::report) and
///   [`finish`](Self::finish) happen only while the operation is not terminal
///   and `token` is its latest. [`overrule`](Self::force_finish) and
///   [`forget`](Self::delete) happen only at the version that is named. Of
///   racing writers one wins, the others are told [`Written::Lost`]. A write that
///   the same holder repeats is [`Written::Done`] again and changes nothing; an
///   outcome of another kind, or with another problem, is no repetition.
/// * Law 3: what is terminal is never changed, only forgotten.
/// * Law 4: every change raises the version by one. A version that any reader
///   has seen never comes back with other content.
/// * [`create`](Self::create), [`finish`](Self::finish) and
///   [`overrule`](Self::force_finish) are durable when they return.
/// * An `Err` that is transient leaves it open whether the write happened: the
///   caller repeats it.
///
/// [`Record`] has these changes as pure functions.
pub trait Repository: Store {
    /// Whether no call ever waits, but those that are to wait for something: each has
    /// answered when it was polled once, as in memory. Such a store is asked in place,
    /// which saves a task, a timer and a future on the heap. It must not block: the
    /// connection is waiting.
    ///
    /// A call that waits all the same is dropped, and made again where it can wait.
    fn never_waits(&self) -> bool {
        false
    }

    /// Creates an operation, pending or [running](NewOperation::is_running) already,
    /// held by `new.lease` if there is one.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::FullForOwner`] if there is no room (then there
    /// is no operation),
    /// [`StoreError::Unavailable`] if it is not known whether there is one.
    fn create(
        &self,
        new: NewOperation,
    ) -> impl Future<Output = Result<Created<Self::Output>, StoreError>> + Send;

    /// `pending` → `running`; counts an attempt. Of a holder that has started it, also
    /// by [creating it as running](NewOperation::is_running), it is `Done`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether it happened.
    fn start(
        &self,
        id: &OperationId,
        token: FencingToken,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;

    /// Keeps how far it has come.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether it happened.
    fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;

    /// Records the outcome, with progress that was not reported before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether it happened,
    /// [`StoreError::Refused`] if the store cannot keep this outcome.
    fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<Self::Output>,
        progress: Option<Progress>,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;

    /// Ends the operation from outside, as a cancel does, if it is still at
    /// `version`; its holder can write no more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether it happened.
    fn force_finish(
        &self,
        id: &OperationId,
        version: Version,
        outcome: Outcome<Self::Output>,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;

    /// Removes a terminal operation that is still at `version`. The key that made it
    /// finds it [`Forgotten`](Reservation::Deleted) from now on, until it would have
    /// expired.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known whether it happened.
    fn delete(
        &self,
        id: &OperationId,
        version: Version,
    ) -> impl Future<Output = Result<Written<Self::Output>, StoreError>> + Send;
}

/// What became of [`Repository::create`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Created<T> {
    /// It is new. The record's token is the creator's.
    New(Arc<Record<T>>),
    /// The same owner has created it before. The record may lack its result, as a store
    /// leaves out what a repetition is not answered with; [`Store::get`] reads it.
    Existing(Arc<Record<T>>),
    /// Another owner has an operation with this id.
    IdTaken,
    /// The key stands for something else than an operation that is there: another
    /// request, an early answer, a request that is still being answered, or an
    /// operation that was forgotten.
    KeyHeld(Reservation<T>),
}

/// What became of a conditional write.
#[derive(Debug)]
pub enum Written<T> {
    /// It happened, now or when the same was asked before. This is the record
    /// after it; after a [`Repository::delete`], the one that was removed.
    Done(Arc<Record<T>>),
    /// The condition did not hold. This is the record as it is.
    Lost(Arc<Record<T>>),
    /// There is no such operation.
    Gone,
}
