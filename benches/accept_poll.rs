//! Benchmark of the layer in one process without a network: accepting, polling and passing
//! through, each compared with the cost without the crate.
//!
//! ```not_rust
//! cargo bench --bench accept_poll
//! ```
//!
//! Times depend on the machine and its load, so only the rows of one run are comparable.
//! `scale` measures the effect of stored operations, and `instructions` counts instructions.

#[path = "support/report.rs"]
mod report;

use std::{convert::Infallible, hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::{Request, Response};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, MemoryStore, OperationId, PollService, RequestBody,
    store::Watch,
};

type Body = RequestBody<BufferedBody>;

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn inner()
-> impl Service<Request<Body>, Response = Response<BufferedBody>, Error = Infallible, Future: Send>
+ Clone
+ Send {
    report::work(Duration::ZERO)
}

fn post() -> Request<BufferedBody> {
    Request::post("/reports")
        .body(BufferedBody::from("{}"))
        .expect("a request")
}

/// Returns a store that makes room for any number of accepted requests.
fn store() -> MemoryStore {
    MemoryStore::new()
        .max_operations(100_000)
        .min_retention(Duration::ZERO)
}

/// Measures a request that is accepted, run and recorded, and a spawned call alone, which is
/// the lower bound.
fn accept(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("accept");
    group.throughput(Throughput::Elements(1));
    let settle = async || {
        // The spawned task runs as soon as this task yields, on the only thread.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    };

    let service = AsyncAcceptLayer::new(store()).layer(inner());
    group.bench_function("layer, run and recorded", |bencher| {
        bencher.iter_batched(
            || (service.clone(), post()),
            |(service, request)| {
                runtime.block_on(async {
                    black_box(
                        service
                            .oneshot(request)
                            .await
                            .expect("the service is infallible"),
                    );
                    settle().await;
                });
            },
            BatchSize::SmallInput,
        );
    });
    let service = inner();
    group.bench_function("spawned call alone", |bencher| {
        bencher.iter_batched(
            || (service.clone(), post()),
            |(service, request)| {
                runtime.block_on(async {
                    let request = request.map(RequestBody::whole);
                    tokio::spawn(async move { service.oneshot(request).await.map(drop) });
                    settle().await;
                });
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn pass_through(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("GET that passes through");
    group.throughput(Throughput::Elements(1));
    let get = || {
        Request::get("/reports")
            .body(BufferedBody::default())
            .expect("a request")
    };
    let layered = AsyncAcceptLayer::new(store()).layer(inner());
    group.bench_function("with the layer", |bencher| {
        bencher.iter_batched(
            || (layered.clone(), get()),
            |(service, request)| runtime.block_on(service.oneshot(request)).map(black_box),
            BatchSize::SmallInput,
        );
    });
    let bare = inner();
    group.bench_function("without it", |bencher| {
        bencher.iter_batched(
            || (bare.clone(), get().map(RequestBody::whole)),
            |(service, request)| runtime.block_on(service.oneshot(request)).map(black_box),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Creates a finished operation with a result of 1 KiB.
fn create_finished(runtime: &Runtime, store: &MemoryStore) -> OperationId {
    runtime.block_on(async {
        let service = AsyncAcceptLayer::new(store.clone()).layer(inner());
        let response = service
            .oneshot(post())
            .await
            .expect("the service is infallible");
        let location = response.headers()["location"].to_str().expect("text");
        let id: OperationId = location
            .rsplit('/')
            .next()
            .and_then(|id| id.parse().ok())
            .expect("an id");
        let created = tower_operations::store::Version::FIRST;
        let mut version = created;
        loop {
            let record = store.changed(&id, version, Duration::from_secs(10)).await;
            let record = record.expect("memory").expect("the request was accepted");
            if record.operation().state().is_terminal() {
                return id;
            }
            version = record.version().expect("memory counts");
        }
    })
}

fn poll(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("poll of a finished operation");
    group.throughput(Throughput::Elements(1));
    let store = store();
    let id = create_finished(&runtime, &store);
    let service = PollService::new(store);
    for (name, suffix) in [("operation", ""), ("result", "/result")] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let request = Request::get(format!("/{id}{suffix}")).body(());
                    (service.clone(), request.expect("a request"))
                },
                |(service, request)| runtime.block_on(service.oneshot(request)).map(black_box),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).measurement_time(Duration::from_secs(3));
    targets = accept, pass_through, poll
}
criterion_main!(benches);
