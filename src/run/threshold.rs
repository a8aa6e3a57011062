//! The decision whether a held call becomes an operation.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    InFlight,
    gate::{AfterReturn, Gate},
    run_context::RunContext,
};
use crate::{operation::RecordedResponse, store::Record};

/// The inputs of the decision, and the creation of the operation.
pub(super) struct Threshold<'a, C> {
    pub(super) gate: &'a Gate,
    pub(super) work: &'a Arc<RunContext>,
    pub(super) in_flight: &'a Arc<InFlight>,
    /// The time that the call may continue after it was told of the end of a drain.
    pub(super) grace: Duration,
    /// Creates the operation, as running or not.
    pub(super) create: C,
    /// The time at which the operation is created without a request; `None` once it was
    /// requested.
    pub(super) too_late: Option<Instant>,
}

/// The result of a step of a held call.
pub(super) enum HeldStep<T> {
    /// The step is done, and nothing is decided.
    Done(T),
    /// The call is an operation now, whether or not the step is done.
    Accepted(Arc<Record<RecordedResponse>>, Option<T>),
    /// The client has disconnected.
    Nobody,
    /// The time of a drain is over, and nothing was decided before.
    Over,
}

/// The decision once the call has returned.
pub(super) enum CallDecision {
    Answer,
    Accepted(Arc<Record<RecordedResponse>>),
    Nobody,
}

impl<C, F, D> Threshold<'_, C>
where
    C: Fn(bool) -> F,
    F: Future<Output = Result<Arc<Record<RecordedResponse>>, D>>,
{
    /// Polls a step until it is done or the call is an operation. The step continues while
    /// the operation is created.
    pub(super) async fn hold<T>(
        &mut self,
        is_running: bool,
        mut step: Pin<&mut impl Future<Output = T>>,
    ) -> HeldStep<T> {
        loop {
            let late = async {
                match self.too_late {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // The call is registered only when the step is first awaited: most steps are done at
            // once.
            let over = async {
                let _waited_for = self.in_flight.wait_for(self.work, self.grace);
                self.in_flight.over().cancelled().await;
            };
            tokio::select! {
                biased;
                done = step.as_mut() => return HeldStep::Done(done),
                () = self.gate.creation_requested() => {}
                () = over => {
                    return match self.returned(is_running).await {
                        CallDecision::Answer => HeldStep::Over,
                        CallDecision::Accepted(record) => HeldStep::Accepted(record, None),
                        CallDecision::Nobody => HeldStep::Nobody,
                    };
                }
                () = late => {
                    self.too_late = None;
                    self.gate.request_creation();
                    continue;
                }
            }
            let mut creating = std::pin::pin!((self.create)(is_running));
            let mut done = None;
            let created = loop {
                tokio::select! {
                    biased;
                    now = step.as_mut(), if done.is_none() => done = Some(now),
                    created = creating.as_mut() => break created,
                }
            };
            match (self.settle(created), done) {
                (CallDecision::Accepted(record), done) => return HeldStep::Accepted(record, done),
                (CallDecision::Nobody, _) => return HeldStep::Nobody,
                (CallDecision::Answer, Some(done)) => return HeldStep::Done(done),
                (CallDecision::Answer, None) => {}
            }
        }
    }

    /// Decides for a call that has returned: its answer is sent, unless acceptance was
    /// requested before.
    pub(super) async fn returned(&self, is_running: bool) -> CallDecision {
        loop {
            match self.gate.returned() {
                AfterReturn::Answer => return CallDecision::Answer,
                AfterReturn::Nobody => return CallDecision::Nobody,
                AfterReturn::Create => {}
            }
            let created = (self.create)(is_running).await;
            match self.settle(created) {
                CallDecision::Answer => {}
                settled => return settled,
            }
        }
    }

    /// Returns the decision after a try to create the operation; `Answer` if the call is
    /// still held.
    fn settle(&self, created: F::Output) -> CallDecision {
        match created {
            Ok(record) => {
                self.work.set_token(record.token());
                self.gate.created(true);
                CallDecision::Accepted(record)
            }
            Err(_) if self.gate.created(false) => CallDecision::Answer,
            Err(_) => CallDecision::Nobody,
        }
    }
}
