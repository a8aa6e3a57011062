use std::collections::BTreeSet;

use super::{RunEntry, RunEvent};

/// What was run for an operation, and for one title.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// When each began.
    pub(super) begins: Vec<u64>,
    /// One that was run again.
    pub(super) twice: Option<u32>,
    /// Whether one came to its end.
    pub(super) ended: bool,
    /// When one came to its end or was dropped last, and on which node.
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
