//! What a node has in its hands: how much, what, and until when.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use slab::Slab;
use tokio_util::sync::CancellationToken;

use super::{
    draining::{DrainState, Tally},
    live_runs::{LiveRun, LiveRuns},
    owner_quotas::{OwnerPermit, OwnerQuotas},
    pass_through::PassThrough,
    run_context::{RunContext, StopCause},
};
use crate::{
    operation::OperationId,
    store::{
        LeaseHandle, Owner,
        wait::{WaitCell, Waiter},
    },
};

/// Shared by a layer with all its clones, and by its [`Drain`](super::Drain).
#[derive(Debug)]
pub(crate) struct InFlight {
    /// Requests that were let in and have not ended.
    admitted: AtomicUsize,
    max: AtomicUsize,
    /// Requests that are answered directly, until their answers are out.
    passing: AtomicUsize,
    /// Of those whose owner is known.
    shares: Arc<OwnerQuotas>,
    running: Mutex<RunningState>,
    /// Notified when the last one leaves, and when a drain has something else to look at.
    moved: Arc<WaitCell>,
    /// No new work.
    closed: CancellationToken,
    /// The time of a drain is over: nothing more is waited for.
    over: CancellationToken,
    /// Nothing more is tried.
    abandoned: CancellationToken,
    heartbeat: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct RunningState {
    pub(super) live: LiveRuns,
    /// Calls that are waited for and may still be answered directly.
    pub(super) calls: Slab<LiveRun>,
    /// Set once it is drained.
    pub(super) draining: Option<DrainState>,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdmissionError {
    Full,
    /// As many of this owner's are in flight as may be.
    FullForOwner,
    Closed,
}

impl InFlight {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            admitted: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            passing: AtomicUsize::new(0),
            shares: Arc::new(OwnerQuotas::new()),
            running: Mutex::default(),
            moved: Arc::default(),
            closed: CancellationToken::new(),
            over: CancellationToken::new(),
            abandoned: CancellationToken::new(),
            heartbeat: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, SeqCst);
    }

    /// How many of an owner's may be in flight.
    pub(crate) fn set_max_per_owner(&self, max: usize) {
        self.shares.set(max);
    }

