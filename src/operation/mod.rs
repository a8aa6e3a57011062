//! The operation model: its id, its states and the transitions between them, its result and
//! its failure.
//!
//! This module is pure. It performs no I/O and needs no runtime. Every time is a parameter,
//! except the one in a [new id](OperationId::new). The rest of the crate builds on this
//! module, and it can be used alone, with a result type of your own:
//!
//! ```
//! use std::time::SystemTime;
//! use tower_operations::{Operation, OperationId, Outcome, Status, State};
//!
//! let mut operation = Operation::<u32>::new(OperationId::new());
//! assert_eq!(operation.state(), State::Pending);
//!
//! operation.transition(Status::Running, SystemTime::now())?;
//! operation.transition(Outcome::Succeeded(Some(42)), SystemTime::now())?;
//! assert_eq!(operation.result(), Some(&42));
//!
//! // Terminal is final.
//! let late = operation.transition(Outcome::Canceled, SystemTime::now());
//! assert_eq!(late.unwrap_err().to_string(), "an operation that is succeeded cannot become canceled");
//! # Ok::<(), tower_operations::InvalidTransition>(())
//! ```
//!
//! The types rule out invalid operations: only an operation that succeeded has a result,
//! only one that failed has a problem, and every failure has a problem.

mod body;
mod body_collector;
mod embedding;
mod explained;
mod failure;
mod hop_by_hop;
mod id;
mod media_type;
mod metadata;
mod payload;
mod problem;
mod progress;
mod recorded;
mod references;
mod resource;
mod state;
mod state_set;
mod status;
mod view;

pub(crate) use body::BodyGuard;
pub use body::BufferedBody;
pub(crate) use body_collector::{BodyCollector, BodyTooLarge};
pub(crate) use embedding::Embedding;
pub use failure::{Failure, FailureKind};
pub use id::{InvalidId, OperationId};
pub(crate) use media_type::essence;
pub use metadata::Metadata;
pub use payload::{Payload, PayloadView, ToJson};
pub use problem::Problem;
pub(crate) use problem::in_one_word;
pub use progress::Progress;
pub(crate) use progress::cut;
pub use recorded::RecordedResponse;
pub(crate) use recorded::{BodyDigest, RecordedBody};
pub(crate) use references::resolve_references;
pub use resource::{Operation, Snapshot};
pub use state::{InvalidTransition, State, UnknownState};
pub use state_set::StateSet;
pub use status::{Outcome, Status};
pub use view::OperationView;

pub use crate::codec::Stored;
