//! Creates, changes and deletes operations: steps of a record, each made by comparing and
//! setting its cell.

use super::{
    CellReader, Engine, EngineStore, Inserted, LeaseChange, NewCell, NextCell, Notice, Replaced,
    record_head, run_to_completion::run_to_completion,
};
use crate::{
    body_digest,
    operation::{OperationId, Outcome, Progress, Stored},
    store::{
        Created, FencingToken, IdempotencyKey, NewOperation, NodeId, Record, Repository,
        Reservation, Stamp, Step, StoreError, Written,
    },
};

impl<E: Engine, T: Stored> EngineStore<E, T> {
    /// Makes one conditional change: takes `step` from the known record and writes the result.
    /// After a concurrent change, repeats the step from the current record.
    pub(super) async fn change(
        &self,
        id: &OperationId,
        lease: LeaseChange,
        step: impl Fn(&Record<T>) -> Step<T> + Send,
    ) -> Result<Written<T>, StoreError> {
        // The record known to this node may be outdated, and serves only as a first try.
        if let Some(known) = self.shared.live.get(id)
            && let Step::Next(next) = step(&known)
        {
            match self.replace(known, next, lease).await? {
                WriteAttempt::Done(record) => return Ok(Written::Done(record)),
                WriteAttempt::Gone => return Ok(Written::Gone),
                WriteAttempt::Found(current) => {
                    return self.change_from(current, lease, step).await;
                }
            }
        }
        match self.read(id, changer::<T>()).await? {
            Some(current) => self.change_from(current, lease, step).await,
            None => Ok(self.gone(id)),
        }
    }

    /// Makes one conditional change like [`change`](Self::change), from a record that was just
    /// read.
    pub(super) async fn change_from(
        &self,
        mut current: Record<T>,
        lease: LeaseChange,
        step: impl Fn(&Record<T>) -> Step<T> + Send,
    ) -> Result<Written<T>, StoreError> {
        loop {
            if self.is_expired(&current) {
                return Ok(self.gone(current.operation().id()));
            }
            let next = match step(&current) {
                Step::Done => {
                    self.shared.live.wrote(&current);
                    return Ok(Written::Done(current));
                }
                Step::Lost => {
                    self.shared.live.found(&current);
                    return Ok(Written::Lost(current));
                }
                Step::Next(next) => next,
            };
            let expected = stamp(&current)?;
            current = match self.replace(current, next, lease).await? {
                WriteAttempt::Done(record) => return Ok(Written::Done(record)),
                WriteAttempt::Gone => return Ok(Written::Gone),
                // A concurrent renewal of the lease does not change the record.
                WriteAttempt::Found(found)
                    if matches!(lease, LeaseChange::Reclaim(_)) && stamp(&found)? == expected =>
                {
                    return Ok(Written::Lost(found));
                }
                WriteAttempt::Found(found) => found,
            };
        }
    }

    async fn replace(
        &self,
        before: Record<T>,
        next: Record<T>,
        lease: LeaseChange,
    ) -> Result<WriteAttempt<T>, StoreError> {
        let this = self.clone();
        run_to_completion(async move { this.replace_and_tell(&before, next, lease).await }).await
    }

    async fn replace_and_tell(
        &self,
        before: &Record<T>,
        next: Record<T>,
        lease: LeaseChange,
    ) -> Result<WriteAttempt<T>, StoreError> {
        let operation = next.operation();
        let id = operation.id();
        let lost_it = before.token() != next.token();
        let loser = before.node().filter(|_| lost_it);
        // The digest of a long body is computed before, where it holds up no other work.
        if let Some(recorded) = record_head::recorded(&next)
            && recorded.stores_digest()
        {
            body_digest::digest(recorded).await;
        }
        let (head, result) = (record_head::encode(&next)?, record_head::result(&next)?);
        let cell = NextCell {
            stamp: stamp(&next)?,
            state: operation.state(),
            head: &head,
            result: result.as_deref(),
            expires_at: operation.metadata().expires_at(),
            lease,
        };
        let replaced = self.shared.engine.replace(id, stamp(before)?, cell).await;
        // An error may hide a successful write, and no other code would send the notice later.
        if matches!(replaced, Ok(Replaced::Done) | Err(_)) {
            self.notify(id, loser);
        }
        Ok(match replaced? {
            Replaced::Done => {
                self.shared.live.wrote(&next);
                WriteAttempt::Done(next)
            }
            Replaced::Found(head) => WriteAttempt::Found(record_head::decode_head(head)?),
            Replaced::Gone => {
                self.gone(id);
                WriteAttempt::Gone
            }
        })
    }

    async fn remove_and_tell(
        &self,
        record: &Record<T>,
        remains: &[u8],
    ) -> Result<Replaced, StoreError> {
        let operation = record.operation();
        let (id, until) = (operation.id(), operation.metadata().expires_at());
        let delete = (self.shared.engine).delete(id, stamp(record)?, remains, until);
        let deleted = delete.await;
        if matches!(deleted, Ok(Replaced::Done) | Err(_)) {
            self.notify(id, None);
        }
        deleted
    }

