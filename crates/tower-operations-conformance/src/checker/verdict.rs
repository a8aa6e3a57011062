use std::fmt;

use super::Violation;

/// The maximum number of violations that are written out.
const SHOWN: usize = 20;

/// The contents of a log in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// The number of requests of clients.
    pub calls: usize,
    /// The number of calls without an answer.
    pub unanswered: usize,
    /// The number of operations that got a 202.
    pub accepted: usize,
    /// The number of accepted operations that succeeded.
    pub succeeded: usize,
    /// The number of accepted operations that failed.
    pub failed: usize,
    /// The number of accepted operations that were canceled.
    pub canceled: usize,
    /// The number of calls of the inner service.
    pub runs: usize,
    /// The number of calls of the inner service after the first attempt.
    pub reruns: usize,
    /// The number of kills of nodes.
    pub kills: usize,
    /// The number of times that a node was stopped and continued.
    pub stops: usize,
    /// The number of drains of nodes.
    pub drains: usize,
    /// The number of outages of the store.
    pub outages: usize,
    /// The number of operations that were damaged in the store.
    pub damaged: usize,
    /// The number of operations that were deleted.
    pub deleted: usize,
    /// The number of lists that were read to their end.
    pub lists: usize,
}

/// The result of a check.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verdict {
    /// The violations; empty if every law was kept.
    pub violations: Vec<Violation>,
    /// The contents of the log in numbers.
    pub counts: Counts,
}

impl Verdict {
    /// Returns whether every law was kept.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            calls,
            unanswered,
            accepted,
            succeeded,
            failed,
            canceled,
            runs,
            reruns,
            kills,
            stops,
            drains,
            outages,
            damaged,
            deleted,
            lists,
        } = self.counts;
        writeln!(
            out,
            "{accepted} operations accepted: {succeeded} succeeded, {failed} failed, {canceled} \
             canceled; {deleted} of them deleted"
        )?;
        writeln!(
            out,
            "{calls} calls, {unanswered} without an answer; {lists} lists; {runs} runs, {reruns} of \
             them again"
        )?;
        writeln!(
            out,
            "{kills} nodes killed, {stops} stopped and continued, {drains} drained; {outages} outages \
             of the store, {damaged} operations damaged in it"
        )?;
        match self.violations.len() {
            0 => return out.write_str("no law broken"),
            1 => out.write_str("1 violation:")?,
            broken => write!(out, "{broken} violations:")?,
        }
        for violation in self.violations.iter().take(SHOWN) {
            write!(out, "\n  {violation}")?;
        }
        match self.violations.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(out, "\n  and {more} more"),
        }
    }
}
