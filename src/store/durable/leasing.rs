//! Who runs what, and who died.

use std::time::Duration;

use super::{Abandoned, Durable, Engine, LeaseChange, head};
use crate::{
    operation::{OperationId, Stored},
    store::{Held, Lease, LeaseTerm, NodeId, Record, StoreError, TakenOver, Write},
};

impl<E: Engine, T: Stored> Lease for Durable<E, T> {
    async fn renew(&self, lease: &LeaseTerm, held: &[Held]) -> Result<Vec<Held>, StoreError> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let lost = self.shared.engine.renew(held, lease.term).await?;
        for lost in &lost {
            self.shared.held.lost(&lost.id);
        }
        Ok(lost)
    }

    async fn take_over(
        &self,
        lease: &LeaseTerm,
        limit: usize,
    ) -> Result<Vec<TakenOver<T>>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut taken = Vec::new();
        for Abandoned { cell, request } in self.shared.engine.abandoned(limit).await? {
            let record: Record<T> = head::decode(cell)?;
            let id = record.operation().id().clone();
            let took = LeaseChange::TakenOver(lease.term);
            let step = |record: &Record<T>| record.taken_over(&lease.node);
            match self.change_from(record.into(), took, step).await {
                Ok(Write::Done(record)) => taken.push(TakenOver { record, request }),
                Ok(Write::Lost(_) | Write::Gone) => {}
                // What was taken before is held, and must not be lost here.
                Err(error) if !taken.is_empty() => {
                    tracing::warn!(%id, error = error.chain(), "it could not be taken over");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    async fn release(&self, held: &[Held]) -> Result<(), StoreError> {
        if held.is_empty() {
            return Ok(());
        }
        for held in held {
            self.shared.held.lost(&held.id);
        }
        self.shared.engine.release(held).await
    }

    async fn recalled(
        &self,
        node: &NodeId,
        at_most: Duration,
    ) -> Result<Vec<OperationId>, StoreError> {
        Ok(self.shared.hub.recalled(node, at_most).await)
    }
}
