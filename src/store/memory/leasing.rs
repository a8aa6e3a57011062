//! Who runs what, and who died.

use std::time::Duration;

use super::{
    MemoryStore, SHARDS,
    shard::{Entry, Tick},
};
use crate::{
    operation::{OperationId, Payload},
    store::{
        FencingToken, Held, Lease, LeaseTerm, NodeId, StoreError, TakenOver, Write, record::Change,
    },
};

impl<T: Payload> MemoryStore<T> {
    /// Lets the lease of the holder with `token` last for `term` from now on, or ends
    /// it without one; false if it is the holder no more.
    fn extend(&self, id: &OperationId, token: FencingToken, term: Option<Duration>) -> bool {
        let now = self.now().tick;
        let id = self.hashed(id);
        let mut shard = self.lock(id.shard());
        let held = shard
            .get_mut(id, now)
            .filter(|entry| entry.record.is_held_by(token));
        let until = term.map_or(Tick::RELEASED, |term| now.plus(term));
        held.map(|entry| entry.hold_until(until)).is_some()
    }

    /// Takes over at most `limit` operations that are free at a moment.
    async fn take_those(
        &self,
        lease: &LeaseTerm,
        limit: usize,
        is_free: fn(&Entry<T>, Tick) -> bool,
    ) -> Result<Vec<TakenOver<T>>, StoreError> {
        let mut taken = Vec::new();
        for index in 0..SHARDS {
            let now = self.now().tick;
            let abandoned: Vec<OperationId> = self
                .lock(index)
                .entries(now)
                .filter(|entry| is_free(entry, now))
                .map(|entry| entry.record.operation().id().clone())
                .take(limit - taken.len())
                .collect();
            for id in abandoned {
                let (mut holder, mut request) = (None, None);
                let write = self.change(&id, |entry, now| {
                    // It may have been renewed since it was found.
                    if !is_free(entry, now.tick) {
                        return Change::Refused;
                    }
                    holder = entry.record.node().cloned();
                    request = entry.request().cloned();
                    entry.hold_until(now.tick.plus(lease.term));
                    entry.change(|record| record.take_over(&lease.node))
                })?;
                if let Write::Done(record) = write {
                    self.recall(&id, holder.as_ref());
                    taken.push(TakenOver { record, request });
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
    async fn renew(&self, lease: &LeaseTerm, held: &[Held]) -> Result<Vec<Held>, StoreError> {
        let lost = held
            .iter()
            .filter(|held| !self.extend(&held.id, held.token, Some(lease.term)));
        Ok(lost.cloned().collect())
    }

    async fn take_over(
        &self,
        lease: &LeaseTerm,
        limit: usize,
    ) -> Result<Vec<TakenOver<T>>, StoreError> {
        self.take_those(lease, limit, Entry::is_abandoned).await
    }

    async fn take_over_released(
        &self,
        lease: &LeaseTerm,
        limit: usize,
    ) -> Result<Vec<TakenOver<T>>, StoreError> {
        let is_released = |entry: &Entry<T>, _| entry.is_released();
        self.take_those(lease, limit, is_released).await
    }

    async fn claim(&self, lease: &LeaseTerm, held: &Held) -> Result<Write<T>, StoreError> {
        let mut holder = None;
        let write = self.change(&held.id, |entry, now| {
            let before = entry.record.node().cloned();
            let change = entry.change(|record| record.claim(held.token, &lease.node));
            if change == Change::Made {
                holder = before;
                entry.hold_until(now.tick.plus(lease.term));
            }
            change
        })?;
        if let Write::Done(_) = &write {
            self.recall(&held.id, holder.as_ref());
        }
        Ok(write)
    }

    async fn release(&self, held: &[Held]) -> Result<(), StoreError> {
        for Held { id, token } in held {
            self.extend(id, *token, None);
        }
        Ok(())
    }

    async fn recalled(
        &self,
        node: &NodeId,
        at_most: Duration,
    ) -> Result<Vec<OperationId>, StoreError> {
        Ok(self.shared.mailboxes.receive(node, at_most).await)
    }
}
