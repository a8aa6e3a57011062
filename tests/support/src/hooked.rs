//! A store with a hook before and after every call, for delays, faults and counts.

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tower_operations::{
    MemoryStore, OperationId, Outcome, Progress, RecordedResponse,
    store::{
        Created, FencingToken, Health, IdempotencyKey, IdempotencyKeys, Lease, LeaseConfig,
        LeaseHandle, List, ListQuery, NewOperation, NodeId, Page, Placed, Reader, Reclaimed,
        Record, Repository, Reservation, Stamp, Store, StoreError, Version, Watch, Written,
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Get,
    Create,
    Start,
    Report,
    Finish,
    ForceFinish,
    Delete,
    Changed,
    Renew,
    Revoked,
    Reclaim,
    Claim,
    Release,
    Reserve,
    Complete,
    ReleaseKey,
    List,
    Purge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before the call: an error means that the call had no effect.
    Before,
    /// After the call: an error hides the effect of the call.
    After,
}

type Hook = dyn Fn(Call, When) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>
    + Send
    + Sync;
type Answer<T> = Result<T, StoreError>;

type Ids = Arc<Mutex<HashSet<OperationId>>>;

fn unless<'a>(refused: &Ids, ids: impl IntoIterator<Item = &'a OperationId>) -> Answer<()> {
    let refused = refused.lock().unwrap();
    match ids.into_iter().any(|id| refused.contains(id)) {
        true => Err(StoreError::refused("this record is damaged")),
        false => Ok(()),
    }
}

#[derive(Clone)]
pub struct Hooked {
    pub inner: MemoryStore,
    hook: Arc<Hook>,
    /// Whether the store creates and ends operations at once, unless the hook waits or fails.
    pub is_hasty: bool,
    /// The number of reads without an owner, which read whole operations.
    pub whole_reads: Arc<AtomicUsize>,
    /// Operations whose finish never completes.
    pub hanging: Ids,
    /// Operations whose finish is refused.
    pub unending: Ids,
    /// Operations whose renewal is refused, also together with others.
    pub unrenewable: Ids,
    /// Operations that the store has lost.
    pub gone: Ids,
    /// The number of expired operations to purge; `None` if the store needs no purge.
    pub expired: Arc<Mutex<Option<usize>>>,
    /// The requests that operations were created with. The store has copies.
    pub requests: Arc<Mutex<Vec<Bytes>>>,
    pub health: Arc<Mutex<Health>>,
}

impl Hooked {
    pub fn new<F>(
        inner: MemoryStore,
        hook: impl Fn(Call, When) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer<()>> + Send + 'static,
    {
        Self {
            inner,
            hook: Arc::new(move |call, when| Box::pin(hook(call, when))),
            is_hasty: false,
            whole_reads: Arc::default(),
            hanging: Arc::default(),
            unending: Arc::default(),
            unrenewable: Arc::default(),
            gone: Arc::default(),
            expired: Arc::default(),
            requests: Arc::default(),
            health: Arc::default(),
        }
    }

    fn has_lost(&self, id: &OperationId) -> bool {
        self.gone.lock().unwrap().contains(id)
    }

    /// Returns whether the store may act at once: the hook neither waits nor fails.
    fn is_free(&self, call: Call, when: When) -> bool {
        self.is_hasty && {
            let mut context = Context::from_waker(Waker::noop());
            let hooked = (self.hook)(call, when).as_mut().poll(&mut context);
            matches!(hooked, Poll::Ready(Ok(())))
        }
    }

    async fn around<T>(&self, call: Call, inner: impl Future<Output = Answer<T>>) -> Answer<T> {
        (self.hook)(call, When::Before).await?;
        let answer = inner.await?;
        (self.hook)(call, When::After).await?;
        Ok(answer)
    }
}

type Stored = Record<RecordedResponse>;

impl Store for Hooked {
    type Output = RecordedResponse;

    async fn get(&self, id: &OperationId) -> Answer<Option<Stored>> {
        self.whole_reads.fetch_add(1, SeqCst);
        self.get_for(id, Reader::new(None)).await
    }

    async fn get_for(&self, id: &OperationId, _: Reader<'_>) -> Answer<Option<Stored>> {
        let get = async {
            match self.has_lost(id) {
                true => Ok(None),
                false => self.inner.get(id).await,
            }
        };
        self.around(Call::Get, get).await
    }

    async fn health(&self) -> Answer<Health> {
        Ok(self.health.lock().unwrap().clone())
    }
}

impl Repository for Hooked {
    fn create_now(&self, new: &NewOperation) -> Option<Placed> {
        self.is_free(Call::Create, When::Before)
            .then(|| self.inner.create_now(new))?
            .filter(|_| self.is_free(Call::Create, When::After))
    }

    fn finish_now(
        &self,
        placed: Placed,
        id: &OperationId,
        token: FencingToken,
        outcome: &Outcome<RecordedResponse>,
    ) -> bool {
        let is_held_up = self.hanging.lock().unwrap().contains(id)
            || self.unending.lock().unwrap().contains(id)
            || self.has_lost(id);
        !is_held_up
            && self.is_free(Call::Finish, When::Before)
            && self.inner.finish_now(placed, id, token, outcome)
            && self.is_free(Call::Finish, When::After)
    }

