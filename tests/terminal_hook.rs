//! The hook that is called when an operation has ended.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use test_support::hooked::{Call, Hooked, When};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep, timeout},
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_operations::{
    BoxError, BufferedBody, EndedOperation, FailureKind, LeaseConfig, MemoryStore, OperationHandle,
    OperationId, Operations, Problem, QueuedRequest, RecordedResponse, RequestBody, RunService,
    State,
    store::{Created, Lease, NewOperation, NodeId, Owner, Repository, Store, StoreError, Watch},
};
use tower_operations_redb::RedbStore;

const PATIENCE: Duration = Duration::from_secs(300);

type Told = UnboundedReceiver<EndedOperation>;

/// Returns a hook that sends each end to a channel.
fn telling(into: UnboundedSender<EndedOperation>) -> impl tower_operations::TerminalHook {
    move |ended| {
        let sent = into.send(ended);
        async move { sent.unwrap() }
    }
}

fn operations<R>(store: R) -> (Operations<R>, Told) {
    let (into, told) = unbounded_channel();
    (Operations::new(store).on_terminal(telling(into)), told)
}

async fn next(told: &mut Told) -> EndedOperation {
    timeout(PATIENCE, told.recv()).await.unwrap().unwrap()
}

async fn accept<R, S>(operations: &Operations<R>, service: S) -> OperationId
where
    R: Lease<Output = RecordedResponse>,
    S: Service<
            Request<RequestBody<BufferedBody>>,
            Response = Response<BufferedBody>,
            Error = BoxError,
            Future: Send,
        > + Clone
        + Send
        + 'static,
{
    let request = Request::post("/reports").body(BufferedBody::from("Q3"));
    let accepted = operations.layer().layer(service).oneshot(request.unwrap());
    let accepted = accepted.await.unwrap();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    accepted.extensions().get::<OperationId>().unwrap().clone()
}

type Answer = Result<Response<BufferedBody>, BoxError>;

async fn done(_: Request<RequestBody<BufferedBody>>) -> Answer {
    Ok(Response::new(BufferedBody::from("done")))
}

async fn hang(_: Request<RequestBody<BufferedBody>>) -> Answer {
    pending().await
}

