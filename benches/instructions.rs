//! Instructions that an accept, a poll and an end take: counted, so they are the same
//! on every run, and a change that costs some is seen.
//!
//! ```not_rust
//! bash benches/instructions.sh            # counts, prints, and fails if it is too many
//! bash benches/instructions.sh --update   # makes what is counted the new measure
//! ```
//!
//! It needs valgrind and `gungraun-runner`, which the script installs; with both there,
//! `cargo bench --bench instructions` does too. Each benchmark does [`OPERATIONS`] of its
//! kind; what comes before and after them is not counted.
//!
//! What an operation may take stands in `instructions.toml`. It may be exceeded by
//! [`TOLERANCE`] percent: another compiler or C library moves the numbers by less.

// Of what the macros make.
#![allow(missing_docs)]

#[path = "support/hand.rs"]
mod hand;
#[path = "support/report.rs"]
mod report;

use std::{convert::Infallible, future::Future, hint::black_box, time::Duration};

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use http::Request;
use serde_json::{Value, value::RawValue};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt};
use tower_operations::{
    AsyncAcceptLayer, MemoryStore, OperationId, Outcome, PollService, RecordedResponse,
    RequestBody, State, WholeBody,
    store::{Created, FencingToken, LeaseTerm, NewOperation, Repository, Store},
};

use hand::{Kept, Operation, Operations};
use report::{answer, report, work};

const OPERATIONS: usize = 1_000;

/// Percent.
const TOLERANCE: u64 = 5;

const NUMBERS: &str = include_str!("instructions.toml");

