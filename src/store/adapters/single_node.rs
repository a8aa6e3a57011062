use std::{sync::Arc, time::Duration};

use super::forward::forward;
use crate::{
    operation::{OperationId, Outcome, Progress},
    store::{
        Created, FencingToken, Health, IdempotencyKey, IdempotencyKeys, Lease, LeaseConfig,
        LeaseHandle, List, ListQuery, NewOperation, NodeId, Page, Placed, Purge, Reader, Reclaimed,
        Repository, Reservation, Stamp, Store, StoreError, Version, Watch, Written,
        mailbox::Mailboxes, traits::Found,
    },
};

/// Adds [`Lease`] to a store that only one process writes to.
///
/// No lease is ever reclaimed, because there is no other node. The store is therefore unsuitable
/// for requests that are dispatched through a queue: a request that the queue loses is lost, and
/// a request that the queue delivers twice may run twice. A cancellation through this handle or
/// a clone of it reaches the running work at once.
#[derive(Debug, Clone)]
pub struct SingleNode<R> {
    inner: R,
    mailboxes: Arc<Mailboxes>,
}

impl<R> SingleNode<R> {
    /// Wraps a store. From then on operations must be written only through this handle and its
    /// clones.
    #[must_use]
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            mailboxes: Arc::default(),
        }
    }

    /// Notifies the holder that its operation was ended from outside.
    fn force_finished<T>(&self, write: &Written<T>) {
        if let Written::Done(record) = write
            && let Some(node) = record.node()
        {
            self.mailboxes.send(node, record.operation().id().clone());
        }
    }
}

impl<R: Repository> Lease for SingleNode<R> {
    async fn renew(
        &self,
        _: &LeaseConfig,
        held: &[LeaseHandle],
    ) -> Result<Vec<LeaseHandle>, StoreError> {
        let mut lost = Vec::new();
        for held in held {
            let reader = Reader::new(None).with_max_body(0);
            let record = self.inner.get_for(&held.id, reader).await?;
            if record.is_none_or(|record| !record.is_held_by(held.token)) {
                lost.push(held.clone());
            }
        }
        Ok(lost)
    }

    async fn reclaim(
        &self,
        _: &LeaseConfig,
        _: usize,
    ) -> Result<Vec<Reclaimed<Self::Output>>, StoreError> {
        Ok(Vec::new())
    }

    /// Claims the operation for the only node. The token does not change, since no other node
    /// can hold the operation.
    async fn claim(
        &self,
        _: &LeaseConfig,
        held: &LeaseHandle,
    ) -> Result<Written<R::Output>, StoreError> {
        Ok(match self.inner.get(&held.id).await? {
            Some(record) if record.is_held_by(held.token) => Written::Done(record),
            Some(record) => Written::Lost(record),
            None => Written::Gone,
        })
    }

    async fn release(&self, _: &[LeaseHandle]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn revoked(
        &self,
        node: &NodeId,
        at_most: Duration,
    ) -> Result<Vec<OperationId>, StoreError> {
        Ok(self.mailboxes.receive(node, at_most).await)
    }
}

impl<R: Watch> Watch for SingleNode<R> {
    async fn changed(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
    ) -> Found<R::Output> {
        self.inner.changed(id, since, at_most).await
    }

    async fn changed_for(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
        reader: Reader<'_>,
    ) -> Found<R::Output> {
        self.inner.changed_for(id, since, at_most, reader).await
    }
}

forward!(SingleNode);
