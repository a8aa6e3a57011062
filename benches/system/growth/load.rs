//! The load of a store during the measurements.

use std::{sync::Arc, time::Duration};

use http::Response;
use tokio::{sync::Semaphore, task::JoinSet};
use tower_operations::{
    BufferedBody, OperationId, Outcome, RecordedResponse,
    store::{
        Created, FencingToken, Lease, LeaseConfig, List, NewOperation, NodeId, Owner, Purge, Stamp,
        Watch,
    },
};

/// A store with every measured trait.
pub(crate) trait FullStore:
    Watch<Output = RecordedResponse> + Lease + List + Purge + Clone
{
}

impl<S: Watch<Output = RecordedResponse> + Lease + List + Purge + Clone> FullStore for S {}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// The number of ended operations.
    pub(crate) stored: usize,
    /// The number of running operations.
    pub(crate) live: usize,
    /// The number of waiters, each for a change of another operation.
    pub(crate) waiters: usize,
    /// The size of a result in bytes.
    pub(crate) result: usize,
    /// The number of calls of each kind.
    pub(crate) calls: usize,
    more: usize,
}

impl Load {
    pub(crate) fn calls(calls: usize) -> Self {
        Self {
            stored: 1_000,
            live: 100,
            waiters: 20,
            result: 1_024,
            calls,
            more: 10,
        }
    }

    /// Sets the factor of the larger loads.
    pub(crate) fn more(self, more: usize) -> Self {
        Self { more, ..self }
    }

    /// Returns loads that are larger in one number each, with the factor.
    pub(crate) fn larger(self) -> [(&'static str, Self, usize); 4] {
        let more = self.more;
        let fewer = more.min(30);
        [
            (
                "stored",
                Self {
                    stored: self.stored * more,
                    ..self
                },
                more,
            ),
            (
                "live",
                Self {
                    live: self.live * more,
                    ..self
                },
                more,
            ),
            (
                "waiters",
                Self {
                    // Each waiter waits for a live operation.
                    live: self.live * fewer,
                    waiters: self.waiters * fewer,
                    ..self
                },
                fewer,
            ),
            (
                "result bytes",
                Self {
                    result: self.result * fewer,
                    ..self
                },
                fewer,
            ),
        ]
    }
}

pub(crate) type Handle = (OperationId, FencingToken);

/// Returns the owner of the listed operations, whose number is constant.
pub(crate) fn lister() -> Option<Owner> {
    Some(Owner::new("lister"))
}

pub(crate) fn lease() -> LeaseConfig {
    LeaseConfig::new(NodeId::named("node"), Duration::from_secs(3_600))
}

pub(crate) fn success(bytes: usize) -> Outcome<RecordedResponse> {
    let response = Response::new(BufferedBody::from(vec![b'x'; bytes]));
    Outcome::Succeeded(Some(RecordedResponse::new(response)))
}

pub(crate) async fn create_one<S: FullStore>(store: &S, owner: Option<Owner>) -> Handle {
    let new = NewOperation::new(OperationId::new());
    let answer = store
        .create(new.with_owner(owner).with_lease(lease()))
        .await;
    let Created::New(record) = answer.expect("an answer") else {
        panic!("the id is new");
    };
    (record.operation().id().clone(), record.token())
}

pub(crate) async fn start_one<S: FullStore>(store: &S, owner: Option<Owner>) -> Handle {
    let (id, token) = create_one(store, owner).await;
    store.start(&id, token).await.expect("started");
    (id, token)
}

pub(crate) async fn finish_one<S: FullStore>(
    store: &S,
    owner: Option<Owner>,
    bytes: usize,
) -> Handle {
    let (id, token) = start_one(store, owner).await;
    let written = store.finish(&id, token, success(bytes), None).await;
    written.expect("finished");
    (id, token)
}

/// A loaded store: its ended operations, and its waiters.
pub(crate) struct Loaded {
    pub(crate) ended: Vec<Handle>,
    _waiting: JoinSet<()>,
}

/// The number of concurrent calls; durable stores are fast only with many.
const AT_A_TIME: usize = 128;

async fn all<S: FullStore, F>(store: &S, count: usize, make: impl Fn(S, usize) -> F) -> Vec<Handle>
where
    F: Future<Output = Handle> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(AT_A_TIME));
    let mut making = JoinSet::new();
    for number in 0..count {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let one = make(store.clone(), number);
        making.spawn(async move {
            let held = one.await;
            drop(permit);
            held
        });
    }
    making.join_all().await
}

pub(crate) async fn load<S: FullStore>(store: &S, load: Load) -> Loaded {
    let Load { stored, live, .. } = load;
    let ended = all(store, stored, move |store, number| async move {
        // A page and a half of the operations belong to the lister.
        let owner = (number < 150).then(lister).flatten();
        finish_one(&store, owner, load.result).await
    });
    let ended = ended.await;
    let running = all(store, live, |store, _| async move {
        start_one(&store, None).await
    });
    let running = running.await;
    let mut waiting = JoinSet::new();
    for (id, _) in running.into_iter().take(load.waiters) {
        let store = store.clone();
        waiting.spawn(async move {
            let version = stamp(&store, &id).await.version;
            let _ = store
                .changed(&id, version, Duration::from_secs(3_600))
                .await;
        });
    }
    // Gives all waiters time to start.
    tokio::time::sleep(Duration::from_millis(200)).await;
    Loaded {
        ended,
        _waiting: waiting,
    }
}

pub(crate) async fn stamp<S: FullStore>(store: &S, id: &OperationId) -> Stamp {
    let record = store
        .get(id)
        .await
        .expect("an answer")
        .expect("the operation exists");
    record.stamp().expect("every measured store has versions")
}
