//! Running accepted operations and recording their outcomes.
//!
//! [`RunService`] is a `tower::Service` that takes an [`AcceptedRequest`], runs the inner
//! service with it and records the outcome. The layer spawns a run for every request that the
//! layer accepts. Workers can call the service too.
//!
//! # How a run ends
//! | what happens | the operation |
//! | --- | --- |
//! | the inner service answers below 400 | succeeds with the response |
//! | it answers 400 or above | fails with the response, and its problem |
//! | it returns an error, or its response body does | fails, `inner-error` |
//! | it panics | fails, `panicked` |
//! | it is not ready, or not done, in time | fails, `timed-out` |
//! | its response is above the limit | fails, `result-too-large` |
//! | its node is drained before it is done | fails, `interrupted` |
//! | a client cancels the operation | is canceled; the inner call is dropped |
//!
//! # Running on workers
//! A layer of [dispatching](crate::Operations::dispatching) operations puts a [`QueuedRequest`]
//! into the queue of an engine, by a [`Dispatch`]. A worker's [`RunService`], around the
//! whole application, claims the operation and runs it:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, routing::post};
//! use tokio::sync::mpsc;
//! use tower::ServiceExt;
//! use tower_operations::{MemoryStore, Operations, QueuedRequest, RunService};
//!
//! async fn render() -> &'static str { "done" }
//!
//! let store = MemoryStore::new(); // one that front and workers share, in earnest
//! let (into, mut queue) = mpsc::channel(100); // and an engine
//! let operations = Operations::dispatching(store.clone(), move |request: QueuedRequest| {
//!     let into = into.clone();
//!     async move { into.send(request.to_bytes()).await }
//! });
//! tokio::spawn(operations.dispatching_recovery(3).run());
//! let front: Router = Router::new()
//!     .route("/reports", post(render).route_layer(operations.layer()))
//!     .nest_service("/operations", operations.poll_service());
//!
//! // Elsewhere: the same routes, without the layer.
//! let app: Router = Router::new().route("/reports", post(render));
//! let workers = RunService::new(store, app.map_request(|it: http::Request<_>| it.map(axum::body::Body::new)));
//! # let _ = front;
//! tokio::spawn(async move {
//!     while let Some(message) = queue.recv().await {
//!         let request = QueuedRequest::from_bytes(&message)?;
//!         workers.clone().oneshot(request).await?; // and then acknowledge it
//!     }
//!     Ok::<_, tower::BoxError>(())
//! });
//! # Ok(())
//! # }
//! ```
//!
//! Path parameters and other extensions of a request do not go through a queue. The application
//! extracts them again.
//!
//! # Logging
//! The end of each operation is logged once, by the node that wrote it, at `INFO`. A failure
//! that is no answer of the inner service (`interrupted`, `panicked`, `timed-out`, …) is logged
//! at `WARN`. The event has the fields `id`, `name`, `state`, `attempt`, `duration` (seconds
//! since the last start) and `problem` (its type). The message of a panic and the error of a
//! handler are logged at `ERROR`, and never sent.
//!
//! The span of an accepted request gets the id as `operation.id`, if the span has such a field.
//! The extensions of its response have the [`OperationId`](crate::OperationId), those of a
//! refusal the [`ApiError`](crate::dialect::ApiError).
//!
//! # Reading the code
//! `operate.rs` runs an operation that exists: one that was accepted at once, reclaimed, taken from
//! a queue, or spawned. `race` runs a call before it is an operation, and continues it if it becomes
//! one. Both use `supervise.rs` while the service works, `response_body.rs` for its response, and
//! `record.rs` for the outcome.
//!
//! # Store outages
//! Writing the outcome is retried, with growing pauses, until the store has answered or the node
//! has been drained.

mod accepted_request;
mod afterwards;
mod buffered_request;
mod catch_panic;
mod dispatch;
mod dispatcher;
mod drain;
mod draining;
mod failures;
mod guarded;
mod handle;
mod handler;
mod heartbeat;
mod in_flight;
mod in_process;
mod limits;
mod live_runs;
mod log_end;
mod now_or_never;
mod operate;
mod outcome;
mod owner_quotas;
mod pass_through;
mod persist;
mod queued_request;
mod race;
mod readiness;
mod record;
mod recovery;
mod request_upload;
mod response_body;
mod run_context;
mod runtime;
mod service;
mod signals;
mod span;
pub(crate) mod stored_request;
mod supervise;
mod sweep_timer;
mod terminal_hook;
mod timeout;
mod upload;

pub use accepted_request::AcceptedRequest;
pub(crate) use afterwards::afterwards;
pub(crate) use buffered_request::BufferedRequest;
pub(crate) use catch_panic::catch_panic;
pub use dispatch::Dispatch;
pub(crate) use dispatcher::{DispatchRequest, Dispatcher};
pub use drain::{Drain, DrainReport};
use guarded::guarded_next;
pub(crate) use guarded::{guarded, guarded_chunks, guarded_for};
pub use handle::{NotAccepted, OperationHandle};
pub(crate) use handler::Handler;
pub use in_flight::InFlightStats;
pub(crate) use in_flight::{
    AdmissionError, AdmissionPermit, BodyBytes, BytesExceeded, InFlight, UNCOUNTED,
};
pub use in_process::InProcess;
pub(crate) use limits::{LONGEST, LONGEST_WAIT, RunLimits};
use log_end::log_end;
pub(crate) use now_or_never::now_or_never;
pub(crate) use operate::{Run, operate};
pub(crate) use owner_quotas::{OwnerPermit, OwnerQuotas};
pub(crate) use pass_through::PassThrough;
pub(crate) use persist::retry_until_certain;
pub use queued_request::{InvalidMessage, QueuedRequest};
pub(crate) use race::{AcceptDenied, Creator, Gate, NotCreated, Race, RaceEnd};
pub(crate) use readiness::Readiness;
pub use recovery::{Recovery, RecoveryStats};
pub(crate) use request_upload::RequestUpload;
pub(crate) use response_body::{Recording, collect};
pub(crate) use run_context::RunContext;
pub(crate) use runtime::Runtime;
pub use service::{RunFuture, RunOutcome, RunService};
pub(crate) use span::{current_span, has_subscriber, operation_span};
pub(crate) use terminal_hook::Hook;
pub use terminal_hook::{EndedOperation, TerminalHook};
pub(crate) use timeout::Timeout;

// Under these names `gate` and `signals` are compiled over the primitives of a model checker.
use crate::store::{sync, wait};
