//! The seam between accepting and running.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tracing::Span;

use super::{AdmissionPermit, BufferedRequest, RunLimits, Runtime};
use crate::{operation::RecordedResponse, store::Record};

/// Takes accepted requests from who accepted them.
pub(crate) trait Take<S, R> {
    /// Takes one, and says by `tell` whether it has it, as soon as that is certain.
    fn take(
        &self,
        leaving: Leaving<S, R>,
        tell: impl FnOnce(Taken) + Send,
    ) -> impl Future<Output = ()> + Send;
}

/// An accepted request, with all that whoever takes it may need.
pub(crate) struct Leaving<S, R> {
    pub(crate) node: Arc<Runtime<R>>,
    pub(crate) limits: RunLimits,
    pub(crate) service: S,
    /// Of the operation, which this node holds.
    pub(crate) record: Arc<Record<RecordedResponse>>,
    pub(crate) request: Box<BufferedRequest>,
    /// The request as the store has it, if it does.
    pub(crate) stored: Option<Bytes>,
    pub(crate) admitted: AdmissionPermit,
    /// That of the request.
    pub(crate) span: Span,
    /// Whether the same request, if it comes again, finds the same operation.
    pub(crate) may_come_again: bool,
    /// How long it may take until it is certain that it is taken.
    pub(crate) at_most: Duration,
}

/// Whether somebody will do the work.
pub(crate) enum Taken {
    Yes(Arc<Record<RecordedResponse>>),
    /// The operation has failed, or will.
    No,
}
