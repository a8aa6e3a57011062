//! Where a held call becomes an operation, or does not.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    InFlight,
    gate::{AfterReturn, Gate},
    run_context::RunContext,
};
use crate::{operation::RecordedResponse, store::Record};

/// What decides about it, and how it is created.
pub(super) struct Threshold<'a, C> {
    pub(super) gate: &'a Gate,
    pub(super) work: &'a Arc<RunContext>,
    pub(super) in_flight: &'a Arc<InFlight>,
    /// How long the call may go on after it was told of the end of a drain.
    pub(super) grace: Duration,
    /// Creates the operation, as one that is running or not.
    pub(super) create: C,
    /// When it is asked for by the time that has passed; `None` once it was.
    pub(super) too_late: Option<Instant>,
}

/// What a step of a held call comes to.
pub(super) enum HeldStep<T> {
    /// It is done, and nothing is decided.
    Done(T),
    /// It is an operation now, whether the step is done or not.
    Accepted(Arc<Record<RecordedResponse>>, Option<T>),
    /// There is nobody to go on for.
    Nobody,
    /// The time of a drain is over, and nothing was decided before.
    Over,
}

/// What is decided once the call has returned.
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
    /// Lets a step go on until it is done or an operation. It goes on while that is
    /// created.
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
            // From when the step is waited for: most are done at once.
            let over = async {
                let _waited_for = self.in_flight.wait_for(self.work, self.grace);
                self.in_flight.over().cancelled().await;
            };
            tokio::select! {
                biased;
                done = step.as_mut() => return HeldStep::Done(done),
                () = self.gate.asked() => {}
                () = over => {
                    return match self.returned(is_running).await {
                        CallDecision::Answer => HeldStep::Over,
                        CallDecision::Accepted(record) => HeldStep::Accepted(record, None),
                        CallDecision::Nobody => HeldStep::Nobody,
                    };
                }
                () = late => {
                    self.too_late = None;
                    self.gate.ask();
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

    /// The call has returned: its answer goes out, unless somebody has asked before.
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

    /// What comes of trying to create it; `Answer` if the call is held on.
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
