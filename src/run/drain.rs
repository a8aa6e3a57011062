use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{InFlight, in_flight::Tally, limits::LONGEST};
use crate::operation::OperationId;

/// Shuts a layer down without losing what it has accepted.
///
/// It is made with the layer, and not `Clone`: one place decides.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
/// use tower_operations::{AsyncAcceptLayer, MemoryStore, PollService};
///
/// let store = MemoryStore::new();
/// let (layer, drain) = AsyncAcceptLayer::with_drain(store.clone());
/// let polls = PollService::new(store).draining(&drain);
/// // … serve in a task of its own, until it is time to go. Go on serving while
/// // it drains: clients want to see how their operations end. Then shut the
/// // server down.
/// let report = drain.drain(Duration::from_secs(30)).await;
/// if !report.is_clean() {
///     eprintln!("not everything has ended by itself: {report:?}");
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Drain(Arc<InFlight>);

/// How long interrupted operations have to be recorded as such.
const TO_RECORD: Duration = Duration::from_secs(1);

impl Drain {
    pub(crate) fn new(in_flight: Arc<InFlight>) -> Self {
        Self(in_flight)
    }

    /// Closes the doors: new work is refused with a 503, and held polls of a
    /// service that [watches this](crate::PollService::draining) are answered.
    /// What was accepted goes on.
    pub fn close(&self) {
        self.0.closed().cancel();
    }

    /// How many requests are in flight: being accepted, pending or running.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.admitted()
    }

    /// Closes the doors and waits until all that is in flight has ended, for
    /// `deadline` at the most, and 30 days. What is left then is given up to be
    /// [run again](crate::run::Recovery::run_again), if it may be; else it is
    /// interrupted: it fails as `interrupted`. That takes up to one second more.
    pub async fn drain(self, deadline: Duration) -> DrainReport {
        self.0.begin_tally();
        self.close();
        let begun = Instant::now();
        self.until_idle(begun + deadline.min(LONGEST)).await;
        self.0.interrupt();
        self.until_idle(Instant::now() + TO_RECORD).await;
        // Before they are told to give up: each is gone at once then.
        let Tally {
            finished,
            interrupted,
            released,
            unrecorded,
        } = self.0.tally();
        let unanswered = self.in_flight().saturating_sub(unrecorded.len());
        self.0.abandoned().cancel();
        DrainReport {
            finished,
            interrupted,
            released,
            unrecorded,
            unanswered,
            took: begun.elapsed(),
        }
    }

    async fn until_idle(&self, until: Instant) {
        loop {
            let empty = self.0.empty();
            if self.in_flight() == 0 || timeout_at(until, empty).await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn closed(&self) -> CancellationToken {
        self.0.closed().clone()
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
    /// How many requests were still being accepted, and will be refused.
    pub unanswered: usize,
    /// How long it took.
    pub took: Duration,
}

impl DrainReport {
    /// Whether everything ended by itself.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.interrupted.is_empty()
            && self.released.is_empty()
            && self.unrecorded.is_empty()
            && self.unanswered == 0
    }
}
