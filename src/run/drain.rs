use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{InFlight, draining::DrainStep, limits::LONGEST, run_context::StopCause};
use crate::operation::OperationId;

/// Shuts a layer down without losing what it has accepted.
///
/// It is made by [`Operations::drain_handle`](crate::Operations::drain_handle). Clones are
/// handles to the same: one may wait for a signal, another watch how much is
/// [in flight](Self::in_flight).
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

    /// Closes the doors: new work is refused with a 503, and held polls are answered. What
    /// was accepted goes on.
    pub fn close(&self) {
        self.0.closed().cancel();
    }

    /// How many requests are in flight: being accepted, pending or running.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.admitted()
    }

    /// Closes the doors and waits until all that is in flight has ended and all that is
    /// answered directly has its answer, for `deadline` at the most, and 30 days. Requests
    /// that pass the layer and come after the doors have closed are neither waited for nor
    /// counted: a busy server would never be idle.
    ///
    /// Its [grace](crate::AsyncAcceptLayer::cancel_grace) before the deadline each handler
    /// that is still at work is told, by its
    /// [cancellation token](crate::OperationHandle::cancellation), and what it returns by
    /// the deadline is its outcome, or its answer. A deadline that is shorter than the grace
    /// leaves that much of it, and one of zero none.
    ///
    /// At the deadline what is left is dropped. An operation is given up to be
    /// [run again](crate::run::Recovery::rerun_with), if it may be; else it is interrupted:
    /// it fails as `interrupted`. A request that could still be answered directly is
    /// refused with a 503 and `Retry-After`; a gRPC client reads that as `UNAVAILABLE`. That
    /// takes up to one second more. Requests that pass the layer because it does not
    /// [accept](crate::AsyncAcceptLayer::accept_if) them are refused in the same way. An answer
    /// to one of them that has begun is waited for and left to the server then: to its last
    /// byte if it has a known length, and not if it has none, since that may be a stream
    /// without an end. A request that is on its way into the queue of an
    /// [engine](crate::Operations::dispatching) is left to the
    /// [recovery](crate::Operations::dispatching_recovery), with a 202, if there is
    /// one; else its operation fails as `not-dispatched`, with a 503.
    ///
    /// It may be called again, at the same time or later, also if a first call was dropped:
    /// the earliest deadline counts, and every caller gets the same report.
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

/// What a [`Drain`] left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// How many operations ended by themselves, or by a cancel, while it went on.
    pub finished: usize,
    /// The operations that were interrupted, and are recorded as failed.
    pub interrupted: Vec<OperationId>,
    /// The operations that were given up to be [run again](crate::run::Recovery)
    /// by another node.
    pub released: Vec<OperationId>,
    /// The operations whose outcome the store has not taken.
    pub unrecorded: Vec<OperationId>,
    /// How many requests were answered directly while it went on: what was passing through
    /// when the doors closed, and what had its answer before it was an operation.
    pub answered: usize,
    /// How many requests had no answer of their own at the deadline, and were refused with a
    /// 503.
    pub refused: usize,
    /// How many requests had no answer, or not all of it, when it was over.
    pub unanswered: usize,
    /// How long it took.
    pub took: Duration,
}

impl DrainReport {
    /// Whether everything ended by itself, and everybody had an answer.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.interrupted.is_empty()
            && self.released.is_empty()
            && self.unrecorded.is_empty()
            && self.refused == 0
            && self.unanswered == 0
    }
}
