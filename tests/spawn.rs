//! Work that is no HTTP request, as an operation like any other.

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
        .expect("it is kept")
        .operation()
        .state()
}

#[tokio::test(start_paused = true)]
async fn its_result_is_what_a_service_would_have_answered() {
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
    // It is in the store, and its work is begun.
    assert!(!state(&store, &id).await.is_terminal());
    let polls = operations.poll_service();
    let (status, shown) = ask(&polls, &format!("/{id}?wait=5")).await;
    assert_eq!(
        (status, &shown["state"]),
        (StatusCode::OK, &json!("succeeded"))
    );
    assert_eq!(shown["name"], "render");
    assert_eq!(shown["result"], json!({"pages": 5}));
    assert_eq!(shown["progress"]["completed"], 2);
    let (status, result) = ask(&polls, &format!("/{id}/result")).await;
    assert_eq!((status, result), (StatusCode::OK, json!({"pages": 5})));
}

#[tokio::test(start_paused = true)]
async fn its_error_is_the_problem_of_the_failure() {
    let operations = Operations::new(MemoryStore::new());
    let problem = Problem::new(StatusCode::CONFLICT).with_type("urn:example:no-data");
    let failed = problem.with_detail("page 3 has no data");
    let id = operations
        .spawn("render", |_| ready(Err::<(), _>(failed)))
        .await;
    let polls = operations.poll_service();
    let (_, shown) = ask(&polls, &format!("/{}?wait=5", id.unwrap())).await;
    assert_eq!(shown["state"], "failed");
    assert_eq!(shown["problem"]["type"], "urn:example:no-data");
    assert_eq!(shown["problem"]["status"], 409);
    assert_eq!(shown["problem"]["detail"], "page 3 has no data");

    let id = operations.spawn("render", |_| async {
        panic!("a panic is an outcome");
        #[allow(unreachable_code)]
        Ok::<(), Problem>(())
    });
    let (_, shown) = ask(&polls, &format!("/{}?wait=5", id.await.unwrap())).await;
    assert_eq!(shown["problem"]["type"], FailureKind::Panicked.urn());
}

#[tokio::test(start_paused = true)]
async fn it_has_the_time_limit_the_cancel_and_the_owner_of_any_other() {
    let by_header = |parts: &Parts| {
        let user = parts.headers.get("x-user")?;
        Some(Owner::new(user.to_str().unwrap()))
    };
    let operations = Operations::new(MemoryStore::new())
        .owner(by_header)
        .running_timeout(10 * SECOND);
    let polls = operations.poll_service();
    let hangs = |_| pending::<Result<(), Problem>>();
    let ada = Some(Owner::new("ada"));
    let timed = operations
        .spawn("a", hangs)
        .owner(ada.clone())
        .await
        .unwrap();
    let canceled = operations.spawn("b", hangs).owner(ada).await.unwrap();
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
    let (_, shown) = ask("GET", &timed, "ada").await;
    assert_eq!(shown["problem"]["type"], FailureKind::TimedOut.urn());
    assert_eq!(operations.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_is_refused_where_there_is_no_room_and_once_a_drain_has_begun() {
    let operations = Operations::new(MemoryStore::new()).max_in_flight(1);
    let hangs = |_| pending::<Result<(), Problem>>();
    let first = operations.spawn("a", hangs).await.unwrap();
    let refused = operations.spawn("b", hangs).await;
    assert!(matches!(refused, Err(SpawnError::Full)), "{refused:?}");
    let report = operations.drain(SECOND).await;
    assert_eq!(report.interrupted, [first]);
    let refused = operations.spawn("c", hangs).await;
    assert!(matches!(refused, Err(SpawnError::Closed)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_id_names_one_operation() {
    let operations = Operations::new(MemoryStore::new());
    let id: OperationId = "q3".parse().unwrap();
    let ran = Arc::new(AtomicBool::new(false));
    let hangs = |_| pending::<Result<(), Problem>>();
    assert_eq!(
        operations.spawn("a", hangs).id(id.clone()).await.unwrap(),
        id
    );
    let again = Arc::clone(&ran);
    let taken = operations.spawn("b", move |_| {
        again.store(true, SeqCst);
        ready(Ok::<_, Problem>(()))
    });
    let taken = taken.id(id).await;
    assert!(matches!(taken, Err(SpawnError::IdTaken)), "{taken:?}");
    sleep(SECOND).await;
    assert!(!ran.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_of_what_was_refused_even_if_the_store_has_it_late() {
    let memory = MemoryStore::new();
    let is_silent = Arc::new(AtomicBool::new(true));
    let silent = Arc::clone(&is_silent);
    let store = Hooked::new(memory.clone(), move |call, when| {
        let waits = (call, when) == (Call::Create, When::After) && silent.load(SeqCst);
        async move {
            match waits {
                true => Err(StoreError::unavailable("its answer is lost")),
                false => Ok(()),
            }
        }
    });
    let operations = Operations::new(store);
    let ran = Arc::new(AtomicBool::new(false));
    let runs = Arc::clone(&ran);
    let id: OperationId = "q3".parse().unwrap();
    let begun = Instant::now();
    let refused = operations.spawn("a", move |_| {
        runs.store(true, SeqCst);
        ready(Ok::<_, Problem>(()))
    });
    let refused = refused.id(id.clone()).await;
    assert!(matches!(refused, Err(SpawnError::Store(_))), "{refused:?}");
    assert!(begun.elapsed() < 6 * SECOND);
    is_silent.store(false, SeqCst);
    sleep(60 * SECOND).await;
    let record = memory.get(&id).await.unwrap().unwrap();
    let problem = record.operation().problem().expect("it was ended");
    assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
    assert!(!ran.load(SeqCst));
    assert_eq!(operations.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_node_has_spawned_is_ended_by_the_recovery_of_another() {
    let memory = MemoryStore::new();
    let is_dead = Arc::new(AtomicBool::new(false));
    let died = Arc::clone(&is_dead);
    let store = Hooked::new(memory.clone(), move |_, _| {
        let died = died.load(SeqCst);
        async move {
            if died {
                pending::<()>().await;
            }
            Ok(())
        }
    });
    let lease = |name: &'static str| LeaseConfig::new(NodeId::named(name), 30 * SECOND);
    let dies = Operations::new(store).lease(lease("first"));
    let id = dies
        .spawn("a", |_| pending::<Result<(), Problem>>())
        .await
        .unwrap();
    is_dead.store(true, SeqCst);
    let other = Operations::new(memory.clone()).lease(lease("second"));
    tokio::spawn(other.recovery().run());
    sleep(120 * SECOND).await;
    let record = memory.get(&id).await.unwrap().unwrap();
    let problem = record.operation().problem().expect("it was ended");
    assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_the_store_does_not_answer_keeps_no_drain_waiting() {
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