/// Calls each way in which an operation ends on a node.
async fn every_end_is_told<R>(store: R)
where
    R: Lease<Output = RecordedResponse> + Watch + Clone,
{
    let (operations, mut told) = operations(store.clone());
    let operations = operations
        .running_timeout(Duration::from_secs(60))
        .owner(|_: &http::request::Parts| Some(Owner::new("ada")));
    let expect = async |told: &mut Told, id: &OperationId, state: State| {
        let ended = next(told).await;
        assert_eq!(ended.operation().id(), id);
        assert_eq!(ended.operation().state(), state);
        // The outcome is in the store.
        let record = store.get(id).await.unwrap().unwrap();
        assert_eq!(record.operation().state(), state);
        ended
    };

    let id = accept(&operations, service_fn(done)).await;
    let ended = expect(&mut told, &id, State::Succeeded).await;
    assert_eq!(
        (ended.attempts(), ended.owner()),
        (1, Some(&Owner::new("ada")))
    );
    let response = ended.operation().result().unwrap();
    assert_eq!(
        (response.status(), response.body_len()),
        (StatusCode::OK, 4)
    );
    assert_eq!(response.body(), None);

    let fails = service_fn(async |_| Err::<Response<BufferedBody>, BoxError>("broken".into()));
    let id = accept(&operations, fails).await;
    let ended = expect(&mut told, &id, State::Failed).await;
    let failure = ended.operation().failure().unwrap();
    assert_eq!(failure.kind(), Some(FailureKind::InnerError));

    let refuses =
        service_fn(async |_| Ok::<_, BoxError>(Problem::new(StatusCode::CONFLICT).into_response()));
    let id = accept(&operations, refuses).await;
    let ended = expect(&mut told, &id, State::Failed).await;
    let response = ended.operation().response().unwrap();
    assert_eq!(response.status(), StatusCode::CONFLICT);

    let panics = service_fn(async |_: Request<RequestBody<BufferedBody>>| -> Answer {
        panic!("on purpose")
    });
    let id = accept(&operations, panics).await;
    expect(&mut told, &id, State::Failed).await;

    let id = accept(&operations, service_fn(hang)).await;
    let cancel = Request::delete(format!("/{id}")).body(()).unwrap();
    let canceled = operations.poll_service().oneshot(cancel).await.unwrap();
    assert_eq!(canceled.status(), StatusCode::OK);
    expect(&mut told, &id, State::Canceled).await;

    let id = accept(&operations, service_fn(hang)).await;
    let ended = expect(&mut told, &id, State::Failed).await;
    let failure = ended.operation().failure().unwrap();
    assert_eq!(failure.kind(), Some(FailureKind::TimedOut));

    let work = |_: OperationHandle| async { Ok::<_, Problem>(7) };
    let id = operations.spawn("count", work).await.unwrap();
    let ended = expect(&mut told, &id, State::Succeeded).await;
    assert_eq!(ended.operation().metadata().name(), Some("count"));

    // An operation of a node that died.
    let lease = LeaseConfig::new(NodeId::new(), Duration::from_secs(1));
    let new = NewOperation::new(OperationId::new()).with_lease(lease);
    let id = new.id.clone();
    store.create(new).await.unwrap();
    let recovering = tokio::spawn(operations.recovery().run());
    let ended = expect(&mut told, &id, State::Failed).await;
    let failure = ended.operation().failure().unwrap();
    assert_eq!(failure.kind(), Some(FailureKind::Interrupted));
    recovering.abort();

    let id = accept(&operations, service_fn(hang)).await;
    operations.drain(Duration::ZERO).await;
    expect(&mut told, &id, State::Failed).await;
    assert!(told.try_recv().is_err(), "each end is told once");
}

#[tokio::test(start_paused = true)]
async fn every_end_is_told_after_it_is_in_the_store() {
    every_end_is_told(MemoryStore::new()).await;
}

#[tokio::test(start_paused = true)]
async fn every_end_is_told_of_a_store_that_waits() {
    let waits = async |_, _| {
        tokio::task::yield_now().await;
        Ok(())
    };
    every_end_is_told(Hooked::new(MemoryStore::new(), waits)).await;
}

#[tokio::test]
async fn an_end_is_told_once_it_is_durable() {
    let store = RedbStore::in_memory().unwrap();
    let (into, mut told) = unbounded_channel();
    let read = store.clone();
    let operations = Operations::new(store).on_terminal(move |ended: EndedOperation| {
        let (store, into) = (read.clone(), into.clone());
        async move {
            let found = store.get(ended.operation().id()).await.unwrap().unwrap();
            into.send(found).unwrap();
        }
    });
    let id = accept(&operations, service_fn(done)).await;
    let found = timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
    assert_eq!(*found.operation().id(), id);
    assert_eq!(found.operation().state(), State::Succeeded);
}

#[tokio::test]
async fn a_failed_dispatch_is_told() {
    let (into, mut told) = unbounded_channel();
    let fails = async |_: QueuedRequest| Err::<(), BoxError>("the queue is away".into());
    let operations = Operations::dispatching(MemoryStore::new(), fails);
    let operations = operations.on_terminal(telling(into));
    let request = Request::post("/reports").body(BufferedBody::default());
    let service = operations.layer().layer(service_fn(done));
    let answer = service.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ended = next(&mut told).await;
    let failure = ended.operation().failure().unwrap();
    assert_eq!(failure.kind(), Some(FailureKind::NotDispatched));
}

