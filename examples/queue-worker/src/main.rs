//! The contract alone, without the layer. The application has its own queue, worker and
//! result type. Only the 202, the states of the operation and the polls come from the
//! crate.
//!
//! Run with
//!
//! ```not_rust
//! cargo run -p queue-worker -- 127.0.0.1:3000
//! ```
//!
//! (the address may be left out) and try
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/factors -H 'content-type: application/json' -d '{"number":720720}'
//! curl -i '127.0.0.1:3000/status?job=ID'                its current state
//! curl -i '127.0.0.1:3000/status?job=ID&wait=30'        the same, when it is done
//! curl -i '127.0.0.1:3000/status/result?job=ID'         the factors alone
//! curl -i '127.0.0.1:3000/status?job=ID' -X DELETE      cancel it
//! curl -i 127.0.0.1:3000/factors -H 'content-type: application/json' -d '{"number":0}'
//! ```
//!
//! The last request fails: zero has no prime factors. One worker runs one job at a
//! time, and the queue holds three more; further requests are answered with 503.

use std::time::Duration;

use axum::{Json, Router, extract::State, routing::post};
use http::{HeaderValue, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use tower::BoxError;
use tower_operations::{
    Accepted, BufferedBody, MemoryStore, OperationId, Operations, Outcome, Problem, Progress,
    dialect::ApiError,
    store::{Created, FencingToken, NewOperation, Repository, StoreError, Written},
};

#[derive(Deserialize)]
struct Order {
    number: u32,
}

/// The result: any type that is `Clone` and `Serialize`.
#[derive(Clone, Serialize)]
struct Factors {
    number: u32,
    factors: Vec<u32>,
}

type Store = MemoryStore<Factors>;

/// A message in the queue. Any holder of the token may write to the operation until the
/// operation is canceled.
struct Job {
    id: OperationId,
    token: FencingToken,
    number: u32,
}

#[derive(Clone)]
struct AppState {
    store: Store,
    queue: mpsc::Sender<Job>,
}

/// Creates the operation, queues the job and answers, in this order: an operation whose 202
/// was sent can be read, and will run.
///
/// A memory store answers at once. With a store that has to be awaited, do this in a
/// task of its own: a client that disconnects meanwhile must not leave an operation without
/// a job.
async fn order(State(state): State<AppState>, Json(order): Json<Order>) -> Response<BufferedBody> {
    let Ok(place) = state.queue.try_reserve() else {
        return unavailable("The queue is full");
    };
    let id = OperationId::new();
    let new = NewOperation::new(id.clone()).with_method(http::Method::POST);
    let Ok(Created::New(record)) = state.store.create(new).await else {
        return unavailable("Jobs cannot be kept at the moment");
    };
    place.send(Job {
        id: id.clone(),
        token: record.token(),
        number: order.number,
    });
    Accepted::new(&id)
        .with_location(format!("/status?job={id}"))
        .with_retry_after(Duration::from_secs(1))
        .into_response()
}

fn unavailable(title: &str) -> Response<BufferedBody> {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE).with_title(title);
    let mut response = problem.into_response();
    let seconds = HeaderValue::from_static("5");
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

async fn work(store: Store, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.recv().await {
        if let Err(error) = run(&store, &job).await {
            eprintln!("job {}: {error}", job.id);
        }
    }
}

async fn run(store: &Store, job: &Job) -> Result<(), StoreError> {
    let Job { id, token, .. } = job;
    // Every write returns whether it took place. `Lost` means that the operation was canceled,
    // `Gone` that the operation no longer exists.
    let Written::Done(_) = store.start(id, *token).await? else {
        return Ok(());
    };
    let mut rest = job.number;
    let mut factors = Vec::new();
    while rest > 1 {
        let factor = smallest_factor(rest).await;
        rest /= factor;
        factors.push(factor);
        let progress = Progress::from_message(format!("{rest} is left"));
        let Written::Done(_) = store.report(id, *token, progress).await? else {
            return Ok(());
        };
    }
    let outcome = match job.number {
        0 => Outcome::failed(
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
                .with_title("There are no factors")
                .with_detail("zero is no product of primes"),
        ),
        number => Outcome::Succeeded(Some(Factors { number, factors })),
    };
    store.finish(id, *token, outcome, None).await?;
    Ok(())
}

/// Finds the smallest prime factor of a number, slowly: in a tenth of a second.
async fn smallest_factor(number: u32) -> u32 {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let divisor = (2..=number.isqrt()).find(|divisor| number.is_multiple_of(*divisor));
    divisor.unwrap_or(number)
}

/// Writes an error in the format of this service.
fn own_error(fault: &ApiError) -> Response<BufferedBody> {
    let text = json!({ "error": fault.code(), "message": fault.problem().title() });
    let mut response = Response::new(BufferedBody::from(text.to_string()));
    *response.status_mut() = fault.status();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Returns the value of `?job=`.
fn job_in_query(parts: &http::request::Parts) -> Option<String> {
    let mut parameters = parts.uri.query()?.split('&');
    parameters.find_map(|parameter| Some(parameter.strip_prefix("job=")?.into()))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let address = std::env::args().nth(1);
    let heap_bytes = |result: &Factors| size_of_val(result.factors.as_slice());
    let store = MemoryStore::with_weigher(heap_bytes); // operations and the queue are lost when the process ends
    let (queue, jobs) = mpsc::channel(3);
    tokio::spawn(work(store.clone(), jobs));

    let polls = Operations::new(store.clone())
        .location(|_, id| format!("/status?job={id}"))
        .poll_service()
        .operation_id(job_in_query)
        .error_writer(own_error);
    let app = Router::new()
        .route("/factors", post(order))
        .with_state(AppState { store, queue })
        .nest_service("/status", polls);

    let listener =
        tokio::net::TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
