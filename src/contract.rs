//! The contract alone: own queue, own workers, own result type, own store.
//!
//! Where the work is not a service that could be wrapped, only the wire
//! contract is left: the 202, the operation as a resource with its life, and
//! the polls. Each of these is to be had alone. The names below on the left are
//! those of the Go package `operations`, whose contract this is.
//!
//! | Go | here |
//! | --- | --- |
//! | `Accepted`, `AcceptedConfig` | [`Accepted`] and its setters |
//! | `WriteAccepted` | [`Accepted::into_response`] |
//! | `Operation` | [`Operation<T>`](Operation) |
//! | `WriteOperation(status)` | [`Operation::into_response`] |
//! | `State`, `ValidateState` | [`State`], its `FromStr` |
//! | `IsTerminal`, `CanTransition` | [`State::is_terminal`], [`State::can_become`] |
//! | `TransitionOperation` | [`Operation::transition`] |
//! | `Store`, `StoreFunc` | [`Store`], [`StoreFn`] |
//! | `Writer`, `Repository` | [`Repository`] |
//! | `WriterFuncs` | [`RepositoryFn`] |
//! | `PollHandler` | [`PollService`] |
//! | `PollConfig.Store` | [`PollService::read_only`], [`PollService::new`] |
//! | `PollConfig.OperationID` | [`PollService::operation_id`] |
//! | `PollConfig.ErrorWriter` | [`PollService::error_writer`] |
//!
//! What holds there holds here: `Location` is trimmed and left out when empty;
//! `Retry-After` is sent only when positive, in whole seconds rounded up; a poll
//! is 200 in every state; a missing id is 400, an unknown one 404, an error of
//! the store 503 with its text hidden, all of them `application/problem+json`
//! and replaceable. Two rules are kept by types: a closure under [`StoreFn`]
//! gives a [`Snapshot`], which has no id, so that the operation has the one that
//! was asked for, and which is pending unless it says otherwise; and a failure
//! cannot be made without its problem.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use http::{Request, StatusCode};
//! use tower::ServiceExt;
//! use tower_operations::{
//!     Accepted, MemoryStore, OperationId, Outcome, PollService,
//!     store::{Created, NewOperation, Repository},
//! };
//!
//! #[derive(serde::Serialize)]
//! struct Report { pages: u32 }
//!
//! let store = MemoryStore::<Report>::with_weigher(|_| 0);
//!
//! // In your handler: keep the operation, put its id on your queue, and say so.
//! let id = OperationId::new();
//! let Created::New(record) = store.create(NewOperation::new(id.clone())).await? else {
//!     unreachable!("the id is new");
//! };
//! let response = Accepted::new(&id).location(format!("/operations/{id}")).into_response();
//! assert_eq!(response.status(), StatusCode::ACCEPTED);
//!
//! // In your worker: start it, and record how it ended. The token is yours
//! // until somebody else takes over.
//! store.start(&id, record.token()).await?;
//! store.finish(&id, record.token(), Outcome::Succeeded(Some(Report { pages: 5 })), None).await?;
//!
//! // In your router: let clients poll.
//! let poll = Request::get(format!("/operations/{id}")).body(())?;
//! let response = PollService::new(store).oneshot(poll).await?;
//! let body = response.body().as_whole().expect("it is no event stream");
//! let text = String::from_utf8(body.data().to_vec())?;
//! assert!(text.contains(r#""state":"succeeded","result":{"pages":5}"#));
//! # Ok(())
//! # }
//! ```
//!
//! The example `queue_worker.rs` is a whole server of this kind.

#[allow(unused_imports)] // for the links above
use crate::{
    Accepted, Operation, PollService, Snapshot, State, StoreFn,
    store::{Repository, RepositoryFn, Store},
};
