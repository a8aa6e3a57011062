//! Tracks running operations and shutdown.

mod admission;
mod byte_budget;
mod stats;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub(crate) use admission::{AdmissionError, AdmissionPermit};
pub(crate) use byte_budget::{BodyBytes, ByteBudget, BytesExceeded, ResultBytes, UNCOUNTED};
pub use stats::InFlightStats;

use super::{
    catch_panic::catch_panic,
    draining::{DrainState, Tally},
    live_runs::{LiveRun, LiveRuns, Ticket},
    owner_quotas::OwnerQuotas,
    pass_through::PassThrough,
    run_context::RunContext,
    signals::StopCause,
    sweep_timer::SweepTimer,
};
use crate::{
    operation::OperationId,
    slots::{Slot, Slots},
    store::{
        LeaseHandle,
        wait::{WaitCell, Waiter},
    },
};

/// The requests in flight of a node. Shared by all clones of a layer, and by its
/// [`Drain`](super::Drain).
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The number of admitted requests that have not ended.
    admitted: AtomicUsize,
    max: AtomicUsize,
    /// The number of directly answered requests whose answers are not fully sent.
    passing: AtomicUsize,
    /// The number of calls of the terminal hook that are in progress.
    telling: AtomicUsize,
    /// The bytes of requests and results that are buffered.
    bytes: Arc<ByteBudget>,
    /// The shares of known owners in the admitted requests.
    shares: Arc<OwnerQuotas>,
    live: LiveRuns,
    running: Mutex<RunningState>,
    /// The cell is notified when the last request leaves, and when a drain has to look again.
    moved: Arc<WaitCell>,
    sweep: SweepTimer,
    created: Instant,
    /// Whether no new work is admitted, set before the token is canceled.
    is_closed: AtomicBool,
    /// The token is canceled when no new work is admitted.
    closed: CancellationToken,
    /// The token is canceled when the time of a drain is over.
    over: CancellationToken,
    /// The token is canceled when the node is abandoned: nothing is retried from then on.
    abandoned: CancellationToken,
    heartbeat: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct RunningState {
    /// Awaited calls that may still be answered directly.
    pub(super) calls: Slots<LiveRun>,
    /// The state of the drain, set once a drain begins.
    pub(super) draining: Option<DrainState>,
}

/// The default bound on buffered bytes.
const BUFFERED: usize = 256 * 1024 * 1024;

/// The longest sleep of the sweep. A deadline after it needs no notice of its own.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

