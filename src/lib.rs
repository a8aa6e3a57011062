//! Makes any slow [`tower::Service`] over `http` asynchronous without changing it:
//! `202 Accepted` now, the work in the background, the result by polling.
//!
//! A slow endpoint times out at a proxy, the client retries, and the work runs twice. With an
//! [`AsyncAcceptLayer`] around it, the request is recorded as an *operation* and answered at
//! once. [`PollService`] lets the client read the operation, wait for it, fetch its result and
//! cancel it. [`Operations`] makes both.
//!
//! **An operation that got its 202 is never lost, and ends exactly once**, as far as its store
//! is durable: it reaches one terminal state, whatever nodes, retries and crashes do. It runs
//! again only where the application allows that. [`MemoryStore`] is gone with its process;
//! there are stores in a file, in PostgreSQL and in Redis. A [`Recovery`] looks after the
//! operations of nodes that died.
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
//! # Modules
//! * [`accept`]: the layer. Which requests are accepted, and the steps to their 202.
//! * [`run`]: running the inner service, outcomes, recovery, drain, workers.
//! * [`poll`]: the poll service. What clients can ask, and how they wait.
//! * [`store`]: the store traits with their laws, the stores, and how to write one.
//! * [`engine`]: a kit for stores: compare-and-set on bytes in, every capability out.
//! * [`operation`]: what an operation is. Pure types, usable alone.
//! * [`dialect`]: how an operation is written on the wire.
//! * [`contract`]: the 202, the resource and the polls without the layer, for queues and
//!   workers of your own.
//! * [`testing`](https://docs.rs/tower-operations/latest/tower_operations/testing): a kit for
//!   tests of a 202 flow, with the feature `testing`.
//!
//! # Guides
//! * [`guide::modes`]: when a request becomes asynchronous, and which mode to choose.
//! * [`guide::handler`]: what changes for a handler.
//! * [`guide::dialects`]: the vocabularies of Azure, Google, OData, FHIR, OGC and others, and
//!   one of your own.
//! * [`guide::deployment`]: stores, leases, crashes and restarts.
//! * [`guide::growing`]: from one process to workers on other machines.
//! * [`guide::performance`]: what it costs.
//!
//! # Packages
//! | package | what it adds | needs Rust |
//! | --- | --- | --- |
//! | `tower-operations` | everything above | 1.89 |
//! | [`tower-operations-redb`](https://docs.rs/tower-operations-redb) | `RedbStore`: operations in a file, for one process | 1.90 |
//! | [`tower-operations-postgres`](https://docs.rs/tower-operations-postgres) | `PostgresStore`: operations in PostgreSQL, for many nodes | 1.94 |
//! | [`tower-operations-redis`](https://docs.rs/tower-operations-redis) | `RedisStore`: operations in Redis or Valkey, for many nodes | 1.89 |
//! | [`tower-operations-apalis`](https://docs.rs/tower-operations-apalis) | `ApalisDispatch`, `ApalisWorker`: requests that run on workers elsewhere, by a queue of apalis | 1.89 |
//! | [`tower-operations-conformance`](https://docs.rs/tower-operations-conformance) | checks of the laws of the store traits, for any store; `checker`, which judges client logs | 1.89 |
//!
//! # Features
//! | feature | what it adds |
//! | --- | --- |
//! | `axum` | extractors ([`OperationHandle`], [`OperationId`], `Preferences`), responses ([`Accepted`], [`Operation`], [`Problem`], [`NotAccepted`]), the original URI under nested routers |
//! | `testing` | a kit for testing your own 202 flow |
//! | `full` | both |
//!
//! [`tower::Service`]: https://docs.rs/tower/latest/tower/trait.Service.html
#![cfg_attr(docsrs, feature(doc_cfg))]

/// The code of the README, which is compiled.
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
mod call;
pub mod contract;
#[cfg(feature = "crash-points")]
#[doc(hidden)]
pub mod crash_points;
pub mod dialect;
pub mod engine;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod guide;
pub mod operation;
mod operations;
mod original_uri;
mod owner;
pub mod poll;
mod random;
pub mod run;
mod settings;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

/// An error of any type, as everywhere in tower.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

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
pub use store::{AnyStore, LeaseConfig, MemoryStore, Owner, StoreFn};
