//! Makes any slow [`tower::Service`] over `http` asynchronous without changing it: requests get
//! `202 Accepted` at once, the work runs in the background, and clients poll for the result.
//!
//! A slow endpoint times out at a proxy, the client retries, and the work runs twice. An
//! [`AsyncAcceptLayer`] around the endpoint records each request as an *operation* and answers
//! at once. A [`PollService`] lets clients read an operation, wait for its end, fetch its result
//! and cancel it. [`Operations`] creates the layer and the poll service.
//!
//! **An operation that got its 202 is never lost, and ends exactly once**, as far as its store
//! is durable: the operation reaches one terminal state, however many nodes, retries and crashes
//! there are. A request runs again only where [`AsyncAcceptLayer::rerun_if`] and
//! [`Recovery::rerun_with`] allow it, or where a queue has more than one attempt. [`MemoryStore`]
//! loses its operations when the process ends; stores in a file, in PostgreSQL and in Redis are
//! [packages](#packages) of their own. A [`Recovery`] ends or reruns the operations of nodes that
//! died.
//!
#![doc = include_str!("../docs/flow.svg")]
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use axum::{Router, body::Body, http::{Request, StatusCode}, routing::post};
//! use tower::ServiceExt;
//! use tower_operations::{MemoryStore, Operations};
//!
//! /// A slow handler, unchanged.
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
//! // A client posts a request, and polls the operation:
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
//! * [`accept`]: the layer, the selection of requests, and the steps to a 202.
//! * [`run`]: runs of the inner service, outcomes, recovery, drain and workers.
//! * [`poll`]: the poll service, its requests and responses, and held polls.
//! * [`store`]: the store traits with their laws, the stores, and a custom store as an example.
//! * [`engine`]: a kit for stores: implement compare-and-set on bytes, get a store.
//! * [`operation`]: the operation and its parts, as types that can be used alone.
//! * [`dialect`]: the wire formats of operations.
//! * [`contract`]: the 202, the operation resource and the polls without the layer, for queues
//!   and workers of your own.
//! * [`testing`](https://docs.rs/tower-operations/latest/tower_operations/testing): a kit for
//!   tests of a 202 flow, with the feature `testing`.
//!
//! # Guides
//! * [`guide::modes`]: when a request becomes asynchronous, and which mode to choose.
//! * [`guide::handler`]: what changes for a handler.
//! * [`guide::dialects`]: the wire formats of Azure, Google, OData, FHIR, OGC and others, and
//!   how to write one.
//! * [`guide::deployment`]: stores, leases, crashes and restarts.
//! * [`guide::growing`]: from one process to workers on other machines.
//! * [`guide::stores`]: writing a store on a database of your own.
//! * [`guide::performance`]: the cost of accepting and polling, in time and memory.
//!
//! # Packages
//! | package | adds | needs Rust |
//! | --- | --- | --- |
//! | `tower-operations` | everything above | 1.89 |
//! | [`tower-operations-redb`](https://docs.rs/tower-operations-redb) | `RedbStore`: operations in a file, for one process | 1.90 |
//! | [`tower-operations-postgres`](https://docs.rs/tower-operations-postgres) | `PostgresStore`: operations in PostgreSQL, for many nodes | 1.94 |
//! | [`tower-operations-redis`](https://docs.rs/tower-operations-redis) | `RedisStore`: operations in Redis or Valkey, for many nodes | 1.89 |
//! | [`tower-operations-apalis`](https://docs.rs/tower-operations-apalis) | `ApalisDispatch`, `ApalisWorker`: a queue of apalis, and workers on other machines | 1.89 |
//! | [`tower-operations-conformance`](https://docs.rs/tower-operations-conformance) | checks of the [laws](store#laws) of the store traits, for any store; a checker that compares what clients observed with the laws | 1.89 |
//!
//! # Features
//! | feature | adds |
//! | --- | --- |
//! | `axum` | extractors ([`OperationHandle`], [`OperationId`], `Preferences`), responses ([`Accepted`], [`Operation`], [`Problem`], [`ApiError`](dialect::ApiError), [`NotAccepted`]), the original URI under nested routers |
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
mod body_digest;
mod codec;
pub mod contract;
#[cfg(feature = "crash-points")]
#[doc(hidden)]
pub mod crash_points;
mod deadline_lists;
pub mod dialect;
pub mod engine;
mod environment;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod guide;
pub mod operation;
mod operations;
mod owner;
mod pauses;
pub mod poll;
pub mod results;
pub mod run;
mod settings;
mod slots;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod tower_util;

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
    AcceptedRequest, Dispatch, Drain, DrainReport, EndedOperation, InFlightStats, InProcess,
    InvalidMessage, NotAccepted, OperationHandle, QueuedRequest, Recovery, RecoveryStats,
    RunOutcome, RunService, TerminalHook,
};
pub use store::{AnyStore, LeaseConfig, MemoryStore, Owner, StoreFn};
