//! Tools for testing your own 202 flow in a few lines.
//!
//! * [`Client`] sends a request, requires a 202, follows its `Location` and
//!   returns the operation once it has ended, or its result.
//! * [`TestOperation`] is an operation in a [`MemoryStore`](crate::MemoryStore) that the test
//!   controls: the test starts, finishes, fails or drops it.
//! * [`Environment`] replaces the wall clock, randomness and the tasks that this crate starts;
//!   [`TaskGroup`] stops or ends such tasks together, like a process.
//!
//! Testing an application with the layer:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use axum::{Router, routing::post};
//! use http::Request;
//! use tower_operations::{AsyncAcceptLayer, MemoryStore, PollService, State, testing::Client};
//!
//! let store = MemoryStore::new();
//! let app: Router = Router::new()
//!     .route("/reports", post(async || "the report").route_layer(AsyncAcceptLayer::new(store.clone())))
//!     .nest_service("/operations", PollService::new(store));
//!
//! let accepted = Client::new(app).accepted(Request::post("/reports"), "Q3").await;
//! assert_eq!(accepted.finished().await.state(), State::Succeeded);
//! assert_eq!(accepted.result().await.body(), "the report");
//! # }
//! ```
//!
//! Testing code that polls, with operations that the test controls:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use tower_operations::{FailureKind, MemoryStore, PollService, State, testing::{Client, TestOperation}};
//!
//! let store = MemoryStore::<u32>::with_weigher(|_| 0);
//! let client = Client::new(PollService::new(store.clone()));
//!
//! let operation = TestOperation::begin(&store).await;
//! let polled = client.at(format!("/{}", operation.id()));
//! assert_eq!(polled.operation().await.state(), State::Pending);
//! operation.finish(42).await;
//! assert_eq!(polled.finished().await.result(), Some(&42.into()));
//!
//! // One whose worker dies.
//! let operation = TestOperation::begin(&store).await;
//! let polled = client.at(format!("/{}", operation.id()));
//! drop(operation);
//! let problem = polled.finished().await.problem().cloned().unwrap();
//! assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
//! # }
//! ```
//!
//! A failed expectation panics with a message. Waiting is bounded by 60 seconds, which pass at
//! once with a paused tokio clock.

mod client;
mod operation;

pub use client::{Client, Polled};
pub use operation::TestOperation;

pub use crate::environment::{EnteredEnvironment, Environment, TaskGroup};
