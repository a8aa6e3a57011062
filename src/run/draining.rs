//! Draining a node: its deadline, and the outcomes of runs and requests in flight.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    DrainReport, InFlight,
    live_runs::LiveRun,
    run_context::{RunContext, RunEnded},
};
use crate::operation::OperationId;

/// A drain that is in progress or over.
#[derive(Debug)]
pub(super) struct DrainState {
    begun: Instant,
    /// The deadline of the drain.
    until: Instant,
    /// The moment when the deadline was reached.
    over: Option<Instant>,
    pub(super) tally: Tally,
    report: Option<DrainReport>,
}

impl DrainState {
    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }
}

/// The outcomes of runs and requests since a drain began.
#[derive(Debug, Default)]
pub(super) struct Tally {
    finished: usize,
    interrupted: Vec<OperationId>,
    released: Vec<OperationId>,
    unrecorded: Vec<OperationId>,
    answered: usize,
    refused: usize,
    /// The number of answered operations in flight that are being released.
    leaving: usize,
}

impl Tally {
    /// Counts a run that has ended.
    pub(super) fn count(&mut self, work: &RunContext) {
        let id = work.id.clone();
        match work.ended() {
            Some(RunEnded::ByItself) => self.finished += 1,
            Some(RunEnded::Interrupted) => self.interrupted.push(id),
            Some(RunEnded::Released) => self.released.push(id),
            None => self.unrecorded.push(id),
        }
    }
}

/// The time for recording interrupted operations.
const TO_RECORD: Duration = Duration::from_secs(1);

/// The next step of a drain.
pub(super) enum DrainStep {
    /// The caller has to look again after a change, or at this moment.
    Look(Instant),
    /// The time of these runs is nearly over: the caller has to tell them.
    Tell(Vec<Arc<RunContext>>),
    /// The caller has to end all remaining runs.
    End,
    /// The drain is over: the remaining runs are abandoned.
    Done(DrainReport),
}

impl InFlight {
    /// Refuses new requests and begins a drain. A drain that has already begun ends no
    /// later than `until`.
    pub(super) fn begin_drain(&self, until: Instant) {
        let mut running = self.running();
        let draining = running.draining.get_or_insert_with(|| DrainState {
            begun: Instant::now(),
            until,
            over: None,
            tally: Tally::default(),
            report: None,
        });
        draining.until = draining.until.min(until);
        drop(running);
        self.close();
        self.move_on();
    }

    /// Returns the next step of a drain that has begun. The caller takes the step
    /// outside of the lock, since it wakes handlers.
    pub(super) fn next_of_drain(&self) -> DrainStep {
        let now = Instant::now();
        let mut running = self.running();
        let running = &mut *running;
        let Some(draining) = &mut running.draining else {
            return DrainStep::Look(now);
        };
        if let Some(report) = &draining.report {
            return DrainStep::Done(report.clone());
        }
        let is_idle = self.admitted() == 0 && self.passing() == 0 && self.telling() == 0;
        match draining.over {
            Some(over) if !is_idle && now < over + TO_RECORD => {
                return DrainStep::Look(over + TO_RECORD);
            }
            None if !is_idle => {
                // Each run is told of the drain by its grace before the deadline.
                let until = draining.until;
                let untold = |run: &LiveRun| {
                    let at = until.checked_sub(run.grace);
                    (!run.work.is_stopped()).then(|| (at, Arc::clone(&run.work)))
                };
                let mut all = self.live().map(untold);
                all.extend(running.calls.values().map(untold));
                let is_due = |at: &Option<Instant>| at.is_none_or(|at| at <= now);
                let (due, not_due): (Vec<_>, Vec<_>) =
                    all.into_iter().flatten().partition(|(at, _)| is_due(at));
                if !due.is_empty() {
                    return DrainStep::Tell(due.into_iter().map(|(_, work)| work).collect());
                }
                if now < draining.until {
                    let next = not_due.into_iter().filter_map(|(at, _)| at).min();
                    return DrainStep::Look(next.unwrap_or(draining.until));
                }
                // Runs that enter from now on see this; earlier runs were told.
                draining.over = Some(now);
                return DrainStep::End;
            }
            // Late requests are refused, or ended as soon as they are created.
            None => draining.over = Some(now),
            Some(_) => {}
        }
        let mut tally = std::mem::take(&mut draining.tally);
        let unrecorded = self.live().map(|run| run.work.id.clone());
        tally.unrecorded.extend(unrecorded);
        let have_answers = tally.unrecorded.len() + tally.leaving;
        let being_accepted = self.admitted().saturating_sub(have_answers);
        let report = DrainReport {
            finished: tally.finished,
            interrupted: tally.interrupted,
            released: tally.released,
            unrecorded: tally.unrecorded,
            answered: tally.answered,
            refused: tally.refused,
            unanswered: being_accepted + self.passing(),
            took: draining.begun.elapsed(),
        };
        draining.report = Some(report.clone());
        DrainStep::Done(report)
    }

    /// Returns whether the deadline of the drain is reached, so that no new step begins.
    pub(crate) fn is_interrupting(&self) -> bool {
        self.over().is_cancelled()
    }

    /// Counts a request that was answered without becoming an operation.
    pub(crate) fn answered(&self) {
        if self.is_closed()
            && let Some(tally) = self.running().tally()
        {
            tally.answered += 1;
        }
    }

    /// Counts an operation that is left to another node, and whose client was answered. The
    /// operation is in flight until it [has left](Self::has_left).
    pub(super) fn left_to_others(&self, id: &OperationId) {
        if let Some(tally) = self.running().tally() {
            tally.released.push(id.clone());
            tally.leaving += 1;
        }
    }

    pub(super) fn has_left(&self) {
        if let Some(tally) = self.running().tally() {
            tally.leaving = tally.leaving.saturating_sub(1);
        }
    }

    /// Counts an admitted request that was refused because the time of a drain was over.
    pub(crate) fn refused(&self) {
        if let Some(tally) = self.running().tally() {
            tally.refused += 1;
        }
    }
}
