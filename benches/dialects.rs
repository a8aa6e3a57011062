//! Benchmark of a poll in each dialect, compared with `Plain`.
//!
//! Run with: `cargo bench --bench dialects` (about ten seconds).
//!
//! The benchmark has one thread and no network. A poll is measured from the request to the
//! last byte of the answer, for a running operation and for one that has succeeded with
//! 1 KiB of JSON. The table shows medians of rounds in which each dialect has a turn.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response};
use tokio::runtime::Builder;
use tower::Service;
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Operations, Outcome, PollService, Progress,
    RecordedResponse,
    dialect::{Arm, Azure, Dialect, DurableFunctions, Fhir, Google, Ipa, OData, Ogc, Plain},
    store::{Created, LeaseConfig, NewOperation, Repository},
};

const ROUNDS: usize = 41;
const POLLS: u32 = 4_000;

fn main() {
    let dialects: [(&str, Arc<dyn Dialect>); 9] = [
        ("plain", Arc::new(Plain::default())),
        ("azure", Arc::new(Azure::default())),
        ("arm", Arc::new(Arm::default())),
        ("google", Arc::new(Google::default())),
        ("odata", Arc::new(OData::default())),
        ("fhir", Arc::new(Fhir::default())),
        ("ogc", Arc::new(Ogc::default())),
        ("durable", Arc::new(DurableFunctions::default())),
        ("ipa", Arc::new(Ipa::default())),
    ];
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let store = MemoryStore::new();
    let (running, succeeded) =
        runtime.block_on(async { (create(&store, false).await, create(&store, true).await) });
    println!("| dialect | running, ns | ratio | succeeded with 1 KiB, ns | ratio |");
    println!("| --- | --- | --- | --- | --- |");
    let mut polls: Vec<_> = dialects
        .iter()
        .map(|(_, dialect)| {
            Operations::new(store.clone())
                .dialect(Arc::clone(dialect))
                .public_url("https://api.example.com")
                .expect("a URL")
                .poll_service()
        })
        .collect();
    let medians = [running, succeeded].map(|id| {
        let uri: http::Uri = format!("/{id}").parse().expect("a path");
        let mut times = vec![Vec::new(); polls.len()];
        for round in 0..ROUNDS {
            for turn in 0..polls.len() {
                // Each dialect is first equally often.
                let index = (turn + round) % polls.len();
                times[index].push(time(&runtime, &mut polls[index], &uri));
            }
        }
        times.into_iter().map(median).collect::<Vec<_>>()
    });
    for (index, (name, _)) in dialects.iter().enumerate() {
        let [running, succeeded] = &medians;
        println!(
            "| {name} | {:.0} | {:.2} | {:.0} | {:.2} |",
            running[index],
            running[index] / running[0],
            succeeded[index],
            succeeded[index] / succeeded[0],
        );
    }
}

/// Measures the nanoseconds per poll.
fn time(
    runtime: &tokio::runtime::Runtime,
    polls: &mut PollService<MemoryStore>,
    uri: &http::Uri,
) -> f64 {
    runtime.block_on(async {
        let since = Instant::now();
        for _ in 0..POLLS {
            let request = Request::get(uri.clone()).body(()).expect("a request");
            // The service is always ready.
            let Ok(answer) = polls.call(request).await;
            black_box(answer.body().as_whole().map(BufferedBody::data));
        }
        since.elapsed().as_nanos() as f64 / f64::from(POLLS)
    })
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

async fn create(store: &MemoryStore, ends: bool) -> OperationId {
    let id = OperationId::new();
    let new = NewOperation::new(id.clone())
        .with_name(Some("report".into()))
        .with_lease(LeaseConfig::default().with_term(Duration::from_secs(3600)));
    let Ok(Created::New(record)) = store.create(new).await else {
        panic!("not created");
    };
    let token = record.token();
    store.start(&id, token).await.expect("started");
    let progress = Progress::from_count(2, 5).with_unit("pages");
    store.report(&id, token, progress).await.expect("reported");
    if ends {
        let body = format!(r#"{{"title":"Q3","pages":"{}"}}"#, "p".repeat(1000));
        let response = Response::builder().header("content-type", "application/json");
        let response = response.body(BufferedBody::from(body)).expect("a response");
        let outcome = Outcome::Succeeded(Some(RecordedResponse::new(response)));
        let finished = store.finish(&id, token, outcome, None).await;
        finished.expect("finished");
    }
    id
}