#[tokio::test]
async fn a_worker_tells_of_the_ends_that_it_writes() {
    let store = MemoryStore::new();
    let new = NewOperation::new(OperationId::new()).with_lease(LeaseConfig::default());
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let request = Request::post("/reports").body(BufferedBody::default());
    let message = QueuedRequest::new(&record, request.unwrap());
    let (into, mut told) = unbounded_channel();
    let service = service_fn(async |_: Request<BufferedBody>| {
        Ok::<_, Infallible>(Response::new(BufferedBody::from("done")))
    });
    let worker = RunService::new(store, service).on_terminal(telling(into));
    worker.oneshot(message).await.unwrap();
    assert_eq!(next(&mut told).await.operation().state(), State::Succeeded);
}

/// The store has canceled the operation, although the client was told that it is unavailable.
#[tokio::test(start_paused = true)]
async fn a_cancel_whose_answer_is_lost_is_told() {
    let is_lost = Arc::new(AtomicBool::new(false));
    let loses = Arc::clone(&is_lost);
    let store = Hooked::new(MemoryStore::new(), move |call, when| {
        let is_now = (call, when) == (Call::ForceFinish, When::After) && loses.load(SeqCst);
        async move {
            match is_now {
                true => Err(StoreError::unavailable("the answer is lost")),
                false => Ok(()),
            }
        }
    });
    let (operations, mut told) = operations(store);
    let id = accept(&operations, service_fn(hang)).await;
    is_lost.store(true, SeqCst);
    let cancel = Request::delete(format!("/{id}")).body(()).unwrap();
    let answer = operations.poll_service().oneshot(cancel).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(next(&mut told).await.operation().state(), State::Canceled);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_whose_client_disconnects_is_told() {
    let hangs = Arc::new(AtomicBool::new(false));
    let is_hanging = Arc::clone(&hangs);
    let store = Hooked::new(MemoryStore::new(), move |call, when| {
        let is_now = (call, when) == (Call::ForceFinish, When::After) && is_hanging.load(SeqCst);
        async move {
            if is_now {
                pending::<()>().await;
            }
            Ok(())
        }
    });
    let (operations, mut told) = operations(store);
    let id = accept(&operations, service_fn(hang)).await;
    hangs.store(true, SeqCst);
    let cancel = Request::delete(format!("/{id}")).body(()).unwrap();
    let answer = operations.poll_service().oneshot(cancel);
    let disconnected = timeout(Duration::from_secs(1), answer).await;
    assert!(disconnected.is_err());
    assert_eq!(next(&mut told).await.operation().state(), State::Canceled);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_or_hangs_harms_nothing() {
    for panics in [true, false] {
        let operations = Operations::new(MemoryStore::new());
        let operations = operations.on_terminal(move |_: EndedOperation| async move {
            match panics {
                true => panic!("on purpose"),
                false => pending::<()>().await,
            }
        });
        let id = accept(&operations, service_fn(done)).await;
        let path = format!("/{id}?wait=10");
        let request = Request::get(path).body(()).unwrap();
        let answer = operations.poll_service().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(operations.in_flight().operations, 0);
        // A call is dropped after a minute, and a drain does not wait for it then.
        sleep(Duration::from_secs(61)).await;
        let begun = Instant::now();
        let report = operations.drain(Duration::from_secs(20)).await;
        assert!(report.is_clean() && begun.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_hook_up_to_its_deadline() {
    for (takes, is_whole) in [(5, true), (50, false)] {
        let has_ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&has_ended);
        let operations = Operations::new(MemoryStore::new());
        let operations = operations.on_terminal(move |_: EndedOperation| {
            let ends = Arc::clone(&ends);
            async move {
                sleep(Duration::from_secs(takes)).await;
                ends.store(true, SeqCst);
            }
        });
        accept(&operations, service_fn(done)).await;
        tokio::task::yield_now().await;
        let report = operations.drain(Duration::from_secs(20)).await;
        assert_eq!(has_ended.load(SeqCst), is_whole);
        assert!(report.is_clean(), "{report:?}");
        assert!(report.took < Duration::from_secs(22));
    }
}
