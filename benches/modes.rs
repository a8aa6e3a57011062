//! Benchmark of the accept modes: one request in one process without a network, until the
//! operation ends.
//!
//! ```not_rust
//! cargo bench --bench modes
//! ```
//!
//! prints the microseconds per request, which depend on the machine and its load. With a
//! mode and a number, the benchmark only makes that number of requests, for a profiler:
//!
//! ```not_rust
//! valgrind --tool=callgrind target/release/deps/modes-HASH always 2000
//! ```
//!
//! The instructions per request are those of 2,000 less those of 1,000, divided by 1,000.

#[path = "support/report.rs"]
mod report;

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use http::Request;
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{AsyncAcceptLayer, BufferedBody, MemoryStore, OperationHandle, RequestBody};

const MODES: [&str; 8] = [
    "bare",
    "preferred-passed",
    "preferred",
    "after-early",
    "after-late",
    "signaled-early",
    "signaled-accepted",
    "always",
];

fn main() {
    // Cargo itself adds `--bench`.
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match (arguments.next(), arguments.next()) {
        (Some(mode), Some(requests)) => {
            let requests = requests.parse().expect("a number of requests");
            runtime.block_on(run(&mode, requests));
        }
        _ => {
            println!("| mode | µs a request |\n| --- | --- |");
            for mode in MODES {
                runtime.block_on(run(mode, 1_000));
                let begun = Instant::now();
                runtime.block_on(run(mode, 5_000));
                let micros = begun.elapsed().as_secs_f64() * 1e6 / 5_000.0;
                println!("| {mode} | {micros:.1} |");
            }
        }
    }
}

async fn run(mode: &str, requests: usize) {
    assert!(MODES.contains(&mode), "one of {MODES:?}");
    let body = report::report();
    let (accepts, late) = (mode == "signaled-accepted", mode == "after-late");
    let inner = service_fn(move |request: Request<RequestBody<BufferedBody>>| {
        let response = report::answer(body.clone());
        async move {
            if accepts {
                let operation = OperationHandle::from_extensions(request.extensions());
                operation.accept().await.expect("memory takes it");
            }
            if late {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let layer = AsyncAcceptLayer::new(MemoryStore::new());
    let layer = match mode {
        "preferred-passed" | "preferred" => layer.when_preferred(),
        "after-early" => layer.after(Duration::from_secs(60)),
        "after-late" => layer.after(Duration::from_millis(1)),
        "signaled-early" | "signaled-accepted" => layer.when_signaled(),
        _ => layer,
    };
    let layered = layer.layer(inner.clone());
    for _ in 0..requests {
        let mut request = Request::post("/reports");
        if mode == "preferred" {
            request = request.header("prefer", "respond-async");
        }
        let request = request.body(BufferedBody::from("{}")).expect("a request");
        if mode == "bare" {
            let request = request.map(RequestBody::whole);
            let _ = inner.clone().oneshot(request).await;
            continue;
        }
        let _ = layered.clone().oneshot(request).await;
        // Lets the accepted operation end.
        match late {
            true => tokio::time::sleep(Duration::from_millis(3)).await,
            false => {
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}
