//! From the hands of the client into those that do its work.

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

/// A request on its way out of the hands of its client.
pub(super) struct Departure<S, R> {
    pub(super) node: Arc<Runtime<R>>,
    pub(super) policy: Arc<Policy>,
    pub(super) wanted: Wanted,
    pub(super) reserved: Option<ReservedKey>,
    pub(super) service: S,
    pub(super) request: Box<BufferedRequest>,
    /// Its place in flight; `None` once that was given back.
    pub(super) admitted: Option<AdmissionPermit>,
    pub(super) span: Span,
}

impl<S, R> Departure<S, R>
where
    S: Handler<Body: 'static> + 'static,
    R: Lease<Output = RecordedResponse>,
{
    /// Creates the operation in place, if the store never waits, and in a task if it may.
    /// Its work is done in a task in any case.
    pub(super) fn go<P, E>(self, front: AcceptResponder) -> Going<P, E> {
        // Where there is none this panics, while there is nothing to lose.
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
                    // The client may be gone.
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
                let created = CreatedOperation::of(&record);
                // Before its work begins on another thread: the store has the only one then.
                drop(record);
                // If the runtime is shutting down it is dropped, as whatever runs there.
                runtime.spawn(run);
                Ok(AcceptAnswer::New(created))
            }
            ControlFlow::Break(verdict) => verdict,
        };
        front.answer(&verdict).into()
    }

    /// With what was made of it: it leaves for where its work is done, or there is
    /// nothing to do but to answer.
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

/// Gives it to whoever does its work.
pub(super) async fn take<S, R>(leaving: Leaving<S, R>, tell: oneshot::Sender<AcceptVerdict>)
where
    S: Handler,
    R: Lease<Output = RecordedResponse>,
{
    // The client may be gone; the operation is not.
    let tell = |taken| {
        let _ = tell.send(match taken {
            Taken::Yes(record) => Ok(AcceptAnswer::New(CreatedOperation::of(&record))),
            Taken::No => Err(Refusal::Unavailable),
        });
    };
    let node = Arc::clone(&leaving.node);
    match &node.hand_off {
        None => InProcess::HERE.take(leaving, tell).await,
        Some(hand_off) => hand_off.take(leaving, tell).await,
    }
}