    /// Notifies waiters of a change, and the node that lost the operation by it.
    fn notify(&self, id: &OperationId, recalled: Option<&NodeId>) {
        let notice = Notice::Changed {
            id: id.clone(),
            revoked_from: recalled.cloned(),
        };
        self.shared.notifier.notify(&notice);
        self.shared.engine.publish(notice);
    }

    fn gone(&self, id: &OperationId) -> Written<T> {
        self.shared.live.gone(id);
        Written::Gone
    }
}

/// Returns the reader of a record that is changed. A result without a head is read, since it would
/// be missing in the record that the change returns.
fn changer<T: Stored>() -> CellReader<'static> {
    match T::FROM_RECORDED {
        Some(_) => CellReader::Head,
        None => CellReader::Store,
    }
}

/// The result of one write attempt.
enum WriteAttempt<T> {
    Done(Record<T>),
    Found(Record<T>),
    Gone,
}

fn stamp<T>(record: &Record<T>) -> Result<Stamp, StoreError> {
    let stamp = record.stamp();
    stamp.ok_or_else(|| StoreError::refused("a record without a version"))
}

impl<E: Engine, T: Stored> Repository for EngineStore<E, T> {
    async fn create(&self, new: NewOperation) -> Result<Created<T>, StoreError> {
        let now = self.now();
        let record = Record::create(&new, now);
        let head = record_head::encode(&record)?;
        let cell = NewCell {
            id: &new.id,
            stamp: stamp(&record)?,
            state: record.operation().state(),
            owner: new.owner.as_ref(),
            head: &head,
            lease: new.lease.as_ref().map(|lease| lease.term),
            request: new.request().map(|bytes| &bytes[..]),
            key: new.key(),
            reservation: new.reservation(),
            now,
        };
        Ok(match self.shared.engine.insert(cell).await? {
            Inserted::Done => {
                if new.lease.is_some() {
                    self.shared.live.wrote(&record);
                }
                // Other nodes need no notice, because no reader waits for an operation that does
                // not exist.
                self.shared.notifier.notify(&Notice::Changed {
                    id: new.id,
                    revoked_from: None,
                });
                Created::New(record)
            }
            Inserted::Key(found) => {
                let Some(key) = new.key() else {
                    return Err(StoreError::refused(
                        "the engine reported a key for an insert without a key",
                    ));
                };
                match self.reservation(found, key)? {
                    Reservation::Operation(record) => Created::Existing(record),
                    held => Created::KeyHeld(held),
                }
            }
            Inserted::Id(head, made_by) => {
                let record = record_head::decode_head(head)?;
                let name = new.key().map(IdempotencyKey::scoped_name);
                match record.owner() == new.owner.as_ref() {
                    // Another request of the same owner created the operation.
                    true if name.is_some() && made_by.as_deref() != name.as_deref() => {
                        Created::KeyHeld(Reservation::Mismatch)
                    }
                    true => Created::Existing(record),
                    false => Created::IdTaken,
                }
            }
        })
    }

    async fn start(&self, id: &OperationId, token: FencingToken) -> Result<Written<T>, StoreError> {
        let now = self.now();
        let step = |record: &Record<T>| record.started(token, now);
        self.change(id, LeaseChange::Keep, step).await
    }

    async fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> Result<Written<T>, StoreError> {
        let now = self.now();
        let step = |record: &Record<T>| record.reported(token, progress.clone(), now);
        self.change(id, LeaseChange::Keep, step).await
    }

    async fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<T>,
        progress: Option<Progress>,
    ) -> Result<Written<T>, StoreError> {
        let (now, ttl) = (self.now(), self.ttl);
        let step = |record: &Record<T>| {
            record.finished(token, outcome.clone(), progress.clone(), now, ttl)
        };
        self.change(id, LeaseChange::Keep, step).await
    }

    async fn force_finish(
        &self,
        id: &OperationId,
        expected: Stamp,
        outcome: Outcome<T>,
    ) -> Result<Written<T>, StoreError> {
        let (now, ttl) = (self.now(), self.ttl);
        let step = |record: &Record<T>| record.force_finished(expected, outcome.clone(), now, ttl);
        self.change(id, LeaseChange::Keep, step).await
    }

    async fn delete(&self, id: &OperationId, expected: Stamp) -> Result<Written<T>, StoreError> {
        let Some(mut record) = self.read(id, changer::<T>()).await? else {
            return Ok(self.gone(id));
        };
        loop {
            if self.is_expired(&record) {
                return Ok(self.gone(id));
            }
            let operation = record.operation();
            if record.stamp() != Some(expected) || !operation.state().is_terminal() {
                return Ok(Written::Lost(record));
            }
            let remains = record_head::encode(&record.without_result())?;
            let (this, asked) = (self.clone(), record.clone());
            let delete = async move { this.remove_and_tell(&asked, &remains).await };
            match run_to_completion(delete).await? {
                Replaced::Done => return Ok(Written::Done(record)),
                Replaced::Gone => return Ok(self.gone(id)),
                Replaced::Found(head) => record = record_head::decode_head(head)?,
            }
        }
    }
}