    /// Lets a request in, if there is room and the doors are open.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<AdmissionPermit, AdmissionError> {
        let before = self.admitted.fetch_add(1, SeqCst);
        let admitted = AdmissionPermit::to(self);
        // After the count: whoever closes the doors looks at it afterwards.
        if self.closed.is_cancelled() {
            return Err(AdmissionError::Closed);
        }
        if before >= self.max.load(SeqCst) {
            return Err(AdmissionError::Full);
        }
        Ok(admitted)
    }

    /// The same for a request of this owner's, if that has not its share already.
    pub(crate) fn admit_for(
        self: &Arc<Self>,
        owner: Option<Owner>,
    ) -> Result<AdmissionPermit, AdmissionError> {
        let mut admitted = self.admit()?;
        let share = self.shares.take(owner, self.max.load(SeqCst));
        let share = share.ok_or(AdmissionError::FullForOwner)?;
        admitted.share = Some(Box::new(share));
        Ok(admitted)
    }

    /// Lets a request in that was admitted elsewhere.
    pub(crate) fn admit_anyway(self: &Arc<Self>) -> AdmissionPermit {
        self.admitted.fetch_add(1, SeqCst);
        AdmissionPermit::to(self)
    }

    /// Counts a request that is answered directly, beside those that are let in.
    pub(crate) fn pass(self: &Arc<Self>) -> PassThrough {
        self.passing.fetch_add(1, SeqCst);
        PassThrough::new(Arc::clone(self))
    }

    /// The answer of such a request is out.
    pub(super) fn passed(&self) {
        self.left(&self.passing);
    }

    pub(super) fn passing(&self) -> usize {
        self.passing.load(SeqCst)
    }

    /// How many more are let in at the moment.
    pub(super) fn room(&self) -> usize {
        self.max.load(SeqCst).saturating_sub(self.admitted())
    }

    pub(super) fn admitted(&self) -> usize {
        self.admitted.load(SeqCst)
    }

    /// Takes a work among the live ones, which has `grace` to tidy up when it is stopped;
    /// `None` if it is there already: the same operation, held by the same token.
    pub(super) fn enter(
        self: &Arc<Self>,
        work: Arc<RunContext>,
        grace: Duration,
    ) -> Option<LiveGuard> {
        let mut running = self.running();
        let entry = LiveRun {
            work: Arc::clone(&work),
            grace,
        };
        if !running.live.insert(entry) {
            return None;
        }
        drop(running);
        self.tell_of_drain(&work);
        Some(LiveGuard {
            in_flight: Arc::clone(self),
            work,
        })
    }

    /// Has a drain tell a call that may still be answered directly when its time is
    /// nearly over; for as long as it is waited for.
    pub(super) fn wait_for(
        self: &Arc<Self>,
        work: &Arc<RunContext>,
        grace: Duration,
    ) -> WaitedCall {
        let key = self.running().calls.insert(LiveRun {
            work: Arc::clone(work),
            grace,
        });
        self.tell_of_drain(work);
        WaitedCall {
            in_flight: Arc::clone(self),
            key,
        }
    }

    /// Lets a drain that goes on see this work; stops it, if the time is over.
    fn tell_of_drain(&self, work: &RunContext) {
        // After it was put in: who begins a drain closes the doors first, and then looks.
        if !self.closed.is_cancelled() {
            return;
        }
        let is_over = {
            let running = self.running();
            running.draining.as_ref().is_some_and(DrainState::is_over)
        };
        match is_over {
            true => work.stop(StopCause::Interrupted),
            false => self.moved.notify(),
        }
    }

    pub(super) fn held(&self) -> Vec<LeaseHandle> {
        let running = self.running();
        running.live.iter().map(|it| it.work.held()).collect()
    }

    pub(super) fn held_among(&self, ids: &[OperationId]) -> Vec<LeaseHandle> {
        let running = self.running();
        let entries = ids.iter().flat_map(|id| running.live.of(id));
        entries.map(|it| it.work.held()).collect()
    }

    /// Somebody says that these were ended, or taken, from outside.
    pub(super) fn told_of(&self, ids: &[OperationId]) {
        let running = self.running();
        let works = ids.iter().flat_map(|id| running.live.of(id));
        works.for_each(|entry| entry.work.told());
    }

    /// These are held no more.
    pub(super) fn recall(&self, lost: &[LeaseHandle]) {
        let works: Vec<_> = {
            let running = self.running();
            let lost = lost
                .iter()
                .filter_map(|lost| running.live.get(&lost.id, lost.token));
            lost.map(|it| Arc::clone(&it.work)).collect()
        };
        works.iter().for_each(|work| work.stop(StopCause::Recalled));
    }

    /// A waiter for the moment when the last one leaves, or a drain has something else to
    /// look at.
    pub(super) fn moved(&self) -> Waiter {
        Waiter::new(&self.moved)
    }

    /// Lets drains look again.
    pub(super) fn move_on(&self) {
        self.moved.notify();
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(crate) fn over(&self) -> &CancellationToken {
        &self.over
    }

    pub(crate) fn abandoned(&self) -> &CancellationToken {
        &self.abandoned
    }

    /// True to the one caller that is to start the heartbeat.
    pub(super) fn needs_heartbeat(&self) -> bool {
        !self.heartbeat.load(SeqCst)
            && !self.abandoned.is_cancelled()
            && !self.heartbeat.swap(true, SeqCst)
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

    /// The heartbeat has gone with its runtime: the works that are left start it again,
    /// wherever they are run.
    pub(super) fn lost_heartbeat(&self) {
        if self.abandoned.is_cancelled() {
            return;
        }
        let works: Vec<_> = {
            let running = self.running();
            // Under the lock: who enters after this sees that there is none.
            self.heartbeat.store(false, SeqCst);
            running.live.iter().map(|it| Arc::clone(&it.work)).collect()
        };
        works.iter().for_each(|work| work.needs_heartbeat());
    }

    pub(super) fn running(&self) -> MutexGuard<'_, RunningState> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that was counted has left.
    fn left(&self, count: &AtomicUsize) {
        if count.fetch_sub(1, SeqCst) == 1 && self.closed.is_cancelled() {
            self.moved.notify();
        }
    }
}

impl RunningState {
    pub(super) fn tally(&mut self) -> Option<&mut Tally> {
        self.draining.as_mut().map(|draining| &mut draining.tally)
    }
}

/// A place among what is in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct AdmissionPermit {
    in_flight: Arc<InFlight>,
    /// Of its owner's, where that is known.
    share: Option<Box<OwnerPermit>>,
}

impl AdmissionPermit {
    fn to(in_flight: &Arc<InFlight>) -> Self {
        Self {
            in_flight: Arc::clone(in_flight),
            share: None,
        }
    }
}

impl Drop for AdmissionPermit {
    fn drop(&mut self) {
        self.in_flight.left(&self.in_flight.admitted);
    }
}

/// An operation among the live ones, until it is dropped.
#[derive(Debug)]
pub(super) struct LiveGuard {
    in_flight: Arc<InFlight>,
    work: Arc<RunContext>,
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        let mut running = self.in_flight.running();
        running.live.remove(&self.work);
        if let Some(tally) = running.tally() {
            tally.count(&self.work);
        }
    }
}

/// A call that is waited for, until this is dropped.
#[derive(Debug)]
pub(super) struct WaitedCall {
    in_flight: Arc<InFlight>,
    key: usize,
}

impl Drop for WaitedCall {
    fn drop(&mut self) {
        self.in_flight.running().calls.remove(self.key);
    }
}
