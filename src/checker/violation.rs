use std::time::Duration;

use crate::operation::State;

/// A law that was broken, and where. Of each kind, one an operation is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// It was accepted, and then it was not there.
    #[error("{operation}: accepted, then absent")]
    Lost {
        /// Which operation.
        operation: String,
    },
    /// It was accepted, and nobody saw its end.
    #[error("{operation}: accepted, and never seen at its end")]
    Unended {
        /// Which operation.
        operation: String,
    },
    /// It ended in two ways.
    #[error("{operation}: ended as {first}, and as {second}")]
    TwoOutcomes {
        /// Which operation.
        operation: String,
        /// One end of it.
        first: State,
        /// The other.
        second: State,
    },
    /// It had ended, and then its outcome was another: another version,
    /// content or result.
    #[error("{operation}: its outcome changed after version {version}")]
    OutcomeChanged {
        /// Which operation.
        operation: String,
        /// The version with which it had ended.
        version: u64,
    },
    /// One version was seen with two contents.
    #[error("{operation}: version {version} was seen with different content")]
    VersionReused {
        /// Which operation.
        operation: String,
        /// Which version.
        version: u64,
    },
    /// A version was read after the reading of a later one had ended.
    #[error("{operation}: {then} was read after {before}")]
    WentBack {
        /// Which operation.
        operation: String,
        /// What was seen first.
        before: Reading,
        /// What was seen after that.
        then: Reading,
    },
    /// A result, or a run, is of another request.
    #[error("{operation}: posted as `{expected}`, and found as `{found}`")]
    MixedUp {
        /// Which operation.
        operation: String,
        /// The title it should name.
        expected: String,
        /// The title it names.
        found: String,
    },
    /// One idempotency key led to two operations.
    #[error("key `{key}`: led to {first}, and to {second}")]
    KeyForked {
        /// Which key.
        key: String,
        /// One operation.
        first: String,
        /// The other.
        second: String,
    },
    /// A key was answered as if it had been used before, and its owner had not.
    #[error("key `{key}`: answered with {status}, though its owner had not used it before")]
    KeyBlocked {
        /// Which key.
        key: String,
        /// The status.
        status: u16,
    },
    /// Another than its owner was told of it.
    #[error("{operation}: shown to {owner}, whose it is not")]
    ShownToAnother {
        /// Which operation.
        operation: String,
        /// Who was told; empty for nobody in particular.
        owner: String,
    },
    /// A client was told that it is forgotten, and it was still there.
    #[error("{operation}: forgotten, and then still there")]
    ForgetUndone {
        /// Which operation.
        operation: String,
    },
    /// It is not among the operations of its owner.
    #[error("{operation}: missing in the list of its owner")]
    Unlisted {
        /// Which operation.
        operation: String,
    },
    /// The inner service was called twice for one attempt.
    #[error("{operation}: attempt {attempt} ran twice")]
    RanTwice {
        /// Which operation.
        operation: String,
        /// Which attempt.
        attempt: u32,
    },
    /// The inner service was called more often than allowed.
    #[error("{operation}: ran {attempts} times")]
    TooManyAttempts {
        /// Which operation.
        operation: String,
        /// How often it was called.
        attempts: u32,
    },
    /// It succeeded, though no run of it came to its end.
    #[error("{operation}: succeeded without a run that ended")]
    NeverRan {
        /// Which operation.
        operation: String,
    },
    /// A client was told that it is canceled, and it did not stay so.
    #[error("{operation}: canceled, then {state}")]
    CancelUndone {
        /// Which operation.
        operation: String,
        /// What it was then.
        state: State,
    },
    /// It was canceled, and the work went on.
    #[error("{operation}: it was still run {by:?} after the cancel")]
    WentOn {
        /// Which operation.
        operation: String,
        /// So long after the cancel was answered.
        by: Duration,
    },
    /// It had not ended in the time that there is, outages excluded.
    #[error("{operation}: had not ended {after:?} after its 202")]
    Late {
        /// Which operation.
        operation: String,
        /// So long after it was accepted it had not ended, outages excluded.
        after: Duration,
    },
    /// It failed as interrupted, and nothing was done to the nodes or the store.
    #[error("{operation}: interrupted without a cause")]
    Interrupted {
        /// Which operation.
        operation: String,
    },
    /// A node was killed and back again, and did nothing for what it had held.
    #[error("{operation}: left as it was {by:?} after its node was back")]
    Stranded {
        /// Which operation.
        operation: String,
        /// So long after the node was back it had neither ended nor been run again.
        by: Duration,
    },
    /// A node that was shut down in good order had a request, and never answered it.
    #[error("{request}: cut off by {node}, which was drained {at:?} after it was sent")]
    CutOff {
        /// The operation it is about, or the title that was posted.
        request: String,
        /// Which node.
        node: String,
        /// How long after the request was sent the node began to drain.
        at: Duration,
    },
    /// A held poll was not answered though others saw the change.
    #[error("{operation}: a held poll was answered {by:?} after the change")]
    Overslept {
        /// Which operation.
        operation: String,
        /// So long after others had seen what it waited for.
        by: Duration,
    },
    /// A poll was held longer than it was to be.
    #[error("{operation}: a poll was held {by:?} too long")]
    HeldTooLong {
        /// Which operation.
        operation: String,
        /// So long after its time.
        by: Duration,
    },
}

/// What a reader saw, where readings are in the wrong order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A version.
    Version(u64),
    /// That it has ended.
    Ended,
    /// That it has not.
    Unfinished,
}

impl std::fmt::Display for Reading {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(version) => write!(out, "version {version}"),
            Self::Ended => out.write_str("its end"),
            Self::Unfinished => out.write_str("that it has not ended"),
        }
    }
}
