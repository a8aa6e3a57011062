//! A store with a hook in front of and behind every call: for delays, faults
//! and counts.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tower_operations::{
    MemoryStore, OperationId, Outcome, Progress, RecordedResponse,
    store::{
        Created, FencingToken, Held, Key, Keys, Lease, LeaseTerm, List, ListQuery, NewOperation,
        NodeId, Owner, Page, Record, Repository, Reservation, Store, StoreError, TakenOver,
        Version, Watch, Write,
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Get,
    Create,
    Start,
    Report,
    Finish,
    Overrule,
    Forget,
    Changed,
    Renew,
    Recalled,
    TakeOver,
    Claim,
    Release,
    Reserve,
    Settle,
    ReleaseKey,
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// An error now means that nothing has happened.
    Before,
    /// An error now hides that it has.
    After,
}

type Hook = dyn Fn(Call, When) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>
    + Send
    + Sync;
type Answer<T> = Result<T, StoreError>;

#[derive(Clone)]
pub(crate) struct Hooked {
    pub(crate) inner: MemoryStore,
    hook: Arc<Hook>,
    /// Whether it claims that its writes never wait, whatever the hook does.
    pub(crate) is_hasty: bool,
}

impl Hooked {
    pub(crate) fn new<F>(
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
        }
    }

    async fn around<T>(&self, call: Call, inner: impl Future<Output = Answer<T>>) -> Answer<T> {
        (self.hook)(call, When::Before).await?;
        let answer = inner.await?;
        (self.hook)(call, When::After).await?;
        Ok(answer)
    }
}

type Stored = Arc<Record<RecordedResponse>>;

impl Store for Hooked {
    type Output = RecordedResponse;

    async fn get(&self, id: &OperationId) -> Answer<Option<Stored>> {
        self.around(Call::Get, self.inner.get(id)).await
    }
}

impl Repository for Hooked {
    fn never_waits(&self) -> bool {
        self.is_hasty
    }

    async fn create(&self, new: NewOperation) -> Answer<Created<RecordedResponse>> {
        self.around(Call::Create, self.inner.create(new)).await
    }

    async fn start(
        &self,
        id: &OperationId,
        token: FencingToken,
    ) -> Answer<Write<RecordedResponse>> {
        self.around(Call::Start, self.inner.start(id, token)).await
    }

    async fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> Answer<Write<RecordedResponse>> {
        self.around(Call::Report, self.inner.report(id, token, progress))
            .await
    }

    async fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<RecordedResponse>,
        progress: Option<Progress>,
    ) -> Answer<Write<RecordedResponse>> {
        self.around(
            Call::Finish,
            self.inner.finish(id, token, outcome, progress),
        )
        .await
    }

    async fn overrule(
        &self,
        id: &OperationId,
        version: Version,
        outcome: Outcome<RecordedResponse>,
    ) -> Answer<Write<RecordedResponse>> {
        self.around(Call::Overrule, self.inner.overrule(id, version, outcome))
            .await
    }

    async fn forget(&self, id: &OperationId, version: Version) -> Answer<Write<RecordedResponse>> {
        self.around(Call::Forget, self.inner.forget(id, version))
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
        self.around(Call::Changed, self.inner.changed(id, since, at_most))
            .await
    }
}

impl Lease for Hooked {
    async fn renew(&self, lease: &LeaseTerm, held: &[Held]) -> Answer<Vec<Held>> {
        self.around(Call::Renew, self.inner.renew(lease, held))
            .await
    }

    async fn take_over(
        &self,
        lease: &LeaseTerm,
        limit: usize,
    ) -> Answer<Vec<TakenOver<RecordedResponse>>> {
        self.around(Call::TakeOver, self.inner.take_over(lease, limit))
            .await
    }

    async fn take_over_released(
        &self,
        lease: &LeaseTerm,
        limit: usize,
    ) -> Answer<Vec<TakenOver<RecordedResponse>>> {
        let released = self.inner.take_over_released(lease, limit);
        self.around(Call::TakeOver, released).await
    }

    async fn claim(&self, lease: &LeaseTerm, held: &Held) -> Answer<Write<RecordedResponse>> {
        self.around(Call::Claim, self.inner.claim(lease, held))
            .await
    }

    async fn release(&self, held: &[Held]) -> Answer<()> {
        self.around(Call::Release, self.inner.release(held)).await
    }

    async fn recalled(&self, node: &NodeId, at_most: Duration) -> Answer<Vec<OperationId>> {
        self.around(Call::Recalled, self.inner.recalled(node, at_most))
            .await
    }
}

impl Keys for Hooked {
    async fn reserve(
        &self,
        key: &Key,
        owner: Option<&Owner>,
        token: FencingToken,
        term: Duration,
    ) -> Answer<Reservation<RecordedResponse>> {
        self.around(Call::Reserve, self.inner.reserve(key, owner, token, term))
            .await
    }

    async fn settle(
        &self,
        key: &Key,
        token: FencingToken,
        answer: RecordedResponse,
    ) -> Answer<bool> {
        self.around(Call::Settle, self.inner.settle(key, token, answer))
            .await
    }

    async fn release_key(&self, key: &Key, token: FencingToken) -> Answer<bool> {
        self.around(Call::ReleaseKey, self.inner.release_key(key, token))
            .await
    }
}

impl List for Hooked {
    async fn list(&self, query: &ListQuery) -> Answer<Page<RecordedResponse>> {
        self.around(Call::List, self.inner.list(query)).await
    }
}
