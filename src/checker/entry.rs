use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

use super::Call;

/// A line of a log. Every time is in milliseconds after 1970, by one clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "lowercase")]
pub enum Entry {
    /// What a client asked, and what it was answered.
    Call(Call),
    /// What the inner service did.
    Run(RunEntry),
    /// The store, or a node, was away for a while.
    Away(Away),
    /// A node was killed.
    Kill(Kill),
    /// A node was shut down in good order.
    Drain(DrainEntry),
    /// What the store has of an operation was damaged.
    Damage(Damage),
}

/// The inner service begins or ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEntry {
    /// The operation that it is run for.
    pub operation: String,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// On which node.
    pub node: String,
    /// The title that was posted.
    pub title: String,
    /// What happened.
    pub event: RunEvent,
    /// When.
    pub at: u64,
}

/// What the inner service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunEvent {
    /// It begins.
    Begin,
    /// It is about to answer.
    End,
    /// It is stopped before it could answer.
    Dropped,
}

/// A time in which nothing can be asked of the store, or of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// The node that was stopped; without one, the store was away from all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Since when.
    pub begin: u64,
    /// Until when.
    pub end: u64,
}

/// A node is killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Which node.
    pub node: String,
    /// When.
    pub at: u64,
    /// When it could be asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<u64>,
}

/// A node is shut down in good order: it lets end what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainEntry {
    /// Which node.
    pub node: String,
    /// When it was told to.
    pub begin: u64,
    /// When it was gone.
    pub end: u64,
}

/// What the store has of an operation is damaged. What becomes of that operation is
/// excused, and what becomes of the others is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Which operation.
    pub operation: String,
    /// When.
    pub at: u64,
}

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// It has no more to give.
    #[error("the log cannot be read")]
    Read(#[from] io::Error),
    /// A line is no entry.
    #[error("line {line} of the log is no entry")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

impl Entry {
    /// The entries of a log of one JSON object a line. Empty lines are passed
    /// over.
    pub fn read(log: impl BufRead) -> impl Iterator<Item = Result<Self, LogError>> {
        lines(log)
    }

    /// The line of this entry, without its end.
    ///
    /// # Errors
    /// None in practice: everything in an entry can be written.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

impl RunEntry {
    /// The lines that an inner service wrote of its runs, one JSON object each.
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
