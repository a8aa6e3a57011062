//! Operations that the application spawns, without an HTTP request.

use test_support::hooked;

use std::{
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use hooked::{Call, Hooked, When};
use http::{Request, StatusCode, request::Parts};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;
use tower_operations::{
    FailureKind, LeaseConfig, MemoryStore, OperationId, Operations, Owner, PollService, Problem,
    Progress, SpawnError, State,
    store::{NodeId, Store, StoreError},
};

const SECOND: Duration = Duration::from_secs(1);

async fn ask<S: Store>(polls: &PollService<S>, uri: &str) -> (StatusCode, Value) {
    let request = Request::get(uri).body(()).unwrap();
    let Ok(answer) = polls.clone().oneshot(request).await;
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn state(store: &MemoryStore, id: &OperationId) -> State {
    store
        .get(id)
        .await
        .unwrap()
        .expect("the operation exists")
        .operation()
        .state()
}

#[tokio::test(start_paused = true)]
async fn the_result_of_a_spawned_operation_is_served_like_a_response() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let id = operations
        .spawn("render", |handle| async move {
            assert_eq!(handle.attempt(), 1);
            handle.progress(Progress::from_count(2, 5).with_unit("pages"));
            sleep(SECOND).await;
            Ok::<_, Problem>(json!({"pages": 5}))
        })
        .await
        .unwrap();
    // The operation is stored, and its work has begun.
    assert!(!state(&store, &id).await.is_terminal());
    let polls = operations.poll_service();
    let (status, operation) = ask(&polls, &format!("/{id}?wait=5")).await;
    assert_eq!(
        (status, &operation["state"]),
        (StatusCode::OK, &json!("succeeded"))
    );
    assert_eq!(operation["name"], "render");
    assert_eq!(operation["result"], json!({"pages": 5}));
    assert_eq!(operation["progress"]["completed"], 2);
    let (status, result) = ask(&polls, &format!("/{id}/result")).await;
    assert_eq!((status, result), (StatusCode::OK, json!({"pages": 5})));
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_spawned_operation_is_its_problem() {
    let operations = Operations::new(MemoryStore::new());
    let problem = Problem::new(StatusCode::CONFLICT).with_type("urn:example:no-data");
    let problem = problem.with_detail("page 3 has no data");
    let id = operations
        .spawn("render", |_| ready(Err::<(), _>(problem)))
        .await;
    let polls = operations.poll_service();
    let (_, operation) = ask(&polls, &format!("/{}?wait=5", id.unwrap())).await;
    assert_eq!(operation["state"], "failed");
    assert_eq!(operation["problem"]["type"], "urn:example:no-data");
    assert_eq!(operation["problem"]["status"], 409);
    assert_eq!(operation["problem"]["detail"], "page 3 has no data");

    let id = operations.spawn("render", |_| async {
        panic!("a panic is an outcome");
        #[allow(unreachable_code)]
        Ok::<(), Problem>(())
    });
    let (_, operation) = ask(&polls, &format!("/{}?wait=5", id.await.unwrap())).await;
    assert_eq!(operation["problem"]["type"], FailureKind::Panicked.urn());
}

#[tokio::test(start_paused = true)]
async fn a_spawned_operation_has_a_timeout_a_cancel_and_an_owner() {
    let header_owner = |parts: &Parts| {
        let user = parts.headers.get("x-user")?;
        Some(Owner::new(user.to_str().unwrap()))
    };
    let operations = Operations::new(MemoryStore::new())
        .owner(header_owner)
        .running_timeout(10 * SECOND);
    let polls = operations.poll_service();
    let hang = |_| pending::<Result<(), Problem>>();
    let ada = Some(Owner::new("ada"));
    let timed_out = operations
        .spawn("a", hang)
        .owner(ada.clone())
        .await
        .unwrap();
    let canceled = operations.spawn("b", hang).owner(ada).await.unwrap();
    let ask = async |method: &str, id: &OperationId, user: &str| {
        let request = Request::builder().method(method).uri(format!("/{id}"));
        let request = request.header("x-user", user).body(()).unwrap();
        let Ok(answer) = polls.clone().oneshot(request).await;
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            serde_json::from_slice::<Value>(&body).unwrap_or_default(),
        )
    };
    assert_eq!(
        ask("DELETE", &canceled, "bob").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(ask("DELETE", &canceled, "ada").await.1["state"], "canceled");
    sleep(11 * SECOND).await;
    let (_, operation) = ask("GET", &timed_out, "ada").await;
    assert_eq!(operation["problem"]["type"], FailureKind::TimedOut.urn());
    assert_eq!(operations.in_flight().operations, 0);
}

#[tokio::test(start_paused = true)]
async fn a_spawn_is_refused_at_the_bound_and_during_a_drain() {
    let operations = Operations::new(MemoryStore::new()).max_in_flight(1);
    let hang = |_| pending::<Result<(), Problem>>();
    let first = operations.spawn("a", hang).await.unwrap();
    let refused = operations.spawn("b", hang).await;
    assert!(matches!(refused, Err(SpawnError::Full)), "{refused:?}");
    let report = operations.drain(SECOND).await;
    assert_eq!(report.interrupted, [first]);
    let refused = operations.spawn("c", hang).await;
    assert!(matches!(refused, Err(SpawnError::Closed)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_id_belongs_to_one_operation() {
    let operations = Operations::new(MemoryStore::new());
    let id: OperationId = "q3".parse().unwrap();
    let has_run = Arc::new(AtomicBool::new(false));
    let hang = |_| pending::<Result<(), Problem>>();
    assert_eq!(
        operations.spawn("a", hang).id(id.clone()).await.unwrap(),
        id
    );
    let flag = Arc::clone(&has_run);
    let conflict = operations.spawn("b", move |_| {
        flag.store(true, SeqCst);
        ready(Ok::<_, Problem>(()))
    });
    let conflict = conflict.id(id).await;
    assert!(matches!(conflict, Err(SpawnError::IdTaken)), "{conflict:?}");
    sleep(SECOND).await;
    assert!(!has_run.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_refused_spawn_never_runs_even_if_its_operation_was_created() {
    let memory = MemoryStore::new();
    let is_silent = Arc::new(AtomicBool::new(true));
    let hook_is_silent = Arc::clone(&is_silent);
    let store = Hooked::new(memory.clone(), move |call, when| {
        let waits = (call, when) == (Call::Create, When::After) && hook_is_silent.load(SeqCst);
        async move {
            match waits {
                true => Err(StoreError::unavailable("its answer is lost")),
                false => Ok(()),
            }
        }
    });
    let operations = Operations::new(store);
    let has_run = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&has_run);
    let id: OperationId = "q3".parse().unwrap();
    let start = Instant::now();
    let refused = operations.spawn("a", move |_| {
        flag.store(true, SeqCst);
        ready(Ok::<_, Problem>(()))
    });
    let refused = refused.id(id.clone()).await;
    assert!(matches!(refused, Err(SpawnError::Store(_))), "{refused:?}");
    assert!(start.elapsed() < 6 * SECOND);
    is_silent.store(false, SeqCst);
    sleep(60 * SECOND).await;
    let record = memory.get(&id).await.unwrap().unwrap();
    let problem = record
        .operation()
        .problem()
        .expect("the operation was ended");
    assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
    assert!(!has_run.load(SeqCst));
    assert_eq!(operations.in_flight().operations, 0);
}

#[tokio::test(start_paused = true)]
async fn spawned_operations_of_a_dead_node_are_ended_by_another_node() {
    let memory = MemoryStore::new();
    let is_dead = Arc::new(AtomicBool::new(false));
    let dead = Arc::clone(&is_dead);
    let store = Hooked::new(memory.clone(), move |_, _| {
        let dead = dead.load(SeqCst);
        async move {
            if dead {
                pending::<()>().await;
            }
            Ok(())
        }
    });
    let lease = |name: &'static str| LeaseConfig::new(NodeId::named(name), 30 * SECOND);
    let first = Operations::new(store).lease(lease("first"));
    let id = first
        .spawn("a", |_| pending::<Result<(), Problem>>())
        .await
        .unwrap();
    is_dead.store(true, SeqCst);
    let other = Operations::new(memory.clone()).lease(lease("second"));
    tokio::spawn(other.recovery().run());
    sleep(120 * SECOND).await;
    let record = memory.get(&id).await.unwrap().unwrap();
    let problem = record
        .operation()
        .problem()
        .expect("the operation was ended");
    assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_create_delays_no_drain() {
    let store = Hooked::new(MemoryStore::new(), |call, _| async move {
        match call {
            Call::Create => pending().await,
            _ => Ok(()),
        }
    });
    let operations = Operations::new(store);
    let refused = operations.spawn("a", |_| ready(Ok::<_, Problem>(()))).await;
    assert!(matches!(refused, Err(SpawnError::Store(_))), "{refused:?}");
    let report = operations.drain(60 * SECOND).await;
    assert!(report.took < SECOND, "{report:?}");
    assert!(report.is_clean(), "{report:?}");
}
