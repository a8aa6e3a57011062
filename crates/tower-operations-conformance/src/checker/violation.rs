use std::time::Duration;

use tower_operations::operation::State;

/// A broken law and its place in the log. Each kind is reported once an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The operation was accepted, and later it was not found.
    #[error("{operation}: accepted, then absent")]
    Lost {
        /// The operation.
        operation: String,
    },
    /// The operation was accepted, and no client saw its end.
    #[error("{operation}: accepted, and never seen at its end")]
    Unended {
        /// The operation.
        operation: String,
    },
    /// The operation ended in two ways.
    #[error("{operation}: ended as {first}, and as {second}")]
    TwoOutcomes {
        /// The operation.
        operation: String,
        /// One terminal state.
        first: State,
        /// The other terminal state.
        second: State,
    },
    /// The outcome of the operation changed after its end: its version, content or result.
    #[error("{operation}: its outcome changed after version {version}")]
    OutcomeChanged {
        /// The operation.
        operation: String,
        /// The version with which the operation had ended.
        version: u64,
    },
    /// The operation ended with a result, and the result cannot be read.
    #[error("{operation}: its result cannot be read")]
    Unreadable {
        /// The operation.
        operation: String,
    },
    /// One version was seen with two contents.
    #[error("{operation}: version {version} was seen with different content")]
    VersionReused {
        /// The operation.
        operation: String,
        /// The version.
        version: u64,
    },
    /// A version was read after a reading of a later version had ended.
    #[error("{operation}: {then} was read after {before}")]
    WentBack {
        /// The operation.
        operation: String,
        /// The earlier reading.
        before: Reading,
        /// The later reading.
        then: Reading,
    },
    /// A result, or a run, belongs to another request.
    #[error("{operation}: posted as `{expected}`, and found as `{found}`")]
    MixedUp {
        /// The operation.
        operation: String,
        /// The expected title.
        expected: String,
        /// The title that the result or run names.
        found: String,
    },
    /// One idempotency key led to two operations, two direct answers, or one of each.
    #[error("key `{key}`: led to {first}, and to {second}")]
    KeyForked {
        /// The key.
        key: String,
        /// One operation or answer.
        first: String,
        /// The other operation or answer.
        second: String,
    },
    /// A key was answered as used, although its owner had not used it.
    #[error("key `{key}`: answered with {status}, though its owner had not used it before")]
    KeyBlocked {
        /// The key.
        key: String,
        /// The status of the answer.
        status: u16,
    },
    /// A client that is not the owner saw the operation.
    #[error("{operation}: shown to {owner}, whose it is not")]
    ShownToAnother {
        /// The operation.
        operation: String,
        /// The owner that saw the operation; empty for a client without an owner.
        owner: String,
    },
    /// A client was told that the operation is deleted, and the operation was found later.
    #[error("{operation}: deleted, and then still there")]
    DeleteUndone {
        /// The operation.
        operation: String,
    },
    /// The operation is missing in the list of its owner.
    #[error("{operation}: missing in the list of its owner")]
    Unlisted {
        /// The operation.
        operation: String,
    },
    /// The inner service was called twice for one attempt.
    #[error("{operation}: attempt {attempt} ran twice")]
    RanTwice {
        /// The operation.
        operation: String,
        /// The attempt.
        attempt: u32,
    },
    /// The inner service was called more often than allowed.
    #[error("{operation}: ran {attempts} times")]
    TooManyAttempts {
        /// The operation.
        operation: String,
        /// The number of calls.
        attempts: u32,
    },
    /// The operation succeeded, although no run of it completed.
    #[error("{operation}: succeeded without a run that ended")]
    NeverRan {
        /// The operation.
        operation: String,
    },
    /// A client was told that the operation is canceled, and it did not stay canceled.
    #[error("{operation}: canceled, then {state}")]
    CancelUndone {
        /// The operation.
        operation: String,
        /// The state that was seen instead.
        state: State,
    },
    /// The operation was canceled, and its work continued.
    #[error("{operation}: it was still run {by:?} after the cancel")]
    WentOn {
        /// The operation.
        operation: String,
        /// The time from the answer to the cancellation to the end of the work.
        by: Duration,
    },
    /// The operation had not ended in the allowed time, outages excluded.
    #[error("{operation}: had not ended {after:?} after its 202")]
    Late {
        /// The operation.
        operation: String,
        /// The time after its acceptance at which it had not ended, outages excluded.
        after: Duration,
    },
    /// The operation failed as interrupted, without a disturbance of the nodes or the
    /// store.
    #[error("{operation}: interrupted without a cause")]
    Interrupted {
        /// The operation.
        operation: String,
    },
    /// A killed node was back, and neither ended nor reran an operation that it had held.
    #[error("{operation}: left as it was {by:?} after its node was back")]
    Stranded {
        /// The operation.
        operation: String,
        /// The time after the return of the node at which the operation was unchanged.
        by: Duration,
    },
    /// A node that was shut down gracefully never answered a request that it had received.
    #[error("{request}: cut off by {node}, which was drained {at:?} after it was sent")]
    CutOff {
        /// The operation of the request, or the title that was posted.
        request: String,
        /// The node.
        node: String,
        /// The time from sending the request to the start of the drain.
        at: Duration,
    },
    /// A held poll was not answered although other clients saw the change.
    #[error("{operation}: a held poll was answered {by:?} after the change")]
    Overslept {
        /// The operation.
        operation: String,
        /// The time since other clients had seen the change.
        by: Duration,
    },
    /// A stream of events showed a version again, or after a later one.
    #[error("{operation}: an event of version {then} after version {before}")]
    EventsOutOfOrder {
        /// The operation.
        operation: String,
        /// The version of the event before, or in `Last-Event-ID`.
        before: u64,
        /// The version of the event.
        then: u64,
    },
    /// A poll was held for longer than it asked for.
    #[error("{operation}: a poll was held {by:?} too long")]
    HeldTooLong {
        /// The operation.
        operation: String,
        /// The time by which the poll was late.
        by: Duration,
    },
}

/// A reading, where readings are in the wrong order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A version.
    Version(u64),
    /// The operation has ended.
    Ended,
    /// The operation has not ended.
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
