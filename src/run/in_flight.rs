//! What a node has in its hands: how much, what, and until when.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use tokio_util::sync::CancellationToken;

use super::{
    live::Live,
    work::{Cause, Ended, Work},
};
use crate::{
    operation::OperationId,
    store::{
        Held,
        wait::{WaitCell, Waiter},
    },
};

/// Shared by a layer with all its clones, and by its [`Drain`](super::Drain).
#[derive(Debug)]
pub(crate) struct InFlight {
    /// Requests that were let in and have not ended.
    admitted: AtomicUsize,
    max: AtomicUsize,
    running: Mutex<Running>,
    /// Notified when the last one leaves.
    empty: Arc<WaitCell>,
    /// No new work.
    closed: CancellationToken,
    /// Nothing more is tried.
    abandoned: CancellationToken,
    heartbeat: AtomicBool,
}

#[derive(Debug, Default)]
struct Running {
    live: Live,
    /// Whatever comes is interrupted.
    interrupting: bool,
    /// What has become of the runs since the drain began.
    tally: Option<Tally>,
}

/// How runs have ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) finished: usize,
    pub(super) interrupted: Vec<OperationId>,
    pub(super) released: Vec<OperationId>,
    pub(super) unrecorded: Vec<OperationId>,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

impl InFlight {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            admitted: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            running: Mutex::default(),
            empty: Arc::default(),
            closed: CancellationToken::new(),
            abandoned: CancellationToken::new(),
            heartbeat: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, SeqCst);
    }

    /// Lets a request in, if there is room and the doors are open.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Admitted, Refused> {
        let before = self.admitted.fetch_add(1, SeqCst);
        let admitted = Admitted(Arc::clone(self));
        // After the count: whoever closes the doors looks at it afterwards.
        if self.closed.is_cancelled() {
            return Err(Refused::Closed);
        }
        if before >= self.max.load(SeqCst) {
            return Err(Refused::Full);
        }
        Ok(admitted)
    }

    /// Lets a request in that was admitted elsewhere.
    pub(super) fn admit_anyway(self: &Arc<Self>) -> Admitted {
        self.admitted.fetch_add(1, SeqCst);
        Admitted(Arc::clone(self))
    }

    /// How many more are let in at the moment.
    pub(super) fn room(&self) -> usize {
        self.max.load(SeqCst).saturating_sub(self.admitted())
    }

    pub(super) fn admitted(&self) -> usize {
        self.admitted.load(SeqCst)
    }

    /// Takes a work among the live ones; `None` if it is there already: the same
    /// operation, held by the same token.
    pub(super) fn enter(self: &Arc<Self>, work: Arc<Work>) -> Option<Entered> {
        let mut running = self.running();
        let interrupting = running.interrupting;
        if !running.live.insert(&work) {
            return None;
        }
        drop(running);
        if interrupting {
            work.stop(Cause::Interrupted);
        }
        Some(Entered {
            in_flight: Arc::clone(self),
            work,
        })
    }

    pub(super) fn held(&self) -> Vec<Held> {
        let running = self.running();
        running.live.iter().map(|work| work.held()).collect()
    }

    pub(super) fn held_among(&self, ids: &[OperationId]) -> Vec<Held> {
        let running = self.running();
        let works = ids.iter().flat_map(|id| running.live.of(id));
        works.map(|work| work.held()).collect()
    }

    /// These are held no more.
    pub(super) fn recall(&self, lost: &[Held]) {
        let works: Vec<_> = {
            let running = self.running();
            let lost = lost
                .iter()
                .filter_map(|lost| running.live.get(&lost.id, lost.token));
            lost.cloned().collect()
        };
        works.iter().for_each(|work| work.stop(Cause::Recalled));
    }

    /// Counts from now on how runs end.
    pub(super) fn begin_tally(&self) {
        self.running().tally = Some(Tally::default());
    }

    /// How runs have ended since then; those that have not are unrecorded.
    pub(super) fn tally(&self) -> Tally {
        let running = self.running();
        let mut tally = running.tally.clone().unwrap_or_default();
        let unrecorded = running.live.iter().map(|work| work.id.clone());
        tally.unrecorded.extend(unrecorded);
        tally
    }

    /// Interrupts what is there and what may still come.
    pub(super) fn interrupt(&self) {
        let mut running = self.running();
        running.interrupting = true;
        let works: Vec<_> = running.live.iter().cloned().collect();
        drop(running);
        works.iter().for_each(|work| work.stop(Cause::Interrupted));
    }

    /// Whether nothing new is begun any more.
    pub(crate) fn is_interrupting(&self) -> bool {
        self.running().interrupting
    }

    /// A waiter for the moment when the last one leaves.
    pub(super) fn empty(&self) -> Waiter {
        Waiter::new(&self.empty)
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(crate) fn abandoned(&self) -> &CancellationToken {
        &self.abandoned
    }

    /// True to the one caller that is to start the heartbeat.
    pub(super) fn needs_heartbeat(&self) -> bool {
        !self.heartbeat.load(SeqCst) && !self.heartbeat.swap(true, SeqCst)
    }

    /// Ends the heartbeat if nothing is live; false if it must go on.
    pub(super) fn rest(&self) -> bool {
        // Under the lock that `enter` takes before it asks for a heartbeat.
        let running = self.running();
        let idle = running.live.is_empty();
        if idle {
            self.heartbeat.store(false, SeqCst);
        }
        idle
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among what is in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted(Arc<InFlight>);

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.0.admitted.fetch_sub(1, SeqCst) == 1 && self.0.closed.is_cancelled() {
            self.0.empty.notify();
        }
    }
}

/// An operation among the live ones, until it is dropped.
#[derive(Debug)]
pub(super) struct Entered {
    in_flight: Arc<InFlight>,
    work: Arc<Work>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut running = self.in_flight.running();
        running.live.remove(&self.work);
        let id = &self.work.id;
        if let Some(tally) = &mut running.tally {
            match self.work.ended() {
                Some(Ended::ByItself) => tally.finished += 1,
                Some(Ended::Interrupted) => tally.interrupted.push(id.clone()),
                Some(Ended::Released) => tally.released.push(id.clone()),
                None => tally.unrecorded.push(id.clone()),
            }
        }
    }
}
