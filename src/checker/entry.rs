use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

use crate::operation::State;

/// A line of a log. Every time is in milliseconds after 1970, by one clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "lowercase")]
pub enum Entry {
    /// What a client asked, and what it was answered.
    Call(Call),
    /// What the inner service did.
    Run(Run),
    /// The store, or a node, was away for a while.
    Away(Away),
    /// A node was killed.
    Kill(Kill),
}

/// A request of a client, from when it was sent to when its answer was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Who asked.
    pub client: String,
    /// Which node was asked.
    pub node: String,
    /// When it was sent.
    pub begin: u64,
    /// When the answer was there, or it was clear that there is none.
    pub end: u64,
    /// What was asked.
    pub ask: Ask,
    /// What was answered.
    pub answer: Answer,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// A request that is to be accepted.
    Post {
        /// What it is about. Its result names it, and no other request does,
        /// but a repetition under the same key.
        title: String,
        /// Its idempotency key. A key is of one title.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// How an operation stands.
    Poll {
        /// Which operation.
        operation: String,
        /// The answer may be held for so many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait: Option<u64>,
        /// It is held until the version is not this one; until the operation
        /// has ended, without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<u64>,
    },
    /// The result of an operation.
    Result {
        /// Which operation.
        operation: String,
    },
    /// That an operation be canceled.
    Cancel {
        /// Which operation.
        operation: String,
    },
}

/// What a client is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The post is accepted (202).
    Accepted {
        /// As which operation.
        operation: String,
    },
    /// The operation as it is (200), also of a cancel.
    Operation(Sighting),
    /// The version that the client has is the latest (304).
    Unchanged {
        /// That version.
        version: u64,
    },
    /// The result, or the problem in its place.
    Result(Outcome),
    /// There is no result so far (202).
    Unfinished,
    /// There is no such operation (404).
    Absent,
    /// It cannot be canceled: it has succeeded or failed (409).
    Finished,
    /// Anything else that promises nothing: overload, a store that is away.
    Refused {
        /// The status.
        status: u16,
    },
    /// None: the connection was lost, or the client lost its patience.
    Nothing,
}

/// An operation as a client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The number of the version, which is in the `ETag`.
    pub version: u64,
    /// The state.
    pub state: State,
    /// A digest of all that was shown, times and progress included.
    pub content: String,
    /// The result, if it was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Outcome>,
}

/// A result as a client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// A digest of its bytes, and of what else is to stay as it was.
    pub digest: String,
    /// The title that it names, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// The inner service begins or ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
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

impl Run {
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
