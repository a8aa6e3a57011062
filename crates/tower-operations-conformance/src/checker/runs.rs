use std::collections::BTreeSet;

use super::{RunEntry, RunEvent};

/// The runs of an operation, for one title.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// The start of each run.
    pub(super) begins: Vec<u64>,
    /// An attempt that ran twice.
    pub(super) twice: Option<u32>,
    /// Whether a run completed.
    pub(super) ended: bool,
    /// The time and node of the last run that completed or was dropped.
    pub(super) stopped: Option<(u64, String)>,
    attempts: BTreeSet<u32>,
}

impl Runs {
    pub(super) fn add(&mut self, run: &RunEntry) {
        match run.event {
            RunEvent::Begin => {
                self.begins.push(run.at);
                if !self.attempts.insert(run.attempt) {
                    self.twice = Some(run.attempt);
                }
            }
            RunEvent::End => {
                self.ended = true;
                self.stop(run);
            }
            RunEvent::Dropped => self.stop(run),
        }
    }

    fn stop(&mut self, run: &RunEntry) {
        let latest = self.stopped.as_ref().map(|(at, _)| *at);
        if latest < Some(run.at) {
            self.stopped = Some((run.at, run.node.clone()));
        }
    }
}
