//! The wire contract without the layer, for your own queue, workers, result type or store.
//!
//! If the work is not a service that can be wrapped, the wire contract remains useful: the
//! 202, the operation as a resource with its life cycle, and the polls. Each of these can
//! be used alone. The names in the left column below are those of the Go package
//! `operations`, which has the same contract.
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
//! The rules are those of the Go package. `Location` is trimmed and left out when empty.
//! `Retry-After` is sent only when positive, in whole seconds rounded up. A poll is 200 in every
//! state. A missing id is 400, an unknown id is 404, and an error of the store is 503 with its
//! text hidden. All of these errors are `application/problem+json` and replaceable. Types
//! enforce two further rules. A closure under [`StoreFn`] returns a [`Snapshot`], which has no
//! id and is pending by default, so that the operation always has the requested id. A failure
//! cannot be created without its problem.
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
//! #[derive(Clone, serde::Serialize)]
//! struct Report { pages: u32 }
//!
//! let store = MemoryStore::<Report>::with_weigher(|_| 0);
//!
//! // In your handler: keep the operation, put its id on your queue, and say so.
//! let id = OperationId::new();
//! let Created::New(record) = store.create(NewOperation::new(id.clone())).await? else {
//!     unreachable!("the id is new");
//! };
//! let response = Accepted::new(&id).with_location(format!("/operations/{id}")).into_response();
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
//! The example `queue-worker` is a complete server of this kind.

#[allow(unused_imports)] // for the links above
use crate::{
    Accepted, Operation, PollService, Snapshot, State, StoreFn,
    store::{Repository, RepositoryFn, Store},
};
