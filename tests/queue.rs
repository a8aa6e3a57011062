//! Accepted requests that go through a queue to workers elsewhere.

#[path = "support/hooked.rs"]
mod hooked;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use hooked::{Call, Hooked, When};
use http::{Request, Response};
use tokio::time::Instant;
use tower::{ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, FailureKind, MemoryStore, OperationHandle, OperationId, Outcome,
    QueuedRequest, Ran, RunService, State, WholeBody,
    store::{
        Created, LeaseTerm, NewOperation, NodeId, Owner, Repository, Store, StoreError, Write,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

fn front() -> LeaseTerm {
    LeaseTerm {
        node: NodeId::named("front"),
        term: MINUTE,
    }
}

/// An operation of a front's, and its message.
async fn accepted(
    store: &impl Repository<Output = tower_operations::RecordedResponse>,
) -> (OperationId, Bytes) {
    let new = NewOperation::new(OperationId::new())
        .owner(Some(Owner::new("ada")))
        .lease(front());
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let request = Request::post("/reports")
        .header("authorization", "Bearer abc")
        .body(WholeBody::from("Q3"))
        .unwrap();
    let message = QueuedRequest::new(&record, request).to_bytes();
    (record.operation().id().clone(), message)
}

#[derive(Clone, Default)]
struct Runs(Arc<AtomicUsize>);

macro_rules! worker {
    ($store:expr, $runs:expr, $seconds:expr) => {{
        let runs: Runs = $runs.clone();
        RunService::new(
            $store,
            service_fn(move |request: Request<WholeBody>| {
                runs.0.fetch_add(1, SeqCst);
                async move {
                    assert!(!request.headers().contains_key("authorization"));
                    assert_eq!(request.extensions().get(), Some(&Owner::new("ada")));
                    assert_eq!(OperationHandle::of(request.extensions()).attempt(), 1);
                    assert_eq!(request.body().data(), "Q3");
                    tokio::time::sleep(Duration::from_secs($seconds)).await;
                    Ok::<_, Infallible>(Response::new(WholeBody::from("done")))
                }
            }),
        )
    }};
}

fn message(bytes: &Bytes) -> QueuedRequest {
    QueuedRequest::from_bytes(bytes).unwrap()
}

#[tokio::test(start_paused = true)]
async fn of_all_deliveries_of_a_message_one_runs() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = accepted(&store).await;
    let workers: Vec<_> = (0..4).map(|_| worker!(store.clone(), runs, 5)).collect();
    let mut deliveries = tokio::task::JoinSet::new();
    for worker in workers.iter().chain(&workers) {
        deliveries.spawn(worker.clone().oneshot(message(&bytes)));
    }
    let mut recorded = 0;
    for ran in deliveries.join_all().await {
        match ran.unwrap() {
            Ran::Recorded(state) => {
                assert_eq!(state, State::Succeeded);
                recorded += 1;
            }
            ran => assert_eq!(ran, Ran::Refused),
        }
    }
    assert_eq!((recorded, runs.0.load(SeqCst)), (1, 1));
    let record = store.get(&id).await.unwrap().unwrap();
    assert_eq!(record.attempts(), 1);
    // Long afterwards.
    let late = workers[0].clone().oneshot(message(&bytes)).await.unwrap();
    assert_eq!((late, runs.0.load(SeqCst)), (Ran::Refused, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_canceled_meanwhile_is_never_started() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = accepted(&store).await;
    let record = store.get(&id).await.unwrap().unwrap();
    let version = record.version().unwrap();
    let write = store.overrule(&id, version, Outcome::Canceled).await;
    assert!(matches!(write, Ok(Write::Done(_))));
    let ran = worker!(store.clone(), runs, 0)
        .oneshot(message(&bytes))
        .await;
    assert_eq!((ran.unwrap(), runs.0.load(SeqCst)), (Ran::Refused, 0));
}

/// A cancel stops the work on the worker that has it.
#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_the_worker() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = accepted(&store).await;
    let running = tokio::spawn(worker!(store.clone(), runs, 3600).oneshot(message(&bytes)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let record = store.get(&id).await.unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Running);
    let (version, begun) = (record.version().unwrap(), Instant::now());
    store
        .overrule(&id, version, Outcome::Canceled)
        .await
        .unwrap();
    assert_eq!(running.await.unwrap().unwrap(), Ran::Refused);
    assert!(begun.elapsed() <= Duration::from_secs(1));
}

/// The queue has lost it, or is far too slow: whoever recovers ends it, and what comes
/// out of the queue later finds nothing to do.
#[tokio::test(start_paused = true)]
async fn what_the_queue_has_lost_is_recovered() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let (id, bytes) = accepted(&store).await;
    let layer = AsyncAcceptLayer::new(store.clone()).lease(LeaseTerm {
        node: NodeId::named("recovering"),
        term: MINUTE,
    });
    let recovery = tokio::spawn(layer.recovery().run());
    let failed = loop {
        let record = store.get(&id).await.unwrap().unwrap();
        if let Some(problem) = record.operation().problem() {
            break problem.type_uri().to_owned();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!(failed, FailureKind::Interrupted.urn());
    let late = worker!(store.clone(), runs, 0)
        .oneshot(message(&bytes))
        .await;
    assert_eq!((late.unwrap(), runs.0.load(SeqCst)), (Ran::Refused, 0));
    recovery.abort();
}

/// A claim whose answer is lost is an error, after which the message is delivered again.
/// It may have happened: then the operation is left to its lease.
#[tokio::test(start_paused = true)]
async fn a_claim_in_doubt_runs_nothing() {
    for lost_answer in [false, true] {
        let (memory, runs) = (MemoryStore::new(), Runs::default());
        let (id, bytes) = accepted(&memory).await;
        let tries = Arc::new(AtomicUsize::new(0));
        let when_it_fails = if lost_answer {
            When::After
        } else {
            When::Before
        };
        let store = Hooked::new(memory.clone(), move |call, when| {
            let fails =
                (call, when) == (Call::Claim, when_it_fails) && tries.fetch_add(1, SeqCst) == 0;
            std::future::ready(match fails {
                true => Err(StoreError::unavailable("cut")),
                false => Ok(()),
            })
        });
        let worker = worker!(store, runs, 0);
        let error = worker.clone().oneshot(message(&bytes)).await.unwrap_err();
        assert!(error.is_transient());
        assert_eq!(runs.0.load(SeqCst), 0);
        let again = worker.oneshot(message(&bytes)).await.unwrap();
        let (expected, attempts) = match lost_answer {
            true => (Ran::Refused, 0),
            false => (Ran::Recorded(State::Succeeded), 1),
        };
        assert_eq!((again, runs.0.load(SeqCst)), (expected, attempts));
        let record = memory.get(&id).await.unwrap().unwrap();
        assert_eq!(record.attempts(), attempts as u32);
    }
}
