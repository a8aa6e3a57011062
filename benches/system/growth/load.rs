//! How much there is while something is measured.

use std::{sync::Arc, time::Duration};

use http::Response;
use tokio::{sync::Semaphore, task::JoinSet};
use tower_operations::{
    BufferedBody, OperationId, Outcome, RecordedResponse,
    store::{
        Created, FencingToken, Lease, LeaseConfig, List, NewOperation, NodeId, Owner, Purge,
        Version, Watch,
    },
};

/// A store with every power that is measured.
pub(crate) trait Whole:
    Watch<Output = RecordedResponse> + Lease + List + Purge + Clone
{
}

impl<S: Watch<Output = RecordedResponse> + Lease + List + Purge + Clone> Whole for S {}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// That have ended.
    pub(crate) stored: usize,
    /// That run.
    pub(crate) live: usize,
    /// That wait for a change, each of another operation.
    pub(crate) waiters: usize,
    /// Bytes.
    pub(crate) result: usize,
    /// How often each call is made.
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

    /// How many times as much the larger loads have of something.
    pub(crate) fn more(self, more: usize) -> Self {
        Self { more, ..self }
    }

    /// Larger in one thing each, and by how many times.
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
                    // Each waits for one of the live ones.
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

pub(crate) type Held = (OperationId, FencingToken);

/// Whose the operations are that are listed: always as many.
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

pub(crate) async fn created<S: Whole>(store: &S, owner: Option<Owner>) -> Held {
    let new = NewOperation::new(OperationId::new());
    let created = store
        .create(new.with_owner(owner).with_lease(lease()))
        .await;
    let Created::New(record) = created.expect("an answer") else {
        panic!("the id is new");
    };
    (record.operation().id().clone(), record.token())
}

pub(crate) async fn started<S: Whole>(store: &S, owner: Option<Owner>) -> Held {
    let (id, token) = created(store, owner).await;
    store.start(&id, token).await.expect("started");
    (id, token)
}

pub(crate) async fn finished<S: Whole>(store: &S, owner: Option<Owner>, bytes: usize) -> Held {
    let (id, token) = started(store, owner).await;
    let finished = store.finish(&id, token, success(bytes), None).await;
    finished.expect("finished");
    (id, token)
}

/// What there is: operations that have ended, and whoever waits.
pub(crate) struct Loaded {
    pub(crate) ended: Vec<Held>,
    _waiting: JoinSet<()>,
}

/// Many at a time: a durable store is as fast as it is only then.
const AT_A_TIME: usize = 128;

async fn all<S: Whole, F>(store: &S, count: usize, make: impl Fn(S, usize) -> F) -> Vec<Held>
where
    F: Future<Output = Held> + Send + 'static,
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

pub(crate) async fn load<S: Whole>(store: &S, load: Load) -> Loaded {
    let Load { stored, live, .. } = load;
    let ended = all(store, stored, move |store, number| async move {
        // A page and a half of them are the lister's.
        let owner = (number < 150).then(lister).flatten();
        finished(&store, owner, load.result).await
    });
    let ended = ended.await;
    let running = all(store, live, |store, _| async move {
        started(&store, None).await
    });
    let running = running.await;
    let mut waiting = JoinSet::new();
    for (id, _) in running.into_iter().take(load.waiters) {
        let store = store.clone();
        waiting.spawn(async move {
            let version = version(&store, &id).await;
            let _ = store
                .changed(&id, version, Duration::from_secs(3_600))
                .await;
        });
    }
    // Until all of them wait.
    tokio::time::sleep(Duration::from_millis(200)).await;
    Loaded {
        ended,
        _waiting: waiting,
    }
}

pub(crate) async fn version<S: Whole>(store: &S, id: &OperationId) -> Version {
    let record = store
        .get(id)
        .await
        .expect("an answer")
        .expect("it is there");
    record.version().expect("every store here counts")
}
