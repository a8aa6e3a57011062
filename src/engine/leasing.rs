//! Leases on an engine.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Cell, Engine, EngineShared, EngineStore, LapsedCell, LeaseChange, Notice, ReclaimFilter,
    join_all::join_all,
    reading::readable,
    record_head::{self, Decoded},
};
use crate::{
    operation::{OperationId, Stored},
    store::{
        Lease, LeaseConfig, LeaseHandle, NodeId, Purge, Reclaimed, Record, Step, StoreError,
        Written,
    },
};

/// The number of terms for which an operation that cannot be reclaimed is put aside.
const ASIDE: u32 = 20;

/// The result of one look for operations to reclaim.
struct ReclaimLook<T> {
    taken: Vec<Reclaimed<T>>,
    /// Operations that no node can reclaim.
    unfit: Vec<Bytes>,
    /// The number of operations in the format of a newer release, for nodes of that
    /// release.
    newer: usize,
}

/// The number of operations to reclaim concurrently, since an engine may write them
/// together.
const AT_ONCE: usize = 16;

/// The result of one attempt to reclaim.
enum ReclaimAttempt<T> {
    Done(Reclaimed<T>),
    /// The operation cannot be reclaimed.
    Unfit(Bytes),
    /// A node of a newer release can reclaim the operation.
    Newer,
    /// Another node has the operation now, or the operation no longer exists.
    Not,
}

impl<E: Engine, T: Stored> EngineStore<E, T> {
    /// Reclaims at most `limit` operations. Operations that cannot be reclaimed are put
    /// aside, so that they rarely delay the others.
    async fn take(
        &self,
        lease: &LeaseConfig,
        limit: usize,
        which: ReclaimFilter,
    ) -> Result<Vec<Reclaimed<T>>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        loop {
            let look = self.look(lease, limit, which, begun).await?;
            let term = lease.term.saturating_mul(ASIDE);
            let is_worth_another = self.shared.clear(&look, term).await;
            // The caller waits only for a limited time.
            if !is_worth_another || !look.taken.is_empty() || begun.elapsed() > lease.term / 6 {
                return Ok(look.taken);
            }
        }
    }

    async fn look(
        &self,
        lease: &LeaseConfig,
        limit: usize,
        which: ReclaimFilter,
        begun: Instant,
    ) -> Result<ReclaimLook<T>, StoreError> {
        let stuck = self.shared.stuck.load(Relaxed);
        let found = self
            .shared
            .engine
            .reclaimable(which, limit.saturating_add(stuck));
        let (mut taken, mut unfit, mut newer) = (Vec::new(), Vec::new(), 0);
        let mut found = found.await?.into_iter().peekable();
        // The leases of the operations that were reclaimed here run already.
        let has_time = || begun.elapsed() <= lease.term / 6;
        while found.peek().is_some() && taken.len() < limit && (taken.is_empty() || has_time()) {
            let some = found.by_ref().take(AT_ONCE.min(limit - taken.len()));
            let taking = some.map(|abandoned| self.take_one(lease, abandoned));
            let mut failed = None;
            for one in join_all(taking).await {
                match one {
                    Ok(ReclaimAttempt::Done(one)) => taken.push(one),
                    Ok(ReclaimAttempt::Unfit(id)) => unfit.push(id),
                    Ok(ReclaimAttempt::Newer) => newer += 1,
                    Ok(ReclaimAttempt::Not) => {}
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                // Reclaimed operations are already held, and must not be lost here.
                Some(error) if !taken.is_empty() => {
                    tracing::warn!(error = error.report(), "operations reclaimed only in part");
                    break;
                }
                Some(error) => return Err(error),
                None => {}
            }
        }
        Ok(ReclaimLook {
            taken,
            unfit,
            newer,
        })
    }

    /// Reclaims one operation. Every returned error is transient.
    async fn take_one(
        &self,
        lease: &LeaseConfig,
        LapsedCell { id, head, request }: LapsedCell,
    ) -> Result<ReclaimAttempt<T>, StoreError> {
        let is_newer = matches!(&head, Ok(head) if record_head::is_newer(head));
        let cell = head.map(|head| Cell::new(head, None));
        let Some(Decoded { record, .. }) = readable::<T>(&id, cell) else {
            return Ok(match is_newer {
                true => ReclaimAttempt::Newer,
                false => ReclaimAttempt::Unfit(id),
            });
        };
        // The request belongs to the record as it was found. A later one may be of another
        // operation with the same id.
        let found = (record.version(), record.token());
        let is_found = |record: &Record<T>| (record.version(), record.token()) == found;
        let took = LeaseChange::Reclaim(lease.term);
        let step = |record: &Record<T>| match is_found(record) {
            true => record.reclaimed(&lease.node),
            false => Step::Lost,
        };
        match self.change_from(record, took, step).await {
            Ok(Written::Done(record)) => Ok(ReclaimAttempt::Done(Reclaimed { record, request })),
            // The lease was renewed meanwhile, or the cell differs from the engine's
            // description.
            Ok(Written::Lost(record)) if is_found(&record) => Ok(ReclaimAttempt::Unfit(id)),
            Ok(Written::Lost(_) | Written::Gone) => Ok(ReclaimAttempt::Not),
            Err(error) if !error.is_transient() => {
                let id_text = String::from_utf8_lossy(&id);
                tracing::error!(id = %id_text, error = error.report(), "operation not reclaimed");
                Ok(ReclaimAttempt::Unfit(id))
            }
            Err(error) => Err(error),
        }
    }
}