impl InFlight {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            admitted: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            passing: AtomicUsize::new(0),
            telling: AtomicUsize::new(0),
            bytes: Arc::new(ByteBudget::new(BUFFERED)),
            shares: Arc::new(OwnerQuotas::new()),
            live: LiveRuns::default(),
            running: Mutex::default(),
            moved: Arc::default(),
            sweep: SweepTimer::new(),
            created: Instant::now(),
            is_closed: AtomicBool::new(false),
            closed: CancellationToken::new(),
            over: CancellationToken::new(),
            abandoned: CancellationToken::new(),
            heartbeat: AtomicBool::new(false),
        }
    }

    /// Counts a request that is answered directly, apart from the admitted ones.
    pub(crate) fn pass(self: &Arc<Self>) -> PassThrough {
        self.passing.fetch_add(1, SeqCst);
        PassThrough::new(Arc::clone(self))
    }

    /// Counts a directly answered request whose answer was sent.
    pub(super) fn passed(&self) {
        self.left(&self.passing);
    }

    pub(super) fn passing(&self) -> usize {
        self.passing.load(SeqCst)
    }

    /// Counts a call of the terminal hook.
    pub(super) fn tell(self: &Arc<Self>) -> Telling {
        self.telling.fetch_add(1, SeqCst);
        Telling(Arc::clone(self))
    }

    pub(super) fn telling(&self) -> usize {
        self.telling.load(SeqCst)
    }

    /// Adds a run to the live runs. `grace` is the time that the run may continue after it is
    /// stopped. Returns `None` if the same operation with the same token is already live.
    pub(super) fn enter(
        self: &Arc<Self>,
        work: Arc<RunContext>,
        grace: Duration,
    ) -> Option<LiveGuard> {
        let run = LiveRun::new(Arc::clone(&work), grace);
        let ticket = self.live.insert(run)?;
        self.tell_of_drain(&work);
        Some(LiveGuard {
            in_flight: Arc::clone(self),
            work,
            ticket,
        })
    }

    /// Registers an awaited call that may still be answered directly, so that a drain tells the
    /// call when its time is nearly over.
    pub(super) fn register_call(
        self: &Arc<Self>,
        work: &Arc<RunContext>,
        grace: Duration,
    ) -> WaitedCall {
        let call = LiveRun::new(Arc::clone(work), grace);
        let key = self.running().calls.insert(call);
        self.tell_of_drain(work);
        WaitedCall {
            in_flight: Arc::clone(self),
            key,
        }
    }

    /// Makes a drain in progress see this run, and stops the run if the time is over.
    fn tell_of_drain(&self, work: &RunContext) {
        // Checked after the run was added, since a drain closes first and then looks.
        if !self.is_closed() {
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

    /// Returns the budget of bytes for requests and results.
    pub(crate) fn bytes(&self) -> &Arc<ByteBudget> {
        &self.bytes
    }

    /// Returns what is in flight now.
    pub(super) fn stats(&self) -> InFlightStats {
        InFlightStats {
            operations: self.admitted(),
            bytes: self.bytes.used(),
        }
    }

    pub(super) fn live(&self) -> &LiveRuns {
        &self.live
    }

    pub(super) fn lease_handles(&self) -> Vec<LeaseHandle> {
        self.live.map(|run| run.work.lease_handle())
    }

    pub(super) fn held_among(&self, ids: &BTreeSet<OperationId>) -> Vec<LeaseHandle> {
        let works = ids.iter().flat_map(|id| self.live.with_id(id));
        works.map(|work| work.lease_handle()).collect()
    }

    /// Notes hints that these operations were ended or reclaimed from outside.
    pub(super) fn note_revocations(&self, ids: &[OperationId]) {
        let works = ids.iter().flat_map(|id| self.live.with_id(id));
        works.for_each(|work| work.note_revocation());
    }

    /// Stops the runs of lost leases.
    pub(super) fn stop_lost(&self, lost: &[LeaseHandle]) {
        let works = lost
            .iter()
            .filter_map(|lost| self.live.get(&lost.id, lost.token));
        works.for_each(|work| work.stop(StopCause::Recalled));
    }

    /// Tells each run when its deadline is over. Never returns.
    pub(super) async fn sweep(&self) {
        loop {
            let earlier = self.sweep.begin();
            let (overdue, next) = self.live.sweep(Instant::now());
            for work in &overdue {
                // A waker of a foreign executor may panic; the other runs are told nevertheless.
                let _ = catch_panic(|| work.signals.overdue());
            }
            let at_most = Instant::now() + LONGEST_SLEEP;
            let until = next.map_or(at_most, |next| next.min(at_most));
            self.sweep.sleep_until(self.moment(until));
            drop(timeout_at(until, earlier).await);
        }
    }

    /// Returns a moment for the timer of the sweep, in nanoseconds.
    fn moment(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.created).as_nanos();
        u64::try_from(after).unwrap_or(u64::MAX - 1)
    }

    /// Returns a waiter for the moment when the last request leaves, or a drain has to look
    /// again.
    pub(super) fn moved(&self) -> Waiter {
        Waiter::new(&self.moved)
    }

    /// Makes drains look again.
    pub(super) fn move_on(&self) {
        self.moved.notify();
    }

    /// Refuses new work.
    pub(super) fn close(&self) {
        self.is_closed.store(true, SeqCst);
        self.closed.cancel();
    }

    /// Returns whether no new work is admitted.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
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

    /// Returns true to the one caller that has to start the heartbeat.
    pub(super) fn needs_heartbeat(&self) -> bool {
        !self.heartbeat.load(SeqCst)
            && !self.abandoned.is_cancelled()
            && !self.heartbeat.swap(true, SeqCst)
    }

    /// Ends the heartbeat if no run is live. Returns false if the heartbeat must continue.
    pub(super) fn rest(&self) -> bool {
        // Stored before the check: a run that the check misses sees that there is no heartbeat.
        self.heartbeat.store(false, SeqCst);
        // If a run has started another heartbeat since, this one is not needed any more.
        self.live.is_empty() || self.heartbeat.swap(true, SeqCst)
    }

    /// Notes that the heartbeat ended with its runtime: the remaining runs restart it on
    /// their own runtimes.
    pub(super) fn lost_heartbeat(&self) {
        if self.abandoned.is_cancelled() {
            return;
        }
        // Stored before the runs are told, so that later runs see that there is no heartbeat.
        self.heartbeat.store(false, SeqCst);
        let works = self.live.map(|run| Arc::clone(&run.work));
        works.iter().for_each(|work| work.signals.needs_heartbeat());
    }

    pub(super) fn running(&self) -> MutexGuard<'_, RunningState> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes one request from a count.
    fn left(&self, count: &AtomicUsize) {
        if count.fetch_sub(1, SeqCst) == 1 && self.is_closed() {
            self.moved.notify();
        }
    }
}

/// The mark of a call of the terminal hook. A drain waits for it.
#[derive(Debug)]
pub(super) struct Telling(Arc<InFlight>);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.left(&self.0.telling);
    }
}

impl RunningState {
    pub(super) fn tally(&mut self) -> Option<&mut Tally> {
        self.draining.as_mut().map(|draining| &mut draining.tally)
    }
}

/// An entry among the live runs, removed on drop.
#[derive(Debug)]
pub(super) struct LiveGuard {
    in_flight: Arc<InFlight>,
    pub(super) work: Arc<RunContext>,
    ticket: Ticket,
}

impl LiveGuard {
    /// Sets the deadline of the run, `span` from now on: the sweep of the node tells the run
    /// when it is over. Returns the deadline.
    pub(super) fn set_deadline(&self, span: Duration) -> Instant {
        let at = Instant::now() + span;
        self.in_flight.live.set_deadline(self.ticket, at, span);
        self.in_flight.sweep.deadline_set(self.in_flight.moment(at));
        at
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        if !self.in_flight.is_closed() {
            return self.in_flight.live.remove(self.ticket);
        }
        // Under the lock of the drain, so that its report has the run once.
        let mut running = self.in_flight.running();
        self.in_flight.live.remove(self.ticket);
        if let Some(tally) = running.tally() {
            tally.count(&self.work);
        }
    }
}

/// An entry among the awaited calls, removed on drop.
#[derive(Debug)]
pub(super) struct WaitedCall {
    in_flight: Arc<InFlight>,
    key: Slot,
}

impl Drop for WaitedCall {
    fn drop(&mut self) {
        self.in_flight.running().calls.remove(self.key);
    }
}
