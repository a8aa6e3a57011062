//! Benchmark of a [`MemoryStore`]: polls with more stored operations, and several threads.
//!
//! ```not_rust
//! cargo bench --bench scale
//! ```
//!
//! The tables show medians of rounds in which each contender has a turn.

use std::{
    hint::black_box,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use http::Request;
use tokio::runtime::{Builder, Runtime};
use tower::Service;
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Outcome, PollService, RecordedResponse,
    store::{Created, LeaseConfig, NewOperation, Repository},
};

#[path = "support/report.rs"]
mod report;

const ROUNDS: usize = 21;

/// The number of polls in a turn, each of another operation.
const POLLS: usize = 5_000;

const STORED: [usize; 5] = [1, 100, 10_000, 100_000, 1_000_000];

/// The duration of a turn of the threads.
const TURN: Duration = Duration::from_millis(150);

fn main() {
    flatness();
    println!();
    contention();
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime")
}

fn unbounded() -> MemoryStore {
    MemoryStore::new()
        .max_operations(usize::MAX)
        .max_bytes(usize::MAX)
}

/// Creates, starts and finishes an operation with 1 KiB.
async fn finish_one(store: &MemoryStore) -> OperationId {
    let id = OperationId::new();
    let new = NewOperation::new(id.clone()).with_lease(LeaseConfig::default());
    let Ok(Created::New(record)) = store.create(new).await else {
        panic!("not created");
    };
    store.start(&id, record.token()).await.expect("started");
    let body = bytes::Bytes::copy_from_slice(&report::report());
    let outcome = Outcome::Succeeded(Some(RecordedResponse::new(report::answer(body))));
    let written = store.finish(&id, record.token(), outcome, None).await;
    written.expect("finished");
    id
}

fn flatness() {
    let runtime = runtime();
    let mut stores = STORED.map(|stored| {
        let store = unbounded();
        let ids: Vec<_> = runtime.block_on(async {
            let mut ids = Vec::with_capacity(stored);
            for _ in 0..stored {
                ids.push(finish_one(&store).await);
            }
            ids
        });
        (PollService::new(store), ids)
    });
    let mut times = STORED.map(|_| Vec::new());
    let mut turn = 0;
    for round in 0..ROUNDS {
        for place in 0..STORED.len() {
            let index = (place + round) % STORED.len();
            let (polls, ids) = &mut stores[index];
            times[index].push(polling(&runtime, polls, ids, turn));
            turn += 1;
        }
    }
    let times = times.map(median);
    println!("| stored | a poll, ns | to that of 10,000 |\n| --- | --- | --- |");
    for (stored, time) in STORED.iter().zip(times) {
        println!("| {stored} | {time:.0} | {:.2} |", time / times[2]);
    }
}

/// Measures the nanoseconds per poll of scattered operations.
fn polling(
    runtime: &Runtime,
    polls: &mut PollService<MemoryStore>,
    ids: &[OperationId],
    turn: usize,
) -> f64 {
    // Strides of a large prime avoid neighboring operations.
    let requests: Vec<_> = (0..POLLS)
        .map(|n| {
            let id = &ids[(turn * POLLS + n).wrapping_mul(2_654_435_761) % ids.len()];
            let request = Request::get(format!("/{id}")).body(());
            request.expect("a request")
        })
        .collect();
    runtime.block_on(async {
        let since = Instant::now();
        for request in requests {
            // The service is always ready.
            let Ok(answer) = polls.call(request).await;
            black_box(answer.body().as_whole().map(BufferedBody::data));
        }
        since.elapsed().as_nanos() as f64 / POLLS as f64
    })
}

fn contention() {
    let kinds: [(&str, Work); 2] = [("create, start, finish with 1 KiB", whole), ("get", get)];
    println!("| threads | work | a second | to one thread | to a store for each thread |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, work) in kinds {
        let mut rounds = [1, 2, 8].map(|threads| (threads, Vec::new(), Vec::new()));
        for _ in 0..ROUNDS / 2 {
            for (threads, shared, apart) in &mut rounds {
                shared.push(rate(*threads, work, true));
                apart.push(rate(*threads, work, false));
            }
        }
        let mut one = None;
        for (threads, shared, apart) in rounds {
            let ratios = shared
                .iter()
                .zip(&apart)
                .map(|(shared, apart)| shared / apart);
            let (to_apart, rate) = (median(ratios.collect()), median(shared));
            let one = *one.get_or_insert(rate);
            println!(
                "| {threads} | {name} | {rate:.0} | {:.2} | {to_apart:.2} |",
                rate / one
            );
        }
    }
}

/// One call of a kind on one of the operations.
type Work = fn(&Runtime, &MemoryStore, &[OperationId], usize);

fn whole(runtime: &Runtime, store: &MemoryStore, _: &[OperationId], _: usize) {
    runtime.block_on(finish_one(store));
}

fn get(_: &Runtime, store: &MemoryStore, ids: &[OperationId], turn: usize) {
    use tower_operations::store::Store;

    let id = &ids[turn.wrapping_mul(7919) % ids.len()];
    black_box(store.get_now(id).expect("at once").expect("memory"));
}

/// Measures the calls per second of all threads together, with one store for all threads or
/// one for each.
fn rate(threads: usize, work: Work, is_shared: bool) -> f64 {
    // The store is bounded, so that it does not grow during the measurement.
    let store = || {
        let store = MemoryStore::new()
            .max_operations(100_000)
            .min_retention(Duration::ZERO);
        let ids: Vec<_> = (0..10_000)
            .map(|_| runtime().block_on(finish_one(&store)))
            .collect();
        Arc::new((store, ids))
    };
    let shared = store();
    let (barrier, is_over) = (Barrier::new(threads + 1), AtomicBool::new(false));
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let store = match is_shared {
                    true => Arc::clone(&shared),
                    false => store(),
                };
                let (barrier, is_over) = (&barrier, &is_over);
                scope.spawn(move || {
                    let (runtime, (store, ids)) = (runtime(), &*store);
                    let mut done = 0;
                    barrier.wait();
                    let since = Instant::now();
                    while !is_over.load(Relaxed) {
                        for _ in 0..16 {
                            work(&runtime, store, ids, thread + threads * done);
                            done += 1;
                        }
                    }
                    done as f64 / since.elapsed().as_secs_f64()
                })
            })
            .collect();
        barrier.wait();
        thread::sleep(TURN);
        is_over.store(true, Relaxed);
        let rates = running
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        rates.sum()
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
