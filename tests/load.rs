//! 100,000 operations over loopback: 64 connections, clients that hang up at
//! random, one call in ten panicking, one operation in ten canceled.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    panic,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use hyper::{body::Incoming, client::conn::http1, server, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, ServiceExt};
use tower_operations::{
    BufferedBody, MemoryStore, Operation, OperationHandle, OperationId, Operations, PollService,
    RequestBody, State,
    store::{Repository, Store, Written},
};

const OPERATIONS: usize = 100_000;
const CONNECTIONS: usize = 64;

/// The payload of an expected panic. Any other panic is printed.
const EXPECTED: &str = "one in ten";

#[derive(Default)]
struct RunCounts(Mutex<HashMap<OperationId, usize>>);

/// The body of a request whose work never ends. Its operation is canceled.
const ENDLESS: &str = "endless";

/// Panics, answers immediately or sleeps, depending on `turn`.
async fn work(
    request: Request<RequestBody<Incoming>>,
    run_counts: Arc<RunCounts>,
    turn: usize,
) -> Result<Response<BufferedBody>, Infallible> {
    let id = OperationHandle::from_extensions(request.extensions())
        .id()
        .cloned()
        .expect("the request was accepted");
    *run_counts.0.lock().unwrap().entry(id).or_default() += 1;
    match turn % 10 {
        0 => panic::panic_any(EXPECTED),
        1..=4 => tokio::time::sleep(Duration::from_millis(turn as u64 % 7)).await,
        _ => {}
    }
    let body = request
        .into_body()
        .collect()
        .await
        .expect("the body was collected")
        .to_bytes();
    if body == ENDLESS {
        std::future::pending::<()>().await;
    }
    Ok(Response::new(BufferedBody::from(body)))
}

type Sender = http1::SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr) -> (Sender, tokio::task::JoinHandle<()>) {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    (sender, connection)
}

