use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{InFlight, InFlightStats, draining::DrainStep, limits::LONGEST, signals::StopCause};
use crate::operation::OperationId;

/// A handle that shuts a layer down without losing accepted operations.
///
/// The handle is created by [`Operations::drain_handle`](crate::Operations::drain_handle).
/// Clones share the same drain: one may wait for a signal, another watch the number of
/// requests [in flight](Self::in_flight).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
/// use tower_operations::{MemoryStore, Operations};
///
/// let operations = Operations::new(MemoryStore::new());
/// let (layer, polls) = (operations.layer(), operations.poll_service());
/// let drain = operations.drain_handle();
/// // … serve in a task of its own, until it is time to go. Go on serving while
/// // it drains: clients want to see how their operations end. Then shut the
/// // server down.
/// let report = drain.drain(Duration::from_secs(30)).await;
/// if !report.is_clean() {
///     eprintln!("not everything has ended by itself: {report:?}");
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Drain(Arc<InFlight>);

impl Drain {
    pub(crate) fn new(in_flight: Arc<InFlight>) -> Self {
        Self(in_flight)
    }

    /// Refuses new requests with a 503 and answers held polls. Accepted operations continue.
    pub fn close(&self) {
        self.0.close();
    }

    /// Returns what is in flight now.
    #[must_use]
    pub fn in_flight(&self) -> InFlightStats {
        self.0.stats()
    }

    /// [Closes](Self::close), then waits until every operation in flight has ended and every
    /// direct answer is sent. The wait lasts at most until the deadline, which is at most 30
    /// days. Requests that come after the close and pass the layer are neither waited for nor
    /// counted; otherwise a busy server would never be idle.
    ///
    /// * *Before the deadline**, by the [grace](crate::AsyncAcceptLayer::cancel_grace), the
    ///   [cancellation token](crate::OperationHandle::cancellation) of each running handler is
    ///   canceled. A response that comes by the deadline is the outcome, or the answer. A
    ///   deadline shorter than the grace shortens the grace.
    ///
    /// **At the deadline** handlers are dropped, which takes up to a second more:
    ///
    /// * An operation that may be [rerun](crate::run::Recovery::rerun_with) is released to other
    ///   nodes. Any other operation fails as `interrupted`.
    /// * A request that has no answer yet gets a 503 with `Retry-After`, which a gRPC client
    ///   reads as `UNAVAILABLE`. This includes requests that the layer does not
    ///   [accept](crate::AsyncAcceptLayer::accept_if).
    /// * An answer that has begun is waited for if its length is known. An answer without a
    ///   known length may be an endless stream and is left to the server.
    /// * A request on its way into the queue of an [engine](crate::Operations::dispatching) is
    ///   left to the [recovery](crate::Operations::dispatching_recovery), with a 202, if there
    ///   is a recovery. Otherwise its operation fails as `not-dispatched`, with a 503.
    ///
    /// The call may be repeated, also at the same time or after a first call was dropped: the
    /// earliest deadline counts, and every caller gets the same report.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        let in_flight = &self.0;
        in_flight.begin_drain(Instant::now() + deadline.min(LONGEST));
        loop {
            let moved = in_flight.moved();
            match in_flight.next_of_drain() {
                DrainStep::Look(at) => drop(timeout_at(at, moved).await),
                DrainStep::Tell(works) => works
                    .iter()
                    .for_each(|work| work.stop(StopCause::Interrupted)),
                DrainStep::End => in_flight.over().cancel(),
                DrainStep::Done(report) => {
                    in_flight.over().cancel();
                    in_flight.abandoned().cancel();
                    in_flight.move_on();
                    return report;
                }
            }
        }
    }
}

/// The report of a [`Drain`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// The number of operations that ended by themselves, or were canceled, during the drain.
    pub finished: usize,
    /// The operations that were interrupted, and are recorded as failed.
    pub interrupted: Vec<OperationId>,
    /// The operations that were released, to be [rerun](crate::run::Recovery) by another node.
    pub released: Vec<OperationId>,
    /// The operations whose outcome was not stored.
    pub unrecorded: Vec<OperationId>,
    /// The number of requests that were answered directly during the drain: those that were
    /// passing through when the drain began, and those that were answered before they became
    /// operations.
    pub answered: usize,
    /// The number of requests without an answer at the deadline, which were refused with a
    /// 503.
    pub refused: usize,
    /// The number of requests whose answer was not sent completely when the drain ended.
    pub unanswered: usize,
    /// The duration of the drain.
    pub took: Duration,
}

impl DrainReport {
    /// Returns whether every operation ended by itself and every request got its answer.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.interrupted.is_empty()
            && self.released.is_empty()
            && self.unrecorded.is_empty()
            && self.refused == 0
            && self.unanswered == 0
    }
}
