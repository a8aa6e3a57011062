//! Telling the application that operations have ended.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tracing::Instrument;

use super::{InFlight, Runtime, Timeout, catch_panic::CatchPanic, log_end};
use crate::{
    environment,
    operation::{
        Failure, Operation, Outcome, Payload, PayloadView, RecordedResponse, Snapshot, Status,
    },
    store::{Owner, Record},
};

/// The time after which a call of a hook is dropped.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hook that is called when an operation has ended: [`Operations::on_terminal`]. Every closure
/// from an [`EndedOperation`] to a future is a hook.
///
/// The hook is called after the outcome is durable, at least once for each end: a result, a
/// failure, a cancel, a time-out, or the end of an operation that was reclaimed. It is called on the
/// node that wrote the end, once that node knows of it. Nothing is called if the node dies right
/// then, or never learns of its write, because a write is silent for longer than the lease and takes
/// effect afterwards.
///
/// Each call is a task of its own, so calls run at the same time and in any order, and a slow hook
/// has as many tasks as operations end within a minute. A panic is logged. A call that takes longer
/// than a minute is dropped. A drain waits for the calls that are in progress, within its deadline.
///
/// [`Operations::on_terminal`]: crate::Operations::on_terminal
pub trait TerminalHook: Send + Sync + 'static {
    /// Tells that an operation has ended.
    fn ended(&self, ended: EndedOperation) -> impl Future<Output = ()> + Send;
}

impl<F, A> TerminalHook for F
where
    F: Fn(EndedOperation) -> A + Send + Sync + 'static,
    A: Future<Output = ()> + Send,
{
    async fn ended(&self, ended: EndedOperation) {
        self(ended).await;
    }
}

/// An operation that has ended, as a [`TerminalHook`] gets it.
#[derive(Debug, Clone)]
pub struct EndedOperation {
    operation: Operation<RecordedResponse>,
    owner: Option<Owner>,
    attempts: u32,
}

impl EndedOperation {
    fn from_record<T: Payload>(record: &Record<T>) -> Self {
        let operation = record.operation();
        let status = match operation.status() {
            Status::Ended(outcome) => Status::Ended(head_of(outcome)),
            Status::Pending => Status::Pending,
            Status::Running => Status::Running,
        };
        let snapshot = Snapshot::new(status, operation.metadata().clone());
        Self {
            operation: Operation::from_parts(operation.id().clone(), snapshot),
            owner: record.owner().cloned(),
            attempts: record.attempts(),
        }
    }

    /// Returns the operation. Its response has the status, the fields and the length of the body,
    /// and not the body. A result that is no response is left out.
    #[must_use]
    pub fn operation(&self) -> &Operation<RecordedResponse> {
        &self.operation
    }

    /// Returns the owner, if there is one.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Returns how often the operation was started.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// Returns an outcome without the body of its response.
fn head_of<T: Payload>(outcome: &Outcome<T>) -> Outcome<RecordedResponse> {
    let head = |response: &Option<T>| match response.as_ref().map(Payload::view) {
        Some(PayloadView::Response(response)) => Some(response.as_unread()),
        Some(PayloadView::Json(_)) | None => None,
    };
    match outcome {
        Outcome::Succeeded(response) => Outcome::Succeeded(head(response)),
        Outcome::Failed(failure) => Outcome::Failed(
            Failure::from(failure.problem.clone())
                .with_kind(failure.kind())
                .with_response(head(&failure.response)),
        ),
        Outcome::Canceled => Outcome::Canceled,
        Outcome::CanceledFor(reason) => Outcome::CanceledFor(reason.clone()),
    }
}

/// The hook of a node.
#[derive(Clone)]
pub(crate) struct Hook(Arc<dyn DynHook>);

impl Hook {
    pub(crate) fn new(hook: impl TerminalHook) -> Self {
        Self(Arc::new(hook))
    }

    /// Calls the hook in a task.
    fn call(&self, in_flight: &Arc<InFlight>, ended: EndedOperation) {
        let (hook, telling) = (Arc::clone(&self.0), in_flight.tell());
        let id = ended.operation.id().clone();
        let call = async move {
            // The first part of the call may panic as well.
            let call = CatchPanic::new(async { hook.ended(ended).await });
            match Timeout::new(PATIENCE, call).await {
                Ok(Ok(())) => {}
                Ok(Err(panicked)) => panicked.of_hook(&id),
                Err(_) => tracing::warn!(%id, "terminal hook too slow, call dropped"),
            }
            drop(telling);
        };
        environment::spawn(call.in_current_span());
    }
}

impl<R> Runtime<R> {
    /// Logs an end that this node has written, and calls the hook.
    pub(crate) fn ended<T: Payload>(&self, record: &Record<T>) {
        log_end(record);
        self.tell(record);
    }

    /// Calls the hook with an operation that has ended.
    pub(crate) fn tell<T: Payload>(&self, record: &Record<T>) {
        if let Some(hook) = &self.hook {
            hook.call(&self.in_flight, EndedOperation::from_record(record));
        }
    }
}

/// A type-erased [`TerminalHook`].
trait DynHook: Send + Sync {
    fn ended(&self, ended: EndedOperation) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl<H: TerminalHook> DynHook for H {
    fn ended(&self, ended: EndedOperation) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(TerminalHook::ended(self, ended))
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
