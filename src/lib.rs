//! Makes any slow [`tower::Service`] over `http` asynchronous, without changing
//! it: `202 Accepted` now, the work in the background, the result by polling.
//!
//! A slow endpoint times out at a proxy, the client retries, the work runs
//! twice. With [`AsyncAcceptLayer`] around it, the request is recorded as an
//! *operation* and answered at once; [`PollService`] lets the client read the
//! operation, wait for it, fetch its result and cancel it. [`Operations`] makes both.
//!
//! **An operation that got its 202 is never lost, and ends exactly once**, as
//! far as its store is durable. [`MemoryStore`] is gone with its process; there are
//! stores in a file, in PostgreSQL and in Redis. What a node leaves behind that dies
//! is for its [`Recovery`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use axum::{Router, body::Body, http::{Request, StatusCode}, routing::post};
//! use tower::ServiceExt;
//! use tower_operations::{MemoryStore, Operations};
//!
//! /// Slow, and unchanged.
//! async fn render_report() -> &'static str {
//!     tokio::time::sleep(std::time::Duration::from_secs(60)).await;
//!     "the report"
//! }
//!
//! let operations = Operations::new(MemoryStore::new());
//! let app: Router = Router::new()
//!     .route("/reports", post(render_report).route_layer(operations.layer()))
//!     .nest_service("/operations", operations.poll_service());
//!
//! // What a client gets once this is served:
//! let request = Request::post("/reports").body(Body::empty()).unwrap();
//! let response = app.clone().oneshot(request).await.unwrap();
//! assert_eq!(response.status(), StatusCode::ACCEPTED);
//!
//! let operation = response.headers()["location"].to_str().unwrap();
//! let request = Request::get(operation).body(Body::empty()).unwrap();
//! assert_eq!(app.oneshot(request).await.unwrap().status(), StatusCode::OK);
//! # }
//! ```
//!
//! # Where to go
//! * [`accept`]: the front door. Which requests are accepted, and what happens
//!   until their 202 is out.
//! * [`run`]: the back room. How the inner service is run, and how a run ends.
//! * [`poll`]: the window. What clients can ask, and how they wait.
//! * [`store`]: where operations are kept. The laws, the stores, and how to
//!   write one.
//! * [`operation`]: what an operation is. Pure types, usable alone.
//! * [`dialect`]: how an operation is spoken on the wire. [`guide::dialects`]: the
//!   vocabularies of Azure, Google, OData, FHIR, OGC and others, and your own.
//! * [`guide::modes`]: when a request goes asynchronous, and which way to
//!   choose. [`guide::handler`]: what changes for your handler.
//! * [`guide::deployment`]: stores, leases, crashes and restarts. [`guide::growing`]: from
//!   one process to workers on other machines. [`guide::performance`]: what it costs.
//! * [`contract`]: the 202, the resource and the polls without the layer, for
//!   queues and workers of your own.
//!
//! # Features
//! | feature | what it adds | needs Rust |
//! | --- | --- | --- |
//! | (none) | everything above | 1.89 |
//! | `apalis` | `ApalisDispatch`, `ApalisWorker`: requests handed off to workers elsewhere, by a queue of apalis | 1.89 |
//! | `axum` | extractors ([`OperationHandle`], [`OperationId`], `Preferences`), responses ([`Accepted`], [`Operation`], [`Problem`], [`NotAccepted`]), the original URI under nested routers | 1.89 |
//! | `conformance` | the laws of the store traits, as checks for any store; `checker`, a judge of what clients saw | 1.89 |
//! | `redb` | `RedbStore`: operations in a file, for one process | 1.90 |
//! | `postgres` | `PostgresStore`: operations in PostgreSQL, for many nodes | 1.94 |
//! | `redis` | `RedisStore`: operations in Redis or Valkey, for many nodes | 1.89 |
//! | `testing` | a kit for testing a 202 flow of yours | 1.89 |
//! | `full` | all of them | 1.94 |
//!
//! [`tower::Service`]: https://docs.rs/tower/latest/tower/trait.Service.html
#![cfg_attr(docsrs, feature(doc_cfg))]

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Marks a [point](crash_points) at which a test can make the process die.
macro_rules! crash_point {
    ($point:literal) => {
        #[cfg(feature = "crash-points")]
        crate::crash_points::here($point);
    };
}

pub mod accept;
#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "conformance")]
pub mod checker;
pub mod contract;
#[cfg(feature = "crash-points")]
#[doc(hidden)]
pub mod crash_points;
pub mod dialect;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod guide;
pub mod operation;
mod operations;
mod original_uri;
mod owner;
pub mod poll;
pub mod run;
mod settings;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use accept::{AsyncAccept, AsyncAcceptLayer, Idempotency, RequestBody, ResponseBody};
pub use dialect::Accepted;
pub use operation::{
    BufferedBody, Failure, FailureKind, InvalidId, InvalidTransition, Metadata, Operation,
    OperationId, OperationView, Outcome, Payload, PayloadView, Problem, Progress, RecordedResponse,
    Snapshot, State, StateSet, Status, ToJson, UnknownState,
};
pub use operations::{Operations, Spawn, SpawnError};
pub use owner::{ExtractOwner, HmacOwner};
pub use poll::PollService;
pub use run::{
    AcceptedRequest, Dispatch, Drain, DrainReport, InProcess, InvalidMessage, NotAccepted,
    OperationHandle, QueuedRequest, Recovery, RecoveryStats, RunOutcome, RunService,
};
#[cfg(feature = "postgres")]
pub use store::PostgresStore;
pub use store::{AnyStore, LeaseConfig, MemoryStore, Owner, StoreFn};
