use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

use super::Call;

/// A line of a log. Every time is in milliseconds after 1970, by one clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "lowercase")]
pub enum Entry {
    /// A request of a client and its answer.
    Call(Call),
    /// A start or an end of the inner service.
    Run(RunEntry),
    /// The store, or a node, was away for a while.
    Away(Away),
    /// A node was killed.
    Kill(Kill),
    /// A node was shut down gracefully.
    Drain(DrainEntry),
    /// The record of an operation in the store was damaged.
    Damage(Damage),
}

/// The beginning or the end of a run of the inner service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEntry {
    /// The operation of the run.
    pub operation: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The node of the run.
    pub node: String,
    /// The title that was posted.
    pub title: String,
    /// The event.
    pub event: RunEvent,
    /// The time of the event.
    pub at: u64,
}

/// An event of a run of the inner service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunEvent {
    /// The run begins.
    Begin,
    /// The inner service is about to answer.
    End,
    /// The run is stopped before the inner service could answer.
    Dropped,
}

/// A period in which the store, or a node, cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// The node that was stopped; without one, the store was away from all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The start of the period.
    pub begin: u64,
    /// The end of the period.
    pub end: u64,
}

/// A kill of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// The node.
    pub node: String,
    /// The time of the kill.
    pub at: u64,
    /// The time from which the node could be reached again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<u64>,
}

/// A graceful shutdown of a node, which lets its operations end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainEntry {
    /// The node.
    pub node: String,
    /// The time at which the drain began.
    pub begin: u64,
    /// The time at which the node had shut down.
    pub end: u64,
}

/// A damage to the record of an operation in the store. The fate of that operation is excused;
/// the fate of all other operations is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The operation.
    pub operation: String,
    /// The time of the damage.
    pub at: u64,
}

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Reading the log failed.
    #[error("the log cannot be read")]
    Read(#[from] io::Error),
    /// A line is not an entry.
    #[error("line {line} of the log is not an entry")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// The reason.
        source: serde_json::Error,
    },
}

impl Entry {
    /// Reads the entries of a log of one JSON object a line. Empty lines are skipped.
    pub fn read(log: impl BufRead) -> impl Iterator<Item = Result<Self, LogError>> {
        lines(log)
    }

    /// Returns the line of this entry, without a line break.
    ///
    /// # Errors
    /// None in practice: every entry can be serialized.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

impl RunEntry {
    /// Reads the lines that an inner service wrote about its runs, one JSON object each.
    pub fn read(log: impl BufRead) -> impl Iterator<Item = Result<Self, LogError>> {
        lines(log)
    }
}

fn lines<T: serde::de::DeserializeOwned>(
    log: impl BufRead,
) -> impl Iterator<Item = Result<T, LogError>> {
    log.lines().enumerate().filter_map(|(index, line)| {
        let line = match line {
            Ok(line) if line.trim().is_empty() => return None,
            Ok(line) => line,
            Err(error) => return Some(Err(error.into())),
        };
        let parsed = serde_json::from_str(&line);
        Some(parsed.map_err(|source| LogError::Line {
            line: index + 1,
            source,
        }))
    })
}
