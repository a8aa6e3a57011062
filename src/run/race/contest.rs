//! The contest between the end of a call and its acceptance.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    Creator, NotCreated,
    gate::{AfterReturn, Gate},
};
use crate::{
    operation::RecordedResponse,
    run::{InFlight, RunContext},
    store::Record,
};

/// The inputs of the decision, and the creator of the operation.
pub(super) struct Contest<'a, C> {
    pub(super) gate: &'a Gate,
    pub(super) work: &'a Arc<RunContext>,
    pub(super) in_flight: &'a Arc<InFlight>,
    /// The time that the call may continue after it was told of the end of a drain.
    pub(super) grace: Duration,
    pub(super) creator: &'a mut C,
    /// The time at which the operation is created without a request; `None` once it was
    /// requested.
    pub(super) accept_at: Option<Instant>,
}

/// The result of a step of a raced call.
pub(super) enum RaceStep<T> {
    /// The step is done, and nothing is decided.
    Done(T),
    /// The call is an operation now, whether or not the step is done.
    Accepted(Option<T>),
    /// The client has disconnected.
    Nobody,
    /// The time of a drain is over, and nothing was decided before.
    Over,
}

/// The decision about a call.
pub(super) enum CallDecision {
    /// The answer of the call is sent. A call that has not returned is still held.
    Answer,
    /// The client has been told that the call is an operation.
    Accepted,
    /// The client has disconnected.
    Nobody,
}

impl<C: Creator> Contest<'_, C> {
    /// Polls a step until it is done or the call is an operation. The step continues while
    /// the operation is created.
    pub(super) async fn hold<T>(
        &mut self,
        is_running: bool,
        mut step: Pin<&mut impl Future<Output = T>>,
    ) -> RaceStep<T> {
        loop {
            let late = async {
                match self.accept_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // The call is registered only when the step is first awaited: most steps are done at
            // once.
            let over = async {
                let _waited_for = self.in_flight.register_call(self.work, self.grace);
                self.in_flight.over().cancelled().await;
            };
            tokio::select! {
                biased;
                done = step.as_mut() => return RaceStep::Done(done),
                () = self.gate.creation_requested() => {}
                () = over => {
                    return match self.returned(is_running).await {
                        CallDecision::Answer => RaceStep::Over,
                        CallDecision::Accepted => RaceStep::Accepted(None),
                        CallDecision::Nobody => RaceStep::Nobody,
                    };
                }
                () = late => {
                    self.accept_at = None;
                    self.gate.request_creation();
                    continue;
                }
            }
            let mut done = None;
            let created = {
                let mut creating = std::pin::pin!(self.creator.create(is_running));
                loop {
                    tokio::select! {
                        biased;
                        now = step.as_mut(), if done.is_none() => done = Some(now),
                        created = creating.as_mut() => break created,
                    }
                }
            };
            match (self.after_creation(created), done) {
                (CallDecision::Accepted, done) => return RaceStep::Accepted(done),
                (CallDecision::Nobody, _) => return RaceStep::Nobody,
                (CallDecision::Answer, Some(done)) => return RaceStep::Done(done),
                (CallDecision::Answer, None) => {}
            }
        }
    }

    /// Decides for a call that has returned: its answer is sent, unless acceptance was
    /// requested before.
    pub(super) async fn returned(&mut self, is_running: bool) -> CallDecision {
        loop {
            match self.gate.try_answer() {
                AfterReturn::Answer => return CallDecision::Answer,
                AfterReturn::Nobody => return CallDecision::Nobody,
                AfterReturn::Create => {}
            }
            let created = self.creator.create(is_running).await;
            match self.after_creation(created) {
                CallDecision::Answer => {}
                decided => return decided,
            }
        }
    }

    /// Returns the decision after a try to create the operation; `Answer` if the call is
    /// still held.
    fn after_creation(
        &mut self,
        created: Result<Record<RecordedResponse>, NotCreated>,
    ) -> CallDecision {
        match created {
            Ok(record) => {
                self.work.set_token(record.token());
                self.gate.created(true);
                self.creator.accepted(record);
                CallDecision::Accepted
            }
            Err(NotCreated) if self.gate.created(false) => CallDecision::Answer,
            Err(NotCreated) => CallDecision::Nobody,
        }
    }
}