/// What `OPERATIONS` of this kind may take.
fn limit(kind: &str) -> LibraryBenchmarkConfig {
    let number = NUMBERS.lines().find_map(|line| {
        let (name, number) = line.split_once('=')?;
        (name.trim() == kind).then(|| number.trim().parse::<u64>())
    });
    let number = number
        .unwrap_or_else(|| panic!("{kind} is not in instructions.toml"))
        .unwrap_or_else(|error| panic!("instructions.toml: {kind}: {error}"));
    let limit = number * OPERATIONS as u64 * (100 + TOLERANCE) / 100;
    let callgrind = Callgrind::default()
        .hard_limits([(EventKind::Ir, limit)])
        .clone();
    LibraryBenchmarkConfig::default().tool(callgrind).clone()
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn post() -> Request<WholeBody> {
    Request::post("/reports")
        .body(WholeBody::from("{}"))
        .expect("a request")
}

/// Lets what was spawned run: on one thread, and as far as it can without waiting.
async fn settle() {
    tokio::task::yield_now().await;
}

/// What is counted, prepared. It drops nothing of what it works on.
type Prepared = Box<dyn FnOnce()>;

fn prepared(runtime: Runtime, work: impl Future<Output = ()> + 'static) -> Prepared {
    Box::new(move || {
        runtime.block_on(work);
        std::mem::forget(runtime);
    })
}

fn accepting() -> Prepared {
    accepting_into(&MemoryStore::new())
}

/// Each takes the place of another.
fn accepting_when_full() -> Prepared {
    let store = MemoryStore::new().max_operations(2 * OPERATIONS);
    accepting_into(&store.min_retention(Duration::ZERO))
}

fn accepting_into(store: &MemoryStore) -> Prepared {
    let runtime = runtime();
    let service = AsyncAcceptLayer::new(store.clone()).layer(work(Duration::ZERO));
    runtime.block_on(async {
        accept_all(&service, posts(2 * OPERATIONS)).await;
        let Ok(answer) = service.clone().oneshot(post()).await;
        settle().await;
        let location = answer.headers()["location"].to_str().expect("text");
        let (_, id) = location.rsplit_once('/').expect("a path");
        let record = store.get(&id.parse().expect("an id")).await;
        let record = record.expect("memory").expect("it was accepted");
        // Otherwise what is counted would not be all.
        assert_eq!(record.operation().state(), State::Succeeded);
    });
    let requests = posts(OPERATIONS);
    prepared(runtime, async move {
        accept_all(&service, requests).await;
        std::mem::forget(service);
    })
}

fn posts(count: usize) -> Vec<Request<WholeBody>> {
    (0..count).map(|_| post()).collect()
}

async fn accept_all<S, B>(service: &S, requests: Vec<Request<B>>)
where
    S: Service<Request<B>, Error = Infallible> + Clone,
{
    for request in requests {
        let Ok(answer) = service.clone().oneshot(request).await;
        black_box(answer);
        settle().await;
    }
}

fn spawning() -> Prepared {
    let (runtime, requests) = (runtime(), posts(OPERATIONS));
    let service = work::<RequestBody<WholeBody>>(Duration::ZERO);
    prepared(runtime, async move {
        for request in requests {
            let (service, request) = (service.clone(), request.map(RequestBody::whole));
            tokio::spawn(async move { service.oneshot(request).await.map(drop) });
            settle().await;
        }
    })
}

/// The same written by hand.
fn accepting_by_hand<R: Kept>() -> Prepared {
    let (runtime, operations) = (runtime(), Operations::<R>::default());
    let app = hand::app(operations, Duration::ZERO);
    let posts = || posts(OPERATIONS).into_iter().map(to_axum).collect();
    runtime.block_on(accept_all(&app, posts()));
    let requests = posts();
    prepared(runtime, async move {
        accept_all(&app, requests).await;
        std::mem::forget(app);
    })
}

fn polling_by_hand<R: Kept>() -> Prepared {
    let operations = Operations::<R>::default();
    let requests: Vec<_> = (0..OPERATIONS)
        .map(|_| {
            let mut operation = Operation::new(uuid::Uuid::new_v4());
            operation.finish(R::keep(&report()));
            let request = Request::get(format!("/operations/{}", operation.id));
            operations.insert(operation.id, operation);
            to_axum(request.body(WholeBody::default()).expect("a request"))
        })
        .collect();
    let app = hand::app(operations, Duration::ZERO);
    prepared(runtime(), async move {
        for request in requests {
            let Ok(answer) = app.clone().oneshot(request).await;
            black_box(answer);
        }
        std::mem::forget(app);
    })
}

fn to_axum(request: Request<WholeBody>) -> Request<axum::body::Body> {
    request.map(axum::body::Body::new)
}

/// An operation that runs.
async fn running(store: &MemoryStore) -> (OperationId, FencingToken) {
    let id = OperationId::new();
    let new = NewOperation::new(id.clone()).lease(LeaseTerm::default());
    let Ok(Created::New(record)) = store.create(new).await else {
        panic!("not created");
    };
    let token = record.token();
    store.start(&id, token).await.expect("started");
    (id, token)
}

fn success() -> Outcome<RecordedResponse> {
    Outcome::Succeeded(Some(RecordedResponse::new(answer(report()))))
}

fn ending() -> Prepared {
    let (runtime, store) = (runtime(), MemoryStore::new());
    let running: Vec<_> = runtime.block_on(async {
        let mut all = Vec::new();
        for _ in 0..OPERATIONS {
            let (id, token) = running(&store).await;
            all.push((id, token, success()));
        }
        all
    });
    prepared(runtime, async move {
        for (id, token, outcome) in running {
            let written = store.finish(&id, token, outcome, None).await;
            black_box(written).expect("finished");
        }
        std::mem::forget(store);
    })
}

fn polling() -> Prepared {
    let (runtime, store) = (runtime(), MemoryStore::new());
    let requests: Vec<_> = runtime.block_on(async {
        let mut all = Vec::new();
        for _ in 0..OPERATIONS {
            let (id, token) = running(&store).await;
            let finished = store.finish(&id, token, success(), None).await;
            finished.expect("finished");
            let request = Request::get(format!("/{id}")).body(());
            all.push(request.expect("a request"));
        }
        all
    });
    let polls = PollService::new(store);
    prepared(runtime, async move {
        for request in requests {
            let Ok(answer) = polls.clone().oneshot(request).await;
            black_box(answer);
        }
        std::mem::forget(polls);
    })
}

// Accepted, run, and its result of 1 KiB of JSON recorded.
#[library_benchmark(config = limit("accept"))]
#[bench::thousand(accepting())]
fn accept(prepared: Prepared) {
    prepared();
}

// The same in a store that is full, and forgets the oldest.
#[library_benchmark(config = limit("accept_full"))]
#[bench::thousand(accepting_when_full())]
fn accept_full(prepared: Prepared) {
    prepared();
}

// The same work spawned, and nothing else: no accept can beat it.
#[library_benchmark(config = limit("spawn"))]
#[bench::thousand(spawning())]
fn spawn(prepared: Prepared) {
    prepared();
}

// The outcome recorded.
#[library_benchmark(config = limit("finish"))]
#[bench::thousand(ending())]
fn finish(prepared: Prepared) {
    prepared();
}

// From the request to the answer, of an operation that has succeeded with 1 KiB.
#[library_benchmark(config = limit("poll"))]
#[bench::thousand(polling())]
fn poll(prepared: Prepared) {
    prepared();
}

// What is written by hand is there to be compared with, and has no limit.
#[library_benchmark]
#[bench::thousand(accepting_by_hand::<Value>())]
fn accept_by_hand(prepared: Prepared) {
    prepared();
}

#[library_benchmark]
#[bench::thousand(accepting_by_hand::<Box<RawValue>>())]
fn accept_by_careful_hand(prepared: Prepared) {
    prepared();
}

#[library_benchmark]
#[bench::thousand(polling_by_hand::<Value>())]
fn poll_by_hand(prepared: Prepared) {
    prepared();
}

#[library_benchmark]
#[bench::thousand(polling_by_hand::<Box<RawValue>>())]
fn poll_by_careful_hand(prepared: Prepared) {
    prepared();
}

library_benchmark_group!(
    name = operations,
    benchmarks = [
        accept,
        accept_full,
        spawn,
        finish,
        poll,
        accept_by_hand,
        accept_by_careful_hand,
        poll_by_hand,
        poll_by_careful_hand
    ]
);
main!(library_benchmark_groups = operations);
