//! Who runs what, and who died.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use super::{Abandoned, Durable, Engine, Free, LeaseChange, head};
use crate::{
    operation::{OperationId, Stored},
    store::{Held, Lease, LeaseTerm, NodeId, Record, StoreError, TakenOver, Write},
};

impl<E: Engine, T: Stored> Durable<E, T> {
    /// Takes over at most `limit` operations that are free.
    async fn take(
        &self,
        lease: &LeaseTerm,
        limit: usize,
        which: Free,
    ) -> Result<Vec<TakenOver<T>>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        let unreadable = &self.shared.unreadable;
        // Beside those that cannot be read, which come first each time.
        let limit_with_those = limit.saturating_add(unreadable.load(Relaxed));
        let abandoned = self
            .shared
            .engine
            .abandoned(which, limit_with_those)
            .await?;
        let (mut taken, mut skipped) = (Vec::new(), 0);
        for Abandoned { cell, request } in abandoned {
            // Whoever asked waits only so long, and what was taken is held by then.
            if taken.len() == limit || (!taken.is_empty() && begun.elapsed() > lease.term / 6) {
                break;
            }
            let record: Record<T> = match head::decode(cell) {
                Ok(record) => record,
                Err(error) => {
                    tracing::error!(error = error.chain(), "a record cannot be read");
                    skipped += 1;
                    continue;
                }
            };
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
        unreadable.store(skipped, Relaxed);
        Ok(taken)
    }
}

impl<E: Engine, T: Stored> Lease for Durable<E, T> {
    async fn renew(&self, lease: &LeaseTerm, held: &[Held]) -> Result<Vec<Held>, StoreError> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let lost = self.shared.engine.renew(held, lease.term).await?;
        for lost in &lost {
            self.shared.held.lost(&lost.id, lost.token);
        }
        Ok(lost)
    }

    async fn take_over(
        &self,
        lease: &LeaseTerm,
        limit: usize,
    ) -> Result<Vec<TakenOver<T>>, StoreError> {
        self.take(lease, limit, Free::Over).await
    }

    async fn take_over_released(
        &self,
        lease: &LeaseTerm,
        limit: usize,
    ) -> Result<Vec<TakenOver<T>>, StoreError> {
        self.take(lease, limit, Free::Released).await
    }

    async fn claim(&self, lease: &LeaseTerm, held: &Held) -> Result<Write<T>, StoreError> {
        let step = |record: &Record<T>| record.claimed(held.token, &lease.node);
        let handed_on = LeaseChange::HandedOn(lease.term);
        self.change(&held.id, handed_on, step).await
    }

    async fn release(&self, held: &[Held]) -> Result<(), StoreError> {
        if held.is_empty() {
            return Ok(());
        }
        for held in held {
            self.shared.held.lost(&held.id, held.token);
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
