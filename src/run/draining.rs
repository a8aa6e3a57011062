//! The end of a node: until when what it has is waited for, and what came of it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    DrainReport, InFlight,
    live_runs::LiveRun,
    run_context::{RunContext, RunEnded},
};
use crate::operation::OperationId;

/// A drain that goes on, or is over.
#[derive(Debug)]
pub(super) struct DrainState {
    begun: Instant,
    /// Nothing is waited for any longer than that.
    until: Instant,
    /// Since when the time is over.
    over: Option<Instant>,
    pub(super) tally: Tally,
    report: Option<DrainReport>,
}

impl DrainState {
    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }
}

/// How runs and requests have ended since a drain began.
#[derive(Debug, Default)]
pub(super) struct Tally {
    finished: usize,
    interrupted: Vec<OperationId>,
    released: Vec<OperationId>,
    unrecorded: Vec<OperationId>,
    answered: usize,
    refused: usize,
    /// Of those in flight, how many have their answers and are being released.
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

/// How long interrupted operations have to be recorded as such.
const TO_RECORD: Duration = Duration::from_secs(1);

/// What a drain has to do next.
pub(super) enum DrainStep {
    /// To look again when something has moved, or then.
    Look(Instant),
    /// To tell these that their time is nearly over.
    Tell(Vec<Arc<RunContext>>),
    /// To end what is left.
    End,
    /// To give up what is left.
    Done(DrainReport),
}

impl InFlight {
    /// Closes the doors and begins a drain; one that has begun ends no later than `until`.
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
        self.closed().cancel();
        self.move_on();
    }

    /// What is due in a drain that has begun. It is done outside of the lock, since it
    /// wakes handlers.
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
        let is_idle = self.admitted() == 0 && self.passing() == 0;
        match draining.over {
            Some(over) if !is_idle && now < over + TO_RECORD => {
                return DrainStep::Look(over + TO_RECORD);
            }
            None if !is_idle => {
                let calls = running.calls.iter().map(|(_, entry)| entry);
                let untold = running.live.iter().chain(calls);
                let untold = untold.filter(|entry| !entry.work.is_stopped());
                // Each is told its grace before the end.
                let told_at = |entry: &LiveRun| draining.until.checked_sub(entry.grace);
                let (due, not_due): (Vec<_>, Vec<_>) =
                    untold.partition(|entry| told_at(entry).is_none_or(|at| at <= now));
                if !due.is_empty() {
                    let works = due.iter().map(|entry| Arc::clone(&entry.work));
                    return DrainStep::Tell(works.collect());
                }
                if now < draining.until {
                    let next = not_due.into_iter().filter_map(told_at).min();
                    return DrainStep::Look(next.unwrap_or(draining.until));
                }
                // What enters from now on sees it, and what entered before was told.
                draining.over = Some(now);
                return DrainStep::End;
            }
            // What may still come is refused, or ended as soon as it is there.
            None => draining.over = Some(now),
            Some(_) => {}
        }
        let mut tally = std::mem::take(&mut draining.tally);
        let unrecorded = running.live.iter().map(|entry| entry.work.id.clone());
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

    /// Whether nothing new is begun any more.
    pub(crate) fn is_interrupting(&self) -> bool {
        self.over().is_cancelled()
    }

    /// A request has its answer, without being an operation.
    pub(crate) fn answered(&self) {
        if self.closed().is_cancelled()
            && let Some(tally) = self.running().tally()
        {
            tally.answered += 1;
        }
    }

    /// An operation is left to be run elsewhere, and its client has been told; it is in
    /// flight until it [has left](Self::has_left).
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

    /// A request that was let in has been refused, since the time of a drain was over.
    pub(crate) fn refused(&self) {
        if let Some(tally) = self.running().tally() {
            tally.refused += 1;
        }
    }
}
