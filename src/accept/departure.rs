//! Creating the operation of an accepted request, and starting its run.

use std::{ops::ControlFlow, sync::Arc};

use tokio::{runtime::Handle, sync::oneshot};
use tracing::Span;

use super::{
    create::{CreateOutcome, create},
    going::{Creating, Going},
    hand_over::Wanted,
    policy::Policy,
    refuse::Refusal,
    repeated::repeated,
    reservation::ReservedKey,
    responder::{AcceptAnswer, AcceptResponder, AcceptVerdict, CreatedOperation},
};
use crate::{
    operation::RecordedResponse,
    run::{
        AdmissionPermit, BufferedRequest, Handler, InProcess, Leaving, Runtime, Take, Taken,
        now_or_never,
    },
    store::Lease,
};

/// An accepted request whose operation is about to be created.
pub(super) struct Departure<S, R> {
    pub(super) node: Arc<Runtime<R>>,
    pub(super) policy: Arc<Policy>,
    pub(super) wanted: Wanted,
    pub(super) reserved: Option<ReservedKey>,
    pub(super) service: S,
    pub(super) request: Box<BufferedRequest>,
    /// The place in flight; `None` once the place was released.
    pub(super) admitted: Option<AdmissionPermit>,
    pub(super) span: Span,
}

impl<S, R> Departure<S, R>
where
    S: Handler<Body: 'static> + 'static,
    R: Lease<Output = RecordedResponse>,
{
    /// Creates the operation in place if the store never waits, in a task otherwise. The
    /// run is always in a task.
    pub(super) fn go<P, E>(self, front: AcceptResponder) -> Going<P, E> {
        // Panics without a runtime, before anything exists that could be lost.
        let runtime = Handle::current();
        let made = match self.node.store.never_waits() {
            true => now_or_never(create(&self.node, &self.policy, &self.wanted)),
            false => None,
        };
        let Some(made) = made else {
            return Creating::by(front, |tell| async move {
                let made = create(&self.node, &self.policy, &self.wanted).await;
                match self.leave(made) {
                    ControlFlow::Continue(leaving) => take(leaving, tell).await,
                    // The client may have disconnected.
                    ControlFlow::Break(verdict) => drop(tell.send(verdict)),
                }
            });
        };
        let verdict = match self.leave(made) {
            ControlFlow::Continue(leaving) if leaving.node.hand_off.is_some() => {
                return Creating::by(front, |tell| take(leaving, tell));
            }
            ControlFlow::Continue(leaving) => {
                let (record, run) = InProcess::begin(leaving);
                let created = CreatedOperation::from_record(&record);
                // Dropped before the run begins on another thread, so that the store has
                // the only reference then.
                drop(record);
                // If the runtime is shutting down, the run is dropped like every other
                // task.
                runtime.spawn(run);
                Ok(AcceptAnswer::New(created))
            }
            ControlFlow::Break(verdict) => verdict,
        };
        front.answer(&verdict).into()
    }

    /// Returns the run of the created operation, or the verdict if there is nothing to run.
    pub(super) fn leave(
        mut self,
        made: Result<CreateOutcome, Refusal>,
    ) -> ControlFlow<AcceptVerdict, Leaving<S, R>> {
        let record = match made {
            Ok(CreateOutcome::New(record)) => record,
            Ok(CreateOutcome::Repeated(record)) => {
                let (parts, name) = (&self.request.parts, self.wanted.name());
                return ControlFlow::Break(repeated(&self.policy, parts, &record, name));
            }
            Ok(CreateOutcome::Answered(answer)) => {
                return ControlFlow::Break(Ok(AcceptAnswer::Answered(answer)));
            }
            Err(refusal) => {
                match refusal {
                    Refusal::Closed => self.node.in_flight.refused(),
                    _ => self.node.in_flight.answered(),
                }
                match self.wanted.may_be_found() {
                    true => self.run_if_created(),
                    false => self.wanted.disown(&self.node, self.admitted),
                }
                return ControlFlow::Break(Err(refusal));
            }
        };
        if let Some(key) = self.reserved.take() {
            key.bound();
        }
        let admitted = self.admitted.take();
        let admitted = admitted.unwrap_or_else(|| self.node.in_flight.admit_anyway());
        ControlFlow::Continue(Leaving {
            node: self.node,
            limits: self.policy.run,
            service: self.service,
            record,
            request: self.request,
            stored: self.wanted.new.request,
            may_come_again: self.wanted.new.key.is_some(),
            admitted,
            span: self.span,
            at_most: self.policy.create_timeout,
        })
    }
}

/// Passes the operation to the node or the queue that runs it.
pub(super) async fn take<S, R>(leaving: Leaving<S, R>, tell: oneshot::Sender<AcceptVerdict>)
where
    S: Handler,
    R: Lease<Output = RecordedResponse>,
{
    // The client may have disconnected; the operation exists.
    let tell = |taken| {
        let _ = tell.send(match taken {
            Taken::Yes(record) => Ok(AcceptAnswer::New(CreatedOperation::from_record(&record))),
            Taken::No => Err(Refusal::Unavailable),
        });
    };
    let node = Arc::clone(&leaving.node);
    match &node.hand_off {
        None => InProcess::HERE.take(leaving, tell).await,
        Some(hand_off) => hand_off.take(leaving, tell).await,
    }
}
