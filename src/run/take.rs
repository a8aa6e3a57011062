//! The interface between accepting and running.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tracing::Span;

use super::{AdmissionPermit, BufferedRequest, RunLimits, Runtime};
use crate::{operation::RecordedResponse, store::Record};

/// A place to run accepted requests: this process, or a queue.
pub(crate) trait Take<S, R> {
    /// Takes a request, and reports through `tell` whether it was taken, as soon as that is
    /// certain.
    fn take(
        &self,
        leaving: Leaving<S, R>,
        tell: impl FnOnce(Taken) + Send,
    ) -> impl Future<Output = ()> + Send;
}

/// An accepted request, with everything that running or dispatching it needs.
pub(crate) struct Leaving<S, R> {
    pub(crate) node: Arc<Runtime<R>>,
    pub(crate) limits: RunLimits,
    pub(crate) service: S,
    /// The record of the operation, which this node holds.
    pub(crate) record: Arc<Record<RecordedResponse>>,
    pub(crate) request: Box<BufferedRequest>,
    /// The stored form of the request, if it is stored.
    pub(crate) stored: Option<Bytes>,
    pub(crate) admitted: AdmissionPermit,
    /// The span of the request.
    pub(crate) span: Span,
    /// Whether a repetition of the request finds the same operation.
    pub(crate) may_come_again: bool,
    /// The time within which it must be certain that the request is taken.
    pub(crate) at_most: Duration,
}

/// Whether the request will be run.
pub(crate) enum Taken {
    Yes(Arc<Record<RecordedResponse>>),
    /// The operation has failed, or will fail.
    No,
}
