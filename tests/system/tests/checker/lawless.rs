//! A store that several nodes share, and that may break one law.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::sleep};
use tower_operations::{
    MemoryStore, Operation, OperationId, Outcome, Progress, RecordedResponse, Snapshot,
    store::{
        Created, FencingToken, IdempotencyKey, IdempotencyKeys, Lease, LeaseConfig, LeaseHandle,
        NewOperation, NodeId, Reclaimed, Record, Repository, Reservation, Stamp, Store, StoreError,
        Version, Watch, Written,
    },
};

/// The laws that the store can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Law {
    /// A holder that lost its lease is not notified, and writes.
    Fencing,
    /// A create is answered a moment before it is written.
    Durability,
    /// A change wakes no wait.
    Waking,
    /// A repeated read returns the first result.
    Freshness,
    /// Every node has its own keys.
    KeysAcrossNodes,
    /// Keys are shared by all owners.
    Keys,
    /// All requests have the same owner.
    Owners,
    /// A deleted operation stays.
    Deletion,
}

/// The handle of one node.
#[derive(Clone)]
pub(crate) struct FaultyStore {
    pub(crate) node: NodeId,
    pub(crate) broken: Option<Law>,
    pub(crate) shared: Arc<Shared>,
    /// Whether the node is awake; its calls wait otherwise.
    pub(crate) awake: watch::Receiver<bool>,
    /// The first reads of this node.
    pub(crate) read: Arc<Mutex<HashMap<OperationId, Stored>>>,
}

pub(crate) struct Shared {
    pub(crate) memory: MemoryStore,
    /// Illegal writes, which replace the operations in memory.
    pub(crate) forced: Mutex<HashMap<OperationId, Stored>>,
}

type Stored = Record<RecordedResponse>;
type Answer<T> = Result<T, StoreError>;

impl FaultyStore {
    pub(crate) fn breaks(&self, law: Law) -> bool {
        self.broken == Some(law)
    }

    /// Returns the store once the node is awake.
    async fn memory(&self) -> &MemoryStore {
        let mut awake = self.awake.clone();
        // The node sleeps for ever once its sender is dropped.
        if awake.wait_for(|awake| *awake).await.is_err() {
            std::future::pending::<()>().await;
        }
        &self.shared.memory
    }

    /// Overwrites an operation with an outcome, regardless of its state.
    fn force(&self, old: &Record<RecordedResponse>, outcome: Outcome<RecordedResponse>) -> Stored {
        let id = old.operation().id().clone();
        let metadata = old.operation().metadata().clone();
        let metadata = metadata.with_updated_at(SystemTime::now());
        let snapshot = Snapshot::new(outcome.into(), metadata);
        let operation = Operation::from_parts(id.clone(), snapshot);
        let version = old.version().unwrap().next();
        let owner = old.owner().cloned();
        let record = Record::restore(operation, version).with_owner(owner);
        let mut forced = self.shared.forced.lock().unwrap();
        forced.insert(id, record.clone());
        record
    }

    fn forced(&self, id: &OperationId) -> Option<Stored> {
        self.shared.forced.lock().unwrap().get(id).cloned()
    }

    /// Returns the key under which this node stores it.
    fn key(&self, key: IdempotencyKey) -> IdempotencyKey {
        match self.broken {
            Some(Law::KeysAcrossNodes) => IdempotencyKey {
                name: format!("{} at {}", key.name, self.node.as_str()).into(),
                ..key
            },
            Some(Law::Keys) => IdempotencyKey { owner: None, ..key },
            _ => key,
        }
    }
}

impl Store for FaultyStore {
    type Output = RecordedResponse;

    async fn get(&self, id: &OperationId) -> Answer<Option<Stored>> {
        let found = self.memory().await.get(id).await?;
        let found = self.forced(id).or(found);
        match found {
            Some(record) if self.breaks(Law::Freshness) => {
                let mut read = self.read.lock().unwrap();
                let first = read.entry(id.clone()).or_insert(record);
                Ok(Some(first.clone()))
            }
            found => Ok(found),
        }
    }
}

