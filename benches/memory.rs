//! Benchmark of memory: the bytes of an operation without its result, and of a held poll
//! without its connection.
//!
//! ```not_rust
//! cargo bench --bench memory
//! ```
//!
//! *asked for* is the memory allocated and not freed. *resident* is the growth of the
//! resident set of the process as reported by Linux, which includes the overhead of the
//! allocator, and excludes memory that was resident before.

#[path = "support/hand.rs"]
mod hand;
#[path = "support/report.rs"]
mod report;

use std::{
    alloc::System,
    convert::Infallible,
    future::{Future, poll_fn},
    hint::black_box,
    process::Command,
    task::Poll,
};

use bytes::Bytes;
use hand::{Operation, Operations, StoredResult};
use http::Request;
use report::{answer, report};
use serde_json::{Value, value::RawValue};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, MemoryStore, OperationId, PollService, RequestBody,
    store::{Created, LeaseConfig, NewOperation, Repository},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const OPERATIONS: usize = 1_000_000;
const WAITERS: usize = 100_000;

/// The cases, each of which is measured in a process of its own.
const CASES: [(&str, &str); 5] = [
    ("accepted", "ours, accepted and run"),
    ("polled", "ours, each polled too"),
    ("hand", "hand"),
    ("careful", "hand, careful"),
    ("held", "a held poll"),
];

fn main() {
    let case = std::env::args().nth(1).unwrap_or_default();
    if let Some((case, name)) = CASES.iter().find(|(name, _)| *name == case) {
        let (extra, growth) = measure(case);
        let Growth { asked, resident } = growth;
        return println!("| {name} | {asked:.0} | {resident:.0} | {extra} |");
    }
    println!("| bytes | asked for | resident | |");
    println!("| --- | --- | --- | --- |");
    for (case, _) in CASES {
        let program = std::env::current_exe().expect("this program");
        let ended = Command::new(program).arg(case).status();
        assert!(
            ended.expect("the process can be started").success(),
            "{case}"
        );
    }
}

fn measure(case: &str) -> (String, Growth) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let stored = format!("beyond its result of 1 KiB, {OPERATIONS} stored");
    match case {
        "accepted" => (stored, runtime.block_on(ours(false))),
        "polled" => (stored, runtime.block_on(ours(true))),
        "hand" => (stored, by_hand::<Value>()),
        "careful" => (stored, by_hand::<Box<RawValue>>()),
        _ => {
            let (size, growth) = runtime.block_on(waiters());
            let held = format!("beyond its future of {size} bytes, {WAITERS} held");
            (held, growth)
        }
    }
}

/// The memory in use at a moment.
#[derive(Clone, Copy)]
struct Usage {
    asked: usize,
    resident: usize,
}

/// The growth of memory per operation.
struct Growth {
    asked: f64,
    resident: f64,
}

impl Usage {
    fn now() -> Self {
        let stats = ALLOCATOR.stats();
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        let pages: usize = pages.expect("a number");
        Self {
            asked: stats.bytes_allocated - stats.bytes_deallocated,
            resident: pages * PAGE,
        }
    }

    /// Returns the growth since then for each of `count` operations, less `baseline` bytes.
    fn growth(self, count: usize, baseline: usize) -> Growth {
        let now = Self::now();
        let each =
            |now: usize, then: usize| (now as f64 - then as f64) / count as f64 - baseline as f64;
        Growth {
            asked: each(now.asked, self.asked),
            resident: each(now.resident, self.resident),
        }
    }
}

/// The page size of Linux on common hardware.
const PAGE: usize = 4096;

fn unbounded() -> MemoryStore {
    MemoryStore::new()
        .max_operations(usize::MAX)
        .max_bytes(usize::MAX)
}

/// Measures operations that are accepted and run, and polled if `are_polled`.
async fn ours(are_polled: bool) -> Growth {
    let (store, body) = (unbounded(), report());
    // Each result has its own bytes, as different results have.
    let work = service_fn(move |_: Request<RequestBody<BufferedBody>>| {
        let response = answer(Bytes::copy_from_slice(&body));
        async move { Ok::<_, Infallible>(response) }
    });
    let service = AsyncAcceptLayer::new(store.clone()).layer(work);
    let polls = PollService::new(store).mounted_at("/operations");
    let mut locations = Vec::with_capacity(OPERATIONS);
    let before = Usage::now();
    for _ in 0..OPERATIONS {
        let request = Request::post("/reports").body(BufferedBody::from("{}"));
        let accepted = service.clone().oneshot(request.expect("a request"));
        let Ok(response) = accepted.await;
        tokio::task::yield_now().await;
        let location = response.headers()["location"].as_bytes();
        let location: [u8; 48] = location.try_into().expect("/operations/ and an id");
        locations.push(location);
    }
    for location in locations.iter().filter(|_| are_polled) {
        let request = Request::get(&location[..]).body(()).expect("a request");
        let Ok(response) = polls.clone().oneshot(request).await;
        let body = response
            .body()
            .as_whole()
            .expect("the answer is complete")
            .data();
        let has_succeeded = body.windows(9).any(|text| text == b"succeeded");
        assert!(has_succeeded, "the operation has not succeeded");
    }
    before.growth(OPERATIONS, report().len())
}

fn by_hand<R: StoredResult>() -> Growth {
    let operations = Operations::<R>::default();
    let before = Usage::now();
    for _ in 0..OPERATIONS {
        let mut operation = Operation::new(uuid::Uuid::new_v4());
        operation.finish(R::parse(&report()));
        operations.insert(operation.id, operation);
    }
    let growth = before.growth(OPERATIONS, report().len());
    drop(black_box(operations));
    growth
}

/// Returns the size of the future of a held poll, and its further memory.
async fn waiters() -> (usize, Growth) {
    let store = unbounded();
    let polls = PollService::new(store.clone()).max_held(usize::MAX);
    let mut calls = Vec::with_capacity(WAITERS);
    for _ in 0..WAITERS {
        let id = OperationId::new();
        let new = NewOperation::new(id.clone()).with_lease(LeaseConfig::default());
        let Ok(Created::New(_)) = store.create(new).await else {
            panic!("not created");
        };
        let request = Request::get(format!("/{id}?wait=30")).body(());
        let mut polls = polls.clone();
        // The service is always ready.
        let call = tower::Service::call(&mut polls, request.expect("a request"));
        calls.push(Box::pin(call));
    }
    let size = calls.first().map_or(0, |call| size_of_val(&**call));
    let before = Usage::now();
    poll_fn(|context| {
        for call in &mut calls {
            assert!(call.as_mut().poll(context).is_pending(), "the poll is held");
        }
        Poll::Ready(())
    })
    .await;
    let growth = before.growth(WAITERS, 0);
    assert_eq!(store.waiters(), WAITERS);
    (size, growth)
}
