//! Leases in memory.

use std::time::Duration;

use super::{MemoryStore, SHARDS, shard::Tick};
use crate::{
    operation::{OperationId, Payload},
    store::{
        FencingToken, Lease, LeaseConfig, LeaseHandle, NodeId, Reclaimed, StoreError, Written,
        record::ChangeOutcome, wait::Waiter,
    },
};

impl<T: Payload> MemoryStore<T> {
    /// Extends the lease of the holder with `token` to `term` from now on. Without a term,
    /// releases the lease for good. Returns false if the holder has another token.
    fn extend(&self, id: &OperationId, token: FencingToken, term: Option<Duration>) -> bool {
        let now = self.now().tick;
        let id = self.hashed(id);
        let mut shard = self.lock(id.shard());
        let Some(mut place) = shard.place(id, now) else {
            return false;
        };
        let entry = place.entry();
        let is_held = entry.record.is_held_by(token) && (term.is_none() || !entry.is_released());
        if is_held {
            place.hold(now, term);
        }
        is_held
    }

    /// Reclaims at most `limit` operations whose lease ended by the moment `by` returns.
    async fn take_those(
        &self,
        lease: &LeaseConfig,
        limit: usize,
        by: impl Fn(Tick) -> Tick + Send,
    ) -> Result<Vec<Reclaimed<T>>, StoreError> {
        let mut taken = Vec::new();
        for index in 0..SHARDS {
            let over = by(self.now().tick);
            let abandoned = self.lock(index).abandoned(over, limit - taken.len());
            for id in abandoned {
                let (mut holder, mut request) = (None, None);
                let write = self.change_holding(&id, Some(lease.term), |entry, now| {
                    // The lease may have been renewed since the operation was found.
                    if !entry.is_abandoned(by(now.tick)) {
                        return ChangeOutcome::Refused;
                    }
                    holder = entry.record.node().cloned();
                    request = entry.request().cloned();
                    entry.record.reclaim(&lease.node)
                })?;
                if let Written::Done(record) = write {
                    self.notify_holder(&id, holder.as_ref());
                    taken.push(Reclaimed { record, request });
                }
            }
            if taken.len() == limit {
                break;
            }
        }
        Ok(taken)
    }
}

impl<T: Payload> Lease for MemoryStore<T> {
    async fn renew(
        &self,
        lease: &LeaseConfig,
        held: &[LeaseHandle],
    ) -> Result<Vec<LeaseHandle>, StoreError> {
        let lost = held
            .iter()
            .filter(|held| !self.extend(&held.id, held.token, Some(lease.term)));
        Ok(lost.cloned().collect())
    }

    async fn reclaim(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Result<Vec<Reclaimed<T>>, StoreError> {
        self.take_those(lease, limit, |now| now).await
    }

    async fn reclaim_released(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Result<Vec<Reclaimed<T>>, StoreError> {
        self.take_those(lease, limit, |_| Tick::RELEASED).await
    }

    async fn claim(
        &self,
        lease: &LeaseConfig,
        held: &LeaseHandle,
    ) -> Result<Written<T>, StoreError> {
        let mut holder = None;
        let write = self.change_holding(&held.id, Some(lease.term), |entry, _| {
            let before = entry.record.node().cloned();
            let change = entry.record.claim(held.token, &lease.node);
            if change == ChangeOutcome::Made {
                holder = before;
            }
            change
        })?;
        if let Written::Done(_) = &write {
            self.notify_holder(&held.id, holder.as_ref());
        }
        Ok(write)
    }

    async fn release(&self, held: &[LeaseHandle]) -> Result<(), StoreError> {
        for LeaseHandle { id, token } in held {
            self.extend(id, *token, None);
        }
        self.shared.released.notify();
        Ok(())
    }

    fn released(&self) -> impl Future<Output = ()> + Send {
        Waiter::new(&self.shared.released)
    }

    async fn revoked(
        &self,
        node: &NodeId,
        at_most: Duration,
    ) -> Result<Vec<OperationId>, StoreError> {
        Ok(self.shared.mailboxes.receive(node, at_most).await)
    }
}