impl Repository for FaultyStore {
    async fn create(&self, mut new: NewOperation) -> Answer<Created<RecordedResponse>> {
        let memory = self.memory().await;
        if let Some(key) = new.key_mut() {
            *key = self.key(key.clone());
        }
        if self.breaks(Law::Durability) {
            let this = self.clone();
            let record = Record::create(&new, SystemTime::now());
            tokio::spawn(async move {
                sleep(Duration::from_millis(50)).await;
                this.memory().await.create(new).await
            });
            return Ok(Created::New(record));
        }
        memory.create(new).await
    }

    async fn start(
        &self,
        id: &OperationId,
        token: FencingToken,
    ) -> Answer<Written<RecordedResponse>> {
        self.memory().await.start(id, token).await
    }

    async fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> Answer<Written<RecordedResponse>> {
        self.memory().await.report(id, token, progress).await
    }

    async fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<RecordedResponse>,
        progress: Option<Progress>,
    ) -> Answer<Written<RecordedResponse>> {
        let memory = self.memory().await;
        match memory.finish(id, token, outcome.clone(), progress).await? {
            Written::Lost(record) if self.breaks(Law::Fencing) => {
                Ok(Written::Done(self.force(&record, outcome)))
            }
            write => Ok(write),
        }
    }

    async fn force_finish(
        &self,
        id: &OperationId,
        expected: Stamp,
        outcome: Outcome<RecordedResponse>,
    ) -> Answer<Written<RecordedResponse>> {
        self.memory()
            .await
            .force_finish(id, expected, outcome)
            .await
    }

    async fn delete(&self, id: &OperationId, expected: Stamp) -> Answer<Written<RecordedResponse>> {
        let memory = self.memory().await;
        if self.breaks(Law::Deletion)
            && let Some(record) = memory.get(id).await?
        {
            return Ok(Written::Done(record));
        }
        memory.delete(id, expected).await
    }
}

impl Watch for FaultyStore {
    async fn changed(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
    ) -> Answer<Option<Stored>> {
        let memory = self.memory().await;
        if self.breaks(Law::Waking) {
            sleep(at_most).await;
            return self.get(id).await;
        }
        memory.changed(id, since, at_most).await
    }
}

impl Lease for FaultyStore {
    async fn renew(&self, lease: &LeaseConfig, held: &[LeaseHandle]) -> Answer<Vec<LeaseHandle>> {
        let lost = self.memory().await.renew(lease, held).await?;
        match self.breaks(Law::Fencing) {
            true => Ok(Vec::new()),
            false => Ok(lost),
        }
    }

    async fn reclaim(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Answer<Vec<Reclaimed<RecordedResponse>>> {
        self.memory().await.reclaim(lease, limit).await
    }

    async fn claim(
        &self,
        lease: &LeaseConfig,
        held: &LeaseHandle,
    ) -> Answer<Written<RecordedResponse>> {
        self.memory().await.claim(lease, held).await
    }

    async fn release(&self, held: &[LeaseHandle]) -> Answer<()> {
        self.memory().await.release(held).await
    }

    async fn revoked(&self, node: &NodeId, at_most: Duration) -> Answer<Vec<OperationId>> {
        self.memory().await.revoked(node, at_most).await
    }
}

impl IdempotencyKeys for FaultyStore {
    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
    ) -> Answer<Reservation<RecordedResponse>> {
        let key = self.key(key.clone());
        self.memory().await.reserve(&key, token, term).await
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: RecordedResponse,
    ) -> Answer<bool> {
        let key = self.key(key.clone());
        self.memory().await.complete(&key, token, answer).await
    }

    async fn release_reservation(&self, key: &IdempotencyKey, token: FencingToken) -> Answer<bool> {
        let key = self.key(key.clone());
        self.memory().await.release_reservation(&key, token).await
    }
}