impl<E: Engine, T> EngineShared<E, T> {
    /// Puts aside the unfit operations of a look, and makes the next look skip those that
    /// stay in front. Returns whether another look would find others.
    async fn clear(&self, look: &ReclaimLook<T>, term: Duration) -> bool {
        let failed = match look.unfit.is_empty() {
            true => 0,
            false => self.defer(&look.unfit, term).await,
        };
        let stuck = failed + look.newer;
        let before = self.stuck.swap(stuck, Relaxed);
        (failed == 0 && !look.unfit.is_empty()) || stuck > before
    }

    /// Puts aside unfit operations, one by one if this fails for all at once. Returns the
    /// number that failed.
    async fn defer(&self, unfit: &[Bytes], term: Duration) -> usize {
        let Err(error) = self.engine.defer(unfit, term).await else {
            return 0;
        };
        tracing::warn!(
            error = error.report(),
            "unreclaimable operations not put aside"
        );
        let mut failed = unfit.len();
        if !error.is_transient() && unfit.len() > 1 {
            for id in unfit.chunks(1) {
                failed -= usize::from(self.engine.defer(id, term).await.is_ok());
            }
        }
        failed
    }
}

impl<E: Engine, T: Stored> Lease for EngineStore<E, T> {
    async fn renew(
        &self,
        lease: &LeaseConfig,
        held: &[LeaseHandle],
    ) -> Result<Vec<LeaseHandle>, StoreError> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let lost = self.shared.engine.renew(held, lease.term).await?;
        for lost in &lost {
            self.shared.live.lost(&lost.id, lost.token);
        }
        Ok(lost)
    }

    async fn reclaim(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Result<Vec<Reclaimed<T>>, StoreError> {
        self.take(lease, limit, ReclaimFilter::Expired).await
    }

    async fn reclaim_released(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Result<Vec<Reclaimed<T>>, StoreError> {
        self.take(lease, limit, ReclaimFilter::Released).await
    }

    async fn claim(
        &self,
        lease: &LeaseConfig,
        held: &LeaseHandle,
    ) -> Result<Written<T>, StoreError> {
        let step = |record: &Record<T>| record.claimed(held.token, &lease.node);
        let handed_on = LeaseChange::Transfer(lease.term);
        self.change(&held.id, handed_on, step).await
    }

    async fn release(&self, held: &[LeaseHandle]) -> Result<(), StoreError> {
        if held.is_empty() {
            return Ok(());
        }
        for held in held {
            self.shared.live.lost(&held.id, held.token);
        }
        self.shared.engine.release(held).await?;
        self.shared.notifier.notify(&Notice::Released);
        self.shared.engine.publish(Notice::Released);
        Ok(())
    }

    fn released(&self) -> impl Future<Output = ()> + Send {
        self.shared.engine.ensure_listening();
        self.shared.notifier.released()
    }

    async fn purge_expired(&self, limit: usize) -> Result<Option<usize>, StoreError> {
        match E::KEEPS_EXPIRED {
            true => self.purge(limit).await.map(Some),
            false => Ok(None),
        }
    }

    async fn revoked(
        &self,
        node: &NodeId,
        at_most: Duration,
    ) -> Result<Vec<OperationId>, StoreError> {
        self.shared.engine.ensure_listening();
        Ok(self.shared.notifier.revoked(node, at_most).await)
    }
}
