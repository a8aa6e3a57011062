//! The back room: running what was accepted, and recording how it ended.
//!
//! [`RunService`] is a `tower::Service` that takes an [`AcceptedRequest`], runs
//! the inner service with it and records the outcome. The layer spawns it for
//! every request it accepts; it can also be called from a worker of yours.
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
//! | somebody cancels it | is canceled; the inner call is dropped |
//!
//! The outcome is written again and again, with growing pauses, until the store
//! has answered or the node has been drained.

mod accepted_request;
mod catch_panic;
mod drain;
mod gate;
mod handle;
mod heartbeat;
mod hold;
mod in_flight;
mod limits;
mod node;
mod operate;
mod persist;
mod queued_request;
mod record;
mod recovery;
mod service;
pub(crate) mod stored_request;
mod threshold;
mod work;

// For `gate`, which a model checker compiles over its own primitives.
use crate::store::{sync, wait};

pub use accepted_request::AcceptedRequest;
pub use drain::{Drain, DrainReport};
pub use handle::{NotAccepted, OperationHandle};
pub use queued_request::{InvalidMessage, QueuedRequest};
pub use recovery::Recovery;
pub use service::{Ran, RunFuture, RunService};

pub(crate) use accepted_request::operation_span;
pub(crate) use gate::{Denied, Gate};
pub(crate) use hold::{Holding, Told};
pub(crate) use in_flight::{Admitted, InFlight, Refused};
pub(crate) use limits::RunLimits;
pub(crate) use node::Node;
pub(crate) use operate::{collect, operate};
pub(crate) use persist::until_answered;
pub(crate) use work::Work;
