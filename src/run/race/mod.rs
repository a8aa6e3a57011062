//! Calls that become operations only when their time is over or their handler accepts them.
//!
//! The call runs in a task of its own. [`Race`] polls it, and the [`Gate`] decides which event
//! comes first: the end of the call, its acceptance, or the disconnect of its client. The
//! [`Creator`] creates the operation and tells the client.

mod call;
mod contest;
mod drive;
mod gate;

use std::{any::Any, future::Future};

pub(crate) use self::{
    drive::Race,
    gate::{AcceptDenied, Gate},
};
use super::{sync, wait};
use crate::{
    operation::{FailureKind, RecordedResponse},
    store::Record,
};

/// Creates the operation of a raced call.
pub(crate) trait Creator: Send {
    /// Creates the operation, as running or as pending. May be called again after an error.
    fn create(
        &self,
        is_running: bool,
    ) -> impl Future<Output = Result<Record<RecordedResponse>, NotCreated>> + Send;

    /// Tells the client that the call is an operation.
    fn accepted(&mut self, record: Record<RecordedResponse>);
}

/// The error of a [`Creator`]: there is no operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotCreated;

/// The end of a call that did not become an operation.
pub(crate) enum RaceEnd<P, E> {
    /// The call returned.
    Answered(Result<P, E>),
    /// The call panicked.
    Panicked(Box<dyn Any + Send>),
    /// The call failed: it exceeded the running time, for example.
    Failed(FailureKind),
    /// The time of a drain was over.
    ShutDown,
}