    async fn create(&self, new: NewOperation) -> Answer<Created<RecordedResponse>> {
        let copy = new.request().map(|request| {
            self.requests.lock().unwrap().push(request.clone());
            Bytes::copy_from_slice(request)
        });
        let new = new.with_request(copy);
        self.around(Call::Create, self.inner.create(new)).await
    }

    async fn start(
        &self,
        id: &OperationId,
        token: FencingToken,
    ) -> Answer<Written<RecordedResponse>> {
        self.around(Call::Start, self.inner.start(id, token)).await
    }

    async fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> Answer<Written<RecordedResponse>> {
        self.around(Call::Report, self.inner.report(id, token, progress))
            .await
    }

    async fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<RecordedResponse>,
        progress: Option<Progress>,
    ) -> Answer<Written<RecordedResponse>> {
        let finish = async {
            if self.hanging.lock().unwrap().contains(id) {
                std::future::pending::<()>().await;
            }
            unless(&self.unending, [id])?;
            if self.has_lost(id) {
                return Ok(Written::Gone);
            }
            self.inner.finish(id, token, outcome, progress).await
        };
        self.around(Call::Finish, finish).await
    }

    async fn force_finish(
        &self,
        id: &OperationId,
        expected: Stamp,
        outcome: Outcome<RecordedResponse>,
    ) -> Answer<Written<RecordedResponse>> {
        self.around(
            Call::ForceFinish,
            self.inner.force_finish(id, expected, outcome),
        )
        .await
    }

    async fn delete(&self, id: &OperationId, expected: Stamp) -> Answer<Written<RecordedResponse>> {
        self.around(Call::Delete, self.inner.delete(id, expected))
            .await
    }
}

impl Watch for Hooked {
    async fn changed(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
    ) -> Answer<Option<Stored>> {
        self.whole_reads.fetch_add(1, SeqCst);
        self.changed_for(id, since, at_most, Reader::new(None))
            .await
    }

    async fn changed_for(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
        _: Reader<'_>,
    ) -> Answer<Option<Stored>> {
        self.around(Call::Changed, self.inner.changed(id, since, at_most))
            .await
    }
}

impl Lease for Hooked {
    async fn renew(&self, lease: &LeaseConfig, held: &[LeaseHandle]) -> Answer<Vec<LeaseHandle>> {
        let renew = async {
            unless(&self.unrenewable, held.iter().map(|held| &held.id))?;
            let lost = held.iter().filter(|held| self.has_lost(&held.id));
            let mut lost: Vec<_> = lost.cloned().collect();
            lost.extend(self.inner.renew(lease, held).await?);
            Ok(lost)
        };
        self.around(Call::Renew, renew).await
    }

    async fn reclaim(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Answer<Vec<Reclaimed<RecordedResponse>>> {
        self.around(Call::Reclaim, self.inner.reclaim(lease, limit))
            .await
    }

    async fn reclaim_released(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Answer<Vec<Reclaimed<RecordedResponse>>> {
        let released = self.inner.reclaim_released(lease, limit);
        self.around(Call::Reclaim, released).await
    }

    async fn claim(
        &self,
        lease: &LeaseConfig,
        held: &LeaseHandle,
    ) -> Answer<Written<RecordedResponse>> {
        self.around(Call::Claim, self.inner.claim(lease, held))
            .await
    }

    async fn release(&self, held: &[LeaseHandle]) -> Answer<()> {
        self.around(Call::Release, self.inner.release(held)).await
    }

    fn released(&self) -> impl Future<Output = ()> + Send {
        self.inner.released()
    }

    async fn purge_expired(&self, limit: usize) -> Answer<Option<usize>> {
        let purge = async {
            let mut expired = self.expired.lock().unwrap();
            Ok(expired.as_mut().map(|left| {
                let some = limit.min(*left);
                *left -= some;
                some
            }))
        };
        self.around(Call::Purge, purge).await
    }

    async fn revoked(&self, node: &NodeId, at_most: Duration) -> Answer<Vec<OperationId>> {
        self.around(Call::Revoked, self.inner.revoked(node, at_most))
            .await
    }
}

impl IdempotencyKeys for Hooked {
    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
    ) -> Answer<Reservation<RecordedResponse>> {
        self.around(Call::Reserve, self.inner.reserve(key, token, term))
            .await
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: RecordedResponse,
    ) -> Answer<bool> {
        self.around(Call::Complete, self.inner.complete(key, token, answer))
            .await
    }

    async fn release_reservation(&self, key: &IdempotencyKey, token: FencingToken) -> Answer<bool> {
        self.around(Call::ReleaseKey, self.inner.release_reservation(key, token))
            .await
    }
}

impl List for Hooked {
    async fn list(&self, query: &ListQuery) -> Answer<Page<RecordedResponse>> {
        self.around(Call::List, self.inner.list(query)).await
    }
}