async fn send(sender: &mut Sender, method: Method, path: &str, body: &str) -> (StatusCode, Bytes) {
    sender.ready().await.unwrap();
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(body)
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    (
        status,
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

fn parse(body: &[u8]) -> Operation<serde_json::Value> {
    serde_json::from_slice(body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

/// Runs one client until all turns are taken. Returns the ids of its 202s, with
/// the terminal state where the client observed one.
async fn client(address: SocketAddr, turns: Arc<AtomicUsize>) -> Vec<(OperationId, Option<State>)> {
    let mut observed = Vec::new();
    let (mut sender, mut connection) = connect(address).await;
    loop {
        let turn = turns.fetch_add(1, SeqCst);
        if turn >= OPERATIONS {
            drop(sender);
            connection.await.unwrap();
            return observed;
        }
        // A deterministic substitute for randomness.
        let dice = turn.wrapping_mul(0x9E37_79B9) >> 7;
        if dice.is_multiple_of(50) {
            // The client disconnects between the request and the answer.
            sender.ready().await.unwrap();
            let request = Request::post("/tasks")
                .body(Full::new(Bytes::from_static(b"gone")))
                .unwrap();
            let answer = tokio::spawn(sender.send_request(request));
            for _ in 0..dice % 20 {
                tokio::task::yield_now().await;
            }
            connection.abort();
            answer.abort();
            (sender, connection) = connect(address).await;
            continue;
        }
        let cancels = dice % 10 == 1;
        let body = if cancels { ENDLESS } else { "Q3" };
        let (status, body) = send(&mut sender, Method::POST, "/tasks", body).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        let accepted: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let path = accepted["location"].as_str().unwrap();
        let (status, body) = send(&mut sender, Method::GET, path, "").await;
        assert_eq!(status, StatusCode::OK, "a 202 is readable at once");
        let mut operation = parse(&body);
        if !cancels && dice % 4 == 2 {
            // The poll is held until the operation has ended.
            let (_, body) = send(&mut sender, Method::GET, &format!("{path}?wait=30"), "").await;
            operation = parse(&body);
            assert!(operation.state().is_terminal());
        }
        if cancels {
            let (status, body) = send(&mut sender, Method::DELETE, path, "").await;
            match status {
                StatusCode::OK => {
                    operation = parse(&body);
                    assert_eq!(operation.state(), State::Canceled);
                }
                StatusCode::CONFLICT => {}
                other => panic!("{other} to a cancel"),
            }
        }
        let state = Some(operation.state()).filter(|state| state.is_terminal());
        observed.push((operation.id().clone(), state));
    }
}

/// The memory of this process, in bytes.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kilobytes = line
        .trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap();
    kilobytes << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_operation_ends_exactly_once_and_nothing_leaks() {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref() != Some(&EXPECTED) {
            hook(info);
        }
    }));
    let metrics = tokio::runtime::Handle::current().metrics();
    let tasks_before = metrics.num_alive_tasks();

    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let run_counts = Arc::new(RunCounts::default());
    let calls = Arc::new(AtomicUsize::new(0));
    let accept = layer.cancel_grace(Duration::ZERO).layer(tower::service_fn({
        let run_counts = Arc::clone(&run_counts);
        move |request| work(request, Arc::clone(&run_counts), calls.fetch_add(1, SeqCst))
    }));
    let poll = PollService::new(store.clone()).mounted_at("/operations");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (accept, poll) = (accept.clone(), poll.clone());
            let route = service_fn(move |request: Request<Incoming>| {
                let (accept, poll) = (accept.clone(), poll.clone());
                async move {
                    if request.uri().path().starts_with("/operations") {
                        let response = poll.oneshot(request).await?;
                        return Ok::<_, Infallible>(response.map(Either::Left));
                    }
                    accept
                        .oneshot(request)
                        .await
                        .map(|response| response.map(Either::Right))
                }
            });
            tokio::spawn(async move {
                let mut http = server::conn::http1::Builder::new();
                let _ = http
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), route)
                    .await;
            });
        }
    });

    let turns = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| tokio::spawn(client(address, Arc::clone(&turns))))
        .collect();
    let mut observed = Vec::new();
    for client in clients {
        observed.extend(client.await.unwrap());
    }
    assert!(
        observed.len() > OPERATIONS * 9 / 10,
        "{} got a 202",
        observed.len()
    );

    let report = drain.drain(Duration::from_secs(60)).await;
    assert!(report.is_clean(), "{report:?}");
    server.abort();
    let _ = server.await;

    // About a kilobyte per operation, with the clients in the same process.
    let resident = resident_bytes();
    assert!(resident < 400 << 20, "{} MiB are resident", resident >> 20);

    // Each operation has ended once, in the observed state, and ran at most once.
    let mut states = HashMap::<State, usize>::new();
    for (id, state) in &observed {
        let record = store.get(id).await.unwrap().expect("nothing is lost");
        let now = record.operation().state();
        assert!(now.is_terminal(), "{id} is {now}");
        assert!(
            state.is_none_or(|state| state == now),
            "{id} was {state:?} and is {now}"
        );
        *states.entry(now).or_default() += 1;
    }
    for state in [State::Succeeded, State::Failed, State::Canceled] {
        let share = states[&state] * 100 / observed.len();
        assert!(share >= 8, "{states:?}");
    }
    let (stored, runs) = (
        store.len(),
        run_counts.0.lock().unwrap().values().copied().max(),
    );
    assert!(stored >= observed.len() && stored <= OPERATIONS);
    assert_eq!(runs, Some(1));

    // Nothing is left behind.
    let per_operation = store.bytes() / stored;
    assert!(per_operation < 2048, "{per_operation} bytes an operation");
    assert_eq!(store.waiters(), 0);
    let ids: Vec<_> = run_counts.0.lock().unwrap().keys().cloned().collect();
    let canceled_before_start = observed.iter().map(|(id, _)| id.clone());
    for id in ids.into_iter().chain(canceled_before_start) {
        if let Some(record) = store.get(&id).await.unwrap() {
            let deleted = store.delete(&id, record.stamp().unwrap()).await.unwrap();
            assert!(matches!(deleted, Written::Done(_)));
        }
    }
    assert_eq!(
        store.bytes() / 2048,
        0,
        "{} operations are left",
        store.len()
    );
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while metrics.num_alive_tasks() > tasks_before {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} tasks are left",
            metrics.num_alive_tasks()
        );
        tokio::task::yield_now().await;
    }
}
